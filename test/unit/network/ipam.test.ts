import { describe, expect, test } from 'bun:test';
import { MinirunError } from '../../../src/errors.ts';
import type { Network, Subnet } from '../../../src/network/definition.ts';
import { allocate, release } from '../../../src/network/ipam.ts';

type Pool = Parameters<typeof allocate>[0];

const pool = (subnets: Subnet[], given: Partial<Network> = {}): Pool => ({
  name: 'lab',
  subnets,
  leases: {},
  last: {},
  hostAddress: true,
  ...given,
});
const range = '10.7.0.0/29';
const small = (given: Partial<Network> = {}, subnet: Partial<Subnet> = {}) =>
  pool([{ subnet: range, gateway: '10.7.0.1', ...subnet }], given);

/** The addresses that a container gets, IPv4 first. */
function given(network: Pool, container: string, wanted?: Parameters<typeof allocate>[2]): string[] {
  const { ipv4, ipv6 } = allocate(network, container, wanted);
  return [ipv4, ipv6].flatMap((each) => (each === undefined ? [] : [each.address]));
}

/** The next `count` addresses, each for another container. */
const series = (network: Pool, count: number) =>
  Array.from({ length: count }, (_, index) => given(network, `c${index}`)[0] as string);

describe('the next address', () => {
  test('goes round: no immediate reuse', () => {
    const network = small();
    const first = given(network, 'a');
    release(network, 'a');
    expect([first, given(network, 'b')]).toEqual([['10.7.0.2'], ['10.7.0.3']]);
  });

  test('from the last one on to the first free', () => {
    const network = small({ leases: { '10.7.0.2': 'a' }, last: { [range]: '10.7.0.6' } });
    expect(given(network, 'b')).toEqual(['10.7.0.3']);
  });

  test('every address but network, gateway and broadcast, each once; then a clear error', () => {
    const network = small({}, { gateway: '10.7.0.4' });
    const all = series(network, 5);
    expect(all.toSorted()).toEqual(['10.7.0.1', '10.7.0.2', '10.7.0.3', '10.7.0.5', '10.7.0.6']);
    expect(() => allocate(network, 'late')).toThrow(/no address left in network "lab": all of 10\.7\.0\.0\/29/);
    expect(Object.keys(network.leases)).toHaveLength(5);
    release(network, 'c1');
    expect(given(network, 'late')).toEqual([all[1] as string]);
  });

  test('a last address that is not of the subnet does no harm', () => {
    for (const last of ['10.7.0.7', '10.7.0.0', '10.7.0.1', '10.6.255.255', '10.8.0.0']) {
      expect(given(small({ last: { [range]: last } }), 'a')[0]).toMatch(/^10\.7\.0\.[2-6]$/);
    }
  });

  test('an address that was asked for by hand is stepped over, and does not move the round', () => {
    const network = small();
    allocate(network, 'a');
    allocate(network, 'b', { ip: '10.7.0.3' });
    expect(given(network, 'c')).toEqual(['10.7.0.4']);
    expect(network.leases).toEqual({ '10.7.0.2': 'a', '10.7.0.3': 'b', '10.7.0.4': 'c' });
  });

  test('is never the gateway, also when a container may have it by hand', () => {
    const network = small({ hostAddress: false });
    expect(series(network, 5)).not.toContain('10.7.0.1');
    expect(given(network, 'router', { ip: '10.7.0.1' })).toEqual(['10.7.0.1']);
  });

  test('of IPv6: the last one of the range, too, and no zero', () => {
    const network = pool([{ subnet: 'fd00::/126', gateway: 'fd00::1' }]);
    expect(series(network, 2)).toEqual(['fd00::2', 'fd00::3']);
    expect(() => allocate(network, 'late')).toThrow(/no address left in network "lab": all of fd00::\/126/);
  });

  test('of each family; when one of them has none left, nothing is leased', () => {
    const network = pool([
      { subnet: range, gateway: '10.7.0.1' },
      { subnet: 'fd00::/126', gateway: 'fd00::1' },
    ]);
    expect(given(network, 'a')).toEqual(['10.7.0.2', 'fd00::2']);
    expect(given(network, 'b')).toEqual(['10.7.0.3', 'fd00::3']);
    expect(() => allocate(network, 'late')).toThrow(/fd00::\/126 is in use/);
    expect(Object.values(network.leases)).not.toContain('late');
    expect(release(network, 'a')).toBe(true);
    expect(Object.keys(network.leases)).toEqual(['10.7.0.3', 'fd00::3']);
    // IPv4 goes on, IPv6 comes round.
    expect(given(network, 'c')).toEqual(['10.7.0.4', 'fd00::2']);
  });

  test('of the next range of a family when the first is used up', () => {
    const network = pool([
      { subnet: '10.7.0.0/30', gateway: '10.7.0.1' },
      { subnet: '10.8.0.0/30', gateway: '10.8.0.1' },
    ]);
    expect(series(network, 2)).toEqual(['10.7.0.2', '10.8.0.2']);
    expect(() => allocate(network, 'late')).toThrow(/all of 10\.7\.0\.0\/30, 10\.8\.0\.0\/30 is in use/);
    release(network, 'c0');
    expect(given(network, 'late')).toEqual(['10.7.0.2']);
  });

  test('of the given part only, round in it, without what is kept', () => {
    const part = { range: '10.7.0.8/29', subnet: '10.7.0.0/24', reserved: { printer: '10.7.0.9' } };
    const network = small({}, part);
    // The part's own ends are addresses like others.
    const all = ['10.7.0.8', '10.7.0.10', '10.7.0.11', '10.7.0.12', '10.7.0.13', '10.7.0.14', '10.7.0.15'];
    expect(series(network, 7)).toEqual(all);
    expect(() => allocate(network, 'late')).toThrow(/all of 10\.7\.0\.8\/29 is in use/);
    release(network, 'c2');
    expect(given(network, 'late')).toEqual(['10.7.0.11']);
    // By hand, any address of the subnet.
    expect(given(network, 'fixed', { ip: '10.7.0.200' })).toEqual(['10.7.0.200']);
    expect(() => allocate(network, 'other', { ip: '10.7.0.9' })).toThrow(/10\.7\.0\.9/);
  });

  test('a part that is the whole subnet still spares its ends', () => {
    expect(series(small({}, { range }), 5).toSorted()).toEqual([2, 3, 4, 5, 6].map((last) => `10.7.0.${last}`));
  });

  test('of a huge range at once, with many taken in a row', () => {
    const leases = Object.fromEntries(
      Array.from({ length: 2000 }, (_, n) => [`fd00::${(n + 2).toString(16)}`, `c${n}`]),
    );
    const network = pool([{ subnet: 'fd00::/8', gateway: 'fd00::1' }], { leases });
    const start = performance.now();
    expect(given(network, 'a')).toEqual(['fd00::7d2']);
    expect(performance.now() - start).toBeLessThan(1000);
    network.last = { 'fd00::/8': 'fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff' };
    expect(given(network, 'b')).toEqual(['fd00::7d3']);
  });
});

