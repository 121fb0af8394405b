import { afterEach, describe, expect, test } from 'bun:test';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import {
  definitionShape,
  idReservationsShape,
  ownersShape,
  routesFileShape,
  specShape,
  stateShape,
  stepsFileShape,
} from '../../../src/container/files.ts';
import { MinirunError } from '../../../src/errors.ts';
import { Damage, damaged, examine, migrated, readFile, setAside, takenAside } from '../../../src/state/files.ts';
import {
  changeShape,
  hostRoutesShape,
  linkShape,
  networkShape,
  reservationsShape,
} from '../../../src/network/files.ts';
import { writeJson } from '../../../src/state/json.ts';
import { type Kind, kinds } from '../../../src/state/migrations.ts';
import { stateRoot } from '../../../src/state/paths.ts';
import { salvage } from '../../../src/state/salvage.ts';
import {
  count,
  either,
  flag,
  listOf,
  mapOf,
  object,
  type ObjectShape,
  oneOf,
  optional,
  text,
} from '../../../src/state/shape.ts';
import { fuzzing } from '../../support/fuzz.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();
afterEach(() => {
  damaged.clear();
  takenAside.length = 0;
});

interface Thing {
  schema: 2;
  name: string;
  size: number;
  parts: Record<string, number>;
  note?: string;
}

const shape = object<Thing>({
  schema: oneOf(2),
  name: text,
  size: count,
  parts: mapOf(count),
  note: optional(text),
});
/** Of nothing that is called as a thing is. */
const otherShape = object<Omit<Thing, 'name'> & { name: number }>({
  schema: oneOf(2),
  name: count,
  size: count,
  parts: mapOf(count),
  note: optional(text),
});
const kind: Kind = {
  name: 'thing',
  schema: 2,
  migrations: [(old) => ({ ...(old as object), parts: (old as Partial<Thing>).parts ?? {} })],
};
const thing: Thing = { schema: 2, name: 'a', size: 1, parts: { x: 1, y: 2 } };
const file = () => path.join(stateRoot(), 'thing.json');
const write = (content: string | Buffer) => fs.writeFileSync(file(), content);
const read = () => readFile(kind, shape, file());
const why = () => {
  const found = examine(kind, shape, file());
  return found instanceof Damage ? found.why : 'sound';
};

describe('a sound file', () => {
  test('is read, with what a later minirun may have added', () => {
    expect(read()).toBeUndefined();
    writeJson(file(), { ...thing, later: [1] });
    expect(read() as unknown).toEqual({ ...thing, later: [1] });
    expect(damaged.size).toBe(0);
  });

  test('is read anew each time: what one reader makes of it is nobody else’s, and what changes is looked at', () => {
    writeJson(file(), thing);
    const first = read() as Thing;
    first.parts.x = 9;
    expect(read()).toEqual(thing);
    write(JSON.stringify({ ...thing, size: 'large' }));
    expect(why()).toContain('size');
    writeJson(file(), thing);
    expect(read()).toEqual(thing);
    // Not by another shape, to which it need not be sound.
    expect(examine(kind, otherShape, file())).toBeInstanceOf(Damage);
  });

  test('of any length', () => {
    for (const length of [65_500, 65_536, 70_000, 1_000_000]) {
      writeJson(file(), { ...thing, note: 'ü'.repeat(length) });
      expect(read()?.note).toHaveLength(length);
    }
  });

  test('of an older schema is made into the present one, and not written', () => {
    write('{"name": "a", "size": 1}');
    expect(read()).toEqual({ ...thing, parts: {} });
    expect(fs.readFileSync(file(), 'utf8')).toBe('{"name": "a", "size": 1}');
  });

  test('of a newer schema is refused, and not touched: every kind of file', () => {
    const known: [Kind, ObjectShape<object>][] = [
      [kinds.definition, definitionShape],
      [kinds.state, stateShape],
      [kinds.steps, stepsFileShape],
      [kinds.routes, routesFileShape],
      [kinds.network, networkShape],
      [kinds.ports, reservationsShape],
      [kinds.ids, idReservationsShape],
      [kinds.owners, ownersShape],
      [kinds.link, linkShape],
      [kinds.hostRoutes, hostRoutesShape],
      [kinds.changing, changeShape],
    ];
    for (const [each, itsShape] of known) {
      const content = JSON.stringify({ schema: each.schema + 1 });
      write(content);
      expect(() => readFile(each, itsShape, file())).toThrow(/thing\.json: this state was written by a newer minirun/);
      expect(fs.readFileSync(file(), 'utf8')).toBe(content);
    }
    expect(damaged.size).toBe(0);
  });
});

