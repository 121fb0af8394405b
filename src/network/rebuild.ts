import os from 'node:os';
import { blockOf, canonicalAddress, contains, formatRange, parseAddress, parseSubnet } from './address.ts';
import { endpointOf, inOrder, nextIfname } from './attach.ts';
import { type Attachment, defaultNetworkName, type Endpoint, type Network, type Subnet } from './definition.ts';
import { defaultMtu, hasIpv6, interfaceExists, rangesOver } from './facts.ts';
import type { Allocated } from './ipam.ts';
import { planNetwork, withUndoOf } from './lifecycle.ts';
import { servedBridge } from './names.ts';
import { defineNetwork, readNetwork, subnetOf } from './store.ts';

/** A container's places in networks, as its state says. */
export interface Placed {
  id: string;
  endpoints: readonly Endpoint[];
}

/**
 * A network whose file is damaged, put together from what is left of the file, from the containers that are in it, from its name
 * server, and from the bridge in the kernel.
 *
 * @returns undefined when not even its bridge or its ranges can be told
 */
export function rebuiltNetwork(
  name: string,
  parts: Partial<Network>,
  containers: readonly Placed[],
): Network | undefined {
  const placed = containers.flatMap(({ id, endpoints }) =>
    endpoints.filter(({ network }) => network === name).map((endpoint) => ({ id, endpoint })),
  );
  const first = placed[0]?.endpoint;
  const isDefault = name === defaultNetworkName;
  const bridge = parts.bridge ?? first?.bridge ?? (isDefault ? name : servedBridge(name));
  if (bridge === undefined) return undefined;
  const subnets = parts.subnets ?? known(placed.map(({ endpoint }) => subnetsOf(endpoint))) ?? ofKernel(bridge);
  if (subnets.length === 0) return undefined;
  const isUp = interfaceExists(bridge);
  const network: Network = {
    ...defineNetwork(name, { subnets }),
    // Who has no gateway has no way out, and whoever was kept apart stays so.
    ...(first === undefined ? {} : { internal: !hasGateway(first), icc: !first.alone, driver: first.driver }),
    automatic: isDefault,
    ...parts,
    bridge,
    schema: 2,
    leases: { ...parts.leases, ...Object.fromEntries(placed.flatMap(leasesOf)) },
    up: parts.up ?? isUp,
    claim: undefined,
  };
  // What a plan for an empty host takes back is all that can be there of it. Forwarding stays as it is: others may need it.
  const facts = {
    bridgeExists: false,
    ipForward: true,
    ipForward6: true,
    ipv6: hasIpv6(),
    mtu: 1500,
    firewall: [],
    firewall6: [],
  };
  const steps = isUp ? planNetwork(network, facts, { dnsmasq: true, portTaken: false }) : [];
  return { ...network, applied: withUndoOf(parts.applied ?? [], steps) };
}

function hasGateway({ ipv4, ipv6 }: Endpoint): boolean {
  return ipv4?.gateway !== undefined || ipv6?.gateway !== undefined;
}

function known(lists: readonly Subnet[][]): Subnet[] | undefined {
  const subnets = new Map(lists.flat().map((each) => [each.subnet, each]));
  return subnets.size === 0 ? undefined : [...subnets.values()];
}

function subnetsOf({ ipv4, ipv6 }: Endpoint): Subnet[] {
  return [ipv4, ipv6].flatMap((each) => {
    if (each === undefined) return [];
    return subnetOrNone(formatRange(blockOf(parseAddress(each.address), each.prefixLength)), each.gateway);
  });
}

/** The ranges that are reached over a bridge, and its own addresses where they can be told: not while nothing is plugged in. */
function ofKernel(bridge: string): Subnet[] {
  const own = (os.networkInterfaces()[bridge] ?? []).map(({ address }) => address);
  return rangesOver(bridge).flatMap((subnet) =>
    subnetOrNone(
      subnet,
      own.find((address) => contains(parseSubnet(subnet), parseAddress(address))),
    ),
  );
}

function subnetOrNone(subnet: string, gateway?: string): Subnet[] {
  try {
    return [subnetOf(subnet, gateway)];
  } catch {
    return [];
  }
}

function leasesOf({ id, endpoint: { ipv4, ipv6 } }: { id: string; endpoint: Endpoint }): [string, string][] {
  return [ipv4, ipv6].flatMap((each) => (each === undefined ? [] : [[canonicalAddress(each.address), id]]));
}

/** The places of a container in its networks, as their leases say. */
export function rebuiltEndpoints(id: string, attachments: readonly Attachment[]): Endpoint[] {
  const endpoints: Endpoint[] = [];
  for (const attachment of inOrder(attachments)) {
    const network = readNetwork(attachment.network);
    if (network === undefined) continue;
    const held = Object.entries(network.leases).flatMap(([address, holder]): Allocated[] => {
      const subnet = network.subnets.find((each) => contains(parseSubnet(each.subnet), parseAddress(address)));
      return holder !== id || subnet === undefined ? [] : [{ address, subnet }];
    });
    if (held.length === 0) continue;
    const ofFamily = (family: 4 | 6) => held.find(({ address }) => parseAddress(address).family === family);
    const ifname = attachment.ifname ?? nextIfname(endpoints.map((each) => each.ifname));
    endpoints.push(endpointOf(network, { ipv4: ofFamily(4), ipv6: ofFamily(6) }, attachment, ifname, defaultMtu()));
  }
  return endpoints;
}
