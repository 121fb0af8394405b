import { describe, expect, test } from 'bun:test';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { type ContainerState, type Definition, restingState, type Status } from '../../../src/container/definition.ts';
import {
  containerFiles,
  containerIds,
  findId,
  idOfName,
  isRunning,
  isSettled,
  listContainers,
  readContainer,
  readSpec,
  readSteps,
  releaseName,
  requireContainer,
  reserveName,
} from '../../../src/container/store.ts';
import { bootId, selfRef } from '../../../src/host/process.ts';
import { stateRoot } from '../../../src/state/paths.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();

const plainDefinition: Omit<Definition, 'id' | 'name' | 'created'> = {
  schema: 2,
  image: 'busybox',
  imageId: '',
  layers: [],
  entrypoint: [],
  command: ['sh'],
  network: 'none',
  attachments: [],
  dns: [],
  dnsSearch: [],
  dnsOptions: [],
  addHosts: [],
  autoRemove: false,
  restart: { name: 'no', maximum: 0 },
  stopSignal: 15,
  stopTimeout: 10,
  tty: false,
  openStdin: false,
  privileged: false,
  labels: {},
};

const idOf = (prefix: string) => prefix.padEnd(64, '0');
const dead = { ...selfRef(), start: 1 };

function add(id: string, name: string, status: Status = 'exited', created = '2026-01-01T00:00:00.000Z'): void {
  fs.mkdirSync(containerFiles(id).directory);
  fs.writeFileSync(containerFiles(id).definition, JSON.stringify({ ...plainDefinition, id, name, created }));
  fs.writeFileSync(containerFiles(id).state, JSON.stringify({ ...restingState, status, boot: bootId() }));
  reserveName(name, id);
}

describe('finding a container', () => {
  test('by name, by id, by the beginning of an id', () => {
    add(idOf('abc1'), 'web');
    add(idOf('abd2'), 'db');
    expect(findId('web')).toBe(idOf('abc1'));
    expect(findId(idOf('abd2'))).toBe(idOf('abd2'));
    expect(findId('abd')).toBe(idOf('abd2'));
    for (const unknown of ['we', 'abe', 'ABC', '', '/', '..', 'web/', `${idOf('abc1')}0`])
      expect(findId(unknown)).toBeUndefined();
  });

  test('a name wins over the beginning of an id', () => {
    add(idOf('cafe'), 'web');
    add(idOf('1234'), 'cafe');
    expect(findId('cafe')).toBe(idOf('1234'));
  });

  test('the beginning of several ids is refused', () => {
    add(idOf('abc1'), 'web');
    add(idOf('abc2'), 'db');
    expect(() => findId('abc')).toThrow(/ambiguous container id "abc": 2 containers/);
    expect(findId('abc2')).toBe(idOf('abc2'));
  });

  test('one that its creator has not finished is not there yet', () => {
    add(idOf('abc1'), 'web', 'creating');
    expect(() => requireContainer('web')).toThrow(/no container "web"/);
    expect(requireContainer('web', true).definition.name).toBe('web');
    expect(() => requireContainer('none')).toThrow(/no container "none"/);
  });
});

describe('containers on disk', () => {
  test('the newest first; what is no container, or only half there, is left out', () => {
    add(idOf('a'), 'old', 'exited', '2026-01-01T00:00:00.000Z');
    add(idOf('b'), 'new', 'exited', '2026-01-03T00:00:00.000Z');
    add(idOf('c'), 'middle', 'exited', '2026-01-02T00:00:00.000Z');
    fs.mkdirSync(path.join(stateRoot(), 'containers', '.making'));
    fs.mkdirSync(containerFiles(idOf('d')).directory);
    expect(listContainers().map(({ definition }) => definition.name)).toEqual(['new', 'middle', 'old']);
    expect(containerIds()).toHaveLength(4);
    expect(readContainer(idOf('d'))).toBeUndefined();
  });

  test('without its spec it can still be removed: the message says how', () => {
    add(idOf('a'), 'web');
    expect(() => readSpec(idOf('a'))).toThrow(/minirun rm -f a00000000000/);
    expect(readSteps(idOf('a'))).toEqual([]);
  });
});

describe('names', () => {
  test('are held by one container until it gives them back', () => {
    add(idOf('a'), 'web');
    expect(() => reserveName('web', idOf('b'))).toThrow(/"web" is taken: container a00000000000 has it/);
    releaseName('web', idOf('b'));
    expect(idOfName('web')).toBe(idOf('a'));
    releaseName('web', idOf('a'));
    releaseName('web', idOf('a'));
    expect(idOfName('web')).toBeUndefined();
    reserveName('web', idOf('b'));
    expect(idOfName('web')).toBe(idOf('b'));
  });

  test('the name of a container that is gone is free', () => {
    reserveName('web', idOf('a'));
    reserveName('web', idOf('b'));
    expect(idOfName('web')).toBe(idOf('b'));
  });

  test('of many processes at once, one gets it', async () => {
    const store = path.resolve(import.meta.dir, '../../../src/container/store.ts');
    // They all wait for the same moment, and each has its folder, as create makes it before it asks for the name.
    const code = `
      import { reserveName } from ${JSON.stringify(store)};
      await Bun.stdin.text();
      try { reserveName('web', process.argv[1]); console.log('got it'); } catch (error) { console.log(error.what); }`;
    const ids = Array.from({ length: 10 }, (_, index) => idOf(`${index}`));
    for (const id of ids) fs.mkdirSync(containerFiles(id).directory);
    const env = { ...process.env, MINIRUN_ROOT: stateRoot() };
    const children = ids.map((id) =>
      spawn(process.execPath, ['-e', code, id], { env, stdio: ['pipe', 'pipe', 'inherit'] }),
    );
    const answers = children.map(async (child) => {
      let text = '';
      for await (const chunk of child.stdout) text += String(chunk);
      return text.trim();
    });
    await Bun.sleep(200);
    for (const child of children) child.stdin.end();
    const outcome = await Promise.all(answers);
    expect(outcome.filter((text) => text === 'got it')).toHaveLength(1);
    expect(outcome.filter((text) => text === 'the container name "web" is taken')).toHaveLength(9);
    expect(idOfName('web')).toBe(ids[outcome.indexOf('got it')] as string);
  });
});

describe('a state', () => {
  const state = (change: Partial<ContainerState>): ContainerState => ({
    ...restingState,
    status: 'running',
    boot: bootId(),
    ...change,
  });

  test('runs while its first process does, in this boot', () => {
    expect(isRunning(state({ init: selfRef() }))).toBe(true);
    expect(isRunning(state({ init: selfRef(), status: 'stopping' }))).toBe(true);
    expect(isRunning(state({ init: dead }))).toBe(false);
    expect(isRunning(state({}))).toBe(false);
    expect(isRunning(state({ init: selfRef(), boot: 'an earlier one' }))).toBe(false);
    expect(isRunning(state({ init: selfRef(), status: 'exited' }))).toBe(false);
  });

  test('is settled at rest, or when somebody answers for it', () => {
    for (const status of ['created', 'exited'] as const)
      expect(isSettled(state({ status, boot: 'an earlier one' }))).toBe(true);
    for (const status of ['creating', 'starting', 'running', 'stopping', 'restarting'] as const) {
      expect(isSettled(state({ status, owner: selfRef() }))).toBe(true);
      expect(isSettled(state({ status, owner: dead }))).toBe(false);
      expect(isSettled(state({ status }))).toBe(false);
      expect(isSettled(state({ status, owner: selfRef(), boot: 'an earlier one' }))).toBe(false);
    }
  });
});
