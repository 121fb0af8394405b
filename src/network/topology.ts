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
  /** Interfaces that are not minirun's: `eth0`; the outside is behind those that have `uplink`. */
  interfaces: { ifname: string; addresses: string[]; uplink: boolean }[];
  /** Routes beyond those the kernel derives from addresses: `default via 192.0.2.1 dev eth0`. */
  routes: string[];
}

export interface TopologyNetwork {
  name: string;
  driver: string;
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
  /** Whose network stack it has, when it has none of its own: that of another container, or the host's. */
  shares?: { container?: string };
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
  /** Whether it is switched on. */
  up: boolean;
}

export interface TopologyLinkEnd {
  /** The name of a container; `undefined` for the host. */
  container?: string;
  ifname: string;
  /** With prefix length. */
  addresses: string[];
}

/** A cable of its own: a veth pair without a bridge, whether `link add` or a user has made it. */
export interface TopologyLink {
  ends: [TopologyLinkEnd, TopologyLinkEnd];
  /** Rate, delay, loss in words, as set: `rate 10mbit`; empty for none. */
  shaping: string;
  /** Whether both ends are switched on. */
  up: boolean;
}

/**
 * The part of a topology that is about some networks and containers: of a network all of its containers, of a
 * container all of its networks, its links and those at their other ends. All of it when nothing is named.
 */
export function selectTopology(
  topology: Topology,
  chosen: { networks: readonly string[]; containers: readonly string[] },
): Topology {
  if (chosen.networks.length === 0 && chosen.containers.length === 0) return topology;
  const networksOf = ({ interfaces }: TopologyContainer) => interfaces.flatMap(({ network }) => network ?? []);
  const named = topology.containers.filter(({ name }) => chosen.containers.includes(name));
  const networks = new Set([...chosen.networks, ...named.flatMap(networksOf)]);
  const containers = new Set(chosen.containers);
  for (const { ends } of topology.links) {
    if (ends.some(({ container }) => container !== undefined && chosen.containers.includes(container)))
      for (const { container } of ends) if (container !== undefined) containers.add(container);
  }
  for (const container of topology.containers) {
    if (networksOf(container).some((network) => chosen.networks.includes(network))) containers.add(container.name);
    // A box shows those that share its network stack, and is shown for one of them.
    if (container.shares?.container !== undefined && containers.has(container.name))
      containers.add(container.shares.container);
  }
  const isShown = ({ name, shares }: TopologyContainer) =>
    containers.has(name) || (shares?.container !== undefined && containers.has(shares.container));
  return {
    host: topology.host,
    networks: topology.networks.filter(({ name }) => networks.has(name)),
    containers: topology.containers.filter(isShown),
    links: topology.links.filter(({ ends }) =>
      ends.every(({ container }) => container === undefined || containers.has(container)),
    ),
  };
}
