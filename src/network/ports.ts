import ipaddr from 'ipaddr.js';
import { MinirunError } from '../errors.ts';
import type { PublishedPort } from './definition.ts';

export type Protocol = PublishedPort['protocol'];

/** One port of a container that is to be published: `-p`, a choice or two still open. */
export interface PortRequest {
  /** Address of the host; every one of them when absent. */
  hostIp?: string;
  /** A free one when absent; the first free one of a range: first and last port of it. */
  hostPort?: number | [number, number];
  containerPort: number;
  protocol: Protocol;
}

const protocols: readonly string[] = ['tcp', 'udp', 'sctp'] satisfies Protocol[];

/**
 * What `-p [IP:][HOST[-RANGE]:]CONTAINER[-RANGE][/tcp|udp|sctp]` asks for, a request for each port of the container.
 * The rules are docker's (go-connections, `nat.ParsePortSpec`): ranges have one length, but for one container port a range
 * of the host is a choice; an IPv6 address stands in brackets, and without them is told by its colons.
 *
 * @throws MinirunError (125) when it is not of that form
 */
export function parsePublish(text: string): PortRequest[] {
  const refuse = (why: string, remedy = 'For example -p 8080:80, -p 127.0.0.1:5353:53/udp or -p 80') =>
    new MinirunError(`invalid -p "${text}"`, why, remedy, { code: 125 });
  const parts = text.split(':');
  const [range = '', name = 'tcp', ...more] = (parts.pop() as string).split('/');
  const hostRange = parts.pop() ?? '';
  const protocol = (name || 'tcp').toLowerCase();
  if (range === '') throw refuse('it names no port of the container');
  if (more.length > 0 || !protocols.includes(protocol))
    throw refuse(`there is no protocol "${[name, ...more].join('/')}"`, 'Use tcp, udp or sctp');
  const container = parseRange(range);
  if (container === undefined) throw refuse(`"${range}" is no port and no range of ports of the container`);
  const host = hostRange === '' || hostRange === '0' ? undefined : parseRange(hostRange);
  if (host === undefined && hostRange !== '' && hostRange !== '0')
    throw refuse(`"${hostRange}" is no port and no range of ports of the host`);
  const hostIp = parts.length === 0 ? undefined : parseHostIp(parts.join(':'));
  if (hostIp === null)
    throw refuse(`"${parts.join(':')}" is not an IP address`, 'Write IPv6 in brackets: -p [::1]:8080:80');
  const count = container[1] - container[0] + 1;
  if (host !== undefined && count > 1 && host[1] - host[0] + 1 !== count) {
    throw refuse(
      `${host[1] - host[0] + 1} ports of the host do not go with ${count} of the container`,
      'Give ranges of one length',
    );
  }
  return Array.from({ length: count }, (_, index): PortRequest => {
    const hostPort = host === undefined ? undefined : count === 1 && host[0] !== host[1] ? host : host[0] + index;
    return {
      ...(hostIp === undefined ? {} : { hostIp }),
      ...(hostPort === undefined ? {} : { hostPort }),
      containerPort: container[0] + index,
      protocol: protocol as Protocol,
    };
  });
}

/** First and last port of `8000-8002` or `80`; undefined for what is neither. */
function parseRange(text: string): [number, number] | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  return match === null || first < 1 || last > 65535 || last < first ? undefined : [first, last];
}

/** An address in its usual form; undefined for an empty text, null for what is no address. */
function parseHostIp(text: string): string | undefined | null {
  if (text === '') return undefined;
  const bare = /^\[(.*)\]$/.exec(text)?.[1] ?? text;
  // A zone (fe80::1%eth0) is what no rule can name.
  if (bare.includes('%')) return null;
  return hostAddressOf(bare) ?? null;
}

/** `0:0::1` → `::1`, `::ffff:10.0.0.1` → `10.0.0.1`; undefined for what is no address. */
export function hostAddressOf(text: string): string | undefined {
  if (ipaddr.IPv4.isValidFourPartDecimal(text)) return text;
  if (!ipaddr.IPv6.isValid(text)) return undefined;
  const address = ipaddr.IPv6.parse(text);
  return address.isIPv4MappedAddress() ? address.toIPv4Address().toString() : address.toString();
}

/** `-P`: every port that the image or `--expose` names (`80/tcp`), on a free port of the host, unless `-p` has it already. */
export function requestsForExposed(exposed: readonly string[], given: readonly PortRequest[] = []): PortRequest[] {
  return exposed
    .map((text): PortRequest => {
      const [port, protocol = 'tcp'] = text.split('/');
      return { containerPort: Number(port), protocol: protocol as Protocol };
    })
    .filter(
      ({ containerPort, protocol }) =>
        !given.some((each) => each.containerPort === containerPort && each.protocol === protocol),
    );
}

export function isIpv6(address: string): boolean {
  return address.includes(':');
}

/** Both `0.0.0.0` and `::` stand for every address of their family. */
export function isAnyAddress(address: string): boolean {
  return address === '0.0.0.0' || address === '::';
}

/** `127.0.0.1:8080`, `[::1]:8080`. */
export function joinHostPort(address: string, port: number | string): string {
  return isIpv6(address) ? `[${address}]:${port}` : `${address}:${port}`;
}
