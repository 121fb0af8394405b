import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type ContainerState, restingState } from '../../../src/container/definition.ts';
import { formatStamp, parseMoment, stampOf } from '../../../src/container/log-stamp.ts';
import { streamEnd } from '../../../src/container/logger.ts';
import { type LogRequest, readLog } from '../../../src/container/logs.ts';
import { containerFiles, reserveName } from '../../../src/container/store.ts';
import { bootId, selfRef } from '../../../src/host/process.ts';
import { ensureStateRoot, setStateRoot, stateRoot } from '../../../src/state/paths.ts';

const id = 'c0ffee'.padEnd(64, '0');
const former = stateRoot();

beforeEach(() => {
  setStateRoot(fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-logs-')));
  ensureStateRoot();
  fs.mkdirSync(containerFiles(id).directory);
  fs.writeFileSync(containerFiles(id).definition, JSON.stringify({ id, name: 'web', tty: false }));
  setState({ status: 'exited' });
  reserveName('web', id);
});

afterEach(() => {
  fs.rmSync(stateRoot(), { recursive: true, force: true });
  setStateRoot(former);
});

function setState(state: Partial<ContainerState>): void {
  const whole = { ...restingState, boot: bootId(), owner: selfRef(), ...state };
  // As minirun writes it: whoever watches never sees half a file.
  fs.writeFileSync(`${containerFiles(id).state}.new`, JSON.stringify(whole));
  fs.renameSync(`${containerFiles(id).state}.new`, containerFiles(id).state);
}

// Recorded with s6-log 2.11 on 22 November 2026.
const stamp = (second: number, nanosecond = 0) =>
  `400000006b0243${(0x5a + second).toString(16)}${nanosecond.toString(16).padStart(8, '0')}`;
const line = (second: number, text: string) => `@${stamp(second)} ${text}\n`;

function write(stream: 'stdout' | 'stderr', file: string, ...lines: string[]): void {
  const directory = path.join(containerFiles(id).log, stream);
  fs.mkdirSync(directory, { recursive: true });
  fs.appendFileSync(path.join(directory, file), lines.join(''));
}

const defaults: LogRequest = { follow: false, timestamps: false, tail: 'all' };

async function read(request: Partial<LogRequest> = {}): Promise<{ stream: string; text: string }[]> {
  const pieces: { stream: string; text: string }[] = [];
  for await (const { stream, bytes } of readLog('web', { ...defaults, ...request })) {
    pieces.push({ stream, text: bytes.toString() });
  }
  return pieces;
}

async function text(request: Partial<LogRequest> = {}): Promise<string> {
  return (await read(request)).map((piece) => piece.text).join('');
}

async function refusal(request: Partial<LogRequest>): Promise<string> {
  try {
    await read(request);
    return '';
  } catch (error) {
    return (error as Error).message;
  }
}

describe('stamps', () => {
  test('are atomic time, 37 seconds ahead, as s6-log writes them', () => {
    // `date +%s.%N` said 1795310426.795573029 just before s6-log wrote @400000006b02437f2fa17ee1.
    expect(stampOf(1795310426795.573)).toBe('400000006b02437f2f6b7b08');
    expect(formatStamp('400000006b02437f2fa17ee1')).toBe('2026-11-22T01:20:26.799112929Z');
  });

  test.each([
    ['1795310426', 1795310426000],
    ['1795310426.5', 1795310426500],
    ['2026-11-22T01:20:26Z', 1795310426000],
    ['2026-11-22T02:20:26.25+01:00', 1795310426250],
    ['10m', 1795310426000 - 600_000],
    ['1h30m10s', 1795310426000 - 5_410_000],
    ['500ms', 1795310426000 - 500],
  ])('--since %s', (given, milliseconds) => {
    expect(parseMoment('--since', given, 1795310426000)).toBe(stampOf(milliseconds));
  });

  test.each(['', 'yesterday', '10x', '2026-13-01', '-5m'])('--since %p is refused', (given) => {
    expect(() => parseMoment('--since', given, 0)).toThrow('it is no point in time');
  });
});

describe('a log', () => {
  test('of a container without output is empty', async () => {
    expect(await text()).toBe('');
  });

  test('has both streams in the order of time', async () => {
    write('stdout', 'current', line(1, 'one'), line(3, 'three'), line(5, 'five'));
    write('stderr', 'current', line(2, 'two'), line(3, 'three too'), line(4, 'four'));
    expect(await read()).toEqual([
      { stream: 'stdout', text: 'one\n' },
      { stream: 'stderr', text: 'two\n' },
      { stream: 'stdout', text: 'three\n' },
      { stream: 'stderr', text: 'three too\nfour\n' },
      { stream: 'stdout', text: 'five\n' },
    ]);
  });

  test('goes on through rotated files, the oldest first', async () => {
    write('stdout', `@${stamp(2)}.s`, line(1, 'one'));
    write('stdout', `@${stamp(3)}.u`, line(2, 'two'));
    write('stdout', 'previous', line(3, 'three'));
    write('stdout', 'current', line(4, 'four'));
    for (const other of ['lock', 'state']) write('stdout', other, '');
    expect(await text()).toBe('one\ntwo\nthree\nfour\n');
  });

  test('has no newline where the container wrote none', async () => {
    write('stdout', 'current', line(1, `partial${streamEnd}`));
    expect(await text()).toBe('partial');
  });

  test('does not show the marks of streams that ended with a newline, nor of those before a restart', async () => {
    write('stdout', 'current', line(1, 'first'), line(2, streamEnd), line(3, 'second'), line(4, streamEnd));
    write('stderr', 'current', line(2, streamEnd), line(4, streamEnd));
    expect(await read()).toEqual([{ stream: 'stdout', text: 'first\nsecond\n' }]);
    expect(await text({ tail: '2' })).toBe('first\nsecond\n');
    expect(await text({ tail: '1' })).toBe('second\n');
  });

  test('keeps a line of 700000 bytes and bytes that are no text', async () => {
    const long = 'x'.repeat(700_000);
    write('stdout', 'current', line(1, long), line(2, '\0\r'), line(3, streamEnd));
    expect(await text()).toBe(`${long}\n\0\r\n`);
    expect(await text({ tail: '2' })).toBe(`${long}\n\0\r\n`);
  });

  test('shows what a killed logger had written of its last line', async () => {
    write('stdout', 'current', line(1, 'whole'), line(2, 'torn').slice(0, -1));
    expect(await text()).toBe('whole\ntorn');
  });
});

describe('options', () => {
  beforeEach(() => {
    write('stdout', `@${stamp(4)}.s`, line(1, '1'), line(3, '3'));
    write('stdout', 'current', line(5, '5'), line(7, streamEnd));
    write('stderr', 'current', line(2, '2'), line(4, '4'), line(6, '6'));
  });

  test('--timestamps', async () => {
    expect((await text({ timestamps: true })).split('\n')[0]).toBe('2026-11-22T01:19:50.000000000Z 1');
  });

  test.each([
    ['0', ''],
    ['1', '6\n'],
    ['3', '4\n5\n6\n'],
    ['5', '2\n3\n4\n5\n6\n'],
    ['6', '1\n2\n3\n4\n5\n6\n'],
    ['99', '1\n2\n3\n4\n5\n6\n'],
    ['all', '1\n2\n3\n4\n5\n6\n'],
    ['-1', '1\n2\n3\n4\n5\n6\n'],
  ])('--tail %s', async (tail, expected) => {
    expect(await text({ tail })).toBe(expected);
  });

  test('--tail of something else', async () => {
    expect(await refusal({ tail: 'few' })).toContain('invalid --tail "few"');
  });

  test('--since and --until', async () => {
    expect(await text({ since: '2026-11-22T01:19:52Z' })).toBe('3\n4\n5\n6\n');
    expect(await text({ until: '2026-11-22T01:19:52Z' })).toBe('1\n2\n3\n');
    expect(await text({ since: '2026-11-22T01:19:51Z', until: '2026-11-22T01:19:52Z' })).toBe('2\n3\n');
    expect(await text({ since: '1m' })).toBe('');
  });
});

describe('a plain log', () => {
  beforeEach(() => {
    fs.mkdirSync(containerFiles(id).log);
    fs.writeFileSync(path.join(containerFiles(id).log, 'plain'), 'one\ntwo\nthree');
  });

  test('is shown as it is', async () => {
    expect(await read()).toEqual([{ stream: 'stdout', text: 'one\ntwo\nthree' }]);
    expect(await text({ tail: '2' })).toBe('two\nthree');
  });

  test('comes before what a logger has written later', async () => {
    write('stdout', 'current', line(1, 'four'));
    expect(await text()).toBe('one\ntwo\nthreefour\n');
  });

  test('has no times', async () => {
    expect(await refusal({ timestamps: true })).toContain('this machine had no s6-log. Install it');
    expect(await refusal({ since: '1m' })).toContain('--since');
  });
});

describe('--follow', () => {
  test('shows what comes, through rotations, until the container is at rest', async () => {
    setState({ status: 'running' });
    write('stdout', 'current', line(1, 'one'), line(2, 'two').slice(0, 28));
    const reader = readLog('web', { ...defaults, follow: true });
    const next = async () => {
      const { value } = await reader.next();
      return value === undefined ? undefined : (value as { bytes: Buffer }).bytes.toString();
    };
    expect(await next()).toBe('one\n');

    const second = next();
    write('stdout', 'current', line(2, 'two').slice(28));
    expect(await second).toBe('two\n');

    const third = next();
    write('stdout', 'current', line(3, 'three'));
    const current = path.join(containerFiles(id).log, 'stdout', 'current');
    fs.renameSync(current, current.replace('current', `@${stamp(3)}.s`));
    write('stdout', 'current', line(4, 'four'));
    let both = await third;
    if (both === 'three\n') both += await next();
    expect(both).toBe('three\nfour\n');

    const fourth = next();
    // A stream whose directory comes late.
    write('stderr', 'current', line(5, 'five'));
    expect(await fourth).toBe('five\n');

    const fifth = next();
    write('stdout', 'current', line(6, `six${streamEnd}`));
    setState({ status: 'exited' });
    expect(await fifth).toBe('six');
    expect(await next()).toBeUndefined();
  });

  test('--tail begins at the end', async () => {
    write('stdout', 'current', line(1, 'one'), line(2, 'two'));
    expect(await text({ follow: true, tail: '0' })).toBe('');
    expect(await text({ follow: true, tail: '1' })).toBe('two\n');
  });

  test('ends with the container that removes itself', async () => {
    setState({ status: 'running' });
    write('stdout', 'current', line(1, 'one'));
    const reader = readLog('web', { ...defaults, follow: true });
    expect((await reader.next()).value?.bytes.toString()).toBe('one\n');
    const end = reader.next();
    fs.rmSync(containerFiles(id).directory, { recursive: true });
    expect((await end).done).toBe(true);
  });
});
