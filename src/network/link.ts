import { MinirunError } from '../errors.ts';
import { ip, ipIn, type IpCommand, type Step } from '../host/steps.ts';
import { withoutIpv6 } from './bridge.ts';
import { ifnamePattern, isUsableIfname } from './ifname.ts';
import type { KernelInterface, KernelRoute } from './interfaces.ts';
import {
  type Address,
  blockOf,
  contains,
  formatAddress,
  formatRange,
  overlaps,
  type Range,
  readCidr,
  isUnicastMac,
} from './address.ts';
import { type Shape, shapeCommand, shapeText } from './shape.ts';

/** One end of a link. */
export interface LinkEnd {
  /** Id of the container that has it; absent for the host. */
  container?: string;
  ifname: string;
  /** In CIDR form with host bits: `10.0.1.1/24`. */
  addresses: string[];
  mac?: string;
  /** Whether it is to be up. */
  up: boolean;
  /** Name of the container's network namespace while it has one. */
  netns?: string;
}

/** A cable of its own between two network stacks, or an interface of the host in a container: `links/<name>.json`. */
export interface Link {
  schema: 1;
  name: string;
  /** RFC 3339. */
  created: string;
  /** Of `phys`, the first end is the container's and the second the interface as the host knows it. */
  kind: 'veth' | 'phys';
  ends: [LinkEnd, LinkEnd];
  mtu?: number;
  shape: Shape;
  /** The boot in which `netns` and `applied` were true. */
  boot: string;
  /** What was applied; empty while the link is not there, because a container of it does not run. */
  applied: Step[];
}

/** What of an interface of the host is given back with it. */
export interface PhysFacts {
  interface: KernelInterface;
  routes: KernelRoute[];
}

/** @throws MinirunError unless an interface can be called so */
export function checkIfname(name: string): void {
  if (name.length > 15) {
    throw new MinirunError(
      `invalid interface name "${name}"`,
      `it has ${name.length} characters and the kernel takes 15 at most`,
      `Give a shorter one, such as ${/^[a-z]+/.exec(name)?.[0].slice(0, 6) ?? 'eth'}1`,
    );
  }
  if (isUsableIfname(name)) return;
  throw new MinirunError(
    `invalid interface name "${name}"`,
    ifnamePattern.test(name)
      ? 'every network stack has one of that name already, or settings that are called so'
      : 'letters, digits, "_", ".", "@" and "-" can be in it, the first a letter, a digit or "_"',
    'Give one such as eth1',
  );
}

/** @throws MinirunError unless it is an address of one network card in the form 02:42:ac:11:00:02 */
export function checkMac(mac: string, option: string): void {
  if (isUnicastMac(mac)) return;
  const first = Number.parseInt(mac.slice(0, 2), 16);
  throw new MinirunError(
    `invalid ${option} "${mac}"`,
    first % 2 === 1 ? 'its first byte is odd, which makes it an address of a group' : 'it is not a MAC address',
    'Give six bytes such as 02:00:00:00:00:01',
  );
}

/** @param addresses those of both ends @throws MinirunError unless the kernel takes such an MTU */
export function checkMtu(mtu: number, addresses: readonly string[]): void {
  const ipv6 = addresses.some((address) => address.includes(':'));
  // veth: 68 to 65535 (ip -d link); IPv6 needs 1280 (RFC 8200).
  const least = ipv6 ? 1280 : 68;
  if (Number.isInteger(mtu) && mtu >= least && mtu <= 65535) return;
  throw new MinirunError(
    `invalid --mtu ${mtu}`,
    `it must be between ${least} and 65535${ipv6 ? ', because IPv6 needs 1280' : ''}`,
    'Give one such as 1500',
  );
}

