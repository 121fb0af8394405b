import { describe, expect, test } from 'bun:test';
import { ip, ipIn, type Step } from '../../../src/host/steps.ts';
import {
  endpointOf,
  gatewayEndpoint,
  inBatches,
  inOrder,
  nextIfname,
  planAttach,
  planDefaultRoutes,
  planNamespace,
} from '../../../src/network/attach.ts';
import { linkLocalOf } from '../../../src/network/address.ts';
import type { Attachment, Endpoint, Network } from '../../../src/network/definition.ts';
import { allocate } from '../../../src/network/ipam.ts';
import { defineNetwork, subnetOf } from '../../../src/network/store.ts';

const networkOf = (name: string, ranges: string[], given: Partial<Network> = {}) =>
  defineNetwork(name, { bridge: name, subnets: ranges.map((range) => subnetOf(range)), ...given });

/** The first container of a network. */
const endpointIn = (network: Network, wanted: Partial<Attachment> = {}, ifname = 'eth0') => {
  const attachment: Attachment = { network: network.name, aliases: [], gatewayPriority: 0, ...wanted };
  return endpointOf(network, allocate(network, 'c', attachment), attachment, ifname, 1450);
};
const endpoint = endpointIn(networkOf('minirun0', ['10.90.0.0/16']));
const dual = () => networkOf('lab', ['10.7.0.0/24', 'fd00:7::/64']);

const lines = (steps: readonly Step[]) =>
  steps
    .flatMap((step) => step.apply)
    .map((command) => (command.tool === 'ip' ? `${command.netns ?? 'host'}: ${command.args.join(' ')}` : command.tool));

test("an endpoint has the subnet's prefix, its gateway, and the MAC that its address gives", () => {
  expect(endpoint).toMatchObject({ mac: '02:42:0a:5a:00:02', mtu: 1450, alone: false });
  expect(endpoint.ipv4).toEqual({ address: '10.90.0.2', prefixLength: 16, gateway: '10.90.0.1' });
  expect(endpoint.ipv6).toBeUndefined();
  expect(endpoint.hostIfname).toBe('mr0a5a0002');
});

test('what a network and an attachment say of it', () => {
  expect(endpointIn({ ...dual(), mtu: 1300, icc: false }, { mac: '02:00:00:00:00:07' })).toMatchObject({
    ipv4: { address: '10.7.0.2', gateway: '10.7.0.1' },
    ipv6: { address: 'fd00:7::2', prefixLength: 64, gateway: 'fd00:7::1' },
    mac: '02:00:00:00:00:07',
    mtu: 1300,
    alone: true,
  });
});

test('no gateway in an internal network, nor for the container that is the gateway', () => {
  const internal = endpointIn({ ...dual(), internal: true });
  expect([internal.ipv4?.gateway, internal.ipv6?.gateway]).toEqual([undefined, undefined]);
  const router = endpointIn({ ...dual(), hostAddress: false }, { ip: '10.7.0.1' });
  expect(router.ipv4).toEqual({ address: '10.7.0.1', prefixLength: 24 });
  expect(router.ipv6?.gateway).toBe('fd00:7::1');
  expect(planDefaultRoutes([internal], 'web')).toEqual([]);
});

test('a network of IPv6 only', () => {
  const six = endpointIn(networkOf('six', ['fd00:7::/64']));
  expect(six.ipv4).toBeUndefined();
  expect(six.hostIfname).toMatch(/^mr6[0-9a-f]{12}$/);
  const steps = planAttach(six, 'web', false);
  // Before the interface is up: a neighbour's advertisement must not come first (CVE-2020-13401).
  expect(steps.findIndex(({ id }) => id === 'container.accept_ra')).toBe(
    steps.findIndex(({ id }) => id === 'container.addr') - 1,
  );
  expect(lines(steps.filter(({ id }) => id !== 'container.accept_ra')).slice(2)).toEqual([
    'web: addr add fd00:7::2/64 dev eth0 nodad',
    'web: link set eth0 addrgenmode none',
    `web: addr replace ${linkLocalOf(six.mac)}/64 dev eth0 nodad`,
    'web: link set eth0 up',
  ]);
});

