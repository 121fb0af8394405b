import { ip, type IpCommand, ipIn, type Step } from '../host/steps.ts';
import { blockOf, contains, hostIfnameOf, macOf, parseAddress, parseSubnet } from './address.ts';
import { planLinkLocal, sysctlName, withoutIpv6 } from './bridge.ts';
import type { Attachment, Endpoint, InterfaceAddress, Network } from './definition.ts';
import type { Allocated } from './ipam.ts';

/** The place in the network that addresses stand for. */
export function endpointOf(
  network: Network,
  allocated: { ipv4?: Allocated; ipv6?: Allocated },
  attachment: Attachment,
  ifname: string,
  mtu: number,
): Endpoint {
  const main = (allocated.ipv4 ?? allocated.ipv6) as Allocated;
  return {
    network: network.name,
    driver: network.driver,
    bridge: network.bridge,
    ifname,
    hostIfname: network.driver === 'bridge' ? hostIfnameOf(main.address) : '',
    ...(allocated.ipv4 === undefined ? {} : { ipv4: interfaceAddress(network, allocated.ipv4) }),
    ...(allocated.ipv6 === undefined ? {} : { ipv6: interfaceAddress(network, allocated.ipv6) }),
    routes: network.routes,
    mac: attachment.mac ?? macOf(main.address),
    mtu: network.mtu ?? mtu,
    aliases: attachment.aliases,
    gatewayPriority: attachment.gatewayPriority,
    alone: !network.icc,
  };
}

function interfaceAddress(
  { internal }: Network,
  { address, subnet: { subnet, gateway } }: Allocated,
): InterfaceAddress {
  const { prefixLength } = parseSubnet(subnet);
  return internal || gateway === address ? { address, prefixLength } : { address, prefixLength, gateway };
}

/** The addresses of an endpoint, IPv4 first. */
export function addressesOf({ ipv4, ipv6 }: Pick<Endpoint, 'ipv4' | 'ipv6'>): InterfaceAddress[] {
  return [ipv4, ipv6].filter((each) => each !== undefined);
}

/** The order of a container's interfaces: by priority, then by name of the network, as compose has it. Pure. */
export function inOrder<T extends { network: string; gatewayPriority: number }>(attachments: readonly T[]): T[] {
  return attachments.toSorted(
    (a, b) => b.gatewayPriority - a.gatewayPriority || (a.network < b.network ? -1 : a.network > b.network ? 1 : 0),
  );
}

/** Names for interfaces that were given none: the next `ethN` that is free. */
export function nextIfname(taken: readonly string[]): string {
  for (let number = 0; ; number++) if (!taken.includes(`eth${number}`)) return `eth${number}`;
}

/** The endpoint through which the default route of a family goes: the first that has a gateway. */
export function gatewayEndpoint(endpoints: readonly Endpoint[], family: 'ipv4' | 'ipv6'): Endpoint | undefined {
  return inOrder(endpoints).find((endpoint) => endpoint[family]?.gateway !== undefined);
}

/**
 * Steps that make a named network namespace with nothing but a loopback interface.
 *
 * @param holder pid of a process whose namespace is to get the name, where there is one already
 */
