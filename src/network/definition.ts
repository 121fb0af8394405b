import type { ProcessRef } from '../host/process.ts';
import type { Step } from '../host/steps.ts';

/** What a network is. */
export interface NetworkDefinition {
  name: string;
  /** 64 hexadecimal digits. */
  id: string;
  driver: 'bridge';
  /** Name of the bridge on the host, at most 15 characters. */
  bridge: string;
  /** IPv4 range in CIDR form: `10.90.0.0/16`. */
  subnet: string;
  /** The host's address on the bridge, which is the containers' gateway. */
  gateway: string;
  /** RFC 3339. */
  created: string;
  labels: Record<string, string>;
  /** True for the default network: minirun chose the range, brings it up with its first container and takes it
   * down with its last. */
  automatic: boolean;
}

/** A network with its leases and with what of it is on the host: `networks/<name>.json`, the locked IPAM file. */
export interface Network extends NetworkDefinition {
  schema: 1;
  /** Address → id of the container that has it. */
  leases: Record<string, string>;
  /** The address handed out last: the next one is looked for after it. */
  last?: string;
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

/** A container's place in a network. */
export interface Endpoint {
  network: string;
  bridge: string;
  /** Name of the interface in the container. */
  ifname: string;
  /** Name of the veth's other end, on the host. */
  hostIfname: string;
  address: string;
  prefixLength: number;
  gateway: string;
  mac: string;
  mtu: number;
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