/** The subnet that an end's address is in. @throws MinirunError unless it is an address with a prefix length */
function subnetOfAddress(text: string, option: string): { address: Address; range: Range } {
  const cidr = readCidr(text);
  if (cidr === undefined) {
    throw new MinirunError(
      `invalid ${option} "${text}"`,
      text.includes('/') ? 'it is not an address with a prefix length' : 'the prefix length is missing',
      `Give one such as ${text.includes(':') ? 'fd00:1::1/64' : '10.0.1.1/24'}`,
    );
  }
  const { address, prefixLength } = cidr;
  const range = blockOf(address, prefixLength);
  const small = range.last - range.first < 2n;
  const broadcast = address.family === 4 && address.value === range.last;
  if (!small && (address.value === range.first || broadcast)) {
    throw new MinirunError(
      `invalid ${option} "${text}"`,
      broadcast ? `it is the broadcast address of ${formatRange(range)}` : `it stands for the subnet itself`,
      `Give one in between, such as ${formatAddress({ family: address.family, value: range.first + 1n })}/${prefixLength}`,
    );
  }
  return { address, range };
}

/** Where an end is, in the words of the command line: `web:eth1`, `host:veth0`, `phys:enp3s1`. */
export function endText(link: Pick<Link, 'kind' | 'ends'>, index: 0 | 1, nameOf: (id: string) => string): string {
  const { container, ifname } = link.ends[index];
  if (container !== undefined) return `${nameOf(container)}:${ifname}`;
  return link.kind === 'phys' ? `phys:${ifname}` : `host:${ifname}`;
}

/** Whether the network stacks of both ends are there, so that it can be made. */
export function bothPresent({ ends }: Pick<Link, 'ends'>): boolean {
  return ends.every(({ container, netns }) => container === undefined || netns !== undefined);
}

/** A network stack that a link is to end in: what it has, or will have once it runs. */
export interface Place {
  /** `host`, or the name of the container. */
  name: string;
  interfaces: { ifname: string; addresses: string[] }[];
  /** Without the default routes. `owner` is the link whose address made it. */
  routes: { destination: string; dev?: string; owner?: string }[];
}

/**
 * Refuses what would not work.
 *
 * @param places of the first and the second end; the host's for `phys`
 * @param force leaves out what the kernel would do, but to no good
 * @param title how to call the link: `link web:eth1 to db:eth1`
 */
export function checkLink(link: Link, places: readonly [Place, Place], force: boolean, title: string): void {
  const refuse = (why: string, remedy: string) => new MinirunError(`cannot ${title}`, why, remedy);
  const [a, b] = link.ends;
  const ends =
    link.kind === 'phys'
      ? ([[a, places[0], '--addr']] as const)
      : ([
          [a, places[0], '--addr'],
          [b, places[1], '--peer-addr'],
        ] as const);
  if (link.kind === 'veth' && a.container === b.container && a.ifname === b.ifname)
    throw refuse('both ends would be the same interface', 'Give the second end another name');
  for (const [{ ifname }, place] of ends) {
    if (place.interfaces.some((each) => each.ifname === ifname)) {
      throw refuse(
        `${place.name === 'host' ? 'the host' : `container "${place.name}"`} has an interface ${ifname} already`,
        `Choose another name, such as ${freeName(place, ifname)}`,
      );
    }
  }
  if (a.mac !== undefined && a.mac.toLowerCase() === b.mac?.toLowerCase())
    throw refuse('both ends would have the same MAC address', 'Give --peer-mac another one');
  const own = ends.map(([end, , option]) => end.addresses.map((text) => ({ text, ...subnetOfAddress(text, option) })));
  if (force) return;
  const [first = [], second = []] = own;
  const twice = first.find(({ address }) => second.some((other) => same(other.address, address)));
  if (twice !== undefined) {
    throw refuse(
      `both ends would have ${formatAddress(twice.address)}`,
      `Give --peer-addr another address of ${formatRange(twice.range)}, or --force to see what comes of it`,
    );
  }
  for (const [index, [end, place]] of ends.entries())
    for (const each of own[index] ?? []) checkSubnet(link, end, place, each, places, refuse);
}

function same(a: Address, b: Address): boolean {
  return a.family === b.family && a.value === b.value;
}

function freeName({ interfaces }: Place, ifname: string): string {
  const stem = ifname.replace(/\d+$/, '').slice(0, 12) || 'eth';
  for (let number = 0; ; number++)
    if (!interfaces.some((each) => each.ifname === `${stem}${number}`)) return `${stem}${number}`;
}

