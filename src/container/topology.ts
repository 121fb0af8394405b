import fs from 'node:fs';
import os from 'node:os';
import { MinirunError } from '../errors.ts';
import { runDirectly } from '../host/tool.ts';
import { inParallel } from '../image/parallel.ts';
import type { Network } from '../network/definition.ts';
import { listNetworks } from '../network/store.ts';
import { joinHostPort } from '../network/ports.ts';
import {
  selectTopology,
  type Topology,
  type TopologyContainer,
  type TopologyHost,
  type TopologyInterface,
  type TopologyLink,
  type TopologyLinkEnd,
  type TopologyNetwork,
} from '../network/topology.ts';
import type { Definition } from './definition.ts';
import { attachmentsOf } from './networking.ts';
import { shownStatus, statusWord } from './status.ts';
import { type Container, findId, listContainers } from './store.ts';

/** What is read of one entry of `ip -j -d addr show`. */
interface KernelInterface {
  ifindex: number;
  ifname: string;
  /** The other end of a veth, in the same namespace; a macvlan's parent. */
  link?: string;
  /** The same when it is in another namespace. */
  link_index?: number;
  link_netnsid?: number;
  flags: string[];
  master?: string;
  qdisc?: string;
  address?: string;
  link_type: string;
  linkinfo?: { info_kind?: string };
  addr_info: { family: string; local: string; prefixlen: number; scope: string }[];
}

/** What is read of one entry of `ip -j -d route show table all`. */
interface KernelRoute {
  type: string;
  dst: string;
  gateway?: string;
  via?: { host: string };
  dev?: string;
  table?: string;
  protocol: string;
  nexthops?: { gateway?: string; via?: { host: string }; dev: string }[];
}

/** The network stack of one namespace as the kernel has it. */
interface Stack {
  /** Name under /run/netns; undefined for the host. */
  netns?: string;
  /** Number of the namespace's inode, which no other has. */
  inode: number;
  interfaces: KernelInterface[];
  routes: KernelRoute[];
  /** Number by which this namespace knows another → that one's inode. */
  peers: Map<number, number>;
  forwards: boolean;
}

/**
 * Reads what is connected to what.
 *
 * @param references names or ids of networks and containers; everything when empty
 * @param all also containers that do not run, and networks that are not up
 * @throws MinirunError when a reference names nothing, or the host's interfaces cannot be read
 */
export async function readTopology(references: readonly string[] = [], all = false): Promise<Topology> {
  const networks = listNetworks();
  const known = listContainers()
    .filter(({ state }) => state.status !== 'creating')
    .toSorted((a, b) => (a.definition.name < b.definition.name ? -1 : 1));
  const chosen = resolve(references, networks, known);
  const containers = known.filter(
    ({ definition, state }) => all || shownStatus(state) === 'running' || chosen.containers.includes(definition.name),
  );
  const stacks = await readStacks(containers);
  const shownNetworks = networks.filter(
    ({ name, up, automatic, leases }) =>
      all || up || !automatic || Object.keys(leases).length > 0 || chosen.networks.includes(name),
  );
  return selectTopology(await assemble(shownNetworks, containers, stacks), chosen);
}

function resolve(
  references: readonly string[],
  networks: readonly Network[],
  containers: readonly Container[],
): { networks: string[]; containers: string[] } {
  const chosen = { networks: [] as string[], containers: [] as string[] };
  for (const reference of references) {
    const network =
      networks.find(({ name }) => name === reference) ??
      networks.find(({ id }) => /^[0-9a-f]{4,}$/.test(reference) && id.startsWith(reference));
    const id = findId(reference);
    const container = containers.find(({ definition }) => definition.id === id);
    if (network === undefined && container === undefined)
      throw new MinirunError(
        `no network or container "${reference}"`,
        'none has that name or id',
        'See minirun network ls and minirun ps -a for those there are',
      );
    if (network !== undefined) chosen.networks.push(network.name);
    if (container !== undefined) chosen.containers.push(container.definition.name);
  }
  return chosen;
}

/** The host's stack first, then those of the running containers that have their own, by name. */
async function readStacks(containers: readonly Container[]): Promise<[Stack, Map<string, Stack>]> {
  const inodes = namespaceInodes();
  const own = containers.flatMap(({ state }) => {
    const inode = state.netns === undefined ? undefined : inodes.get(state.netns);
    return shownStatus(state) === 'running' && state.netns !== undefined && inode !== undefined
      ? [{ netns: state.netns, inode }]
      : [];
  });
  const stacks = new Map<string, Stack>();
  let host: Stack | undefined;
  await inParallel([{ netns: undefined, inode: fs.statSync('/proc/self/ns/net').ino }, ...own], async (namespace) => {
    const stack = await readStack(namespace, inodes);
    if (namespace.netns === undefined) host = stack;
    else if (stack !== undefined) stacks.set(namespace.netns, stack);
  });
  if (host === undefined)
    throw new MinirunError(
      'cannot read the interfaces of this machine',
      'ip did not say which there are',
      'Run minirun as root, and minirun doctor to see what is missing',
    );
  return [host, stacks];
}