describe('a damaged file', () => {
  test.each([
    ['is empty', ''],
    ['is cut off', '{"schema": 2, "name": "a", "si'],
    ['is not JSON', 'hello'],
    ['is not JSON', Buffer.alloc(100)],
    [
      'is not UTF-8',
      Buffer.concat([Buffer.from('{"schema":2,"name":"'), Buffer.from([0xff, 0xc0]), Buffer.from('"}')]),
    ],
    ['is not what it says it is', '[]'.repeat(0) + 'null'],
    ['is not what it says it is', '{"schema": "two"}'],
    ['is not what it says it is', '{"schema": 0}'],
    ['is not of the right form (name: no text)', JSON.stringify({ ...thing, name: 1 })],
    ['is not of the right form (size: no whole number)', JSON.stringify({ ...thing, size: -1 })],
    ['is not of the right form (parts.x: no whole number)', JSON.stringify({ ...thing, parts: { x: '1' } })],
    ['is not of the right form (parts: no object)', JSON.stringify({ ...thing, parts: [] })],
    ['is not of the right form (note: no text)', JSON.stringify({ ...thing, note: null })],
  ])('%s', (expected, content) => {
    write(content);
    expect(why()).toBe(expected);
  });

  test('is not even a file', () => {
    const sorts: [string, () => void][] = [
      ['is a directory', () => fs.mkdirSync(file())],
      ['is a symbolic link', () => fs.symlinkSync('/etc/passwd', file())],
      ['is a FIFO', () => execFileSync('mkfifo', [file()])],
    ];
    for (const [expected, make] of sorts) {
      make();
      expect(why()).toBe(expected);
      expect(read()).toBeUndefined();
      expect(setAside(file())).toMatch(/^thing\.json\.damaged-\d{8}T\d{6}Z(-\d+)?$/);
      expect(fs.existsSync(file())).toBe(false);
    }
    expect(fs.readFileSync('/etc/passwd', 'utf8')).toContain('root');
  });

  test('of many gigabytes', () => {
    write('');
    fs.truncateSync(file(), 5e9);
    expect(why()).toBe('has 5000000000 bytes');
  });

  test('so deep that no parser likes it', () => {
    write('['.repeat(1_000_000));
    expect(why()).not.toBe('sound');
    write(`{"schema":2,"name":${'['.repeat(100_000)}${']'.repeat(100_000)}}`);
    expect(why()).not.toBe('sound');
  });

  test('is noted, and kept when something is written in its place', () => {
    write('{');
    expect(read()).toBeUndefined();
    expect([...damaged.keys()]).toEqual([file()]);
    writeJson(file(), thing);
    expect(read()).toEqual(thing);
    const [aside] = fs.readdirSync(stateRoot()).filter((entry) => entry.includes('damaged'));
    expect(fs.readFileSync(path.join(stateRoot(), aside as string), 'utf8')).toBe('{');
    expect(takenAside.map(({ name }) => name)).toEqual([aside]);
  });

  test('gives what of it is right to who can make something of it', () => {
    write(JSON.stringify({ ...thing, name: 7, parts: { x: 1, y: 'two' } }));
    const parts = readFile(kind, shape, file(), (rest) => ({ ...thing, ...rest, name: 'made' }));
    expect(parts).toEqual({ ...thing, name: 'made', parts: { x: 1 } });
  });
});

describe('what can be read of JSON that was cut off', () => {
  test.each<[string, unknown]>([
    ['', undefined],
    ['x', undefined],
    ['{"a": 1', {}],
    ['{"a": 1,', { a: 1 }],
    ['{"a": 1, "b": [1, 2, {"c": "}"}, 3', { a: 1, b: [1, 2, { c: '}' }] }],
    ['{"a": "\\",{", "b": tru', { a: '",{' }],
    ['[{"a": {"b": 1}', [{ a: { b: 1 } }]],
    ['{"a": 1}} trailing', { a: 1 }],
  ])('%s', (source, expected) => {
    expect(salvage(source)).toEqual(expected as object);
  });

  test('a prefix of JSON is never an error, and holds nothing that was not there', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.nat(), (value, cut) => {
        const source = JSON.stringify(value);
        const found = salvage(source.slice(0, cut % (source.length + 1))) as Record<string, unknown> | undefined;
        for (const key of Object.keys(found ?? {})) expect(Object.hasOwn(value, key)).toBe(true);
      }),
      fuzzing(),
    );
  });
});

test('no content of any file is an error but a MinirunError', () => {
  const shapes: [Kind, ObjectShape<object>][] = [
    [kinds.definition, definitionShape],
    [kinds.spec, specShape],
    [kinds.state, stateShape],
    [kinds.steps, stepsFileShape],
    [kinds.network, networkShape],
    [kinds.link, linkShape],
    [kinds.changing, changeShape],
  ];
  const keys = ['schema', 'id', 'name', 'endpoints', 'subnets', 'applied', 'undo', 'steps', 'network', 'ends', 'last'];
  const values = fc.oneof(
    fc.jsonValue(),
    fc.constant(1),
    fc.constant(2),
    fc.array(fc.dictionary(fc.string(), fc.jsonValue())),
  );
  const content = fc.oneof(fc.jsonValue(), fc.dictionary(fc.constantFrom(...keys), values));
  fc.assert(
    fc.property(fc.constantFrom(...shapes), content, ([each, itsShape], value) => {
      write(JSON.stringify(value));
      try {
        examine(each, itsShape, file());
      } catch (error) {
        if (!(error instanceof MinirunError)) throw error;
      }
    }),
    fuzzing(5),
  );
});

test('shapes: the parts that the files have no use for', () => {
  expect(either(count, flag).wrong(true)).toBeUndefined();
  expect(either(count, flag).wrong('')).toBe(': neither true nor false');
  expect(listOf(count, { length: 2 }).wrong([1])).toBe(': not 2 elements');
  expect(listOf(count).wrong({ length: 0 })).toBe(': no list');
  expect(migrated(kind, { name: 'x' }, 'f')).toEqual({ name: 'x', parts: {}, schema: 2 });
});
