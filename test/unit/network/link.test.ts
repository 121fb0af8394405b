import { describe, expect, test } from 'bun:test';
import { commandText } from '../../../src/host/executor.ts';
import type { Step } from '../../../src/host/steps.ts';
import type { KernelInterface } from '../../../src/network/interfaces.ts';
import {
  checkIfname,
  checkLink,
  checkMac,
  inStacks,
  type Link,
  type Place,
  planLink,
} from '../../../src/network/link.ts';

const link = (change: Partial<Link> = {}): Link => ({
  schema: 1,
  name: 'web-db',
  created: '',
  kind: 'veth',
  ends: [
    { container: 'a', netns: 'web', ifname: 'eth1', addresses: ['10.0.1.1/24', 'fd00::1/64'], up: true },
    { container: 'b', netns: 'db', ifname: 'eth2', addresses: ['10.0.2.1/24'], mac: '02:00:00:00:00:02', up: true },
  ],
  mtu: 1400,
  shape: {},
  boot: '',
  applied: [],
  ...change,
});
const host = { ifname: 'veth0', addresses: ['172.18.0.10/12'], up: true };
const nameOf = (id: string) => ({ a: 'web', b: 'db' })[id] as string;
const applied = (steps: readonly Step[]) => steps.flatMap((step) => step.apply).map(commandText);
const undone = (steps: readonly Step[]) =>
  steps
    .toReversed()
    .flatMap((step) => step.undo)
    .map(commandText);

describe('a veth pair', () => {
  test('between two containers is born in their namespaces; both names are tried to delete it', () => {
    const steps = inStacks(planLink(link(), nameOf, true));
    expect(applied(steps)).toEqual([
      'ip link add name eth1 mtu 1400 netns web type veth peer name eth2 mtu 1400 address 02:00:00:00:00:02 netns db',
      'ip -n web addr add 10.0.1.1/24 dev eth1',
      'ip -n web link set dev eth1 up',
      'ip -n web addr add fd00::1/64 dev eth1 nodad',
      'ip -n db addr add 10.0.2.1/24 dev eth2',
      'ip -n db link set dev eth2 up',
    ]);
    expect(undone(steps)).toEqual(['ip -n web link del dev eth1', 'ip -n db link del dev eth2']);
  });

  test('with an end on the host is deleted there, and gives the host no IPv6 that it was not given', () => {
    const steps = planLink(link({ ends: [link().ends[0], host], shape: { rate: 1e6 } }), nameOf, true);
    expect(undone(steps)).toEqual(['ip link del dev veth0']);
    expect(applied(steps).slice(-3)).toEqual([
      'sysctl -qw net.ipv6.conf.veth0.disable_ipv6=1',
      'tc -n web qdisc replace dev eth1 root tbf rate 1mbit burst 5656 latency 50ms',
      'tc qdisc replace dev veth0 root tbf rate 1mbit burst 5656 latency 50ms',
    ]);
  });

  test('an end that is to be down stays down', () => {
    const [a, b] = link().ends;
    expect(applied(planLink(link({ ends: [{ ...a, up: false }, b] }), nameOf, true))).not.toContain(
      'ip -n web link set dev eth1 up',
    );
  });
});

test('an interface of the host goes back with its addresses, its state and its routes, whatever it is called inside', () => {
  const forever = { valid_life_time: 4294967295, preferred_life_time: 4294967295 };
  const card: KernelInterface = {
    ifname: 'enp3s1',
    mtu: 9000,
    address: '52:54:00:00:00:01',
    flags: ['BROADCAST', 'UP'],
    operstate: 'UP',
    addr_info: [
      { family: 'inet', local: '192.0.2.5', prefixlen: 24, broadcast: '192.0.2.255', scope: 'global', ...forever },
      { family: 'inet6', local: '2001:db8::5', prefixlen: 64, scope: 'global', ...forever },
      { family: 'inet6', local: 'fe80::1', prefixlen: 64, scope: 'link', ...forever },
      { family: 'inet6', local: '2001:db8::ab', prefixlen: 64, scope: 'global', protocol: 'kernel_ra', ...forever },
      {
        family: 'inet',
        local: '192.0.2.6',
        prefixlen: 24,
        scope: 'global',
        valid_life_time: 60,
        preferred_life_time: 30,
      },
    ],
  };
  const routes = [
    { dst: 'default', gateway: '192.0.2.1', metric: 50, protocol: 'dhcp', flags: [] },
    { dst: '198.51.100.0/24', scope: 'link', table: '7', prefsrc: '192.0.2.5', flags: [] },
  ];
  const [end] = link().ends;
  const steps = planLink(
    link({
      kind: 'phys',
      ends: [
        { ...end, addresses: ['192.0.2.7/24'] },
        { ifname: 'enp3s1', addresses: [], up: true },
      ],
      mtu: undefined,
    }),
    nameOf,
    true,
    { interface: card, routes },
  );
  expect(applied(steps)).toEqual([
    'ip link property add dev enp3s1 altname minirun-enp3s1',
    'ip link set dev enp3s1 netns web name eth1',
    'ip -n web addr add 192.0.2.7/24 dev eth1',
    'ip -n web link set dev eth1 up',
  ]);
  expect(undone(steps)).toEqual([
    'ip -n web link set dev minirun-enp3s1 netns $$ name enp3s1',
    'ip -n web link set dev eth1 netns $$ name enp3s1',
    'ip link set dev minirun-enp3s1 name enp3s1',
    'ip link property del dev enp3s1 altname minirun-enp3s1',
    'ip link set dev enp3s1 mtu 9000',
    'ip addr replace 192.0.2.5/24 brd 192.0.2.255 dev enp3s1',
    'ip addr replace 2001:db8::5/64 nodad dev enp3s1',
    'ip addr replace 192.0.2.6/24 valid_lft 60 preferred_lft 30 dev enp3s1',
    'ip link set dev enp3s1 up',
    'ip route replace 198.51.100.0/24 table 7 scope link src 192.0.2.5 dev enp3s1',
    'ip route replace default via 192.0.2.1 proto dhcp metric 50 dev enp3s1',
  ]);
});