/** Names under /run/netns → inode. One namespace may have several names. */
function namespaceInodes(): Map<string, number> {
  try {
    return new Map(
      fs.readdirSync('/run/netns').flatMap((name) => {
        const inode = fs.statSync(`/run/netns/${name}`, { throwIfNoEntry: false })?.ino;
        return inode === undefined ? [] : [[name, inode] as const];
      }),
    );
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Map();
    throw error;
  }
}

/**
 * Asks one namespace everything with one process: each line of an `ip -batch` answers with a JSON array of its own.
 * Undefined when the namespace has gone meanwhile.
 */
async function readStack(
  { netns, inode }: { netns?: string; inode: number },
  inodes: ReadonlyMap<string, number>,
): Promise<Stack | undefined> {
  const questions = ['addr show', 'route show table all', 'netns list-id', 'netconf show'];
  const { exitCode, stdout } = await runDirectly(
    'ip',
    ['-j', '-d', ...(netns === undefined ? [] : ['-n', netns]), '-batch', '-'],
    `${questions.join('\n')}\n`,
  );
  if (exitCode !== 0) return undefined;
  // A question without an answer (no other namespace is known) gives an empty array, or in some versions an empty line.
  const [interfaces, routes, peers, settings] = stdout
    .split('\n')
    .slice(0, questions.length)
    .map((line) => (line.trim() === '' ? [] : (JSON.parse(line) as unknown[])));
  return {
    netns,
    inode,
    interfaces: (interfaces ?? []) as KernelInterface[],
    routes: (routes ?? []) as KernelRoute[],
    peers: new Map(
      ((peers ?? []) as { nsid: number; name?: string }[]).flatMap(({ nsid, name }) => {
        const peer = name === undefined ? undefined : inodes.get(name);
        return peer === undefined ? [] : [[nsid, peer] as const];
      }),
    ),
    forwards: ((settings ?? []) as { family: string; interface: string; forwarding: boolean }[]).some(
      (each) => each.interface === 'all' && each.forwarding,
    ),
  };
}

/** One interface and where it is. */
interface Place {
  stack: Stack;
  device: KernelInterface;
}

/** For each end of a veth pair the other one, where both namespaces were read. */
type Cables = Map<KernelInterface, Place>;

/**
 * Finds the veth pairs. The kernel tells of each end the other's index, and a number for the other's namespace, which
 * `netns list-id` gives a name; the host's namespace has none, so those pairs are found from the host's side.
 */
function findCables(stacks: readonly Stack[]): Cables {
  const byInode = new Map(stacks.map((stack) => [stack.inode, stack]));
  const cables: Cables = new Map();
  for (const stack of stacks) {
    for (const device of stack.interfaces.filter(({ linkinfo }) => linkinfo?.info_kind === 'veth')) {
      const there = device.link_netnsid === undefined ? stack : byInode.get(stack.peers.get(device.link_netnsid) ?? -1);
      const peer = there?.interfaces.find(
        there === stack
          ? ({ ifname, link }) => ifname === device.link && link === device.ifname
          : ({ ifindex, link_index }) => ifindex === device.link_index && link_index === device.ifindex,
      );
      if (there === undefined || peer === undefined) continue;
      cables.set(device, { stack: there, device: peer });
      cables.set(peer, { stack, device });
    }
  }
  return cables;
}

async function assemble(
  networks: readonly Network[],
  containers: readonly Container[],
  [host, stacks]: [Stack, Map<string, Stack>],
): Promise<Topology> {
  const cables = findCables([host, ...stacks.values()]);
  const bridges = networks.filter(({ driver }) => driver === 'bridge');
  const parents = new Set(networks.filter((each) => !bridges.includes(each)).map(({ bridge }) => bridge));
  const ofBridge = new Map(bridges.map(({ bridge, name }) => [bridge, name]));
  const networkOf = (device: KernelInterface): string | undefined =>
    [device, cables.get(device)?.device].flatMap((each) => ofBridge.get(each?.master ?? '') ?? [])[0];
  const described = containers.map((container) =>
    describeContainer(container, containers, stacks.get(container.state.netns ?? ''), (device) => ({
      network: networkOf(device),
      peer: cables.get(device),
    })),
  );
  const links = await describeLinks(host, stacks, containers, cables, networkOf);
  const linked = new Set(
    links.flatMap(({ ends }) =>
      ends.some(({ container }) => container !== undefined)
        ? ends.flatMap(({ container, ifname }) => (container === undefined ? ifname : []))
        : [],
    ),
  );
  return {
    host: describeHost(host, (device) => linked.has(device.ifname) || ofBridge.has(device.ifname), parents),
    networks: networks.map((network) => describeNetwork(network, host)),
    containers: described,
    links,
  };
}

