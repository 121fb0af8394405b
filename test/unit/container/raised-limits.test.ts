import { expect, test } from 'bun:test';
import { raisedLimitsArgv } from '../../../src/container/raised-limits.ts';

test('only hard limits above the own ones are raised, by prlimit', () => {
  const own = `Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 4096                 files
Max locked memory         65536                65536                bytes
Max core file size        0                    unlimited            bytes
`;
  const limit = (type: string, soft: number, hard: number) => ({ type: `RLIMIT_${type}`, soft, hard });
  expect(raisedLimitsArgv([limit('NOFILE', 1024, 4096), limit('CORE', -1, -1)], own)).toEqual([]);
  expect(raisedLimitsArgv([limit('NOFILE', 1, 4097), limit('MEMLOCK', 0, -1)], own)).toEqual([
    'prlimit',
    '--nofile=:4097',
    '--memlock=:unlimited',
  ]);
});