describe('what would not work', () => {
  const place = (name: string, change: Partial<Place> = {}): Place => ({ name, interfaces: [], routes: [], ...change });
  const check =
    (change: Partial<Link>, places: [Place, Place] = [place('web'), place('db')], force = false) =>
    () =>
      checkLink(link(change), places, force, 'link web:eth1 with db:eth2');
  const ends = (a: Partial<Link['ends'][0]>, b: Partial<Link['ends'][0]>): Partial<Link> => ({
    ends: [
      { ...link().ends[0], ...a },
      { ...link().ends[1], ...b },
    ],
  });

  test('is refused, but with --force where it can be done all the same', () => {
    const taken = place('db', { interfaces: [{ ifname: 'eth2', addresses: [] }] });
    expect(check({}, [place('web'), taken])).toThrow('Choose another name, such as eth0');
    expect(check({}, [place('web'), taken], true)).toThrow('has an interface eth2 already');
    const twice = ends({ addresses: ['10.0.1.1/24'] }, { addresses: ['10.0.1.1/24'] });
    expect(check(twice)).toThrow('both ends would have 10.0.1.1');
    expect(check(twice, undefined, true)).not.toThrow();
    expect(check(ends({ mac: '02:00:00:00:00:0a' }, { mac: '02:00:00:00:00:0A' }))).toThrow('the same MAC');
    const crossing = place('web', { routes: [{ destination: '10.0.0.0/16', dev: 'eth0' }] });
    expect(check({}, [crossing, place('db')])).toThrow(
      '10.0.1.0/24 overlaps the route that container "web" has to 10.0.0.0/16 on eth0',
    );
    expect(check({}, [crossing, place('db')], true)).not.toThrow();
  });

  test('the second cable of the host into one subnet: the reason, and the network that is meant', () => {
    const second = {
      ends: [
        { ...link().ends[0], addresses: ['172.18.0.40/12'] },
        { ifname: 'veth1', addresses: ['172.18.0.30/12'], up: true },
      ] as Link['ends'],
    };
    const there = place('host', { routes: [{ destination: '172.16.0.0/12', dev: 'veth0', owner: 'db-host' }] });
    expect(check(second, [place('web'), there])).toThrow(
      'minirun network create --subnet 172.16.0.0/12 --gateway 172.18.0.30 lab, and then minirun run --network lab --ip 172.18.0.40',
    );
    expect(check(second, [place('web'), place('host')])).not.toThrow();
  });

  test('names and addresses that the kernel would not take', () => {
    for (const name of ['eth1', 'a', 'veth0.100', 'x@y', 'enp3s0f0np0_abc'])
      expect(() => checkIfname(name)).not.toThrow();
    for (const name of ['sixteencharacter', 'a/b', 'a b', 'a:b', '.', '..', 'lo', 'all', '"x"', ''])
      expect(() => checkIfname(name)).toThrow('interface name');
    expect(() => checkMac('02:00:00:00:00:01', '--mac')).not.toThrow();
    for (const mac of ['', '02:00:00:00:00', '01:00:00:00:00:01', '00:00:00:00:00:00', '02-00-00-00-00-01'])
      expect(() => checkMac(mac, '--mac')).toThrow('invalid --mac');
  });
});
