import { MinirunError } from '../errors.ts';
import { runDirectly } from '../host/tool.ts';

/** An interface as `ip -j -d link` and `ip -j addr` have it; of what they say, what is used here. */
export interface KernelInterface {
  ifname: string;
  mtu: number;
  /** MAC. */
  address: string;
  flags: string[];
  operstate: string;
  master?: string;
  altnames?: string[];
  linkinfo?: { info_kind?: string };
  addr_info: KernelAddress[];
}

export interface KernelAddress {
  family: 'inet' | 'inet6';
  local: string;
  prefixlen: number;
  scope: string;
  label?: string;
  broadcast?: string;
  /** What a router advertisement made: it comes again by itself. */
  protocol?: string;
  dynamic?: boolean;
  temporary?: boolean;
  mngtmpaddr?: boolean;
  /** Seconds; 4294967295 for ever. */
  valid_life_time: number;
  preferred_life_time: number;
}

/** A route as `ip -j route` has it. */
export interface KernelRoute {
  type?: string;
  dst: string;
  gateway?: string;
  /** The gateway, when it is of the other family. */
  via?: { family: string; host: string };
  dev?: string;
  table?: string;
  protocol?: string;
  scope?: string;
  prefsrc?: string;
  metric?: number;
  /** Of a route over several interfaces. */
  nexthops?: object[];
  flags: string[];
}

/** What a network stack has: that of the host, or of a named namespace. */
export interface Stack {
  interfaces: KernelInterface[];
  /** Of the main table, IPv4 before IPv6; `dev` is always there but for blackholes and the like. */
  routes: (KernelRoute & { family: 4 | 6 })[];
}

/** Reads a network stack. @param netns name of a namespace; the host's own when absent */
export async function readStack(netns?: string): Promise<Stack> {
  const [links, v4, v6] = await Promise.all([
    ipJson<KernelInterface>(netns, '-d', 'addr', 'show'),
    ipJson<KernelRoute>(netns, '-4', 'route', 'show'),
    ipJson<KernelRoute>(netns, '-6', 'route', 'show'),
  ]);
  return {
    interfaces: links,
    routes: [
      ...v4.map((route) => ({ ...route, family: 4 as const })),
      ...v6.map((route) => ({ ...route, family: 6 as const })),
    ],
  };
}

/** Every route over an interface of the host, in all tables; those that the kernel makes itself, and those over
 * others as well, are left out. */
export async function routesOver(ifname: string): Promise<KernelRoute[]> {
  const [v4, v6] = await Promise.all(
    ['-4', '-6'].map((family) =>
      ipJson<KernelRoute>(undefined, family, 'route', 'show', 'table', 'all', 'dev', ifname),
    ),
  );
  return [...(v4 ?? []), ...(v6 ?? [])].filter(
    ({ protocol, table, type, nexthops }) =>
      nexthops === undefined &&
      protocol !== 'kernel' &&
      protocol !== 'ra' &&
      table !== 'local' &&
      (type === undefined || type === 'unicast'),
  );
}

async function ipJson<T>(netns: string | undefined, ...args: string[]): Promise<T[]> {
  const { exitCode, stdout, stderr } = await runDirectly('ip', [
    ...(netns === undefined ? [] : ['-n', netns]),
    '-j',
    ...args,
  ]);
  if (exitCode === 0) return JSON.parse(stdout === '' ? '[]' : stdout) as T[];
  // A kernel without IPv6 has no routes of it.
  if (args[0] === '-6') return [];
  throw new MinirunError(
    netns === undefined ? 'cannot read the network of the host' : `cannot read the network of ${netns}`,
    stderr.trim().split('\n')[0] || `ip ended with ${exitCode}`,
    'Run minirun as root, and minirun doctor to see what is missing',
  );
}
