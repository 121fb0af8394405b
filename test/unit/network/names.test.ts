import { describe, expect, test } from 'bun:test';
import type { DaemonCommand, Step } from '../../../src/host/steps.ts';
import type { Endpoint, NetworkDefinition } from '../../../src/network/definition.ts';
import {
  nameLines,
  type NamedNetwork,
  namesDirectory,
  planNames,
  planNameServer,
  planOwnNameServer,
  resolutionOf,
} from '../../../src/network/names.ts';

const network = (change: Partial<NetworkDefinition> = {}): NetworkDefinition => ({
  name: 'lab1',
  id: '5'.repeat(64),
  driver: 'bridge',
  bridge: 'br-lab1',
  subnets: [{ subnet: '10.44.0.0/24', gateway: '10.44.0.1' }],
  routes: [],
  internal: false,
  isolate: true,
  masquerade: true,
  icc: true,
  hostAddress: true,
  created: '',
  labels: {},
  automatic: false,
  ...change,
});
const endpoint = (change: Partial<Endpoint> = {}): Endpoint => ({
  network: 'lab1',
  driver: 'bridge',
  bridge: 'br-lab1',
  ifname: 'eth0',
  hostIfname: 'mr0a2c0002',
  ipv4: { address: '10.44.0.2', prefixLength: 24, gateway: '10.44.0.1' },
  routes: [],
  mac: '02:42:0a:2c:00:02',
  mtu: 1500,
  aliases: [],
  gatewayPriority: 0,
  alone: false,
  ...change,
});
const facts = { dnsmasq: true, portTaken: false, resolvFile: '/etc/resolv.conf' };
const daemonIn = (steps: Step[]) =>
  steps.flatMap((step) => step.apply).find((command): command is DaemonCommand => command.tool === 'daemon');
const locals = (steps: Step[]) => daemonIn(steps)?.argv.find((each) => each.startsWith('--local='));

describe("a network's name server", () => {
  test('answers on its bridge only, and asks the servers of the host', () => {
    const argv = daemonIn(planNameServer(network(), facts))?.argv ?? [];
    expect(argv[0]).toBe('dnsmasq');
    for (const word of ['--interface=br-lab1', '--except-interface=lo', '--resolv-file=/etc/resolv.conf'])
      expect(argv).toContain(word);
    expect(argv).toContain(`--hostsdir=${namesDirectory('lab1')}`);
    // Nothing of the machine's own dnsmasq.
    expect(argv).toContain('--conf-file=/dev/null');
  });

  test('is ended before its directory is deleted', () => {
    const [place, server] = planNameServer(network(), facts);
    expect(server?.undo.map(({ tool }) => tool)).toEqual(['end']);
    expect(place?.undo[0]).toEqual({ tool: 'remove', path: namesDirectory('lab1').replace(/\/hosts$/, '') });
    expect(place?.undo.slice(1).every((command) => command.tool === 'remove' && command.ifEmpty === true)).toBe(true);
  });

  test('is not started where it cannot be; the place for names is there all the same', () => {
    const without = [
      planNameServer(network(), { ...facts, dnsmasq: false }),
      planNameServer(network(), { ...facts, portTaken: true }),
      planNameServer(network({ hostAddress: false }), facts),
      planNameServer(network({ driver: 'macvlan' }), facts),
    ];
    for (const steps of without) expect(steps.map(({ id }) => id)).toEqual(['names.dir']);
  });

  test('of an internal network asks nobody, for anything', () => {
    const argv = daemonIn(planNameServer(network({ internal: true }), facts))?.argv ?? [];
    expect(argv).toContain('--no-resolv');
    expect(argv).toContain('--local=/#/');
    expect(argv.join(' ')).not.toContain('resolv-file');
  });

  test.each([
    ['10.44.0.0/24', '/lab1/0.44.10.in-addr.arpa/'],
    ['10.90.0.0/16', '/lab1/90.10.in-addr.arpa/'],
    ['10.0.0.0/8', '/lab1/10.in-addr.arpa/'],
    [
      '10.44.0.252/30',
      '/lab1/252.0.44.10.in-addr.arpa/253.0.44.10.in-addr.arpa/254.0.44.10.in-addr.arpa/255.0.44.10.in-addr.arpa/',
    ],
    ['172.16.4.0/23', '/lab1/4.16.172.in-addr.arpa/5.16.172.in-addr.arpa/'],
    ['fd44::/64', '/lab1/0.0.0.0.0.0.0.0.0.0.0.0.4.4.d.f.ip6.arpa/'],
    ['fd44:8000::/18', '/lab1/8.4.4.d.f.ip6.arpa/9.4.4.d.f.ip6.arpa/a.4.4.d.f.ip6.arpa/b.4.4.d.f.ip6.arpa/'],
  ])('keeps backward look-ups of %s to itself', (subnet, expected) => {
    const steps = planNameServer(network({ subnets: [{ subnet, gateway: subnet.replace(/\/.*/, '') }] }), facts);
    expect(locals(steps)).toBe(`--local=${expected}`);
  });

  test('does not hide a top-level domain of the same name as the network', () => {
    expect(locals(planNameServer(network({ name: 'dev' }), facts))).toBe('--local=/0.44.10.in-addr.arpa/');
  });
});

