import { describe, expect, test } from 'bun:test';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {
  eventFiles,
  lastRecorded,
  parseEvent,
  recordEvent,
  recordEvents,
  recordOnce,
  rotateEvents,
} from '../../../src/state/events.ts';
import { ensureStateRoot, stateRoot } from '../../../src/state/paths.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();

const lines = () => fs.readFileSync(eventFiles().current, 'utf8').split('\n').filter(Boolean);

describe('an event that is recorded', () => {
  test('is one line, with what was told and the time', () => {
    ensureStateRoot();
    const before = BigInt(Date.now()) * 1_000_000n;
    recordEvent({ type: 'container', action: 'start', id: 'a1', attributes: { name: 'web', 'a "label"': 'x\ny' } });
    expect(lines()).toHaveLength(1);
    const event = parseEvent(lines()[0] as string);
    expect(event).toMatchObject({
      type: 'container',
      action: 'start',
      id: 'a1',
      attributes: { name: 'web', 'a "label"': 'x\ny' },
    });
    expect(BigInt(event?.time ?? 0) >= before).toBe(true);
    expect(fs.statSync(eventFiles().current).mode & 0o777).toBe(0o600);
  });

  test('on a full disk is lost, and nothing else happens', () => {
    ensureStateRoot();
    fs.symlinkSync('/dev/full', eventFiles().current);
    expect(() => recordEvent({ type: 'image', action: 'pull', id: 'x' })).not.toThrow();
    fs.rmSync(path.dirname(eventFiles().current), { recursive: true });
    expect(() => recordEvent({ type: 'image', action: 'pull', id: 'x' })).not.toThrow();
  });

  test('by 8 processes at once is whole', async () => {
    ensureStateRoot();
    const source = JSON.stringify(path.resolve(import.meta.dir, '../../../src/state/events.ts'));
    const code = `import { recordEvent } from ${source};
      for (let n = 0; n < 200; n++) recordEvent({ type: 'container', action: 'start', id: process.argv[1] + '-' + n, attributes: { filler: 'x'.repeat(n * 20) } });`;
    const children = Array.from({ length: 8 }, (_, index) =>
      spawn(process.execPath, ['-e', code, String(index)], {
        env: { ...process.env, MINIRUN_ROOT: stateRoot() },
        stdio: 'inherit',
      }),
    );
    await Promise.all(children.map((child) => new Promise((resolve) => child.on('exit', resolve))));
    const ids = lines().map((line) => parseEvent(line)?.id);
    expect(new Set(ids).size).toBe(1600);
    expect(ids).toHaveLength(1600);
  });
});

describe('a line', () => {
  const whole = '{"schema":1,"time":"5","type":"image","action":"tag","id":"x","attributes":{}}';
  test.each([
    ['of a power cut', whole.slice(0, 40)],
    ['of zeros', '\0'.repeat(40)],
    ['of something else', '{"schema":1,"time":"soon"}'],
    ['without attributes', '{"schema":1,"time":"5","type":"image","action":"tag","id":"x","attributes":null}'],
    ['of a later minirun', whole.replace('"schema":1', '"schema":2')],
    ['that is empty', ''],
  ])('%s is no event', (_, line) => {
    expect(parseEvent(line)).toBeUndefined();
  });

  test('behind one that was cut short is read', () => {
    expect(parseEvent(whole.slice(0, 40) + whole)?.action).toBe('tag');
  });
});

describe('what was told already', () => {
  test('is found, the last of it, also in the older file', () => {
    ensureStateRoot();
    recordEvents([
      { type: 'container', action: 'start', id: 'aa' },
      { type: 'container', action: 'start', id: 'ab' },
    ]);
    fs.renameSync(eventFiles().current, eventFiles().previous);
    expect(lastRecorded('aa', ['start', 'die'])?.action).toBe('start');
    recordOnce({ type: 'container', action: 'die', id: 'aa' }, ['start', 'die']);
    recordOnce({ type: 'container', action: 'die', id: 'aa' }, ['start', 'die']);
    expect(lines()).toHaveLength(1);
    expect(lastRecorded('aa', ['start', 'die'])?.action).toBe('die');
    expect(lastRecorded('ab', ['start', 'die'])?.action).toBe('start');
    expect(lastRecorded('a', ['start'])).toBeUndefined();
  });
});

test('a file of some megabytes becomes the previous one, and the one before that goes', async () => {
  ensureStateRoot();
  const { current, previous } = eventFiles();
  await rotateEvents();
  fs.writeFileSync(previous, 'old');
  fs.writeFileSync(current, 'x'.repeat(4_000_001));
  await rotateEvents();
  await rotateEvents();
  expect(fs.existsSync(current)).toBe(false);
  expect(fs.statSync(previous).size).toBe(4_000_001);
});
