import { expect, test } from 'bun:test';
import { parseTraceroute } from '../../../src/container/trace.ts';

test('hops are read from what traceroute prints', () => {
  const output = `traceroute to 10.9.9.10 (10.9.9.10), 30 hops max, 60 byte packets
 1  10.13.37.2  0.051 ms
 2  *
 3  10.9.9.10  3052.312 ms !H
`;
  expect(parseTraceroute(output)).toEqual([
    { number: 1, address: '10.13.37.2', time: '0.051 ms' },
    { number: 2, address: '', time: '' },
    { number: 3, address: '10.9.9.10', time: '3052.312 ms !H' },
  ]);
});

test('of the answers that did not come at the end there is one', () => {
  const stars = Array.from({ length: 29 }, (_, index) => `${String(index + 2).padStart(2)}  *\n`).join('');
  expect(parseTraceroute(` 1  fd00::1  0.1 ms\n${stars}`).map(({ address }) => address)).toEqual(['fd00::1', '']);
  expect(parseTraceroute(' 1  *\n 2  *\n')).toEqual([{ number: 1, address: '', time: '' }]);
  expect(parseTraceroute('')).toEqual([]);
});