function describeHost(
  { interfaces, routes }: Stack,
  isMiniruns: (device: KernelInterface) => boolean,
  parents: ReadonlySet<string>,
): TopologyHost {
  const shown = routes.filter(isOfUser);
  const uplinks = new Set(
    shown
      .filter(({ dst }) => dst === 'default')
      .flatMap(({ dev, nexthops }) => [dev, ...(nexthops ?? []).map((hop) => hop.dev)]),
  );
  return {
    name: os.hostname(),
    interfaces: interfaces
      .filter(({ link_type }) => link_type !== 'loopback')
      .filter((device) => !isMiniruns(device))
      .map((device) => ({
        ifname: device.ifname,
        addresses: addressesOf(device),
        uplink: uplinks.has(device.ifname),
      }))
      .filter(({ ifname, addresses, uplink }) => addresses.length > 0 || uplink || parents.has(ifname)),
    routes: shown.map(routeText),
  };
}

function describeNetwork(network: Network, host: Stack): TopologyNetwork {
  const device = host.interfaces.find(({ ifname }) => ifname === network.bridge);
  return {
    name: network.name,
    driver: network.driver,
    bridge: network.bridge,
    subnets: network.subnets.map(({ subnet }) => subnet),
    // What a macvlan is on has addresses of another network.
    hostAddresses: device === undefined || network.driver !== 'bridge' ? [] : addressesOf(device),
    internal: network.internal,
    isolate: network.isolate,
    masquerade: network.masquerade,
    up: network.up && device !== undefined,
  };
}

function describeContainer(
  { definition, state }: Container,
  all: readonly Container[],
  stack: Stack | undefined,
  plugged: (device: KernelInterface) => { network?: string; peer?: Place },
): TopologyContainer {
  const described = {
    name: definition.name,
    status: statusWord(state),
    image: definition.image,
    ports: (shownStatus(state) === 'running' ? (state.ports ?? []) : []).map(
      ({ protocol, hostIp, hostPort, containerPort }) =>
        `${joinHostPort(hostIp, hostPort)}->${containerPort}/${protocol}`,
    ),
  };
  const joined = /^container:(.*)$/.exec(definition.network)?.[1];
  if (definition.network === 'host' || joined !== undefined) {
    const other = joined === undefined ? undefined : all.find(({ definition: { id } }) => id === joined);
    const shares = joined === undefined ? {} : { container: other?.definition.name ?? joined.slice(0, 12) };
    return { ...described, interfaces: [], routes: [], router: false, shares };
  }
  if (stack === undefined) {
    const interfaces = restingInterfaces(definition);
    return { ...described, interfaces, routes: [], router: false };
  }
  const interfaces = stack.interfaces.filter(isShown).map((device): TopologyInterface => {
    const { network, peer } = plugged(device);
    // A macvlan's other side is no interface of its own: only the state knows which network it stands for.
    const endpoint = state.endpoints.find(({ ifname }) => ifname === device.ifname);
    const fromState = device.linkinfo?.info_kind === 'macvlan' ? endpoint?.network : undefined;
    const isOnHost = peer !== undefined && peer.stack.netns === undefined;
    return {
      ifname: device.ifname,
      addresses: addressesOf(device),
      mac: device.address ?? '',
      up: device.flags.includes('UP'),
      ...(network === undefined && fromState === undefined ? {} : { network: network ?? fromState }),
      ...(isOnHost ? { hostIfname: peer.device.ifname } : {}),
    };
  });
  return {
    ...described,
    interfaces,
    routes: stack.routes.filter(isOfUser).map(routeText),
    router: stack.forwards && interfaces.length > 1,
  };
}

/** What a container at rest is going to have, as far as that is known: where it is plugged in. */
function restingInterfaces(definition: Definition): TopologyInterface[] {
  return attachmentsOf(definition).map(({ network, ifname }, index) => ({
    ifname: ifname ?? `eth${index}`,
    addresses: [],
    mac: '',
    network,
    up: false,
  }));
}

/** Not the loopback, nor the tunnels that some kernels put into every namespace. */
function isShown({ link_type, linkinfo, addr_info, flags }: KernelInterface): boolean {
  if (link_type === 'loopback') return false;
  const isTunnel = link_type !== 'ether' || /gretap|erspan/.test(linkinfo?.info_kind ?? '');
  return !isTunnel || addr_info.length > 0 || flags.includes('UP');
}

/** Without the link-local addresses of IPv6, which every interface makes for itself. */
function addressesOf({ addr_info }: KernelInterface): string[] {
  return addr_info
    .filter(({ family, scope }) => !(family === 'inet6' && scope === 'link'))
    .map(({ local, prefixlen }) => `${local}/${prefixlen}`);
}