/** Two routes to one subnet in one stack: the kernel takes one of them, and whoever is behind the other is cut off. */
function checkSubnet(
  link: Link,
  end: LinkEnd,
  place: Place,
  { text, address, range }: { text: string; address: Address; range: Range },
  places: readonly [Place, Place],
  refuse: (why: string, remedy: string) => MinirunError,
): void {
  const who = place.name === 'host' ? 'the host' : `container "${place.name}"`;
  const holder = place.interfaces.find((each) => each.addresses.some((other) => sameAddress(other, address)));
  if (holder !== undefined) {
    throw refuse(
      `${who} has the address ${formatAddress(address)} on ${holder.ifname} already`,
      `Choose another address, or give --force to see what comes of it`,
    );
  }
  const route = place.routes.find(({ destination }) => {
    const other = readCidr(destination.includes('/') ? destination : `${destination}/${range.family === 4 ? 32 : 128}`);
    return other !== undefined && overlaps(blockOf(other.address, other.prefixLength), range);
  });
  if (route === undefined) return;
  const there = `${route.destination}${route.dev === undefined ? '' : ` on ${route.dev}`}`;
  const peer = link.ends[end === link.ends[0] ? 1 : 0];
  if (place.name === 'host' && route.owner !== undefined) {
    const [subnet, victim] = [formatRange(range), places[end === link.ends[0] ? 1 : 0].name];
    const wanted = peer.addresses[0]?.split('/')[0];
    throw refuse(
      `the host has ${there} already, from link "${route.owner}"; with ${text} on ${end.ifname} it would have two routes to one subnet and use the first, so that nothing would get back to ${victim}`,
      `Put the containers on one bridge network instead: minirun network create --subnet ${subnet} --gateway ${formatAddress(address)} lab, and then minirun run --network lab${wanted === undefined ? '' : ` --ip ${wanted}`} …; or give --force to see it fail`,
    );
  }
  throw refuse(
    `${formatRange(range)} overlaps the route that ${who} has to ${there}`,
    `Choose an address of another subnet, or give --force to see what comes of it`,
  );
}

function sameAddress(cidr: string, address: Address): boolean {
  const other = readCidr(cidr)?.address;
  return other !== undefined && same(other, address);
}

/** Whether one of these addresses, in CIDR form, is in the subnet of another. */
export function inSubnetOf(cidr: string, address: Address): boolean {
  const own = readCidr(cidr);
  return own !== undefined && contains(blockOf(own.address, own.prefixLength), address);
}

/** The name under which an interface of the host is found again, whatever a container has called it meanwhile. */
function markOf(ifname: string): string {
  return `minirun-${ifname}`;
}

/**
 * Steps that make a link. Pure.
 *
 * @param nameOf what to call a container
 * @param phys what the host's interface is like now; for `phys` only
 * @param ipv6 whether this kernel has IPv6
 */
export function planLink(link: Link, nameOf: (id: string) => string, ipv6: boolean, phys?: PhysFacts): Step[] {
  if (link.kind === 'phys') return planPhys(link, phys as PhysFacts, nameOf);
  const [a, b] = link.ends;
  const where = ({ container }: LinkEnd) => (container === undefined ? 'on the host' : `in ${nameOf(container)}`);
  return [
    {
      id: 'link.pair',
      why: `A veth pair is a cable with two plugs: ${a.ifname} is born ${where(a)}, ${b.ifname} ${where(b)}. Deleting one end deletes the other.`,
      apply: [ip('link', 'add', 'name', ...plug(a, link.mtu), 'type', 'veth', 'peer', 'name', ...plug(b, link.mtu))],
      undo: deletion(link),
    },
    ...link.ends.flatMap((end) => planEnd(end)),
    ...link.ends.flatMap((end) =>
      ipv6 && end.container === undefined && !end.addresses.some((address) => address.includes(':'))
        ? [
            {
              id: 'link.sysctl',
              why: `The host has no IPv6 on ${end.ifname}, which was given none: a container must not make it take routes.`,
              apply: [withoutIpv6(end.ifname)],
              undo: [],
            },
          ]
        : [],
    ),
    ...planShape(link),
  ];
}

