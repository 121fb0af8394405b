import { MinirunError } from '../errors.ts';
import type { Step } from '../host/steps.ts';
import { at, inSubnetOf } from './link.ts';
import {
  blockOf,
  contains,
  formatAddress,
  formatRange,
  parseAddress,
  parseDestination,
  type Range,
  readAddress,
  readCidr,
} from './address.ts';

/** A route that somebody asked for: of a container, `containers/<id>/routes.json`, or of the host. */
export interface Route {
  /** `default`, or a range in CIDR form. */
  destination: string;
  family: 4 | 6;
  via?: string;
  dev?: string;
  src?: string;
  metric?: number;
}

/** An interface with what is reached over it directly. */
export interface Reach {
  ifname: string;
  /** In CIDR form with host bits: `10.0.1.1/24`. */
  addresses: string[];
}

/** A route that is there, as far as it matters here. */
export type PresentRoute = Pick<Route, 'destination' | 'via' | 'dev' | 'metric'>;

const usage = 'Give DEST via GATEWAY, DEST dev INTERFACE or both, such as 10.0.2.0/24 via 10.0.1.1 dev eth1';

/** A route in the words of `ip route`. @throws MinirunError when it is none */
export function parseRoute(words: readonly string[]): Route {
  const [target, ...rest] = words;
  if (target === undefined) throw new MinirunError('no route given', 'the destination is missing', usage);
  const values = new Map<string, string>();
  for (let index = 0; index < rest.length; index += 2) {
    const [key = '', value] = rest.slice(index, index + 2);
    if (!['via', 'dev', 'src', 'metric'].includes(key))
      throw new MinirunError(
        `invalid route "${words.join(' ')}"`,
        `"${key}" is none of via, dev, src and metric`,
        usage,
      );
    if (value === undefined)
      throw new MinirunError(`invalid route "${words.join(' ')}"`, `nothing stands after "${key}"`, usage);
    if (values.has(key))
      throw new MinirunError(`invalid route "${words.join(' ')}"`, `"${key}" stands there twice`, usage);
    values.set(key, value);
  }
  const [via, src, dev, metric] = ['via', 'src', 'dev', 'metric'].map((key) => values.get(key));
  const gateway = via === undefined ? undefined : parseAddress(via);
  const isDefault = ['default', '0.0.0.0/0', '::/0'].includes(target);
  const range = isDefault ? undefined : parseDestination(target);
  const family = range?.family ?? (target === '::/0' ? 6 : target === '0.0.0.0/0' ? 4 : (gateway?.family ?? 4));
  for (const [key, text] of [
    ['via', via],
    ['src', src],
  ] as const) {
    if (text === undefined) continue;
    const address = parseAddress(text);
    if (address.family !== family) {
      throw new MinirunError(
        `invalid route "${words.join(' ')}"`,
        `${target} is IPv${family} and "${key} ${text}" is IPv${address.family}`,
        'Give addresses of one kind',
      );
    }
  }
  if (metric !== undefined && !/^\d{1,9}$/.test(metric))
    throw new MinirunError(`invalid metric "${metric}"`, 'it is not a number', 'Give one such as 100');
  return {
    destination: range === undefined ? 'default' : formatRange(range),
    family,
    ...(gateway === undefined ? {} : { via: formatAddress(gateway) }),
    ...(dev === undefined ? {} : { dev }),
    ...(src === undefined ? {} : { src: formatAddress(parseAddress(src)) }),
    ...(metric === undefined ? {} : { metric: Number(metric) }),
  };
}

/** A route in the words of `ip route`. */
export function routeText(route: Route): string {
  return routeArgs(route).join(' ');
}

function routeArgs({ destination, via, dev, src, metric }: Route): string[] {
  return [
    destination,
    ...(via === undefined ? [] : ['via', via]),
    ...(dev === undefined ? [] : ['dev', dev]),
    ...(src === undefined ? [] : ['src', src]),
    ...(metric === undefined ? [] : ['metric', String(metric)]),
  ];
}

/** The interface that a route leads over: the one it names, or the one in whose subnet its gateway is. */
export function deviceOf(
  { via, dev }: Route,
  interfaces: readonly Reach[],
  present: readonly PresentRoute[] = [],
): string | undefined {
  if (dev !== undefined) return interfaces.some(({ ifname }) => ifname === dev) ? dev : undefined;
  const gateway = via === undefined ? undefined : readAddress(via);
  if (gateway === undefined) return undefined;
  const direct = interfaces.find(({ addresses }) => addresses.some((address) => inSubnetOf(address, gateway)));
  if (direct !== undefined) return direct.ifname;
  // A route without a gateway says that a subnet is reached directly, too.
  return present.find((route) => {
    const range = route.via === undefined ? rangeOf(route.destination, gateway.family) : undefined;
    return range !== undefined && contains(range, gateway);
  })?.dev;
}

function rangeOf(destination: string, family: 4 | 6): Range | undefined {
  if (destination === 'default') return undefined;
  const cidr = readCidr(destination.includes('/') ? destination : `${destination}/${family === 4 ? 32 : 128}`);
  return cidr && blockOf(cidr.address, cidr.prefixLength);
}

