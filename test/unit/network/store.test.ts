import { describe, expect, spyOn, test } from 'bun:test';
import fs from 'node:fs';
import { MinirunError } from '../../../src/errors.ts';
import { selfRef } from '../../../src/host/process.ts';
import { defaultPools } from '../../../src/network/definition.ts';
import * as facts from '../../../src/network/facts.ts';
import {
  changeNetwork,
  defineNetwork,
  freeSubnet,
  isUp,
  listNetworks,
  newDefaultNetwork,
  readNetwork,
  refuseOverlap,
  requireNetwork,
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

describe('a definition', () => {
  test('what is not given: the first address is the gateway, the bridge is named after the id', () => {
    const network = defineNetwork('lab', subnet);
    expect(network).toMatchObject({ name: 'lab', gateway: '203.0.113.1', automatic: false, up: false, leases: {} });
    expect(network.id).toMatch(/^[0-9a-f]{64}$/);
    expect(network.bridge).toBe(`mr-${network.id.slice(0, 12)}`);
    // IFNAMSIZ is 16 with the terminating zero.
    expect(network.bridge.length).toBeLessThanOrEqual(15);
  });

  test('what is given', () => {
    const network = defineNetwork('lab', subnet, { gateway: '203.0.113.254', bridge: 'br-lab', labels: { a: '1' } });
    expect(network).toMatchObject({ gateway: '203.0.113.254', bridge: 'br-lab', labels: { a: '1' } });
  });

  test("a gateway that is no host's address there is refused", () => {
    expect(() => defineNetwork('lab', subnet, { gateway: '203.0.113.255' })).toThrow(/invalid gateway/);
  });

  test('nothing is written', () => {
    defineNetwork('lab', subnet);
    expect(fs.readdirSync(paths.networks())).toEqual([]);
  });
});

describe('stored networks', () => {
  test('come back as they were written, in the order of their names, without what else lies there', () => {
    const b = defineNetwork('b', '203.0.113.0/25');
    const a = defineNetwork('a', '203.0.113.128/25');
    writeNetwork(b);
    writeNetwork(a);
    fs.writeFileSync(`${paths.networks()}/.b.json.1.0`, '{');
    expect(listNetworks()).toEqual([a, b]);
    expect(readNetwork('b')).toEqual(b);
  });

  test('a reboot has taken leases, bridge and rules along; the definition stays', () => {
    const step = { id: 'x', why: '', apply: [], undo: [] };
    const network = { ...defineNetwork('lab', subnet), leases: { '203.0.113.7': 'c' }, last: '203.0.113.7', up: true };
    writeNetwork({ ...network, applied: [step], claim: selfRef(), boot: 'an earlier one' });
    expect(readNetwork('lab')).toMatchObject({ id: network.id, subnet, leases: {}, up: false, applied: [] });
    expect(readNetwork('lab')?.claim).toBeUndefined();
    expect(readNetwork('lab')?.last).toBe('203.0.113.7');
  });

  test('one that was never created', () => {
    expect(readNetwork('lab')).toBeUndefined();
    expect(() => requireNetwork('lab')).toThrow(/no network "lab".*minirun network create lab/);
  });

  test('is not up when somebody has deleted its bridge', () => {
    expect(isUp({ ...defineNetwork('lab', subnet, { bridge: 'mr-none' }), up: true })).toBe(false);
    expect(isUp({ ...defineNetwork('lab', subnet, { bridge: 'lo' }), up: true })).toBe(true);
    expect(isUp({ ...defineNetwork('lab', subnet, { bridge: 'lo' }), up: false })).toBe(false);
  });
});

describe('overlap', () => {
  test.each(['203.0.113.0/24', '203.0.113.64/26', '203.0.0.0/16'])('%s with another network', (range) => {
    writeNetwork(defineNetwork('lab', subnet));
    const check = () => refuseOverlap(defineNetwork('other', range));
    expect(check).toThrow(/overlaps 203\.0\.113\.0\/24 of network "lab"/);
    expect(check).toThrow(MinirunError);
  });

  test('a network does not overlap itself, nor its neighbour', () => {
    const network = defineNetwork('lab', '203.0.113.0/25');
    writeNetwork(network);
    expect(() => refuseOverlap(network)).not.toThrow();
    expect(() => refuseOverlap(defineNetwork('other', '203.0.113.128/25'))).not.toThrow();
  });

  test("with a route of the host, but for that of the network's own bridge", () => {
    const table =
      'Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\nvpn0 007100CB 0 1 0 0 0 00FFFFFF 0 0 0\n';
    const read = fs.readFileSync;
    const spy = spyOn(fs, 'readFileSync').mockImplementation(((file: string, options: never) =>
      file === '/proc/self/net/route' ? table : read(file, options)) as typeof fs.readFileSync);
    try {
      expect(() => refuseOverlap(defineNetwork('lab', subnet))).toThrow(/the host's route 203\.0\.113\.0\/24 dev vpn0/);
      expect(() => refuseOverlap(defineNetwork('lab', subnet, { bridge: 'vpn0' }))).not.toThrow();
    } finally {
      spy.mockRestore();
    }
  });
});

describe('ranges that minirun chooses', () => {
  test('the default network gets the first pool that nobody has', () => {
    const [first, second] = freePools();
    expect(newDefaultNetwork()).toMatchObject({ name: 'minirun0', bridge: 'minirun0', subnet: first, automatic: true });
    writeNetwork(defineNetwork('lab', first as string));
    expect(newDefaultNetwork().subnet).toBe(second as string);
  });

  test('none left', () => {
    freePools().forEach((pool, index) => writeNetwork(defineNetwork(`lab${index}`, pool)));
    expect(() => newDefaultNetwork()).toThrow(/cannot choose a range/);
  });

  test('a further network gets one that no other has', () => {
    const first = freeSubnet();
    writeNetwork(defineNetwork('a', first));
    const second = freeSubnet();
    expect(second).not.toBe(first);
    expect(() => refuseOverlap(defineNetwork('b', second))).not.toThrow();
  });
});

describe('changing a network', () => {
  test('what the change did is stored, and its answer returned', async () => {
    writeNetwork(defineNetwork('lab', subnet));
    const answer = await changeNetwork('lab', (network) => {
      network.leases['203.0.113.9'] = 'c';
      return 'done';
    });
    expect(answer).toBe('done');
    expect(readNetwork('lab')?.leases).toEqual({ '203.0.113.9': 'c' });
  });

  test('a change that fails stores nothing', async () => {
    writeNetwork(defineNetwork('lab', subnet));
    const change = changeNetwork('lab', (network) => {
      network.leases['203.0.113.9'] = 'c';
      throw new Error('no');
    });
    expect(await failureOf(change)).toBe('no');
    expect(readNetwork('lab')?.leases).toEqual({});
  });

  test('waits while a living process has claimed it; the claim of a dead one is void', async () => {
    const network = defineNetwork('lab', subnet);
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
      () => defineNetwork('lab', subnet),
    );
    expect(readNetwork('lab')?.subnet).toBe(subnet);
  });
});
