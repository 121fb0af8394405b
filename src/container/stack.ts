import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { runDirectly } from '../host/tool.ts';
import { inParallel } from '../image/parallel.ts';
import { requireRunning } from './stop.ts';
import { type Container, isRunning, listContainers, requireContainer } from './store.ts';

/** A network stack: that of a container, which it may share with others, or that of the host. */
export interface Stack {
  /** `host`, or the container's name. */
  name: string;
  /** A path that names its namespace for as long as the container runs; undefined for the one that minirun runs in. */
  netns?: string;
  container?: Container;
}

/** What the host is called where a container could stand. */
export const hostName = 'host';

/** The host's own stack: the one that minirun runs in. */
const hostStack: Stack = { name: hostName };

/**
 * The network stack of what is named.
 *
 * @param verb what is to be done with it, for the error: `capture packets of`
 * @throws MinirunError when there is no such container, or it does not run
 */
export function requireStack(reference: string, verb: string): Stack {
  if (reference === hostName) return hostStack;
  const container = requireContainer(reference);
  requireRunning(container, verb);
  return stackOf(container);
}

function stackOf(container: Container): Stack {
  // By its first process, not by the namespace's name: this is right for every --network, and whatever was renamed.
  return { name: container.definition.name, netns: `/proc/${container.state.init?.pid}/ns/net`, container };
}

/** The command line that runs a host tool in a stack. */
export function inStack({ netns }: Stack, argv: readonly string[]): string[] {
  return netns === undefined ? [...argv] : ['nsenter', `--net=${netns}`, '--', ...argv];
}

/** Runs a host tool in a stack, to its end. */
export async function runInStack(stack: Stack, argv: readonly string[]) {
  const [tool = '', ...args] = inStack(stack, argv);
  return runDirectly(tool, args);
}

/** An interface as the kernel has it. */
export interface StackInterface {
  ifname: string;
  mac: string;
  mtu: number;
  /** In the kernel's words: `UP`, `DOWN`, `LOWERLAYERDOWN`, `UNKNOWN` for those that cannot tell. */
  state: string;
  /** Whether somebody has set it up. */
  isUp: boolean;
  isLoopback: boolean;
  /** With prefix length: `10.90.0.2/16`. */
  addresses: string[];
}

interface IpAddr {
  ifname: string;
  address?: string;
  mtu: number;
  operstate: string;
  flags: string[];
  addr_info?: { local?: string; prefixlen?: number }[];
}

/** Its interfaces, in the kernel's order. */
export async function readInterfaces(stack: Stack): Promise<StackInterface[]> {
  const shown = (await readJson(stack, ['ip', '-j', 'addr', 'show'])) as IpAddr[];
  return shown
    .filter((each) => typeof each.ifname === 'string')
    .map(({ ifname, address = '', mtu, operstate, flags, addr_info = [] }) => ({
      ifname,
      mac: address,
      mtu,
      state: operstate,
      isUp: flags.includes('UP'),
      isLoopback: flags.includes('LOOPBACK'),
      addresses: addr_info.flatMap(({ local, prefixlen }) => (local === undefined ? [] : `${local}/${prefixlen}`)),
    }));
}

/** An entry of the table that the kernel fills by ARP (IPv4) and neighbour discovery (IPv6). */
export interface Neighbour {
  address: string;
  ifname: string;
  /** Empty while nobody has answered. */
  mac: string;
  /** In the kernel's words: `REACHABLE`, `STALE`, `FAILED` … */
  state: string;
}

/** Its neighbours, those of IPv4 first. */
export async function readNeighbours(stack: Stack): Promise<Neighbour[]> {
  const shown = (await readJson(stack, ['ip', '-j', 'neigh', 'show'])) as {
    dst: string;
    dev: string;
    lladdr?: string;
    state?: string[];
  }[];
  return shown
    .map(({ dst, dev, lladdr = '', state = [] }) => ({
      address: dst,
      ifname: dev,
      mac: lladdr,
      state: state.join(','),
    }))
    .toSorted((a, b) => Number(a.address.includes(':')) - Number(b.address.includes(':')));
}