function plug({ ifname, netns, mac }: LinkEnd, mtu?: number): string[] {
  return [
    ifname,
    ...(mtu === undefined ? [] : ['mtu', String(mtu)]),
    ...(mac === undefined ? [] : ['address', mac]),
    ...(netns === undefined ? [] : ['netns', netns]),
  ];
}

/** What takes a veth pair away. A container may have renamed its end, so the host's is taken, or both are tried. */
function deletion({ ends }: Link): IpCommand[] {
  const host = ends.find(({ container }) => container === undefined);
  if (host !== undefined) return [ip('link', 'del', 'dev', host.ifname)];
  return ends.map(({ netns, ifname }) => at(netns, 'link', 'del', 'dev', ifname));
}

/** An `ip` command where an end is. */
export function at(netns: string | undefined, ...args: string[]): IpCommand {
  return netns === undefined ? ip(...args) : ipIn(netns, ...args);
}

/**
 * Addresses and up. Those of IPv6 come after: given to an interface that is down, the kernel listens for who asks for
 * them only a second after it is up.
 */
function planEnd({ ifname, netns, addresses, up }: LinkEnd): Step[] {
  const addressing = (wanted: readonly string[], why: string): Step[] =>
    wanted.length === 0
      ? []
      : [
          {
            id: 'link.addr',
            why,
            apply: wanted.map((address) => at(netns, 'addr', 'add', ...addressArgs(address, ifname))),
            undo: [],
          },
        ];
  const isIpv6 = (address: string) => address.includes(':');
  return [
    ...addressing(
      addresses.filter((address) => !isIpv6(address)),
      `The prefix length tells the kernel which neighbours are behind ${ifname}; it derives a route from it.`,
    ),
    ...(up
      ? [
          {
            id: 'link.up',
            why: 'An interface passes nothing until it is up, and neither does its peer.',
            apply: [at(netns, 'link', 'set', 'dev', ifname, 'up')],
            undo: [],
          },
        ]
      : []),
    ...addressing(
      addresses.filter(isIpv6),
      'IPv6 addresses come after, or nobody would find them for a second; nobody else can have them here, so they are not asked for first (nodad).',
    ),
  ];
}

/** Nobody else can be on a cable with two ends: an IPv6 address needs no second of looking for a duplicate. */
export function addressArgs(address: string, ifname: string): string[] {
  return [address, 'dev', ifname, ...(address.includes(':') ? ['nodad'] : [])];
}

/** Rate, delay and loss of both ends: each shapes what leaves it, so they count in both directions. */
function planShape({ kind, ends, shape, mtu }: Link): Step[] {
  const text = shapeText(shape);
  if (text === '') return [];
  return (kind === 'phys' ? ends.slice(0, 1) : ends).map(({ ifname, netns }) => ({
    id: 'link.shape',
    why: `A queueing discipline decides when a packet leaves: ${text} for what leaves ${ifname}.`,
    apply: [shapeCommand(ifname, netns, shape, mtu)],
    undo: [],
  }));
}

/**
 * Moves an interface of the host into a container. Should its namespace be deleted, the kernel would destroy a virtual
 * interface, and put a physical one into the machine's first namespace, bare: so it is moved back before.
 */
