import { describe, expect, test } from 'bun:test';
import { membersOf, parseBytes, parseLimits } from '../../../src/container/limits.ts';

const mebi = 2 ** 20;
const resources = (...given: Parameters<typeof parseLimits>) => parseLimits(...given).resources;

describe('sizes', () => {
  test.each([
    ['512', 512],
    ['100b', 100],
    ['64k', 65_536],
    ['64K', 65_536],
    ['1.5g', 1.5 * 2 ** 30],
    ['10 MiB', 10 * mebi],
    ['2mb', 2 * mebi],
    ['0', 0],
  ])('%s', (text, bytes) => {
    expect(parseBytes('--memory', text)).toBe(bytes);
  });
  test.each(['', 'm', '-1', '1e3', '5x', '1..5m', '9999999999999p', 'NaN', '0x10'])('not %p', (text) => {
    expect(() => parseBytes('--memory', text)).toThrow(/^invalid --memory/);
  });
});

describe('limits', () => {
  test('memory takes as much swap, unless something else is said', () => {
    expect(resources({ memory: '64m' })).toEqual({ memory: { limit: 64 * mebi, swap: 128 * mebi } });
    expect(resources({ memory: '64m', memorySwap: '-1' })?.memory?.swap).toBe(-1);
    expect(resources({ memory: '64m', memorySwap: '64m' })?.memory?.swap).toBe(64 * mebi);
    expect(resources({ memory: '64m', memorySwap: '0' })?.memory?.swap).toBe(128 * mebi);
    expect(resources({ memory: '0' })).toBeUndefined();
  });

  test('processors are a quota in periods of a tenth of a second', () => {
    const limits = parseLimits({ cpus: '0.5' });
    expect(limits).toMatchObject({ resources: { cpu: { quota: 50_000, period: 100_000 } }, nanoCpus: 500_000_000 });
    expect(resources({ cpuQuota: '-1' })?.cpu).toEqual({ quota: -1 });
    expect(parseLimits({ cpus: '0' })).toEqual({ oomScoreAdj: undefined, cgroupParent: undefined });
  });

  test('no limit of processes is one, too: it takes one away', () => {
    for (const text of ['-1', '0', '-5']) expect(resources({ pidsLimit: text })).toEqual({ pids: { limit: -1 } });
  });

  test('update leaves what is not given, and sees how it fits', () => {
    const before = resources({ memory: '64m', memorySwap: '100m', cpuShares: '512' });
    expect(resources({ pidsLimit: '9' }, before)).toEqual({ ...before, pids: { limit: 9 } });
    expect(resources({ memory: '32m' }, before)?.memory).toEqual({ limit: 32 * mebi, swap: 100 * mebi });
    expect(() => parseLimits({ memory: '200m' }, before)).toThrow('Give --memory-swap, too');
    expect(resources({ memory: '200m', memorySwap: '200m' }, before)?.memory?.limit).toBe(200 * mebi);
    // One of its own takes the place of --cpus, and the other way round.
    expect(resources({ cpus: '1' }, resources({ cpuQuota: '5000', cpuPeriod: '10000' }))?.cpu).toEqual({
      quota: 100_000,
      period: 100_000,
    });
  });

  test('the parent is a path below the root', () => {
    expect(parseLimits({ cgroupParent: 'a//b/./c/' }).cgroupParent).toBe('/a/b/c');
    for (const text of ['/', '..', '/a/../b', 'a\nb']) expect(() => parseLimits({ cgroupParent: text })).toThrow();
    expect(parseLimits({ pidsLimit: '5' }).cgroupParent).toBe('/minirun');
  });
});

test('lists of numbers', () => {
  expect(membersOf('0-2,4')).toEqual([0, 1, 2, 4]);
  expect(membersOf('3,3')).toEqual([3]);
  for (const text of ['', '1-', '-1', '2-1', 'a', '1,,2', '1;2', '999999']) expect(membersOf(text)).toBeUndefined();
});
