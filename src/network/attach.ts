import { ip, ipIn, type Step } from '../host/steps.ts';
import { macOf, parseAddress, parseSubnet } from './address.ts';
import { withoutIpv6 } from './bridge.ts';
import type { Endpoint, Network } from './definition.ts';

/** Name of the host's end of a container's veth pair: `mr` and the address in hexadecimal, `mr0a5a0002`. */
export function hostIfname(address: string): string {
  return `mr${parseAddress(address).toString(16).padStart(8, '0')}`;
}

/** The place in the network that an address stands for. */
export function endpointOf(network: Network, address: string, ifname: string, mtu: number): Endpoint {
  return {
    network: network.name,
    bridge: network.bridge,
    ifname,
    hostIfname: hostIfname(address),
    address,
    prefixLength: parseSubnet(network.subnet).prefixLength,
    gateway: network.gateway,
    mac: macOf(address),
    mtu,
  };
}

/** Steps that make a named network namespace with nothing but a loopback interface. */
export function planNamespace(netns: string): Step[] {
  return [
    {
      id: 'netns.add',
      why: `A network namespace is a network stack of its own: interfaces, routes, rules. The name ${netns} lets "ip -n ${netns}" and "ip netns exec ${netns}" find it.`,
      apply: [ip('netns', 'add', netns)],
      undo: [ip('netns', 'del', netns)],
    },
    {
      id: 'lo.up',
      why: 'Even the loopback interface starts down, and without it 127.0.0.1 does not answer.',
      apply: [ipIn(netns, 'link', 'set', 'lo', 'up')],
      undo: [],
    },
  ];
}

/** Steps that wire a namespace to a bridge. Deleting the namespace takes both ends of the pair along. */
export function planAttach(endpoint: Endpoint, netns: string, ipv6: boolean): Step[] {
  const { ifname, hostIfname: host, address, prefixLength, mac, mtu } = endpoint;
  return [
    {
      id: 'veth.add',
      why: `A veth pair is a cable with two plugs: ${host} stays on the host, ${ifname} is born inside ${netns}. Deleting the namespace takes both along.`,
      apply: [
        ip(
          'link',
          'add',
          host,
          'mtu',
          String(mtu),
          'address',
          mac.replace(/^02/, 'fe'),
          'type',
          'veth',
          'peer',
          'name',
          ifname,
          'mtu',
          String(mtu),
          'address',
          mac,
          'netns',
          netns,
        ),
      ],
      undo: [],
    },
    {
      id: 'veth.master',
      why: `Plug the host's end into the bridge.`,
      apply: [ip('link', 'set', host, 'master', endpoint.bridge, 'up')],
      undo: [],
    },
    {
      id: 'container.addr',
      why: `The container's address; the prefix length tells the kernel which neighbours are reached directly.`,
      apply: [
        ipIn(netns, 'addr', 'add', `${address}/${prefixLength}`, 'dev', ifname),
        ipIn(netns, 'link', 'set', ifname, 'up'),
      ],
      undo: [],
    },
    {
      id: 'container.route',
      why: 'Everything else goes to the gateway.',
      apply: [ipIn(netns, 'route', 'add', 'default', 'via', endpoint.gateway, 'dev', ifname)],
      undo: [],
    },
    ...(ipv6
      ? [
          {
            id: 'veth.sysctl',
            why: 'A bridge port needs no addresses of its own.',
            apply: [withoutIpv6(host)],
            undo: [],
          },
        ]
      : []),
  ];
}

/** Orders the steps of a namespace and its attachments so that those of one namespace stand together. */
export function inBatches(steps: readonly Step[]): Step[] {
  const rank = (step: Step) => {
    const first = step.apply[0];
    if (first === undefined || first.tool !== 'ip') return 2;
    return first.netns === undefined ? 0 : 1;
  };
  return [0, 1, 2].flatMap((wanted) => steps.filter((step) => rank(step) === wanted));
}
