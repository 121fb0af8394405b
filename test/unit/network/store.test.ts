import { describe, expect, spyOn, test } from 'bun:test';
import fs from 'node:fs';
import { MinirunError } from '../../../src/errors.ts';
import { selfRef } from '../../../src/host/process.ts';
import { parseSubnet } from '../../../src/network/address.ts';
import { defaultPools, type Network } from '../../../src/network/definition.ts';
import * as facts from '../../../src/network/facts.ts';
import {
  changeNetwork,
  defineNetwork,
  freeSubnet,
  freeSubnet6,
  isUp,
  listNetworks,
  newDefaultNetwork,
  readNetwork,
  refuseOverlap,
  requireNetwork,
  subnetOf,
  writeNetwork,
} from '../../../src/network/store.ts';
import { paths } from '../../../src/state/paths.ts';
import { failureOf } from '../../support/failure.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();

/** Documentation addresses (RFC 5737), which no host has a route to. */
const subnet = '203.0.113.0/24';

/** Ranges that no route of this machine overlaps. */
const freePools = () => defaultPools.filter((pool) => facts.overlappingRoute(pool, 'minirun0') === undefined);

/** A network of one range. */
const defined = (name: string, range: string, given: Partial<Network> = {}) =>
  defineNetwork(name, { subnets: [subnetOf(range)], ...given });

describe('a definition', () => {
  test('what is not given: the first address is the gateway, the bridge is named after the id', () => {
    const network = defined('lab', subnet);
    expect(network.subnets).toEqual([{ subnet, gateway: '203.0.113.1' }]);
    expect(network).toMatchObject({
      name: 'lab',
      isolate: true,
      masquerade: true,
      icc: true,
      hostAddress: true,
      automatic: false,
      up: false,
      leases: {},
    });
    expect(network.id).toMatch(/^[0-9a-f]{64}$/);
    expect(network.bridge).toBe(`mr-${network.id.slice(0, 12)}`);
    // IFNAMSIZ is 16 with the terminating zero.
    expect(network.bridge.length).toBeLessThanOrEqual(15);
  });

  test('what is given', () => {
    const subnets = [subnetOf(subnet, '203.0.113.254')];
    const network = defineNetwork('lab', { subnets, bridge: 'br-lab', labels: { a: '1' } });
    expect(network).toMatchObject({ subnets, bridge: 'br-lab', labels: { a: '1' } });
  });

  test("a gateway that is no host's address there is refused", () => {
    expect(() => subnetOf(subnet, '203.0.113.255')).toThrow(/invalid gateway/);
  });

  test('nothing is written', () => {
    defined('lab', subnet);
    expect(fs.readdirSync(paths.networks())).toEqual([]);
  });
});

describe('stored networks', () => {
  test('come back as they were written, in the order of their names, without what else lies there', () => {
    const b = defined('b', '203.0.113.0/25');
    const a = defined('a', '203.0.113.128/25');
    writeNetwork(b);
    writeNetwork(a);
    fs.writeFileSync(`${paths.networks()}/.b.json.1.0`, '{');
    expect(listNetworks()).toEqual([a, b]);
    expect(readNetwork('b')).toEqual(b);
  });

  test('a reboot has taken leases, bridge and rules along; the definition stays', () => {
    const step = { id: 'x', why: '', apply: [], undo: [] };
    const network = {
      ...defined('lab', subnet),
      leases: { '203.0.113.7': 'c' },
      last: { [subnet]: '203.0.113.7' },
      up: true,
    };
    writeNetwork({ ...network, applied: [step], claim: selfRef(), boot: 'an earlier one' });
    expect(readNetwork('lab')).toMatchObject({
      id: network.id,
      subnets: network.subnets,
      leases: {},
      up: false,
      applied: [],
    });
    expect(readNetwork('lab')?.claim).toBeUndefined();
    expect(readNetwork('lab')?.last).toEqual({ [subnet]: '203.0.113.7' });
  });

  test('of minirun 0.3, with its one range, leases and steps', () => {
    const { subnets: _, ...rest } = defined('lab', subnet);
    const applied = [{ id: 'x', why: '', apply: [], undo: [] }];
    const old = {
      ...rest,
      schema: 1,
      subnet,
      gateway: '203.0.113.9',
      leases: { '203.0.113.7': 'c' },
      up: true,
      applied,
    };
    for (const field of ['routes', 'internal', 'isolate', 'masquerade', 'icc', 'hostAddress'])
      delete (old as Record<string, unknown>)[field];
    for (const last of ['203.0.113.7', undefined]) {
      fs.writeFileSync(paths.network('lab'), JSON.stringify({ ...old, last }));
      expect(readNetwork('lab')).toEqual({
        ...rest,
        schema: 2,
        subnets: [{ subnet, gateway: '203.0.113.9' }],
        last: last === undefined ? {} : { [subnet]: last },
        leases: { '203.0.113.7': 'c' },
        up: true,
        applied,
      });
    }
  });

  test('one that was never created', () => {
    expect(readNetwork('lab')).toBeUndefined();
    expect(() => requireNetwork('lab')).toThrow(/no network "lab".*minirun network create lab/);
  });

  test('is not up when somebody has deleted its bridge', () => {
    expect(isUp({ ...defined('lab', subnet, { bridge: 'mr-none' }), up: true })).toBe(false);
    expect(isUp({ ...defined('lab', subnet, { bridge: 'lo' }), up: true })).toBe(true);
    expect(isUp({ ...defined('lab', subnet, { bridge: 'lo' }), up: false })).toBe(false);
  });
});