/** Routes that somebody has added; the kernel derives the others from addresses. */
function isOfUser({ table = 'main', protocol }: KernelRoute): boolean {
  return table === 'main' && protocol !== 'kernel';
}

function routeText({ type, dst, gateway, via, dev, nexthops = [] }: KernelRoute): string {
  const hop = (each: { gateway?: string; via?: { host: string }; dev?: string }) => {
    const router = each.gateway ?? each.via?.host;
    return `${router === undefined ? '' : ` via ${router}`}${each.dev === undefined ? '' : ` dev ${each.dev}`}`;
  };
  const hops = nexthops.length > 0 ? nexthops.map(hop).join(' or') : hop({ gateway, via, dev });
  return `${type === 'unicast' ? '' : `${type} `}${dst}${hops}`;
}

/** The veth pairs that no network has made, in the order of their ends. */
async function describeLinks(
  host: Stack,
  stacks: ReadonlyMap<string, Stack>,
  containers: readonly Container[],
  cables: Cables,
  networkOf: (device: KernelInterface) => string | undefined,
): Promise<TopologyLink[]> {
  const ofNamespace = new Map(containers.map(({ definition, state }) => [state.netns, definition.name]));
  const nameOf = ({ netns }: Stack) => (netns === undefined ? undefined : ofNamespace.get(netns));
  const seen = new Set<KernelInterface>();
  const links: { places: [Place, Place] }[] = [];
  for (const stack of [...stacks.values(), host]) {
    for (const device of stack.interfaces) {
      const peer = cables.get(device);
      if (peer === undefined || seen.has(device) || networkOf(device) !== undefined) continue;
      seen.add(peer.device);
      const places: [Place, Place] = [{ stack, device }, peer];
      links.push({ places });
    }
  }
  const shapings = await readShapings(links.flatMap(({ places }) => places));
  const end = ({ stack, device }: Place): TopologyLinkEnd => ({
    ...(nameOf(stack) === undefined ? {} : { container: nameOf(stack) }),
    ifname: device.ifname,
    addresses: addressesOf(device),
  });
  const key = ({ container = '\uffff', ifname }: TopologyLinkEnd) => `${container}\0${ifname}`;
  const before = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
  return links
    .map(({ places }): TopologyLink => {
      const ends = places.map(end).toSorted((a, b) => before(key(a), key(b))) as [TopologyLinkEnd, TopologyLinkEnd];
      const shaping = [...new Set(places.flatMap(({ device }) => shapings.get(device) ?? []))].join(', ');
      return { ends, shaping, up: places.every(({ device }) => device.flags.includes('UP')) };
    })
    .toSorted((a, b) => before(a.ends.map(key).join('\0'), b.ends.map(key).join('\0')));
}

/** What is read of one entry of `tc -j qdisc show`. */
interface Qdisc {
  kind: string;
  dev: string;
  options: {
    /** Bytes a second. */
    rate?: number | { rate: number };
    /** Seconds. */
    delay?: { delay: number };
    /** A part of 1. */
    'loss-random'?: { loss: number };
  };
}

/** The words for what delays, loses or slows packets at each of these interfaces. */
async function readShapings(places: readonly Place[]): Promise<Map<KernelInterface, string>> {
  const shaped = places.filter(({ device }) => ['tbf', 'netem'].includes(device.qdisc ?? ''));
  const words = new Map<KernelInterface, string>();
  await inParallel(new Set(shaped.map(({ stack }) => stack)), async (stack) => {
    const namespace = stack.netns === undefined ? [] : ['-n', stack.netns];
    const { exitCode, stdout } = await runDirectly('tc', ['-j', ...namespace, 'qdisc', 'show']);
    const disciplines = exitCode === 0 ? (JSON.parse(stdout) as Qdisc[]) : [];
    for (const { device } of shaped.filter((place) => place.stack === stack)) {
      const text = disciplines.filter(({ dev }) => dev === device.ifname).flatMap(shapingWords);
      if (text.length > 0) words.set(device, text.join(' '));
    }
  });
  return words;
}

function shapingWords({ options: { rate, delay, 'loss-random': loss } }: Qdisc): string[] {
  const bits = (typeof rate === 'object' ? rate.rate : (rate ?? 0)) * 8;
  return [
    ...(bits > 0 ? [`rate ${bits % 1e6 === 0 ? `${bits / 1e6}mbit` : `${bits / 1e3}kbit`}`] : []),
    ...(delay === undefined || delay.delay === 0 ? [] : [`delay ${Number((delay.delay * 1000).toFixed(3))}ms`]),
    ...(loss === undefined ? [] : [`loss ${Number((loss.loss * 100).toFixed(2))}%`]),
  ];
}
