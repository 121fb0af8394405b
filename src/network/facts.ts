import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { runDirectly } from '../host/tool.ts';
import { contains, formatAddress, overlaps, parseAddress, parseSubnet, type Range } from './address.ts';

/** What the planners need to know of the host's network. Read from /proc where that is enough: no process. */
export interface NetworkFacts {
  /** Whether the bridge is there. */
  bridgeExists: boolean;
  ipForward: boolean;
  /** Whether this kernel has IPv6 at all. */
  ipv6: boolean;
  /** MTU of the default route's device, 1500 without one. */
  mtu: number;
  /** Chains and rules of the firewall in iptables-save's form; only read when the network has to be set up. */
  firewall: string[];
}

/** Whether an interface exists in this process's network namespace. */
export function interfaceExists(name: string): boolean {
  const lines = fs.readFileSync('/proc/self/net/dev', 'latin1').split('\n');
  return lines.some((line) => line.trimStart().startsWith(`${name}:`));
}

interface Route {
  device: string;
  range: Range;
}

/** The host's IPv4 routes: /proc/net/route has addresses as little-endian hexadecimal. */
function hostRoutes(): Route[] {
  const swap = (hex: string) => Number.parseInt(hex.match(/../g)?.toReversed().join('') ?? '0', 16);
  return fs
    .readFileSync('/proc/self/net/route', 'latin1')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split(/\s+/))
    .map((fields) => {
      const first = swap(fields[1] as string);
      const mask = swap(fields[7] as string);
      const size = 2 ** 32 - mask;
      return {
        device: fields[0] as string,
        range: { first, last: first + size - 1, prefixLength: 32 - Math.log2(size) },
      };
    });
}

/** The route of the host that a subnet overlaps, in words; undefined when there is none. The default route is none. */
export function overlappingRoute(subnet: string, ownBridge?: string): string | undefined {
  const range = parseSubnet(subnet);
  const found = hostRoutes().find(
    (route) => route.range.prefixLength > 0 && route.device !== ownBridge && overlaps(range, route.range),
  );
  return found && `${formatAddress(found.range.first)}/${found.range.prefixLength} dev ${found.device}`;
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

/** Reads all that the set-up of a network depends on. */
export async function readNetworkFacts(bridge: string): Promise<NetworkFacts> {
  const { exitCode, stdout, stderr } = await runDirectly('iptables-save', []);
  if (exitCode !== 0) {
    throw new MinirunError(
      'cannot read the firewall',
      stderr.trim().split('\n')[0] || `iptables-save ended with ${exitCode}`,
      'Run minirun as root, and minirun doctor to see what is missing',
    );
  }
  return {
    bridgeExists: interfaceExists(bridge),
    ipForward: ipForward(),
    ipv6: hasIpv6(),
    mtu: defaultMtu(),
    firewall: stdout.split('\n'),
  };
}

/** @throws MinirunError when the gateway is not a usable address of the subnet */
export function checkGateway(subnet: string, gateway: string): void {
  const range = parseSubnet(subnet);
  const value = parseAddress(gateway);
  if (contains(range, value) && value !== range.first && value !== range.last) return;
  throw new MinirunError(
    `invalid gateway ${gateway}`,
    `it is not a host address of ${subnet}`,
    `Choose one from that subnet, such as ${formatAddress(range.first + 1)}`,
  );
}
