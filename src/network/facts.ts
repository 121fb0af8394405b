import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { runDirectly } from '../host/tool.ts';
import {
  blockOf,
  contains,
  formatAddress,
  formatRange,
  overlaps,
  parseAddress,
  parseSubnet,
  type Range,
} from './address.ts';
import type { Family } from './address.ts';
import { usableRange } from './ipam.ts';
import { isIfname } from './ifname.ts';

/** What the planners need to know of the host's network. Read from /proc where that is enough: no process. */
export interface NetworkFacts {
  /** Whether the bridge is there. */
  bridgeExists: boolean;
  ipForward: boolean;
  ipForward6: boolean;
  /** Whether this kernel has IPv6 at all. */
  ipv6: boolean;
  /** MTU of the default route's device, 1500 without one. */
  mtu: number;
  /** Chains and rules of the firewall in iptables-save's form; only read when the network has to be set up. */
  firewall: string[];
  /** The same of ip6tables-save; empty when no IPv6 is wanted. */
  firewall6: string[];
}

/** The interfaces of a process's network namespace. */
export function interfaceNames(process: number | 'self'): string[] {
  const lines = fs.readFileSync(`/proc/${process}/net/dev`, 'latin1').split('\n');
  return lines.slice(2).flatMap((line) => /^\s*(.+):/.exec(line)?.[1] ?? []);
}

/** Whether an interface exists in the network namespace of a process, by default this one. */
export function interfaceExists(name: string, process: number | 'self' = 'self'): boolean {
  // One look-up, where /proc/net/dev adds up the packets of every interface. Two of these names are no interface's.
  if (process === 'self' && name !== 'all' && name !== 'default')
    return isIfname(name) && fs.existsSync(`/proc/sys/net/ipv4/conf/${name}`);
  return interfaceNames(process).includes(name);
}

interface Route {
  device: string;
  range: Range;
}

/** The host's IPv4 routes: /proc/net/route has addresses as little-endian hexadecimal. */
function hostRoutes(): Route[] {
  const swap = (hex: string) => BigInt(`0x${hex.match(/../g)?.toReversed().join('') ?? '0'}`);
  return fs
    .readFileSync('/proc/self/net/route', 'latin1')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split(/\s+/))
    .map((fields) => {
      const prefixLength = swap(fields[7] as string)
        .toString(2)
        .replaceAll('0', '').length;
      return {
        device: fields[0] as string,
        range: blockOf({ family: 4, value: swap(fields[1] as string) }, prefixLength),
      };
    });
}

/** The host's IPv6 routes but those to single addresses, to all, and of link-local and multicast addresses: /proc/net/ipv6_route. */
function hostRoutes6(): Route[] {
  let lines: string[];
  try {
    lines = fs.readFileSync('/proc/self/net/ipv6_route', 'latin1').trim().split('\n');
  } catch {
    return [];
  }
  return lines
    .map((line) => line.split(/\s+/))
    .filter((fields) => /^[0-9a-f]{32}$/.test(fields[0] ?? '') && !/^f[ef]/.test(fields[0] ?? ''))
    .map((fields) => ({
      device: fields[9] as string,
      range: blockOf({ family: 6, value: BigInt(`0x${fields[0]}`) }, Number.parseInt(fields[1] as string, 16)),
    }))
    .filter(({ range }) => range.prefixLength < 128);
}

/** The route of the host that a subnet overlaps, in words; undefined when there is none. The default route is none. */
export function overlappingRoute(subnet: string, ownBridge?: string): string | undefined {
  const range = parseSubnet(subnet);
  const found = (range.family === 4 ? hostRoutes() : hostRoutes6()).find(
    (route) => route.range.prefixLength > 0 && route.device !== ownBridge && overlaps(range, route.range),
  );
  return found && `${formatRange(found.range)} dev ${found.device}`;
}

/** The ranges to which the host has a route over an interface. */
export function rangesOver(ifname: string): string[] {
  return [...hostRoutes(), ...hostRoutes6()].flatMap(({ device, range }) =>
    device === ifname && range.prefixLength > 0 ? [formatRange(range)] : [],
  );
}

/** The IPv4 ranges that the host has routes to, loopback and the default route left out. */
export function routedRanges(): string[] {
  const routes = hostRoutes().filter(({ device, range }) => device !== 'lo' && range.prefixLength > 0);
  return [...new Set(routes.map(({ range }) => formatRange(range)))];
}

/** MTU of the default route's device. */
export function defaultMtu(): number {
  const device = hostRoutes().find((route) => route.range.prefixLength === 0)?.device;
  if (device === undefined) return 1500;
  try {
    return Number(fs.readFileSync(`/sys/class/net/${device}/mtu`, 'latin1')) || 1500;
  } catch {
    return 1500;
  }
}

export function hasIpv6(): boolean {
  return fs.existsSync('/proc/sys/net/ipv6/conf');
}

export function ipForward(): boolean {
  return fs.readFileSync('/proc/sys/net/ipv4/ip_forward', 'latin1').trim() === '1';
}

/** Whether the host passes IPv6 packets on. */
export function ipForward6(): boolean {
  try {
    return fs.readFileSync('/proc/sys/net/ipv6/conf/all/forwarding', 'latin1').trim() === '1';
  } catch {
    return false;
  }
}

/** The firewall's rules as iptables-save or ip6tables-save print them, line by line. */
export async function readFirewall(family: Family): Promise<string[]> {
  const tool = family === 4 ? 'iptables-save' : 'ip6tables-save';
  const { exitCode, stdout, stderr } = await runDirectly(tool, []);
  if (exitCode === 0) return stdout.split('\n');
  throw new MinirunError(
    'cannot read the firewall',
    stderr.trim().split('\n')[0] || `${tool} ended with ${exitCode}`,
    'Run minirun as root, and minirun doctor to see what is missing',
  );
}

/** Reads all that the set-up of a network with addresses of these families depends on. */
export async function readNetworkFacts(bridge: string, families: readonly Family[]): Promise<NetworkFacts> {
  const read = (family: Family) => (families.includes(family) ? readFirewall(family) : Promise.resolve([]));
  const [firewall, firewall6] = await Promise.all([read(4), read(6)]);
  return {
    bridgeExists: interfaceExists(bridge),
    ipForward: ipForward(),
    ipForward6: ipForward6(),
    ipv6: hasIpv6(),
    mtu: defaultMtu(),
    firewall,
    firewall6,
  };
}

/** @throws MinirunError when the gateway is not a usable address of the subnet */
export function checkGateway(subnet: string, gateway: string): void {
  const range = parseSubnet(subnet);
  const address = parseAddress(gateway, range.family);
  const { first, last } = usableRange(range);
  if (contains(range, address) && address.value >= first && address.value <= last) return;
  throw new MinirunError(
    `invalid gateway ${gateway}`,
    `it is not a host address of ${subnet}`,
    `Choose one from that subnet, such as ${formatAddress({ family: range.family, value: first })}`,
  );
}
