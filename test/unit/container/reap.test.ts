import { describe, expect, test } from 'bun:test';
import { nextDelay, shouldRestart } from '../../../src/container/reap.ts';

describe('whether it is started again', () => {
  test.each([
    ['no', 0, 1, 0, false],
    ['always', 0, 0, 0, true],
    ['always', 0, 1, 99, true],
    ['unless-stopped', 0, 0, 0, true],
    ['on-failure', 0, 0, 0, false],
    ['on-failure', 0, 1, 99, true],
    ['on-failure', 3, 1, 2, true],
    ['on-failure', 3, 137, 3, false],
  ] as const)('%s:%d after exit code %d and %d restarts: %s', (name, maximum, exitCode, restartCount, expected) => {
    expect(shouldRestart({ name, maximum }, { stoppedByUser: false, restartCount }, exitCode)).toBe(expected);
  });

  test.each(['always', 'unless-stopped', 'on-failure'] as const)('%s: not after stop or kill', (name) => {
    expect(shouldRestart({ name, maximum: 0 }, { stoppedByUser: true, restartCount: 0 }, 137)).toBe(false);
  });
});

describe('how long it waits', () => {
  const started = '2026-01-01T00:00:00.000Z';
  const after = (seconds: number) => Date.parse(started) + seconds * 1000;

  test('longer each time, from a tenth of a second to a minute', () => {
    const delays: number[] = [];
    let restartDelay = 0;
    for (let restart = 0; restart < 12; restart++) {
      restartDelay = nextDelay({ status: 'running', startedAt: started, restartDelay }, after(1));
      delays.push(restartDelay);
    }
    expect(delays.slice(0, 4)).toEqual([100, 200, 400, 800]);
    expect(delays.at(-1)).toBe(60_000);
  });

  test('from the beginning after it ran for ten seconds', () => {
    const state = { status: 'running', startedAt: started, restartDelay: 800 } as const;
    expect(nextDelay(state, after(9.9))).toBe(1600);
    expect(nextDelay(state, after(10))).toBe(100);
  });

  test('the time spent waiting is not time spent running', () => {
    expect(nextDelay({ status: 'restarting', startedAt: started, restartDelay: 30_000 }, after(40))).toBe(60_000);
  });
});