describe('a wanted address', () => {
  test.each([
    ['10.8.0.2', /outside 10\.7\.0\.0\/29/],
    ['10.7.0.0', /network address/],
    ['10.7.0.7', /broadcast address/],
    ['10.7.0.1', /gateway/],
    ['10.7.0.5', /container 0123456789ab has it/],
    ['10.7.0.6', /printer/],
    ['ten', /not an IPv4 address/],
    ['fd00::2', /not an IPv4 address/],
  ])('%s is refused', (ip, why) => {
    const network = small({ leases: { '10.7.0.5': '0123456789abcdef' } }, { reserved: { printer: '10.7.0.6' } });
    expect(() => allocate(network, 'a', { ip })).toThrow(why);
    expect(() => allocate(network, 'a', { ip })).toThrow(MinirunError);
    expect(network.leases).toEqual({ '10.7.0.5': '0123456789abcdef' });
  });

  test('of a family that the network has not', () => {
    expect(() => allocate(small(), 'a', { ip6: 'fd00::2' })).toThrow(/network "lab" has no IPv6 subnet/);
    const six = pool([{ subnet: 'fd00::/64', gateway: 'fd00::1' }]);
    expect(() => allocate(six, 'a', { ip: '10.7.0.2' })).toThrow(/network "lab" has no IPv4 subnet/);
    expect(six.leases).toEqual({});
  });

  test('is found in whichever way it is written', () => {
    const network = pool([{ subnet: 'fd00::/64', gateway: 'fd00::1' }]);
    expect(given(network, 'a', { ip6: 'FD00:0::00aB' })).toEqual(['fd00::ab']);
    expect(() => allocate(network, 'b', { ip6: 'fd00::ab' })).toThrow(/container a has it/);
    expect(() => allocate(network, 'b', { ip6: 'fd00:0::1' })).toThrow(/gateway/);
  });

  test('may be the gateway where the host has not got it', () => {
    expect(given(small({ hostAddress: false }), 'router', { ip: '10.7.0.1' })).toEqual(['10.7.0.1']);
  });

  test('of the second range', () => {
    const network = pool([
      { subnet: range, gateway: '10.7.0.1' },
      { subnet: '10.9.0.0/24', gateway: '10.9.0.1' },
    ]);
    expect(allocate(network, 'a', { ip: '10.9.0.77' }).ipv4?.subnet.gateway).toBe('10.9.0.1');
    expect(() => allocate(network, 'b', { ip: '10.8.0.1' })).toThrow(/outside 10\.7\.0\.0\/29 and 10\.9\.0\.0\/24/);
  });
});

test('only its holder gives its addresses back', () => {
  const network = small();
  const [address] = given(network, 'a') as [string];
  expect(release(network, 'b')).toBe(false);
  expect(network.leases).toEqual({ [address]: 'a' });
  expect(release(network, 'a')).toBe(true);
  expect(release(network, 'a')).toBe(false);
  expect(network.leases).toEqual({});
});
