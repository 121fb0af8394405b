import type {
  Topology,
  TopologyContainer,
  TopologyInterface,
  TopologyLink,
  TopologyNetwork,
} from '../../src/network/topology.ts';

/** An interface as a test needs it: `plug('eth0', '10.1.0.2/24', 'front')`. */
export function plug(ifname: string, addresses: string | string[], network?: string): TopologyInterface {
  const mac = '02:42:0a:00:00:02';
  return { ifname, addresses: [addresses].flat(), mac, up: true, ...(network === undefined ? {} : { network }) };
}

export function container(
  name: string,
  interfaces: TopologyInterface[],
  more: Partial<TopologyContainer> = {},
): TopologyContainer {
  return { name, status: 'running', image: 'busybox', interfaces, routes: [], ports: [], router: false, ...more };
}

function network(name: string, subnet: string, gateway: string, more: Partial<TopologyNetwork> = {}): TopologyNetwork {
  return {
    name,
    driver: 'bridge',
    bridge: name,
    subnets: [subnet],
    hostAddresses: [gateway],
    internal: false,
    isolate: true,
    masquerade: true,
    up: true,
    ...more,
  };
}

const host = {
  name: 'lab',
  interfaces: [{ ifname: 'eth0', addresses: ['203.0.113.2/24'], uplink: true }],
  routes: ['default via 203.0.113.1 dev eth0'],
};

export const nothing: Topology = { host, networks: [], containers: [], links: [] };

export const oneContainer: Topology = {
  ...nothing,
  networks: [network('minirun0', '10.90.0.0/16', '10.90.0.1/16')],
  containers: [
    container('web', [plug('eth0', '10.90.0.2/16', 'minirun0')], {
      image: 'nginx:1.27',
      routes: ['default via 10.90.0.1 dev eth0'],
      ports: ['0.0.0.0:8080->80/tcp', '[::]:8080->80/tcp'],
    }),
  ],
};

/** Two networks, a router between them, and a host network, a stopped and a sharing container. */
export const routed: Topology = {
  ...nothing,
  networks: [
    network('front', '10.1.0.0/24', '10.1.0.1/24', { bridge: 'mr-0f3a9c1d2e4b' }),
    network('back', '10.2.0.0/24', '10.2.0.1/24', { bridge: 'mr-7b6c5d4e3f2a', internal: true }),
  ],
  containers: [
    container('db', [plug('eth0', ['10.2.0.3/24', 'fd00:2::3/64'], 'back')], {
      image: 'postgres:17',
      routes: ['10.1.0.0/24 via 10.2.0.2 dev eth0'],
    }),
    container('exporter', [], { image: 'prom/node-exporter', shares: {} }),
    container('old', [{ ...plug('eth0', [], 'front'), up: false }], { status: 'exited' }),
    container('router', [plug('eth0', '10.1.0.2/24', 'front'), plug('eth1', '10.2.0.2/24', 'back')], { router: true }),
    container('sidecar', [], { image: 'debug', shares: { container: 'web' } }),
    container('web', [plug('eth0', '10.1.0.3/24', 'front')], {
      image: 'nginx',
      routes: ['default via 10.1.0.1 dev eth0'],
      ports: ['127.0.0.1:8080->80/tcp'],
    }),
  ],
};

/** r1–r2–r3 by links, the first one also on a network. */
export const chain: Topology = {
  ...nothing,
  networks: [network('lan', '10.1.0.0/24', '10.1.0.1/24')],
  containers: [
    container('r1', [plug('eth0', '10.1.0.2/24', 'lan'), plug('eth1', '10.0.12.1/30')], {
      router: true,
      routes: ['default via 10.1.0.1 dev eth0', '10.0.23.0/30 via 10.0.12.2 dev eth1'],
    }),
    container('r2', [plug('eth1', '10.0.12.2/30'), plug('eth2', '10.0.23.1/30')], { router: true }),
    container('r3', [plug('eth2', '10.0.23.2/30')]),
  ],
  links: [
    {
      ends: [
        { container: 'r1', ifname: 'eth1', addresses: ['10.0.12.1/30'] },
        { container: 'r2', ifname: 'eth1', addresses: ['10.0.12.2/30'] },
      ],
      shaping: 'rate 10mbit',
      up: true,
    },
    {
      ends: [
        { container: 'r2', ifname: 'eth2', addresses: ['10.0.23.1/30'] },
        { container: 'r3', ifname: 'eth2', addresses: ['10.0.23.2/30'] },
      ],
      shaping: '',
      up: false,
    },
  ],
};

const cable = (one: string, from: string, two: string, to: string): TopologyLink => ({
  ends: [
    { container: one, ifname: from, addresses: [] },
    { container: two, ifname: to, addresses: [] },
  ],
  shaping: '',
  up: true,
});

/** A ring of links, and a link to the host. */
export const ring: Topology = {
  ...nothing,
  containers: ['a', 'b', 'c'].map((name) =>
    container(name, [
      plug('left', '10.0.0.1/30'),
      plug('right', '10.0.0.2/30'),
      ...(name === 'c' ? [plug('up0', '172.18.0.20/12')] : []),
    ]),
  ),
  links: [
    cable('a', 'right', 'b', 'left'),
    cable('b', 'right', 'c', 'left'),
    cable('a', 'left', 'c', 'right'),
    {
      ends: [
        { container: 'c', ifname: 'up0', addresses: ['172.18.0.20/12'] },
        { ifname: 'veth9', addresses: ['172.18.0.10/12'] },
      ],
      shaping: '',
      up: true,
    },
  ],
};

export const tenContainers: Topology = {
  ...oneContainer,
  containers: Array.from({ length: 10 }, (_, index) =>
    container(`web${index}`, [plug('eth0', `10.90.0.${index + 2}/16`, 'minirun0')], {
      routes: ['default via 10.90.0.1 dev eth0'],
    }),
  ),
};

/** What a user may have written into names and images, if a check elsewhere failed. */
export const hostile: Topology = {
  ...nothing,
  host: { ...host, name: '"]; evil -- host; x [label="<B>' },
  networks: [network('a"b<c>&]|', '10.1.0.0/24', '10.1.0.1/24')],
  containers: [
    container('x"]\nend\nclick n0 "javascript:alert(1)"', [plug('eth0"|', '10.1.0.2/24', 'a"b<c>&]|')], {
      image: '</TD></TR>\u001b[31m`#quot;{}&amp;',
      ports: ['0.0.0.0:8080->80/tcp'],
    }),
  ],
};

/** A macvlan and an IPv6 network, a container without a network, one in both. */
export const mixed: Topology = {
  ...nothing,
  networks: [
    network('lan', '192.0.2.0/24', '', { driver: 'macvlan', bridge: 'eth0', hostAddresses: [] }),
    network('six', 'fd12:3456:789a::/64', 'fd12:3456:789a::1/64', { up: false }),
  ],
  containers: [
    container('alone', []),
    container('both', [plug('eth0', '192.0.2.9/24', 'lan'), plug('eth1', 'fd12:3456:789a::2/64', 'six')]),
  ],
};
