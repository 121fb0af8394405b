import { describe, expect, test } from 'bun:test';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { bootId, selfRef } from '../../../src/host/process.ts';
import { readJson, writeJson } from '../../../src/state/json.ts';
import { sweepLocks, withLock } from '../../../src/state/lock.ts';
import { stateRoot } from '../../../src/state/paths.ts';
import { failureOf } from '../../support/failure.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();

const source = (name: string) => JSON.stringify(path.resolve(import.meta.dir, `../../../src/state/${name}.ts`));
const counter = () => path.join(stateRoot(), 'counter');
const leftovers = () => fs.readdirSync(stateRoot()).filter((entry) => entry.startsWith('state.lock'));
const increment = () =>
  withLock(() => {
    writeJson(counter(), (readJson<number>(counter()) ?? 0) + 1, { durable: false });
  });

/** Runs code that knows withLock, readJson, writeJson and counter in a process of its own. */
function child(code: string): ChildProcess {
  const imports = `
    import { withLock } from ${source('lock')};
    import { selfRef } from '../../../src/host/process.ts';
import { readJson, writeJson } from ${source('json')};
    const counter = ${JSON.stringify(counter())};`;
  const env = { ...process.env, MINIRUN_ROOT: stateRoot(), MINIRUN_FAULT: '' };
  return spawn(process.execPath, ['-e', imports + code], { env, stdio: ['ignore', 'pipe', 'inherit'] });
}

const ended = (process: ChildProcess) =>
  new Promise<number | string | null>((resolve) => process.on('exit', (code, signal) => resolve(code ?? signal)));
const line = (process: ChildProcess) => new Promise<void>((resolve) => process.stdout?.once('data', () => resolve()));

describe('20 processes', () => {
  test('that increment a counter ten times each lose no update', async () => {
    const children = Array.from({ length: 20 }, () =>
      child(`
        for (let turn = 0; turn < 10; turn++) {
          await withLock(() => writeJson(counter, (readJson(counter) ?? 0) + 1, { durable: false }));
        }`),
    );
    expect(await Promise.all(children.map(ended))).toEqual(children.map(() => 0));
    expect(readJson<number>(counter())).toBe(200);
    expect(leftovers()).toEqual([]);
  }, 30_000);

  test('that are killed while they hold it lose no update of the others', async () => {
    const children = Array.from({ length: 20 }, (_, index) =>
      child(`
        await withLock(() => {
          writeJson(counter, (readJson(counter) ?? 0) + 1, { durable: false });
          if (${index} % 2 === 0) process.kill(process.pid, 'SIGKILL');
        });`),
    );
    expect(await Promise.all(children.map(ended))).toEqual(
      children.map((_, index) => (index % 2 === 0 ? 'SIGKILL' : 0)),
    );
    await increment();
    expect(readJson<number>(counter())).toBe(21);
  }, 30_000);
});

describe('a holder', () => {
  test('that was killed is followed within a second', async () => {
    const holder = child(`await withLock(() => process.kill(process.pid, 'SIGKILL'));`);
    expect(await ended(holder)).toBe('SIGKILL');
    expect(leftovers()).toEqual(['state.lock']);
    const begin = performance.now();
    await increment();
    expect(performance.now() - begin).toBeLessThan(1000);
    expect(leftovers()).toEqual([]);
  });

  test('that lives is waited for', async () => {
    const holder = child(`
      await withLock(() => {
        require('node:fs').writeSync(1, 'held\\n');
        Bun.sleepSync(700);
        writeJson(counter, 10);
      });`);
    const end = ended(holder);
    await line(holder);
    await increment();
    expect(readJson<number>(counter())).toBe(11);
    expect(await end).toBe(0);
  });

  test('that is stopped keeps it', async () => {
    const holder = child(`
      await withLock(() => {
        require('node:fs').writeSync(1, 'held\\n');
        process.kill(process.pid, 'SIGSTOP');
        Bun.sleepSync(50);
        writeJson(counter, 10);
      });`);
    const end = ended(holder);
    await line(holder);
    const after = increment();
    expect(await Promise.race([after.then(() => 'taken'), Bun.sleep(1200).then(() => 'kept')])).toBe('kept');
    process.kill(holder.pid as number, 'SIGCONT');
    await after;
    expect(readJson<number>(counter())).toBe(11);
    expect(await end).toBe(0);
  });

  const lockOf = (holder?: string) => {
    fs.mkdirSync(path.join(stateRoot(), 'state.lock'), { mode: 0o700 });
    if (holder !== undefined) fs.writeFileSync(path.join(stateRoot(), 'state.lock/holder'), holder);
  };
  const self = { ...selfRef(), boot: bootId(), turn: 'x-1' };

  test.each([
    ['whose pid another process has now', JSON.stringify({ ...self, start: self.start + 1 })],
    ['of a former boot', JSON.stringify({ ...self, boot: 'another' })],
    ['that names nobody', JSON.stringify({ ...self, pid: 'x' })],
    ['that is cut off', JSON.stringify(self).slice(0, 20)],
    ['that is empty', ''],
    ['that is garbage', '\u0000\u0001{{{'],
    ['that has no name', undefined],
  ])('%s is followed within a second', async (_, holder) => {
    lockOf(holder);
    const begin = performance.now();
    await increment();
    expect(performance.now() - begin).toBeLessThan(1000);
    expect(readJson<number>(counter())).toBe(1);
    expect(leftovers()).toEqual([]);
  });

  test.each(['file', 'link', 'fifo'])('a %s in the place of the lock is no lock', async (sort) => {
    const place = path.join(stateRoot(), 'state.lock');
    if (sort === 'file') fs.writeFileSync(place, 'x');
    else if (sort === 'link') fs.symlinkSync('/nonexistent', place);
    else execFileSync('mkfifo', [place]);
    await increment();
    expect(leftovers()).toEqual([]);
  });

  test('that fails lets go', async () => {
    const failing = withLock(() => {
      throw new Error('no');
    });
    expect(await failureOf(failing)).toBe('no');
    expect(leftovers()).toEqual([]);
    await increment();
    expect(readJson<number>(counter())).toBe(1);
  });
});

test('sweeping removes what killed processes left, and nothing of a living one', async () => {
  const holder = child(`await withLock(() => process.kill(process.pid, 'SIGKILL'));`);
  await ended(holder);
  const pid = holder.pid as number;
  fs.mkdirSync(path.join(stateRoot(), `state.lock.${pid}-1-0-abcdef`));
  await withLock(() => {});
  const own = `state.lock.${process.pid}-${selfRef().start}-0-abcdef`;
  fs.mkdirSync(path.join(stateRoot(), own));
  sweepLocks(fs.readdirSync(stateRoot()));
  expect(leftovers()).toEqual([own]);
});