/**
 * What `ip route get` says about the way to an address: `10.0.2.1 dev eth1 src 10.0.1.1`; undefined when there is none.
 */
export async function routeTo(stack: Stack, address: string): Promise<string | undefined> {
  const { exitCode, stdout } = await runInStack(stack, ['ip', 'route', 'get', address]);
  // The second line is about the kernel's cache, and `uid` is that of whoever asks.
  return exitCode === 0 ? (stdout.split('\n')[0] as string).replace(/ uid \d+/, '').trim() : undefined;
}

/** Whether it passes packets on that are not for itself. */
export async function forwards(stack: Stack, family: 4 | 6): Promise<boolean> {
  const file = family === 4 ? '/proc/sys/net/ipv4/ip_forward' : '/proc/sys/net/ipv6/conf/all/forwarding';
  return (await runInStack(stack, ['cat', file])).stdout.trim() === '1';
}

async function readJson(stack: Stack, argv: readonly string[]): Promise<unknown[]> {
  const { exitCode, stdout, stderr } = await runInStack(stack, argv);
  if (exitCode !== 0) {
    throw new MinirunError(`cannot look into the network of ${stack.name}`, stderr.trim() || 'it has just ended');
  }
  // With nothing to show, ip prints nothing at all; and what may be in an interface's name it does not always escape.
  const text = stdout.trim().replaceAll(/\p{Cc}/gu, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return text === '' ? [] : (JSON.parse(text) as unknown[]);
}

/** An address and where it is. */
export interface Place {
  stack: Stack;
  ifname: string;
  mac: string;
  /** Without prefix length. */
  address: string;
}

/** Every address of the host and of running containers. The kernel is asked: what was added by hand is there too. */
export async function allPlaces(): Promise<Place[]> {
  const seen = new Set<string>();
  // A container that shares another's stack is not the one to be named.
  const own = ({ definition }: Container) => (definition.network.includes(':') ? 1 : 0);
  const stacks = [
    hostStack,
    ...listContainers()
      .filter(({ state }) => isRunning(state))
      .toSorted((a, b) => own(a) - own(b))
      .map(stackOf),
  ].filter(({ netns = '/proc/self/ns/net' }) => {
    const id = namespaceId(netns);
    return id !== undefined && !seen.has(id) && seen.add(id);
  });
  const places: Place[] = [];
  await inParallel(stacks, async (stack) => {
    // One that ends just now is not there any more.
    const interfaces = await readInterfaces(stack).catch(() => []);
    for (const { ifname, mac, addresses, isLoopback } of interfaces) {
      if (isLoopback) continue;
      places.push(...addresses.map((each) => ({ stack, ifname, mac, address: withoutPrefix(each) })));
    }
  });
  return places;
}

/** Who has an address; the hardware address decides where several have it, in networks that do not touch. */
export function placeOf(places: readonly Place[], address: string, mac = ''): Place | undefined {
  const same = places.filter((each) => each.address === address);
  if (mac === '') return same[0];
  return same.find((each) => each.mac === mac);
}

/** `web:eth0` */
export function placeName({ stack, ifname }: Pick<Place, 'stack' | 'ifname'>): string {
  return `${stack.name}:${ifname}`;
}

export function withoutPrefix(address: string): string {
  return address.split('/')[0] as string;
}

/** A path under which other programs find a stack's namespace: by its name under /run/netns where it has one. */
export function namespacePath(stack: Stack): string {
  const wanted = namespaceId(stack.netns ?? '/proc/self/ns/net');
  const named = listContainers().flatMap(({ state }) => (state.netns === undefined ? [] : `/run/netns/${state.netns}`));
  const ownName = stack.container?.state.netns;
  const candidates = [...(ownName === undefined ? named : [`/run/netns/${ownName}`]), '/proc/1/ns/net'];
  // For the host, where its first process is elsewhere: of whoever has started this.
  return candidates.find((path) => namespaceId(path) === wanted) ?? stack.netns ?? `/proc/${process.ppid}/ns/net`;
}

/** What tells a namespace from another one: its inode; undefined when there is none at that path. */
function namespaceId(path: string): string | undefined {
  try {
    const { dev, ino } = fs.statSync(path);
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}
