import { ip, type Step, type SysctlCommand } from '../host/steps.ts';
import { macOf, parseSubnet } from './address.ts';
import type { NetworkDefinition } from './definition.ts';
import type { NetworkFacts } from './facts.ts';

/** Steps that make the network's bridge with the gateway address. */
export function planBridge(network: NetworkDefinition, facts: Pick<NetworkFacts, 'bridgeExists' | 'mtu'>): Step[] {
  const { bridge, gateway } = network;
  const { prefixLength } = parseSubnet(network.subnet);
  return [
    {
      id: 'bridge.add',
      why: `A bridge is a switch inside the kernel. ${bridge} will join the containers of network ${network.name}; its MAC is pinned, otherwise it would change with its ports.`,
      apply: [
        ...(facts.bridgeExists ? [] : [ip('link', 'add', bridge, 'address', macOf(gateway), 'type', 'bridge')]),
        ip('link', 'set', bridge, 'mtu', String(facts.mtu)),
      ],
      undo: [ip('link', 'del', bridge)],
    },
    {
      id: 'bridge.addr',
      why: `The host's own address on the bridge; it is the containers' gateway. Deleting the bridge deletes it.`,
      apply: [ip('addr', 'replace', `${gateway}/${prefixLength}`, 'dev', bridge)],
      undo: [],
    },
    {
      id: 'bridge.up',
      why: 'An interface passes nothing until it is up.',
      apply: [ip('link', 'set', bridge, 'up')],
      undo: [],
    },
  ];
}

/** Settings of a bridge that exists. */
export function planBridgeSettings({ bridge }: NetworkDefinition, facts: Pick<NetworkFacts, 'ipv6'>): Step {
  return {
    id: 'bridge.sysctl',
    why: 'The host may answer for 127.0.0.1 on the bridge, checks sources loosely, and has no IPv6 on an IPv4 network. Deleting the bridge deletes these settings.',
    apply: [
      { tool: 'sysctl', key: `net.ipv4.conf.${bridge}.route_localnet`, value: '1' },
      { tool: 'sysctl', key: `net.ipv4.conf.${bridge}.rp_filter`, value: '2' },
      ...(facts.ipv6 ? [withoutIpv6(bridge)] : []),
    ],
    undo: [],
  };
}

/** IPv6 off on an interface that was not asked to have it (CVE-2020-13401). */
export function withoutIpv6(ifname: string): SysctlCommand {
  return { tool: 'sysctl', key: `net.ipv6.conf.${ifname}.disable_ipv6`, value: '1' };
}