describe('attaching', () => {
  const steps = planAttach(endpoint, 'web', false);

  test('the peer is born in the namespace under its final name, with MAC and MTU', () => {
    expect(lines(steps)[0]).toBe(
      'host: link add mr0a5a0002 mtu 1450 address fe:42:0a:5a:00:02 type veth ' +
        'peer name eth0 mtu 1450 address 02:42:0a:5a:00:02 netns web',
    );
  });

  test('port of the bridge, then address, up, default route', () => {
    expect(lines([...steps, ...planDefaultRoutes([endpoint], 'web')]).slice(1)).toEqual([
      'host: link set mr0a5a0002 master minirun0 up',
      'web: addr add 10.90.0.2/16 dev eth0',
      'web: link set eth0 up',
      'web: route add default via 10.90.0.1 dev eth0',
    ]);
  });

  test('no IPv6 on the port where the kernel has IPv6', () => {
    const last = planAttach(endpoint, 'web', true).at(-1);
    expect(last?.apply).toEqual([{ tool: 'sysctl', key: 'net.ipv6.conf.mr0a5a0002.disable_ipv6', value: '1' }]);
  });

  test('an isolated port, where containers are kept apart', () => {
    const alone = lines(planAttach({ ...endpoint, alone: true }, 'web', false));
    expect(alone).toContain('host: link set mr0a5a0002 type bridge_slave isolated on');
    expect(lines(steps).join()).not.toContain('isolated');
  });

  test('the routes of the network, but not to oneself and not of a family one has not', () => {
    const routes = [
      { destination: '10.9.0.0/24', gateway: '10.90.0.2' },
      { destination: '10.10.0.0/24', gateway: '10.90.0.3' },
      { destination: 'fd01::/64', gateway: 'fd00::1' },
    ];
    const added = lines(planAttach({ ...endpoint, routes }, 'web', false)).filter((text) => text.includes('route'));
    expect(added).toEqual(['web: route add 10.10.0.0/24 via 10.90.0.3 dev eth0']);
    const far = lines(
      planAttach({ ...endpoint, routes: [{ destination: '10.9.0.0/24', gateway: '10.91.0.3' }] }, 'web', false),
    );
    expect(far).toContain('web: route add 10.9.0.0/24 via 10.91.0.3 dev eth0 onlink');
  });

  test('a macvlan is on the wire itself: no port, nothing of the host', () => {
    const wired = endpointIn(networkOf('wire', ['10.7.0.0/24'], { driver: 'macvlan', bridge: 'enp3s0' }));
    expect(wired.hostIfname).toBe('');
    expect(lines(planAttach(wired, 'web', true))).toEqual([
      'host: link add link enp3s0 name eth0 mtu 1450 address 02:42:0a:07:00:02 netns web type macvlan mode bridge',
      'web: addr add 10.7.0.2/24 dev eth0',
      'web: link set eth0 up',
    ]);
  });

  test('taken back by deleting the namespace alone, which is much faster than deleting links', () => {
    expect([...planNamespace('web'), ...steps].flatMap((step) => step.undo)).toEqual([ip('netns', 'del', 'web')]);
  });
});

describe('several networks', () => {
  const a = endpointIn(networkOf('net.a', ['10.1.0.0/24']), {}, 'eth0');
  const b = endpointIn(networkOf('net', ['10.2.0.0/24', 'fd00:2::/64']), {}, 'eth1');
  const inner = endpointIn(networkOf('inner', ['10.3.0.0/24'], { internal: true }), { gatewayPriority: 9 }, 'eth2');

  test('by priority, then by name', () => {
    expect(inOrder([a, b, inner]).map(({ network }) => network)).toEqual(['inner', 'net', 'net.a']);
    expect(inOrder([a, { ...b, gatewayPriority: -1 }]).map(({ network }) => network)).toEqual(['net.a', 'net']);
  });

  test('the default route of each family goes through the first that has a gateway', () => {
    expect(gatewayEndpoint([a, b, inner], 'ipv4')).toBe(b);
    expect(gatewayEndpoint([{ ...a, gatewayPriority: 1 }, b, inner], 'ipv4')?.network).toBe('net.a');
    expect(gatewayEndpoint([a, inner], 'ipv6')).toBeUndefined();
    expect(lines(planDefaultRoutes([{ ...a, gatewayPriority: 1 }, b, inner], 'web'))).toEqual([
      'web: route add default via 10.1.0.1 dev eth0',
      'web: route add default via fd00:2::1 dev eth1',
    ]);
  });

  test('of a running container, only those default routes change that lead elsewhere now', () => {
    const changed = (after: Endpoint[], before: Endpoint[]) => lines(planDefaultRoutes(after, 'web', before));
    expect(changed([a, b], [a])).toEqual([
      'web: route replace default via 10.2.0.1 dev eth1',
      'web: route replace default via fd00:2::1 dev eth1',
    ]);
    expect(changed([a], [a, b])).toEqual(['web: route replace default via 10.1.0.1 dev eth0']);
    expect(changed([b], [a, b])).toEqual([]);
    expect(changed([b, inner], [b])).toEqual([]);
    expect(changed([], [b])).toEqual([]);
  });

  test('names of interfaces: the next one that is free', () => {
    expect(nextIfname([])).toBe('eth0');
    expect(nextIfname(['eth0', 'lan', 'eth2'])).toBe('eth1');
  });
});

test('a namespace starts with its loopback up', () => {
  expect(lines(planNamespace('web'))).toEqual(['host: netns add web', 'web: link set lo up']);
});

test('steps are sorted by namespace, host first, files last, and keep their order otherwise', () => {
  const step = (id: string, ...apply: Step['apply']): Step => ({ id, why: '', apply, undo: [] });
  const sorted = inBatches([
    step('sysctl', { tool: 'sysctl', key: 'a', value: '1' }),
    step('web1', ipIn('web', 'a')),
    step('host1', ip('a')),
    step('web2', ipIn('web', 'b')),
    step('host2', ip('b')),
    step('nothing'),
  ]);
  expect(sorted.map(({ id }) => id)).toEqual(['host1', 'host2', 'web1', 'web2', 'sysctl', 'nothing']);
});
