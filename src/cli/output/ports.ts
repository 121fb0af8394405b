import type { PublishedPort } from '../../network/definition.ts';
import { joinHostPort } from '../../network/ports.ts';

interface Shown {
  /** Absent for a port that is exposed only. */
  hostIp?: string;
  hostPort?: number;
  containerPort: number;
  protocol: string;
}

/**
 * The PORTS column of `ps`, in docker's words and order (docker/cli, `DisplayablePorts`): `0.0.0.0:8000-8002->8000-8002/tcp,
 * 80/tcp`. Neighbours that have one number on both sides are one range; others follow, each by itself.
 *
 * @param exposed `80/tcp`; those that are published are left out
 */
export function describePorts(published: readonly PublishedPort[], exposed: readonly string[]): string {
  const shown: Shown[] = [
    ...published,
    ...exposed
      .map((text) => ({ containerPort: Number.parseInt(text, 10), protocol: text.split('/')[1] ?? 'tcp' }))
      .filter(
        (port) =>
          !published.some((each) => each.containerPort === port.containerPort && each.protocol === port.protocol),
      ),
  ].toSorted(inOrder);
  const done: string[] = [];
  const mapped: string[] = [];
  const open = new Map<string, { first: number; port: Shown; last: number }>();
  for (const port of shown) {
    const { hostIp, hostPort, containerPort, protocol } = port;
    if (hostIp !== undefined && hostPort !== containerPort) {
      mapped.push(`${joinHostPort(hostIp, hostPort as number)}->${containerPort}/${protocol}`);
      continue;
    }
    const key = `${hostIp} ${protocol}`;
    const range = open.get(key);
    if (range?.last === containerPort - 1) {
      range.last = containerPort;
      continue;
    }
    if (range !== undefined) done.push(formatRange(range));
    open.set(key, { first: containerPort, last: containerPort, port });
  }
  return [...done, ...[...open.values()].map(formatRange), ...mapped].join(', ');
}

function formatRange({ first, last, port }: { first: number; last: number; port: Shown }): string {
  const range = first === last ? String(first) : `${first}-${last}`;
  const from = port.hostIp === undefined ? '' : `${joinHostPort(port.hostIp, range)}->`;
  return `${from}${range}/${port.protocol}`;
}

function inOrder(a: Shown, b: Shown): number {
  return (
    a.containerPort - b.containerPort ||
    compare(addressOrder(a.hostIp), addressOrder(b.hostIp)) ||
    (a.hostPort ?? 0) - (b.hostPort ?? 0) ||
    compare(a.protocol, b.protocol)
  );
}

/** IPv4 before IPv6. */
function addressOrder(address = ''): string {
  return `${address.includes(':') ? 1 : 0}${address}`;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
