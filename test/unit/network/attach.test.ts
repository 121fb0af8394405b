import { describe, expect, test } from 'bun:test';
import { ip, ipIn, type Step } from '../../../src/host/steps.ts';
import { endpointOf, hostIfname, inBatches, planAttach, planNamespace } from '../../../src/network/attach.ts';
import { defineNetwork } from '../../../src/network/store.ts';

const network = defineNetwork('minirun0', '10.90.0.0/16');
const endpoint = endpointOf(network, '10.90.0.2', 'eth0', 1450);

const lines = (steps: readonly Step[]) =>
  steps
    .flatMap((step) => step.apply)
    .map((command) => (command.tool === 'ip' ? `${command.netns ?? 'host'}: ${command.args.join(' ')}` : command.tool));

describe('names of interfaces', () => {
  test('fit in the 15 characters of IFNAMSIZ and differ for each address', () => {
    const names = ['10.90.0.2', '10.90.2.0', '1.2.3.4', '255.255.255.255', '0.0.0.1'].map(hostIfname);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^mr[0-9a-f]{8}$/);
  });
});

test("an endpoint has the subnet's prefix, its gateway, and the MAC that its address gives", () => {
  expect(endpoint).toMatchObject({ prefixLength: 16, gateway: '10.90.0.1', mac: '02:42:0a:5a:00:02', mtu: 1450 });
  expect(endpoint.hostIfname).toBe('mr0a5a0002');
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
    expect(lines(steps).slice(1)).toEqual([
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

  test('taken back by deleting the namespace alone, which is much faster than deleting links', () => {
    expect([...planNamespace('web'), ...steps].flatMap((step) => step.undo)).toEqual([ip('netns', 'del', 'web')]);
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