export function planNamespace(netns: string, holder?: string): Step[] {
  return [
    {
      id: 'netns.add',
      why: `A network namespace is a network stack of its own: interfaces, routes, rules. The name ${netns} lets "ip -n ${netns}" and "ip netns exec ${netns}" find it.${holder === undefined ? '' : ' This one was made in the user namespace, whose root may change it.'}`,
      apply: [holder === undefined ? ip('netns', 'add', netns) : ip('netns', 'attach', netns, holder)],
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

/** Steps that wire a namespace to a network. Deleting the namespace takes both ends of a pair along. */
export function planAttach(endpoint: Endpoint, netns: string, ipv6: boolean): Step[] {
  const { ifname } = endpoint;
  return [
    ...(endpoint.driver === 'macvlan' ? planMacvlan(endpoint, netns) : planVeth(endpoint, netns)),
    ...(endpoint.ipv6 === undefined ? [] : [planWithoutAdvertisements(ifname, netns)]),
    {
      id: 'container.addr',
      why: `The container's address; the prefix length tells the kernel which neighbours are reached directly.`,
      apply: [
        ...addressesOf(endpoint).map(({ address, prefixLength }) =>
          // An address is nobody else's, minirun sees to it: the kernel need not ask around for a second (nodad).
          ipIn(
            netns,
            'addr',
            'add',
            `${address}/${prefixLength}`,
            'dev',
            ifname,
            ...(address.includes(':') ? ['nodad'] : []),
          ),
        ),
        ...(endpoint.ipv6 === undefined ? [] : planLinkLocal(ifname, endpoint.mac, netns)),
        ipIn(netns, 'link', 'set', ifname, 'up'),
      ],
      undo: [],
    },
    ...(endpoint.routes.length === 0
      ? []
      : [
          {
            id: 'container.routes',
            why: `Routes that every container of network ${endpoint.network} has.`,
            apply: endpoint.routes.flatMap((route) => routeThere(endpoint, netns, route)),
            undo: [],
          },
        ]),
    ...(ipv6 && endpoint.hostIfname !== ''
      ? [
          {
            id: 'veth.sysctl',
            why: 'A bridge port needs no addresses of its own.',
            apply: [withoutIpv6(endpoint.hostIfname)],
            undo: [],
          },
        ]
      : []),
  ];
}

/**
 * Before the interface is up: any neighbour can send router advertisements, and would get the container's traffic
 * (CVE-2020-13401). Its addresses and routes are minirun's to give.
 */
function planWithoutAdvertisements(ifname: string, netns: string): Step {
  return {
    id: 'container.accept_ra',
    why: 'Any neighbour can advertise itself as an IPv6 router. The container has its routes from minirun and listens to none.',
    apply: [{ tool: 'sysctl', netns, key: `net.ipv6.conf.${sysctlName(ifname)}.accept_ra`, value: '0' }],
    undo: [],
  };
}

/** A route of the network, unless the container is itself the gateway or has no address of that family. */
function routeThere(
  endpoint: Endpoint,
  netns: string,
  { destination, gateway }: Endpoint['routes'][number],
): IpCommand[] {
  const own = gateway.includes(':') ? endpoint.ipv6 : endpoint.ipv4;
  if (own === undefined || own.address === gateway) return [];
  const range = blockOf(parseAddress(own.address), own.prefixLength);
  // Of another range of the network: on the same bridge all the same, which the kernel has to be told.
  const onlink = contains(range, parseAddress(gateway)) ? [] : ['onlink'];
  return [ipIn(netns, 'route', 'add', destination, 'via', gateway, 'dev', endpoint.ifname, ...onlink)];
}

function planVeth(endpoint: Endpoint, netns: string): Step[] {
  const { ifname, hostIfname: host, mac, mtu } = endpoint;
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
          hostMac(mac),
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
    ...planPort(endpoint),
  ];
}

/** Steps that plug the host's end of a pair into the bridge. What it was plugged into before does not matter. */
export function planPort({ hostIfname: host, bridge, alone }: Endpoint): Step[] {
  return [
    {
      id: 'veth.master',
      why: `Plug the host's end into the bridge.`,
      apply: [ip('link', 'set', host, 'master', bridge, 'up')],
      undo: [],
    },
    ...(alone
      ? [
          {
            id: 'veth.isolated',
            why: 'This network keeps its containers apart: isolated ports of a bridge do not speak to each other.',
            apply: [ip('link', 'set', host, 'type', 'bridge_slave', 'isolated', 'on')],
            undo: [],
          },
        ]
      : []),
  ];
}

/** A MAC for the host's end that differs from the container's and is higher than the bridge's. */
function hostMac(mac: string): string {
  return mac.startsWith('fe') ? mac.replace(/^fe/, 'ee') : mac.replace(/^../, 'fe');
}

function planMacvlan({ ifname, bridge, mac, mtu }: Endpoint, netns: string): Step[] {
  return [
    {
      id: 'macvlan.add',
      why: `A macvlan is a further network card on the wire of ${bridge}, with a MAC of its own; ${ifname} is born inside ${netns}. Deleting the namespace takes it along.`,
      apply: [
        ip(
          'link',
          'add',
          'link',
          bridge,
          'name',
          ifname,
          'mtu',
          String(mtu),
          'address',
          mac,
          'netns',
          netns,
          'type',
          'macvlan',
          'mode',
          'bridge',
        ),
      ],
      undo: [],
    },
  ];
}

/**
 * The default routes of a container, one of each family at most.
 *
 * @param before its endpoints until now, when it runs already: a route stays as it is when it leads where it did
 */
export function planDefaultRoutes(endpoints: readonly Endpoint[], netns: string, before?: readonly Endpoint[]): Step[] {
  const families = (['ipv4', 'ipv6'] as const).flatMap((family) => {
    const endpoint = gatewayEndpoint(endpoints, family);
    const gateway = endpoint?.[family]?.gateway;
    const same = before !== undefined && gatewayEndpoint(before, family)?.network === endpoint?.network;
    return endpoint === undefined || gateway === undefined || same ? [] : [{ ifname: endpoint.ifname, gateway }];
  });
  if (families.length === 0) return [];
  return [
    {
      id: 'container.route',
      why: 'Everything else goes to the gateway.',
      apply: families.map(({ ifname, gateway }) =>
        // `replace`: another network may have had it until now.
        ipIn(netns, 'route', before === undefined ? 'add' : 'replace', 'default', 'via', gateway, 'dev', ifname),
      ),
      undo: [],
    },
  ];
}

/** Orders the steps of a namespace and its attachments so that those of one namespace stand together. */
export function inBatches(steps: readonly Step[]): Step[] {
  return [0, 1, 2].flatMap((wanted) => steps.filter((step) => rank(step) === wanted));
}

/** Whether a step is an `ip` command on the host: those come first. */
export function isHostIp(step: Step): boolean {
  return rank(step) === 0;
}

function rank({ apply: [first] }: Step): number {
  if (first === undefined || first.tool !== 'ip') return 2;
  return first.netns === undefined ? 0 : 1;
}
