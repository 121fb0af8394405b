import type { TopologyContainer, TopologyNetwork } from '../../../network/topology.ts';
import { printable } from '../printable.ts';

/** A published port in parts; both families of a port on all addresses are one, with the address `*`. */
export interface ShownPort {
  /** `*:8080`, `127.0.0.1:8080`. */
  host: string;
  /** `80/tcp`. */
  container: string;
}

/** @param ports in docker's form: `0.0.0.0:8080->80/tcp` */
export function shownPorts(ports: readonly string[]): ShownPort[] {
  const shown = ports.map((port) => {
    const [host = '', container = ''] = printable(port).split('->');
    return { host: host.replace(/^(0\.0\.0\.0|\[::\]):/, '*:'), container };
  });
  return shown.filter(
    (port, index) => shown.findIndex((each) => each.host === port.host && each.container === port.container) === index,
  );
}

/** What is special about a network, in words. */
export function networkRemarks({ driver, bridge, internal, isolate, masquerade, up }: TopologyNetwork): string[] {
  return [
    ...(driver === 'bridge' ? [] : [`${printable(driver)} on ${printable(bridge)}`]),
    ...(internal ? ['internal'] : masquerade || driver !== 'bridge' ? [] : ['no masquerade']),
    ...(isolate || driver !== 'bridge' ? [] : ['not isolated']),
    ...(up ? [] : ['down']),
  ];
}

/** What is special about a container, in words. */
export function containerRemarks({ status, router }: TopologyContainer): string[] {
  return [...(status === 'running' ? [] : [status]), ...(router ? ['router'] : [])];
}

/** Its routes; where it has one interface only, without naming that. */
export function containerRoutes({ routes, interfaces }: TopologyContainer): string[] {
  return routes.map((route) => printable(interfaces.length === 1 ? route.replace(/ dev \S+$/, '') : route));
}

/** An image's reference in at most so many characters. */
export function shownImage(image: string, most = 32): string {
  const text = printable(image);
  return text.length <= most ? text : `${text.slice(0, most - 3)}...`;
}

/**
 * Containers by whose network stack they are in: those that have their own, each with those that share it, and those on
 * the host's. One whose partner is not shown stands for itself.
 */
export function groupByStack(containers: readonly TopologyContainer[]): {
  own: { container: TopologyContainer; guests: TopologyContainer[] }[];
  host: TopologyContainer[];
} {
  const names = new Set(containers.filter(({ shares }) => shares === undefined).map(({ name }) => name));
  const isGuest = ({ shares }: TopologyContainer) => shares?.container !== undefined && names.has(shares.container);
  const isHosts = ({ shares }: TopologyContainer) => shares !== undefined && shares.container === undefined;
  return {
    own: containers
      .filter((each) => !isGuest(each) && !isHosts(each))
      .map((container) => ({
        container,
        guests: containers.filter((each) => isGuest(each) && each.shares?.container === container.name),
      })),
    host: containers.filter(isHosts),
  };
}