describe('the names of a container', () => {
  const container = { id: 'c0ffee'.padEnd(64, '0'), name: 'web', hostname: 'c0ffee000000' };

  test('its name first, each name also with that of the network, each once, for each address', () => {
    const both = endpoint({ aliases: ['www', 'web'], ipv6: { address: 'fd44::2', prefixLength: 64 } });
    const names = 'web c0ffee000000 www web.lab1 c0ffee000000.lab1 www.lab1';
    expect(nameLines(container, both)).toBe(`10.44.0.2 ${names}\nfd44::2 ${names}\n`);
  });

  test('one file in each network, readable for all, deleted in the end', () => {
    const steps = planNames(container, [endpoint(), endpoint({ network: 'lab2' })]);
    const files = steps.flatMap(({ apply }) => apply).filter((command) => command.tool === 'file');
    const paths = ['lab1', 'lab2'].map((name) => `${namesDirectory(name)}/${container.id}`);
    expect(files.map(({ path }) => path)).toEqual(paths);
    for (const { mode } of files) expect(mode).toBe(0o644);
    expect(steps.flatMap(({ undo }) => undo)).toEqual(paths.map((path) => ({ tool: 'remove', path })));
  });
});

describe("a container's own name server", () => {
  const own = (upstream: string[], redirected = false) =>
    planOwnNameServer('web', 'c0ffee', [endpoint(), endpoint({ network: 'dev' })], upstream, redirected);

  test('knows all its networks, leaves port 53 free, and is ended in the end', () => {
    const daemon = daemonIn(own(['192.0.2.1', '192.0.2.2']));
    expect(daemon?.netns).toBe('web');
    for (const name of ['lab1', 'dev']) expect(daemon?.argv).toContain(`--hostsdir=${namesDirectory(name)}`);
    expect(daemon?.argv.filter((each) => each.startsWith('--server'))).toEqual([
      '--server=192.0.2.1',
      '--server=192.0.2.2',
    ]);
    expect(daemon?.argv.find((each) => each.startsWith('--port='))).not.toBe('--port=53');
    expect(own([])[0]?.undo.map(({ tool }) => tool)).toEqual(['end']);
  });

  test('without anybody to ask it says so at once', () => {
    expect(locals(own([]))).toBe('--local=/#/');
  });

  test('queries by UDP and TCP are led to it once', () => {
    const rules = (redirected: boolean) =>
      own([], redirected)
        .flatMap(({ apply }) => apply)
        .flatMap((command) => (command.tool === 'run' ? [command.argv.join(' ')] : []));
    expect(rules(false).map((rule) => /-p (\w+) --dport 53 -j DNAT/.exec(rule)?.[1])).toEqual(['udp', 'tcp']);
    expect(rules(true)).toEqual([]);
  });
});

describe('whom a container asks', () => {
  const one = (change: Partial<NamedNetwork> = {}): NamedNetwork => ({
    network: network(),
    endpoint: endpoint(),
    served: true,
    ...change,
  });
  const other = (change: Partial<Endpoint> = {}): NamedNetwork => ({
    network: network({ name: 'aside', subnets: [{ subnet: '10.45.0.0/24', gateway: '10.45.0.1' }] }),
    endpoint: endpoint({
      network: 'aside',
      ipv4: { address: '10.45.0.2', prefixLength: 24, gateway: '10.45.0.1' },
      ...change,
    }),
    served: true,
  });
  const usable = ['192.0.2.53'];
  const inHostsFile = false;

  test('in one network that network, at the addresses of its own families', () => {
    const dual = network({
      subnets: [
        ...network().subnets,
        { subnet: '10.44.1.0/24', gateway: '10.44.1.1' },
        { subnet: 'fd44::/64', gateway: 'fd44::1' },
      ],
    });
    const ipv6 = { address: 'fd44::2', prefixLength: 64 };
    expect(resolutionOf([one({ network: dual })], [], usable, true).nameservers).toEqual(['10.44.0.1']);
    expect(resolutionOf([one({ network: dual, endpoint: endpoint({ ipv6 }) })], [], usable, true).nameservers).toEqual([
      '10.44.0.1',
      'fd44::1',
    ]);
  });

  test('without a network the servers of --dns, or of the host', () => {
    expect(resolutionOf([], ['192.0.2.9'], usable, true)).toEqual({ nameservers: ['192.0.2.9'], inHostsFile });
    expect(resolutionOf([], [], usable, true)).toEqual({ nameservers: usable, inHostsFile });
  });

  test('in several its own, which asks the network of the default route', () => {
    const nameservers = ['127.0.0.11'];
    expect(resolutionOf([one(), other()], [], usable, true)).toEqual({
      nameservers,
      upstream: ['10.45.0.1'],
      inHostsFile,
    });
    const preferred = one({ endpoint: endpoint({ gatewayPriority: 1 }) });
    expect(resolutionOf([preferred, other()], [], usable, true).upstream).toEqual(['10.44.0.1']);
  });

  test('its own too with --dns, in a macvlan, and where the host or its server is missing', () => {
    const own = (networks: NamedNetwork[], dns: string[] = []) => resolutionOf(networks, dns, usable, true);
    expect(own([one()], ['192.0.2.9']).upstream).toEqual(['192.0.2.9']);
    expect(own([one({ served: false })]).upstream).toEqual(usable);
    expect(own([one({ network: network({ driver: 'macvlan' }), served: false })]).upstream).toEqual(usable);
  });

  test('nobody from internal networks only', () => {
    const internal = one({ network: network({ internal: true }), served: false });
    expect(resolutionOf([internal], [], usable, true).upstream).toEqual([]);
  });

  test('without dnsmasq the names are written to /etc/hosts', () => {
    const unserved = one({ served: false });
    expect(resolutionOf([unserved], [], usable, false)).toEqual({ nameservers: usable, inHostsFile: true });
  });
});