describe('overlap', () => {
  test.each(['203.0.113.0/24', '203.0.113.64/26', '203.0.0.0/16'])('%s with another network', (range) => {
    writeNetwork(defined('lab', subnet));
    const check = () => refuseOverlap(defined('other', range));
    expect(check).toThrow(/overlaps 203\.0\.113\.0\/24 of network "lab"/);
    expect(check).toThrow(MinirunError);
  });

  test('a network does not overlap itself, nor its neighbour', () => {
    const network = defined('lab', '203.0.113.0/25');
    writeNetwork(network);
    expect(() => refuseOverlap(network)).not.toThrow();
    expect(() => refuseOverlap(defined('other', '203.0.113.128/25'))).not.toThrow();
  });

  test('of the second range, and of IPv6', () => {
    const networkOf = (...ranges: string[]) =>
      defineNetwork('other', { subnets: ranges.map((each) => subnetOf(each)) });
    writeNetwork(defineNetwork('lab', { subnets: [subnetOf(subnet), subnetOf('fd00:20::/64')] }));
    expect(() => refuseOverlap(networkOf('198.51.100.0/24', subnet))).toThrow(/overlaps 203\.0\.113\.0\/24/);
    expect(() => refuseOverlap(networkOf('fd00:20::/48'))).toThrow(/overlaps fd00:20::\/64 of network "lab"/);
    expect(() => refuseOverlap(networkOf('198.51.100.0/24', 'fd00:20:0:1::/64'))).not.toThrow();
  });

  test("with a route of the host, but for that of the network's own bridge", () => {
    const table =
      'Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\nvpn0 007100CB 0 1 0 0 0 00FFFFFF 0 0 0\n';
    const read = fs.readFileSync;
    const spy = spyOn(fs, 'readFileSync').mockImplementation(((file: string, options: never) =>
      file === '/proc/self/net/route' ? table : read(file, options)) as typeof fs.readFileSync);
    try {
      expect(() => refuseOverlap(defined('lab', subnet))).toThrow(/the host's route 203\.0\.113\.0\/24 dev vpn0/);
      expect(() => refuseOverlap(defined('lab', subnet, { bridge: 'vpn0' }))).not.toThrow();
    } finally {
      spy.mockRestore();
    }
  });
});

describe('ranges that minirun chooses', () => {
  test('the default network gets the first pool that nobody has', () => {
    const [first, second] = freePools();
    expect(newDefaultNetwork()).toMatchObject({ name: 'minirun0', bridge: 'minirun0', automatic: true });
    expect(newDefaultNetwork().subnets[0]?.subnet).toBe(first as string);
    writeNetwork(defined('lab', first as string));
    expect(newDefaultNetwork().subnets[0]?.subnet).toBe(second as string);
  });

  test('none left', () => {
    freePools().forEach((pool, index) => writeNetwork(defined(`lab${index}`, pool)));
    expect(() => newDefaultNetwork()).toThrow(/cannot choose a range/);
  });

  test('a further network gets one that no other has', () => {
    const first = freeSubnet();
    writeNetwork(defined('a', first));
    const second = freeSubnet();
    expect(second).not.toBe(first);
    expect(() => refuseOverlap(defined('b', second))).not.toThrow();
  });
});

test('an IPv6 range is a /64 of a random unique local /48, with subnet 0 (RFC 4193)', () => {
  const drawn = Array.from({ length: 20 }, freeSubnet6);
  expect(new Set(drawn).size).toBe(20);
  for (const each of drawn) {
    expect(each).toMatch(/^fd[0-9a-f]{2}:.*::\/64$/);
    const { first } = parseSubnet(each);
    expect(first & ((1n << 80n) - 1n)).toBe(0n);
  }
});

describe('changing a network', () => {
  test('what the change did is stored, and its answer returned', async () => {
    writeNetwork(defined('lab', subnet));
    const answer = await changeNetwork('lab', (network) => {
      network.leases['203.0.113.9'] = 'c';
      return 'done';
    });
    expect(answer).toBe('done');
    expect(readNetwork('lab')?.leases).toEqual({ '203.0.113.9': 'c' });
  });

  test('a change that fails stores nothing', async () => {
    writeNetwork(defined('lab', subnet));
    const change = changeNetwork('lab', (network) => {
      network.leases['203.0.113.9'] = 'c';
      throw new Error('no');
    });
    expect(await failureOf(change)).toBe('no');
    expect(readNetwork('lab')?.leases).toEqual({});
  });

  test('waits while a living process has claimed it; the claim of a dead one is void', async () => {
    const network = defined('lab', subnet);
    writeNetwork({ ...network, claim: selfRef() });
    let changed = false;
    const change = changeNetwork('lab', () => {
      changed = true;
    });
    await Bun.sleep(50);
    expect(changed).toBe(false);
    writeNetwork({ ...network, claim: { ...selfRef(), start: 1 } });
    await change;
    expect(changed).toBe(true);
    expect(readNetwork('lab')?.claim).toBeUndefined();
  });

  test('one that does not exist is made only by who knows how', async () => {
    expect(await failureOf(changeNetwork('lab', () => {}))).toMatch(/no network "lab"/);
    await changeNetwork(
      'lab',
      () => {},
      () => defined('lab', subnet),
    );
    expect(readNetwork('lab')?.subnets[0]?.subnet).toBe(subnet);
  });
});