/** Whether two routes have the same place in a table: the kernel takes one of the kind. */
export function samePlace(a: Pick<Route, 'destination' | 'metric' | 'family'>, b: typeof a): boolean {
  // The kernel's own metric of IPv6 routes is 1024.
  const metric = (route: typeof a) => route.metric ?? (route.family === 6 ? 1024 : 0);
  return a.family === b.family && a.destination === b.destination && metric(a) === metric(b);
}

/**
 * Refuses a route that the kernel would refuse, or that would not do what was meant.
 *
 * @param place `host`, or the name of the container
 * @param interfaces what the place has, or will have once it runs
 * @param present its routes, those that the kernel derives from addresses among them
 */
export function checkRoute(
  route: Route,
  place: string,
  interfaces: readonly Reach[],
  present: readonly (PresentRoute & { family: 4 | 6 })[],
): void {
  const who = place === 'host' ? 'the host' : `container "${place}"`;
  const refuse = (why: string, remedy: string) =>
    new MinirunError(`cannot add the route ${routeText(route)}`, why, remedy);
  const { destination, via, dev, family } = route;
  if (via === undefined && dev === undefined) throw refuse('it says neither via whom nor over which interface', usage);
  const names = interfaces.map(({ ifname }) => ifname);
  if (dev !== undefined && !names.includes(dev))
    throw refuse(
      `${who} has no interface ${dev}`,
      names.length === 0 ? 'Link it or put it on a network first' : `It has ${names.join(', ')}`,
    );
  const source = route.src === undefined ? undefined : readAddress(route.src);
  if (
    source !== undefined &&
    !interfaces.some((each) => each.addresses.some((address) => inSubnetOf(address, source)))
  ) {
    throw refuse(
      `${route.src} is no address of ${who}`,
      'Give one that it has, or leave src out: the kernel takes that of the interface',
    );
  }
  const twin = present.find((each) => samePlace(each, route));
  if (twin !== undefined) {
    const { family: _family, ...shown } = twin;
    const there = routeText({ ...shown, family });
    const del = `minirun route del ${place} ${destination}`;
    throw destination === 'default'
      ? refuse(
          `${who} has a default route already (${there}), and the kernel keeps one of each metric`,
          `Take that one away first (${del}), or give this one another place in the order: … metric ${(twin.metric ?? 0) + 100}`,
        )
      : refuse(
          `${who} has a route to ${destination} already (${there})`,
          `Take that one away first (${del}), or give a metric`,
        );
  }
  const gateway = via === undefined ? undefined : readAddress(via);
  if (gateway === undefined) return;
  const addresses = interfaces.flatMap((each) => each.addresses);
  const own = addresses.find((address) => {
    const cidr = readCidr(address);
    return cidr?.address.family === gateway.family && cidr.address.value === gateway.value;
  });
  if (own !== undefined)
    throw refuse(`${via} is ${who} itself`, 'A gateway is a neighbour that passes packets on: give its address');
  const found = deviceOf({ ...route, dev: undefined }, interfaces, present);
  if (found === undefined || (dev !== undefined && found !== dev && !reaches(interfaces, dev, gateway))) {
    const subnets = interfaces.flatMap(({ ifname, addresses: list }) =>
      list.flatMap((address) => {
        const cidr = readCidr(address);
        if (cidr === undefined || cidr.address.family !== family) return [];
        return [`${formatRange(blockOf(cidr.address, cidr.prefixLength))} (${ifname})`];
      }),
    );
    throw refuse(
      `${who} does not reach ${via} directly${dev === undefined || found === undefined ? '' : ` over ${dev}`}: a gateway must be a neighbour`,
      subnets.length === 0
        ? `It has no IPv${family} subnet yet: link it or put it on a network first`
        : `Its neighbours are in ${subnets.join(', ')}`,
    );
  }
}

function reaches(interfaces: readonly Reach[], dev: string, gateway: { family: 4 | 6; value: bigint }): boolean {
  return interfaces.some(
    ({ ifname, addresses }) => ifname === dev && addresses.some((each) => inSubnetOf(each, gateway)),
  );
}

/**
 * The step of one route.
 *
 * @param verb `add` for one that must not be there yet; `replace` at a start, where a network may have set a default
 */
export function planRoute(route: Route, netns: string | undefined, verb: 'add' | 'replace'): Step {
  const { destination, via, dev } = route;
  const target = destination === 'default' ? 'Everything that no other route matches' : `What goes to ${destination}`;
  const args = routeArgs(route);
  return {
    id: 'route.add',
    why:
      via === undefined
        ? `${target} leaves by ${dev}, where the receiver itself is asked for.`
        : `${target} is handed to ${via}, which passes it on.`,
    apply: [at(netns, 'route', verb, ...args)],
    undo: [at(netns, 'route', 'del', ...args)],
  };
}

/** Steps of those of a container's routes that lead over one of these interfaces. Pure. */
export function planRoutes(
  routes: readonly Route[],
  netns: string,
  interfaces: readonly Reach[],
  over: (ifname: string) => boolean,
): Step[] {
  return routes.flatMap((route) => {
    const dev = deviceOf(route, interfaces, routes);
    // The namespace takes its routes along, and an interface those over it.
    return dev !== undefined && over(dev) ? [{ ...planRoute({ ...route, dev }, netns, 'replace'), undo: [] }] : [];
  });
}
