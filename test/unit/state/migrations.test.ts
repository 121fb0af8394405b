import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { definitionShape, routesFileShape, stateShape, stepsFileShape } from '../../../src/container/files.ts';
import { indexShape } from '../../../src/image/index-file.ts';
import { hostRoutesShape, linkShape, networkShape, reservationsShape } from '../../../src/network/files.ts';
import { migrated } from '../../../src/state/files.ts';
import { type Kind, kinds } from '../../../src/state/migrations.ts';
import type { ObjectShape } from '../../../src/state/shape.ts';
import { setStateRoot, stateRoot } from '../../../src/state/paths.ts';

/**
 * Files as former versions have written them: before a container could be in several networks (`one-network`), and before every
 * kind of file had a schema (`several-networks`).
 */
const recorded = path.join(import.meta.dir, 'recorded');

const files: Record<string, [Kind, ObjectShape<object>]> = {
  definition: [kinds.definition, definitionShape],
  state: [kinds.state, stateShape],
  steps: [kinds.steps, stepsFileShape],
  routes: [kinds.routes, routesFileShape],
  network: [kinds.network, networkShape],
  index: [kinds.index, indexShape],
  ports: [kinds.ports, reservationsShape],
  link: [kinds.link, linkShape],
  'host-routes': [kinds.hostRoutes, hostRoutesShape],
};

const read = (version: string, name: string): unknown =>
  JSON.parse(fs.readFileSync(path.join(recorded, version, `${name}.json`), 'utf8'));

const made = (version: string, name: string) => {
  const [kind] = files[name] as [Kind, ObjectShape<object>];
  return migrated(kind, read(version, name), name) as Record<string, unknown>;
};

describe.each(fs.readdirSync(recorded))('the files of %s', (version) => {
  const names = fs.readdirSync(path.join(recorded, version)).map((file) => path.basename(file, '.json'));

  test.each(names)('%s is what this minirun reads', (name) => {
    const [kind, shape] = files[name] as [Kind, ObjectShape<object>];
    const value = made(version, name);
    const former = stateRoot();
    // Steps may delete what is in the state directory, and these are of one that was there.
    setStateRoot('/var/tmp/statet');
    const wrong = shape.wrong(value);
    setStateRoot(former);
    expect(wrong).toBeUndefined();
    expect(value.schema).toBe(kind.schema);
    expect(migrated(kind, value, name)).toBe(value);
  });

  test.each(names)('%s loses nothing that is still known', (name) => {
    const old = read(version, name);
    if (Array.isArray(old)) {
      expect(made(version, name)).toEqual({ schema: 2, steps: old });
      return;
    }
    const gone = ['schema', 'address', 'subnet', 'gateway', 'last', 'endpoints'];
    const kept = Object.fromEntries(Object.entries(old as object).filter(([key]) => !gone.includes(key)));
    expect(made(version, name)).toMatchObject(kept);
  });
});

describe('one network became several', () => {
  test('in a definition', () => {
    const plain = { image: 'busybox' };
    const attachmentsOf = (old: object) =>
      (migrated(kinds.definition, { ...plain, ...old }, 'definition.json') as { attachments: object[] }).attachments;
    const attachment = { network: 'lab', aliases: [], gatewayPriority: 0 };
    expect(attachmentsOf({ network: 'lab' })).toEqual([attachment]);
    expect(attachmentsOf({ network: 'lab', address: '10.44.0.9' })).toEqual([{ ...attachment, ip: '10.44.0.9' }]);
    for (const network of ['none', 'host', 'container:ab']) expect(attachmentsOf({ network })).toEqual([]);
    const several = [attachment, { ...attachment, network: 'other' }];
    expect(attachmentsOf({ network: 'lab', attachments: several })).toEqual(several);
  });

  test('in a state', () => {
    const state = made('one-network', 'state') as { endpoints: Record<string, unknown>[] };
    expect(state.endpoints).toHaveLength(1);
    expect(state.endpoints[0]).toMatchObject({
      network: 'lab',
      ipv4: { address: '10.44.0.2', prefixLength: 24, gateway: '10.44.0.1' },
    });
    expect(state.endpoints[0]?.address).toBeUndefined();
  });

  test('in a network', () => {
    expect(made('one-network', 'network')).toMatchObject({
      subnets: [{ subnet: '10.44.0.0/24', gateway: '10.44.0.1' }],
      last: { '10.44.0.0/24': '10.44.0.2' },
      isolate: true,
      internal: false,
    });
  });
});

test('an index without records of layers', () => {
  expect(migrated(kinds.index, { schema: 1, references: {}, images: {} }, 'index.json')).toEqual({
    schema: 2,
    references: {},
    images: {},
    layers: {},
  });
});

test('lists became objects', () => {
  expect(migrated(kinds.pins, ['sha256:ab'], 'pins.json')).toEqual({ schema: 2, layers: ['sha256:ab'] });
  expect(migrated(kinds.steps, [], 'steps.json')).toEqual({ schema: 2, steps: [] });
});

test('a file of no schema is of the first', () => {
  expect(migrated(kinds.changing, { by: 1 }, 'changing.json')).toEqual({ by: 1, schema: 1 });
  for (const none of [null, 1, 'x', { schema: 1.5 }, { schema: -1 }])
    expect(() => migrated(kinds.changing, none, 'changing.json')).toThrow(TypeError);
});
