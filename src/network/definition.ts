import type { ProcessRef } from '../host/process.ts';
import type { Step } from '../host/steps.ts';

/** A range of a network: IPv4 or IPv6. */
export interface Subnet {
  /** CIDR form: `10.90.0.0/16`, `fd12:3456:789a::/64`. */
  subnet: string;
  /** The containers' gateway; the host's own address on the bridge unless the network has `hostAddress: false`. */
  gateway: string;
  /** Addresses are handed out from this part only: CIDR form, inside `subnet`. */
  range?: string;
  /** Addresses that are never handed out: what for → address (`--aux-address`). */
  reserved?: Record<string, string>;
}

/** A route that every container of the network gets. */
export interface NetworkRoute {
  /** CIDR form. */
  destination: string;
  gateway: string;
}

export type Driver = 'bridge' | 'macvlan';

/** What a network is. */
export interface NetworkDefinition {
  name: string;
  /** 64 hexadecimal digits. */
  id: string;
  driver: Driver;
  /** Name of the bridge on the host, at most 15 characters; the interface that a macvlan network is on. */
  bridge: string;
  /** IPv4 ranges first, then IPv6; at least one. */
  subnets: Subnet[];
  routes: NetworkRoute[];
  /** No way out of it and none into it: no default route, nothing is forwarded. */
  internal: boolean;
  /** Nothing that a container has not asked for is forwarded into it, but published ports. */
  isolate: boolean;
  /** What leaves it carries the host's address. */
  masquerade: boolean;
  /** Its containers reach each other. */
  icc: boolean;
  /** Whether the host has the gateway addresses on the bridge; if not, a container may have them. */
  hostAddress: boolean;
  /** Of its interfaces; that of the default route's device when absent. */
  mtu?: number;
  /** RFC 3339. */
  created: string;
  labels: Record<string, string>;
  /** True for the default network: minirun chose the range, brings it up with its first container and takes it
   * down with its last. */
  automatic: boolean;
}

/** A network with its leases and with what of it is on the host: `networks/<name>.json`, the locked IPAM file. */
export interface Network extends NetworkDefinition {
  schema: 2;
  /** Address → id of the container that has it. */
  leases: Record<string, string>;
  /** Subnet → the address of it that was handed out last: the next one is looked for after it. */
  last: Record<string, string>;
  /** Whether the bridge and the rules are there. */
  up: boolean;
  /** The boot in which `up`, `leases` and `applied` were true. */
  boot: string;
  /** The process that is bringing the network up or down now; others wait for it. */
  claim?: ProcessRef;
  /** The process that will take the idle network down in a moment, unless it is used again before. */
  linger?: ProcessRef;
  /** When its last container left it idle, in milliseconds since 1970; only while it lingers. */
  idleSince?: number;
  /** What was applied, to be undone as it stands even by a later version. */
  applied: Step[];
}

/** What a container is to have in a network: one `--network`, or what `network connect` has added. */
export interface Attachment {
  network: string;
  /** Wanted addresses; the next free ones when absent. */
  ip?: string;
  ip6?: string;
  mac?: string;
  /** Name of the interface in the container; the next free `ethN` when absent. */
  ifname?: string;
  /** Further names under which the network's containers find it. */
  aliases: string[];
  /** The default route goes through the attachment that has the highest. */
  gatewayPriority: number;
}

/** An address of an interface. */
export interface InterfaceAddress {
  address: string;
  prefixLength: number;
  /** The gateway of its range; absent where there is none: internal networks, the gateway itself. */
  gateway?: string;
}

/** A container's place in a network. */
export interface Endpoint {
  network: string;
  driver: Driver;
  /** The bridge, or the interface that a macvlan is on. */
  bridge: string;
  /** Name of the interface in the container. */
  ifname: string;
  /** Name of the veth's other end, on the host; empty for a macvlan. */
  hostIfname: string;
  /** At least one of both. */
  ipv4?: InterfaceAddress;
  ipv6?: InterfaceAddress;
  routes: NetworkRoute[];
  mac: string;
  mtu: number;
  aliases: string[];
  gatewayPriority: number;
  /** Whether it must not reach other containers of its network. */
  alone: boolean;
}

/** A port of the host that leads to a container, as it is in effect: `-p` with every choice made. */
export interface PublishedPort {
  protocol: 'tcp' | 'udp' | 'sctp';
  /** Address of the host, IPv4 or IPv6; `0.0.0.0` and `::` for all of them. */
  hostIp: string;
  hostPort: number;
  containerPort: number;
}

export const defaultNetworkName = 'minirun0';

/** Ranges that the default network may have, in order of preference. */
export const defaultPools: readonly string[] = [
  '10.90.0.0/16',
  '10.91.0.0/16',
  '10.92.0.0/16',
  '10.93.0.0/16',
  '172.29.0.0/16',
  '172.30.0.0/16',
  '192.168.240.0/20',
];
