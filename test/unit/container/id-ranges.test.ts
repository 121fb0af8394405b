import { describe, expect, test } from 'bun:test';
import { chooseIds, parsePool } from '../../../src/container/id-ranges.ts';
import { parseUserns } from '../../../src/container/user-namespace.ts';

const first = 0x78000000;
const step = 65536;
const free = parsePool('', '');

describe('ids for user namespaces', () => {
  test('one range after the other, from a place that depends on the state directory', () => {
    const pools = { uid: free, gid: free };
    const one = chooseIds(step, [], pools, 3);
    expect(one).toEqual({ uid: first + 3 * step, gid: first + 3 * step, size: step });
    const two = chooseIds(100, [one], pools, 3);
    expect(two).toEqual({ uid: first + 4 * step, gid: first + 4 * step, size: 100 });
    expect(chooseIds(step, [two], pools, 3).uid).toBe(first + 3 * step);
    // Two steps wide: neither the one before it nor the one it begins in.
    expect(chooseIds(2 * step, [two], pools, 3).uid).toBe(first + 5 * step);
  });

  test('never those of somebody else', () => {
    const taken = `someone:${first}:${step}\n# a comment\nbroken:x:y\nother:100000:65536\n`;
    const pool = parsePool(taken, `root:x:0:0::/root:/bin/sh\nbig:x:${first + step + 7}:0::/:/bin/sh\n`);
    expect(chooseIds(step, [], { uid: pool, gid: free }, 0)).toEqual({ uid: first + 2 * step, gid: first, size: step });
  });

  test('those of minirun, or else of containers, where /etc/subuid has any', () => {
    const uid = parsePool('containers:100:300\nminirun:1000:50\nminirun:5000:100\n', '');
    const gid = parsePool('containers:200000:300\n', '');
    const one = chooseIds(40, [], { uid, gid }, 99);
    expect(one).toEqual({ uid: 1000, gid: 200000, size: 40 });
    expect(chooseIds(100, [one], { uid, gid }, 99)).toEqual({ uid: 5000, gid: 200040, size: 100 });
    expect(() => chooseIds(101, [], { uid, gid }, 99)).toThrow('no 101 ids are free');
  });

  test('--userns', () => {
    expect(['host', 'auto', '1000', 'auto:size=70000'].map(parseUserns)).toEqual([undefined, 65536, 1000, 70000]);
    for (const wrong of ['', 'private', '0', '-1', '5', '1e5', 'auto:', 'auto:size=x', 'keep-id', '99999999'])
      expect(() => parseUserns(wrong)).toThrow(`invalid --userns "${wrong}"`);
  });
});
