import { sha256 } from '../host/sha256.ts';
import { ip, type IpCommand, ipIn, type Step, type SysctlCommand } from '../host/steps.ts';
import { linkLocalOf, macOf, parseSubnet } from './address.ts';
import type { NetworkDefinition, Subnet } from './definition.ts';
import type { NetworkFacts } from './facts.ts';

/** Steps that make the network's bridge with the gateway addresses. */
export function planBridge(network: NetworkDefinition, facts: Pick<NetworkFacts, 'bridgeExists' | 'mtu'>): Step[] {
  const { bridge, subnets, hostAddress, id } = network;
  // A container that has the gateway's address has the MAC that goes with it.
  const mac = macOf(hostAddress ? (subnets[0] as Subnet).gateway : id);
  return [
    {
      id: 'bridge.add',
      why: `A bridge is a switch inside the kernel. ${bridge} will join the containers of network ${network.name}; its MAC is pinned, otherwise it would change with its ports.`,
      apply: [
        ...(facts.bridgeExists ? [] : [ip('link', 'add', bridge, 'address', mac, 'type', 'bridge')]),
        ip('link', 'set', bridge, 'mtu', String(network.mtu ?? facts.mtu)),
      ],
      undo: [ip('link', 'del', bridge)],
    },
    ...(network.hostAddress
      ? [
          {
            id: 'bridge.addr',
            why: `The host's own address on the bridge; it is the containers' gateway. Deleting the bridge deletes it.`,
            apply: [
              ...subnets.map(({ subnet, gateway }) => {
                const { family, prefixLength } = parseSubnet(subnet);
                // Nobody else can have it: no need to ask around for a second before it may be used.
                return ip(
                  'addr',
                  'replace',
                  `${gateway}/${prefixLength}`,
                  'dev',
                  bridge,
                  ...(family === 6 ? ['nodad'] : []),
                );
              }),
              ...(wantsIpv6(network) ? planLinkLocal(bridge, mac) : []),
            ],
            undo: [],
          },
        ]
      : []),
    {
      id: 'bridge.up',
      why: 'An interface passes nothing until it is up.',
      apply: [ip('link', 'set', bridge, 'up')],
      undo: [],
    },
    ...planLoopback(network),
  ];
}

/**
 * IPv6 has no `route_localnet`. An answer to `::1` whose translation has been taken back is for an address that the kernel
 * expects on `lo` only (`rt6_need_strict`), unless a route says otherwise. From a wire nobody can use this: packets that
 * name `::1` are dropped when they arrive, before any translation (`ip6_rcv_core`). That also holds for answers where
 * br_netfilter shows bridged IPv6 packets to ip6tables: they are translated while still in the bridge, and get lost.
 */
function planLoopback({ bridge, subnets, internal, hostAddress }: NetworkDefinition): Step[] {
  const six = subnets.find(({ subnet }) => parseSubnet(subnet).family === 6);
  if (internal || !hostAddress || six === undefined) return [];
  // A network has a metric of its own: "replace" would replace the route of another one of the same.
  const metric = 2048 + sha256(six.subnet).readUIntBE(0, 3);
  return [
    {
      id: 'bridge.loopback',
      why: 'What the host sends to a published port at ::1 is answered over the bridge, so ::1 is to be found there as well. Deleting the bridge deletes this.',
      apply: [ip('route', 'replace', 'local', '::1', 'dev', bridge, 'table', 'local', 'metric', String(metric))],
      undo: [],
    },
  ];
}

/** Whether the host has IPv6 addresses on the bridge. */
function wantsIpv6({ subnets, hostAddress }: NetworkDefinition): boolean {
  return hostAddress && subnets.some(({ subnet }) => parseSubnet(subnet).family === 6);
}

/**
 * The link-local address of an interface by hand, before it goes up. The kernel's own one counts only after a second of
 * asking around, and until then who forwards cannot ask for its neighbours: the first packets would be lost.
 *
 * @param netns the namespace that the interface is in; the host's when absent
 */
export function planLinkLocal(ifname: string, mac: string, netns?: string): IpCommand[] {
  return [
    ['link', 'set', ifname, 'addrgenmode', 'none'],
    ['addr', 'replace', `${linkLocalOf(mac)}/64`, 'dev', ifname, 'nodad'],
  ].map((words) => (netns === undefined ? ip(...words) : ipIn(netns, ...words)));
}

/** Settings of a bridge that exists. They come before its addresses where IPv6 is concerned. */
export function planBridgeSettings(network: NetworkDefinition, facts: Pick<NetworkFacts, 'ipv6'>): Step {
  const { bridge } = network;
  return {
    id: 'bridge.sysctl',
    why: `The host may answer for 127.0.0.1 on the bridge and checks sources loosely${wantsIpv6(network) ? ', and believes no router there' : '; it has no IPv6 where that was not asked for'}. Deleting the bridge deletes these settings.`,
    apply: [
      { tool: 'sysctl', key: `net.ipv4.conf.${sysctlName(bridge)}.route_localnet`, value: '1' },
      { tool: 'sysctl', key: `net.ipv4.conf.${sysctlName(bridge)}.rp_filter`, value: '2' },
      ...(facts.ipv6
        ? [
            wantsIpv6(network)
              ? ({ tool: 'sysctl', key: `net.ipv6.conf.${sysctlName(bridge)}.accept_ra`, value: '0' } as const)
              : withoutIpv6(bridge),
          ]
        : []),
    ],
    undo: [],
  };
}

/** An interface as part of a sysctl's key: sysctl(8) takes a slash for a dot in a name. */
export function sysctlName(ifname: string): string {
  return ifname.replaceAll('.', '/');
}

/** IPv6 off on an interface that was not asked to have it (CVE-2020-13401). */
export function withoutIpv6(ifname: string): SysctlCommand {
  return { tool: 'sysctl', key: `net.ipv6.conf.${sysctlName(ifname)}.disable_ipv6`, value: '1' };
}
