/**
 * What is connected to what, for `network graph`: read once from the state and the kernel, drawn by `cli/output/graph/`.
 * Data only; every list is in a stable order.
 */
export interface Topology {
  host: TopologyHost;
  networks: TopologyNetwork[];
  containers: TopologyContainer[];
  links: TopologyLink[];
}

export interface TopologyHost {
  name: string;
  /** Interfaces that are not minirun's: `eth0`; the outside is behind the one that has `uplink`. */
  interfaces: { ifname: string; addresses: string[]; uplink: boolean }[];
  /** Routes beyond those the kernel derives from addresses: `default via 192.0.2.1 dev eth0`. */
  routes: string[];
}

export interface TopologyNetwork {
  name: string;
  driver: 'bridge' | 'macvlan';
  /** The bridge; the parent interface of a macvlan. */
  bridge: string;
  subnets: string[];
  /** The host's addresses on the bridge with their prefix length: `10.90.0.1/16`; empty when it has none. */
  hostAddresses: string[];
  internal: boolean;
  isolate: boolean;
  masquerade: boolean;
  up: boolean;
}

export interface TopologyContainer {
  name: string;
  /** Docker's word: running, exited … */
  status: string;
  image: string;
  interfaces: TopologyInterface[];
  /** `default via 10.90.0.1 dev eth0`. */
  routes: string[];
  /** Published ports: `0.0.0.0:8080->80/tcp`. */
  ports: string[];
  /** It forwards packets between its interfaces. */
  router: boolean;
  /** `host`, or the name of the container whose network stack it shares. */
  shares?: string;
}

export interface TopologyInterface {
  ifname: string;
  /** With prefix length: `10.90.0.2/16`. */
  addresses: string[];
  mac: string;
  /** The network it is plugged into; absent for an end of a link. */
  network?: string;
  /** Name of the veth's other end on the host, when there is one. */
  hostIfname?: string;
}

/** A cable of its own, made by `link add`. */
export interface TopologyLink {
  /** Where each end is: the name of a container, or `host`. */
  ends: [{ at: string; ifname: string; addresses: string[] }, { at: string; ifname: string; addresses: string[] }];
  /** Rate, delay, loss in words, as set: `rate 10mbit`; empty for none. */
  shaping: string;
  up: boolean;
}