function planPhys(link: Link, { interface: card, routes }: PhysFacts, nameOf: (id: string) => string): Step[] {
  const [end, { ifname: outside }] = link.ends;
  const netns = end.netns as string;
  const mark = markOf(outside);
  const set = (...args: string[]) => ipIn(netns, 'link', 'set', 'dev', end.ifname, ...args);
  const back = ['netns', '$$', 'name', outside];
  return [
    {
      id: 'phys.move',
      why: `An interface is in one network stack only: ${outside} leaves the host and is ${end.ifname} in ${nameOf(end.container as string)}. It keeps ${mark} as a second name, by which it is found again when it goes back with its addresses and routes.`,
      apply: [
        ip('link', 'property', 'add', 'dev', outside, 'altname', mark),
        ip('link', 'set', 'dev', outside, 'netns', netns, 'name', end.ifname),
      ],
      undo: [
        ipIn(netns, 'link', 'set', 'dev', mark, ...back),
        // In case the second name was taken away inside.
        set(...back),
        // In case somebody has deleted the namespace: a physical card is on the host then, under its name of inside.
        ip('link', 'set', 'dev', mark, 'name', outside),
        ip('link', 'property', 'del', 'dev', outside, 'altname', mark),
        ip(
          'link',
          'set',
          'dev',
          outside,
          'mtu',
          String(card.mtu),
          ...(end.mac === undefined ? [] : ['address', card.address]),
        ),
        ...card.addr_info
          .filter(isLasting)
          .map((info) => ip('addr', 'replace', ...restoredAddress(info), 'dev', outside)),
        ...(card.flags.includes('UP') ? [ip('link', 'set', 'dev', outside, 'up')] : []),
        // Those of a link first: the others' gateways are reached by them.
        ...routes
          .toSorted((one, other) => Number('gateway' in one) - Number('gateway' in other))
          .map((route) => ip('route', 'replace', ...restoredRoute(route), 'dev', outside)),
      ],
    },
    ...(end.mac === undefined && link.mtu === undefined
      ? []
      : [
          {
            id: 'phys.set',
            why: 'As it was asked for; what it was before comes back with the interface.',
            apply: [
              set(
                ...(link.mtu === undefined ? [] : ['mtu', String(link.mtu)]),
                ...(end.mac === undefined ? [] : ['address', end.mac]),
              ),
            ],
            undo: [],
          },
        ]),
    ...planEnd(end),
    ...planShape(link),
  ];
}

/** Whether an address was given by somebody: link-local ones and those of routers come again by themselves. */
function isLasting({ scope, protocol, temporary, mngtmpaddr }: PhysFacts['interface']['addr_info'][number]): boolean {
  return scope !== 'link' && protocol !== 'kernel_ra' && temporary !== true && mngtmpaddr !== true;
}

function restoredAddress(info: PhysFacts['interface']['addr_info'][number]): string[] {
  const lifetime = (seconds: number) => (seconds >= 4294967295 ? 'forever' : String(seconds));
  return [
    `${info.local}/${info.prefixlen}`,
    ...(info.broadcast === undefined ? [] : ['brd', info.broadcast]),
    ...(info.scope === 'global' ? [] : ['scope', info.scope]),
    ...(info.family === 'inet6' ? ['nodad'] : []),
    ...(info.valid_life_time >= 4294967295
      ? []
      : ['valid_lft', lifetime(info.valid_life_time), 'preferred_lft', lifetime(info.preferred_life_time)]),
  ];
}

function restoredRoute({ dst, gateway, via, table, protocol, scope, prefsrc, metric, flags }: KernelRoute): string[] {
  const next = via === undefined ? (gateway === undefined ? [] : ['via', gateway]) : ['via', via.family, via.host];
  return [
    dst,
    ...next,
    ...(table === undefined || table === 'main' ? [] : ['table', table]),
    ...(protocol === undefined ? [] : ['proto', protocol]),
    ...(scope === undefined ? [] : ['scope', scope]),
    ...(prefsrc === undefined ? [] : ['src', prefsrc]),
    ...(metric === undefined ? [] : ['metric', String(metric)]),
    ...(flags.includes('onlink') ? ['onlink'] : []),
  ];
}

/** Steps of several links and routes, in an order in which those of one network stack stand together. Pure. */
export function inStacks(steps: readonly Step[]): Step[] {
  const stackOf = (step: Step) => {
    const command = step.apply[0];
    if (command?.tool !== 'ip') return undefined;
    return command.netns ?? '';
  };
  const stacks = [...new Set(['', ...steps.flatMap((step) => stackOf(step) ?? [])])];
  return [...stacks, undefined].flatMap((stack) => steps.filter((step) => stackOf(step) === stack));
}
