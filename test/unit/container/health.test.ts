import { describe, expect, test } from 'bun:test';
import { MinirunError } from '../../../src/errors.ts';
import { formatDuration, parseDuration } from '../../../src/container/duration.ts';
import { checkCommand, healthTimes, judge, newHealth, untilNextCheck } from '../../../src/container/health.ts';
import type { Health, HealthResult } from '../../../src/container/health-record.ts';
import { healthActionOf, healthcheckOf } from '../../../src/container/health-options.ts';

const startedAt = '2026-01-01T00:00:00.000Z';
const result = (ExitCode: number, second: number): HealthResult => {
  const time = new Date(Date.parse(startedAt) + second * 1000).toISOString();
  return { Start: time, End: time, ExitCode, Output: '' };
};
/** What is known after results, each `[exit code, second]`. */
const after = (results: [number, number][], healthcheck = {}): Health =>
  results.reduce<Health>(
    (health, [code, second]) => judge(health, result(code, second), startedAt, healthTimes(healthcheck)),
    newHealth,
  );
const second = 1_000_000_000;

describe('what results make of a container', () => {
  test.each<[string, [number, number][], object, string, number]>([
    ['one success ends starting', [[0, 1]], {}, 'healthy', 0],
    [
      'a failure or two do not',
      [
        [1, 1],
        [1, 2],
      ],
      {},
      'starting',
      2,
    ],
    [
      'three do',
      [
        [1, 1],
        [1, 2],
        [-1, 3],
      ],
      {},
      'unhealthy',
      3,
    ],
    [
      'a success between begins anew',
      [
        [1, 1],
        [1, 2],
        [0, 3],
        [1, 4],
        [1, 5],
      ],
      {},
      'healthy',
      2,
    ],
    ['any exit code but 0 is a failure', [[2, 1]], { Retries: 1 }, 'unhealthy', 1],
    [
      'in the start period failures do not count',
      [
        [1, 1],
        [1, 2],
        [1, 3],
        [1, 9],
      ],
      { StartPeriod: 10 * second },
      'starting',
      0,
    ],
    [
      'after it they do',
      [
        [1, 9],
        [1, 10],
        [1, 11],
        [1, 12],
      ],
      { StartPeriod: 10 * second },
      'unhealthy',
      3,
    ],
    [
      'after a success they do at once',
      [
        [0, 1],
        [1, 2],
        [1, 3],
        [1, 4],
      ],
      { StartPeriod: 10 * second },
      'unhealthy',
      3,
    ],
    [
      'it comes back',
      [
        [1, 1],
        [1, 2],
        [1, 3],
        [0, 4],
      ],
      {},
      'healthy',
      0,
    ],
  ])('%s', (_, results, healthcheck, status, streak) => {
    expect(after(results, healthcheck)).toMatchObject({ Status: status, FailingStreak: streak });
  });

  test('the last five are kept', () => {
    const { Log } = after([0, 1, 2, 3, 4, 5, 6].map((n) => [n, n]));
    expect(Log.map(({ ExitCode }) => ExitCode)).toEqual([2, 3, 4, 5, 6]);
  });
});

test('checks come sooner in the start period, until the first success', () => {
  const times = healthTimes({ StartPeriod: 60 * second, StartInterval: second, Interval: 20 * second });
  expect(untilNextCheck('starting', 0, times)).toBe(1000);
  expect(untilNextCheck('healthy', 0, times)).toBe(20_000);
  expect(untilNextCheck('starting', 60_000, times)).toBe(20_000);
  expect(healthTimes({ Interval: 0, Retries: 0 })).toEqual({
    interval: 30_000,
    timeout: 30_000,
    startPeriod: 0,
    startInterval: 5000,
    retries: 3,
  });
});

test.each<[string[] | undefined, string[] | undefined]>([
  [
    ['CMD', 'pg_isready', '-q'],
    ['pg_isready', '-q'],
  ],
  [
    ['CMD-SHELL', 'a | b'],
    ['/bin/sh', '-c', 'a | b'],
  ],
  [['NONE'], undefined],
  [['CMD'], undefined],
  [[], undefined],
  [undefined, undefined],
])('the command of %p', (Test, expected) => {
  expect(checkCommand({ healthcheck: { Test } })).toEqual(expected);
  expect(checkCommand({})).toBeUndefined();
});

describe('options', () => {
  const image = { Test: ['CMD', 'ok'], Interval: 5 * second, Retries: 9 };
  test('come over what the image says, one by one', () => {
    expect(healthcheckOf({ none: false }, image)).toEqual(image);
    expect(healthcheckOf({ none: false, retries: '2', timeout: '1m30s' }, image)).toEqual({
      ...image,
      Retries: 2,
      Timeout: 90 * second,
    });
    expect(healthcheckOf({ none: false, interval: '0' }, image)).toEqual(image);
    expect(healthcheckOf({ none: true }, image)).toEqual({ Test: ['NONE'] });
    expect(healthcheckOf({ none: false }, undefined)).toBeUndefined();
  });
  test.each([
    ['exit 0', ['CMD-SHELL', 'exit 0']],
    ['[ -f /ok ]', ['CMD-SHELL', '[ -f /ok ]']],
    ['["a", "b c"]', ['CMD', 'a', 'b c']],
    ['["CMD-SHELL", "x"]', ['CMD-SHELL', 'x']],
    ['[1]', ['CMD-SHELL', '[1]']],
    ['none', ['NONE']],
  ])('--health-cmd %p', (cmd, Test) => {
    expect(healthcheckOf({ none: false, cmd }, image)).toMatchObject({ Test, Retries: 9 });
  });
  test.each([
    { interval: '5' },
    { interval: '-1s' },
    { interval: '1us' },
    { timeout: 'soon' },
    { retries: '-1' },
    { retries: '1.5' },
    { cmd: '' },
  ])('%p is refused', (given) => {
    expect(() => healthcheckOf({ none: false, ...given }, undefined)).toThrow(MinirunError);
  });
  test('what contradicts itself is refused', () => {
    expect(() => healthcheckOf({ none: true, cmd: 'true' }, undefined)).toThrow('--no-healthcheck');
    expect(() => healthActionOf({ none: false, onFailure: 'explode' }, true)).toThrow('no such action');
    expect(() => healthActionOf({ none: false, onFailure: 'kill' }, false)).toThrow('needs a health check');
    expect(healthActionOf({ none: false, onFailure: 'kill' }, true)).toBe('kill');
    expect(healthActionOf({ none: false, onFailure: 'none' }, false)).toBeUndefined();
  });
});

test.each([
  ['30s', 30_000],
  ['1h2m3.5s', 3_723_500],
  ['500ms', 500],
  ['0', 0],
])('the duration %s', (text, milliseconds) => {
  expect(parseDuration(text)).toBe(milliseconds);
  if (milliseconds > 0) expect(formatDuration(milliseconds)).toBe(text);
});

test.each(['', '5', '1x', '-3s', 's', '1.s.'])('%p is no duration', (text) => {
  expect(parseDuration(text)).toBeUndefined();
});
