import { describe, expect, test } from 'bun:test';
import { MinirunError } from '../../../src/errors.ts';
import { allocate, release } from '../../../src/network/ipam.ts';

function pool(subnet: string, gateway: string, leases: Record<string, string> = {}, last?: string) {
  return { name: 'lab', subnet, gateway, leases, last };
}

const small = () => pool('10.7.0.0/29', '10.7.0.1');

describe('the next address', () => {
  test('goes round: no immediate reuse', () => {
    const network = small();
    const first = allocate(network, 'a');
    release(network, 'a', first);
    const second = allocate(network, 'b');
    expect([first, second]).toEqual(['10.7.0.2', '10.7.0.3']);
  });

  test('from the last one on to the first free', () => {
    const network = pool('10.7.0.0/29', '10.7.0.1', { '10.7.0.2': 'a' }, '10.7.0.6');
    expect(allocate(network, 'b')).toBe('10.7.0.3');
  });

  test('every address but network, gateway and broadcast, each once; then a clear error', () => {
    const network = pool('10.7.0.0/29', '10.7.0.4');
    const given = Array.from({ length: 5 }, (_, index) => allocate(network, `c${index}`));
    expect(given.toSorted()).toEqual(['10.7.0.1', '10.7.0.2', '10.7.0.3', '10.7.0.5', '10.7.0.6']);
    expect(() => allocate(network, 'late')).toThrow(/no address left in network "lab": all of 10\.7\.0\.0\/29/);
    expect(Object.keys(network.leases)).toHaveLength(5);
    release(network, 'c1', given[1] as string);
    expect(allocate(network, 'late')).toBe(given[1] as string);
  });

  test('a last address that is not of the subnet does no harm', () => {
    for (const last of ['10.7.0.7', '10.7.0.0', '10.7.0.1']) {
      const network = pool('10.7.0.0/29', '10.7.0.1', {}, last);
      expect(allocate(network, 'a')).toMatch(/^10\.7\.0\.[2-6]$/);
    }
  });

  test('an address that was asked for by hand is stepped over, and does not move the round', () => {
    const network = small();
    allocate(network, 'a');
    allocate(network, 'b', '10.7.0.3');
    expect(allocate(network, 'c')).toBe('10.7.0.4');
    expect(network.leases).toEqual({ '10.7.0.2': 'a', '10.7.0.3': 'b', '10.7.0.4': 'c' });
  });
});

describe('a wanted address', () => {
  test.each([
    ['10.8.0.2', /outside 10\.7\.0\.0\/29/],
    ['10.7.0.0', /network address/],
    ['10.7.0.7', /broadcast address/],
    ['10.7.0.1', /gateway/],
    ['10.7.0.5', /container 0123456789ab has it/],
    ['ten', /not an IPv4 address/],
  ])('%s is refused', (wanted, why) => {
    const network = pool('10.7.0.0/29', '10.7.0.1', { '10.7.0.5': '0123456789abcdef' });
    expect(() => allocate(network, 'a', wanted)).toThrow(why);
    expect(() => allocate(network, 'a', wanted)).toThrow(MinirunError);
    expect(network.leases).toEqual({ '10.7.0.5': '0123456789abcdef' });
  });
});

test('only its holder gives an address back', () => {
  const network = small();
  const address = allocate(network, 'a');
  release(network, 'b', address);
  expect(network.leases).toEqual({ [address]: 'a' });
  release(network, 'a', address);
  release(network, 'a', address);
  expect(network.leases).toEqual({});
});
