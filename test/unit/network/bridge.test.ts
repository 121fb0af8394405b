import { describe, expect, test } from 'bun:test';
import type { HostCommand } from '../../../src/host/steps.ts';
import { planBridge, planBridgeSettings, sysctlName } from '../../../src/network/bridge.ts';
import { defineNetwork, subnetOf } from '../../../src/network/store.ts';

const network = defineNetwork('minirun0', { subnets: [subnetOf('10.90.0.0/16')] });

const line = (command: HostCommand) => (command.tool === 'ip' ? command.args.join(' ') : command.tool);
const applied = (bridgeExists: boolean) =>
  planBridge(network, { bridgeExists, mtu: 1450 }).flatMap((step) => step.apply.map(line));

test('a bridge with a pinned MAC, the gateway address with the subnet prefix, then up', () => {
  expect(applied(false)).toEqual([
    'link add minirun0 address 02:42:0a:5a:00:01 type bridge',
    'link set minirun0 mtu 1450',
    'addr replace 10.90.0.1/16 dev minirun0',
    'link set minirun0 up',
  ]);
});

test('a bridge that exists is set up again, by commands that do not mind what is there', () => {
  expect(applied(true)).toEqual([
    'link set minirun0 mtu 1450',
    'addr replace 10.90.0.1/16 dev minirun0',
    'link set minirun0 up',
  ]);
});

test('deleting the bridge is the whole undo, whoever made it', () => {
  for (const bridgeExists of [true, false]) {
    const undo = planBridge(network, { bridgeExists, mtu: 1500 }).flatMap((step) => step.undo.map(line));
    expect(undo).toEqual(['link del minirun0']);
  }
});

test('settings: IPv6 off only where the kernel has it', () => {
  const keys = (ipv6: boolean) =>
    planBridgeSettings(network, { ipv6 }).apply.flatMap((command) =>
      command.tool === 'sysctl' ? [`${command.key}=${command.value}`] : [],
    );
  const ipv4 = ['net.ipv4.conf.minirun0.route_localnet=1', 'net.ipv4.conf.minirun0.rp_filter=2'];
  expect(keys(false)).toEqual(ipv4);
  expect(keys(true)).toEqual([...ipv4, 'net.ipv6.conf.minirun0.disable_ipv6=1']);
});

describe('what else a bridge may be like', () => {
  const dual = defineNetwork('lab', {
    bridge: 'br-lab',
    subnets: [subnetOf('10.7.0.0/24'), subnetOf('fd00:7::/64', 'fd00:7::fe')],
    mtu: 1300,
  });
  const commands = (given: typeof dual) =>
    planBridge(given, { bridgeExists: false, mtu: 1450 }).flatMap((step) => step.apply.map(line));

  test('an address of each range, without waiting for another that has it; an MTU of its own', () => {
    expect(commands(dual)).toEqual([
      'link add br-lab address 02:42:0a:07:00:01 type bridge',
      'link set br-lab mtu 1300',
      'addr replace 10.7.0.1/24 dev br-lab',
      'addr replace fd00:7::fe/64 dev br-lab nodad',
      'link set br-lab addrgenmode none',
      'addr replace fe80::42:aff:fe07:1/64 dev br-lab nodad',
      'link set br-lab up',
      expect.stringMatching(/^route replace local ::1 dev br-lab table local metric \d+$/),
    ]);
  });

  test('::1 is found there too where the host can be reached from it, with a metric for each range', () => {
    const routes = (given: typeof dual) => commands(given).filter((text) => text.startsWith('route'));
    expect(routes({ ...dual, hostAddress: false })).toEqual([]);
    expect(routes({ ...dual, internal: true })).toEqual([]);
    expect(routes({ ...dual, subnets: [subnetOf('10.7.0.0/24')] })).toEqual([]);
    const other = { ...dual, subnets: [subnetOf('fd00:8::/64')] };
    expect(routes(other)).toHaveLength(1);
    expect(routes(other)).not.toEqual(routes(dual));
  });

  test('no address when a container is to be the gateway', () => {
    const bare = commands({ ...dual, hostAddress: false });
    expect(bare.filter((text) => text.startsWith('addr'))).toEqual([]);
    // Nor the MAC that goes with it, or the bridge would take the frames to that container for its own.
    expect(bare[0]).toMatch(/^link add br-lab address 02:42:/);
    expect(bare[0]).not.toContain('02:42:0a:07:00:01');
  });

  test('IPv6 on only when the host has an address there, and then it believes no router', () => {
    const keys = (given: typeof dual) =>
      planBridgeSettings(given, { ipv6: true }).apply.flatMap((command) =>
        command.tool === 'sysctl' && command.key.includes('ipv6') ? [`${command.key}=${command.value}`] : [],
      );
    expect(keys(dual)).toEqual(['net.ipv6.conf.br-lab.accept_ra=0']);
    expect(keys({ ...dual, hostAddress: false })).toEqual(['net.ipv6.conf.br-lab.disable_ipv6=1']);
  });

  test('a dot in the name of an interface is a slash in the key of a sysctl', () => {
    expect(sysctlName('br.lab')).toBe('br/lab');
  });
});
