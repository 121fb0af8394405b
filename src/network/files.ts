import type { ProcessRef } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { stateRoot } from '../state/paths.ts';
import {
  absolutePath,
  count,
  flag,
  listOf,
  mapOf,
  number,
  object,
  oneOf,
  optional,
  processShape,
  type Shape as FileShape,
  text,
  textLike,
  time,
  word,
  wordOf,
} from '../state/shape.ts';
import { stepsShape } from '../state/steps-shape.ts';
import { parseSubnet, readAddress, readCidr } from './address.ts';
import type { Driver, Network, NetworkRoute, PublishedPort, Subnet } from './definition.ts';
import type { Link, LinkEnd } from './link.ts';
import type { Protocol } from './ports.ts';
import type { Route } from './route.ts';
import type { Shape } from './shape.ts';

/** As the kernel takes it. */
export const ifname = textLike(/^[^\s/:]{1,15}$/);

const ipv4Pattern = /^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.|$)){4}$/;

/** Planners take addresses and ranges as they are. The pattern spares most of them the parser. */
export const address: FileShape = {
  wrong: (value) =>
    typeof value === 'string' && ((ipv4Pattern.test(value) && !value.endsWith('.')) || readAddress(value) !== undefined)
      ? undefined
      : ': no address',
};

const addressWithLength: FileShape = {
  wrong: (value) =>
    typeof value === 'string' && readCidr(value) !== undefined ? undefined : ': no address with a prefix length',
};

const range: FileShape = {
  wrong(value) {
    try {
      parseSubnet(value as string);
      return undefined;
    } catch {
      return ': no range';
    }
  },
};

/** It becomes a part of paths. */
const containerId = textLike(/^[\w-]{1,64}$/);
/** What may be a name in a path. */
export const fileName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** `networks/<name>.json` */
export const networkShape = object<Network>({
  schema: oneOf(2),
  name: textLike(fileName),
  id: text,
  driver: wordOf<Driver>({ bridge: true, macvlan: true }),
  bridge: ifname,
  subnets: listOf(
    object<Subnet>({
      subnet: range,
      gateway: address,
      range: optional(range),
      reserved: optional(mapOf(address)),
    }),
  ),
  routes: listOf(object<NetworkRoute>({ destination: word, gateway: address })),
  internal: flag,
  isolate: flag,
  masquerade: flag,
  icc: flag,
  hostAddress: flag,
  mtu: optional(count),
  created: time,
  labels: mapOf(text),
  automatic: flag,
  leases: mapOf(containerId, address),
  last: mapOf(address),
  up: flag,
  boot: text,
  claim: optional(processShape),
  linger: optional(processShape),
  idleSince: optional(number),
  applied: stepsShape,
});

const protocol = wordOf<Protocol>({ tcp: true, udp: true, sctp: true });

/** A port of the host that leads to a container. */
export const publishedPort = object<PublishedPort>({
  protocol,
  hostIp: address,
  hostPort: count,
  containerPort: count,
});

/** `ports.json`: which container has which ports of the host. */
export interface Reservations {
  schema: 1;
  /** The boot in which they mean anything. */
  boot: string;
  /** Id of the container → its ports. */
  held: Record<string, PublishedPort[]>;
  /** The free port that was handed out last, by protocol: the next one is looked for after it. */
  last: Partial<Record<Protocol, number>>;
}

export const reservationsShape = object<Reservations>({
  schema: oneOf(1),
  boot: text,
  held: mapOf(listOf(publishedPort), containerId),
  last: mapOf(count),
});

const linkEnd = object<LinkEnd>({
  container: optional(containerId),
  ifname,
  addresses: listOf(addressWithLength),
  mac: optional(word),
  up: flag,
  netns: optional(word),
});

/** `links/<name>.json` */
export const linkShape = object<Link>({
  schema: oneOf(1),
  name: textLike(fileName),
  created: time,
  kind: wordOf<Link['kind']>({ veth: true, phys: true }),
  ends: listOf(linkEnd, { length: 2 }),
  mtu: optional(count),
  shape: object<Shape>({ rate: optional(number), delay: optional(number), loss: optional(number) }),
  boot: text,
  applied: stepsShape,
});

export const routeShape = object<Route>({
  destination: word,
  family: oneOf(4, 6),
  via: optional(word),
  dev: optional(word),
  src: optional(word),
  metric: optional(number),
});

/** A route of the host that was made on request. It goes with its interface. */
export interface HostRoute {
  route: Route;
  /** Number of the interface: another one of the same name has another number. */
  ifindex: number;
  steps: Step[];
}

/** `host-routes.json` */
export interface HostRoutes {
  schema: 1;
  boot: string;
  routes: HostRoute[];
}

export const hostRoutesShape = object<HostRoutes>({
  schema: oneOf(1),
  boot: text,
  routes: listOf(object<HostRoute>({ route: routeShape, ifindex: count, steps: stepsShape }), { partly: true }),
});

/** Files with what is to be in them; null for a file that is not to be there. */
export type Contents = [file: string, value: object | null][];

/** `changing.json`: what is being done to links and routes, and what takes it back. One process at a time. */
export interface Change {
  schema: 1;
  by: ProcessRef;
  boot: string;
  undo: Step[];
  restore: Contents;
}

/** A file of links or routes, as its place in the state directory says. */
const restored: FileShape = {
  wrong(value) {
    if (!Array.isArray(value) || value.length !== 2) return ': no file with what is to be in it';
    const [file, content] = value as unknown[];
    if (absolutePath.wrong(file) !== undefined || !(file as string).startsWith(`${stateRoot()}/`))
      return ': no file of the state';
    return typeof content === 'object' ? undefined : ': no content of a file';
  },
};

export const changeShape = object<Change>({
  schema: oneOf(1),
  by: processShape,
  boot: text,
  undo: stepsShape,
  restore: listOf(restored, { partly: true }),
});
