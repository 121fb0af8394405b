import fs from 'node:fs';
import os from 'node:os';
import { MinirunError } from '../errors.ts';
import { bootId } from '../host/process.ts';
import { peekFile, readFile } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { kinds } from '../state/migrations.ts';
import { paths } from '../state/paths.ts';
import { listOf, object, optional } from '../state/shape.ts';
import type { PublishedPort } from './definition.ts';
import { publishedPort, type Reservations, reservationsShape } from './files.ts';
import { hostAddressOf, isAnyAddress, isIpv6, type PortRequest, type Protocol } from './ports.ts';
import { textOrEmpty } from '../host/text.ts';

export interface ReserveOptions {
  /** The families of which the container gets an address. */
  ipv4: boolean;
  ipv6: boolean;
  /** Whether a container exists; the reservations of others are void. */
  exists: (container: string) => boolean;
  /** What to call a container in an error. */
  nameOf: (container: string) => string;
}

/**
 * Reserves ports of the host for a container, all or none, and says which they are: free ones are chosen here. What it
 * had before is given back. An address of the host that is not named means `0.0.0.0`, and `::` too, as far as the container
 * has an address of that family.
 *
 * @throws MinirunError (125) when another container or a process of the host has one of them, or none is free
 */
export async function reservePorts(
  container: string,
  requests: readonly PortRequest[],
  options: ReserveOptions,
): Promise<PublishedPort[]> {
  return choose(container, requests, options, writeReservations);
}

/** The ports that a container would get now. Nothing is reserved. */
export async function proposePorts(
  container: string,
  requests: readonly PortRequest[],
  options: ReserveOptions,
): Promise<PublishedPort[]> {
  return choose(container, requests, options, () => {});
}

async function choose(
  container: string,
  requests: readonly PortRequest[],
  options: ReserveOptions,
  write: (reservations: Reservations) => void,
): Promise<PublishedPort[]> {
  const wanted = requests.map((request) => ({ request, addresses: addressesOf(request, options) }));
  const listening = readListening(new Set(requests.map(({ protocol }) => protocol)));
  const range = freePortRange();
  return withLock(() => {
    const reservations = readReservations();
    for (const id of Object.keys(reservations.held))
      if (id === container || !options.exists(id)) delete reservations.held[id];
    const chosen = choosePorts(wanted, reservations, listening, range, options.nameOf);
    if (chosen.length > 0) reservations.held[container] = chosen;
    write(reservations);
    return chosen;
  });
}

/** Gives back what a container has; none is no error. */
export async function releasePorts(container: string): Promise<void> {
  // Without a look the lock would cost every container without ports a millisecond.
  if (readReservations().held[container] === undefined) return;
  await withLock(() => {
    const reservations = readReservations();
    delete reservations.held[container];
    writeReservations(reservations);
  });
}

/** Gives back what containers have that are no more. */
export async function sweepPorts(exists: (container: string) => boolean): Promise<void> {
  for (const id of Object.keys(readReservations().held)) if (!exists(id)) await releasePorts(id);
}

/** The containers that have ports. */
export function reservedPorts(): string[] {
  return Object.keys(readReservations().held);
}

function readReservations(): Reservations {
  const boot = bootId();
  const stored = readFile(kinds.ports, reservationsShape, paths.ports(), rebuiltPorts);
  return stored?.boot === boot ? stored : { schema: 1, boot, held: {}, last: stored?.last ?? {} };
}

/** `ports.json` by what the containers say. */
export function rebuiltPorts({ last = {} }: Partial<Reservations> = {}): Reservations {
  return { schema: 1, boot: bootId(), held: portsOfAll(), last };
}

/** What the containers say that they have. */
function portsOfAll(): Record<string, PublishedPort[]> {
  const ids = fs.readdirSync(paths.containers()).filter((entry) => /^[0-9a-f]{64}$/.test(entry));
  return Object.fromEntries(
    ids.flatMap((id) => {
      const { ports } = peekFile(kinds.state, portsOfState, `${paths.container(id)}/state.json`) ?? {};
      return ports === undefined ? [] : [[id, ports]];
    }),
  );
}

/** What of a container's state stands for its ports. */
const portsOfState = object<{ ports?: PublishedPort[] }>({ ports: optional(listOf(publishedPort)) });

/** The ports that a container holds. */
export function heldPorts(container: string): PublishedPort[] | undefined {
  return readReservations().held[container];
}

function writeReservations(reservations: Reservations): void {
  writeJson(paths.ports(), reservations, { durable: false });
}

/** @throws MinirunError when the container has no address of the family that was asked for */
function addressesOf({ hostIp, containerPort, protocol }: PortRequest, { ipv4, ipv6 }: ReserveOptions): string[] {
  if (hostIp === undefined) return [...(ipv4 ? ['0.0.0.0'] : []), ...(ipv6 ? ['::'] : [])];
  if (isIpv6(hostIp) ? ipv6 : ipv4) return [hostIp];
  throw new MinirunError(
    `cannot publish port ${containerPort}/${protocol} on ${hostIp}`,
    `the container gets no ${isIpv6(hostIp) ? 'IPv6' : 'IPv4'} address`,
    isIpv6(hostIp)
      ? 'Use a network with an IPv6 range (minirun network create --ipv6), or an IPv4 address of the host'
      : 'Use a network with an IPv4 range, or an IPv6 address of the host',
    { code: 125 },
  );
}

interface Wanted {
  request: PortRequest;
  addresses: string[];
}

/** A socket of a process of the host. */
export interface Listener {
  protocol: Protocol;
  address: string;
  port: number;
}

/** What every request comes to, in their order. Those that leave no choice come first, then ranges, then free ports. */
function choosePorts(
  wanted: readonly Wanted[],
  { held, last }: Pick<Reservations, 'held' | 'last'>,
  listening: readonly Listener[],
  range: [number, number],
  nameOf: (container: string) => string,
): PublishedPort[] {
  const takers = new Takers();
  for (const { protocol, address, port } of listening)
    takers.add(protocol, address, port, 'a process of this host listens there');
  for (const [id, ports] of Object.entries(held)) {
    for (const { protocol, hostIp, hostPort } of ports)
      takers.add(protocol, hostIp, hostPort, `container ${nameOf(id)} has published it`);
  }
  const chosen = new Map<Wanted, number>();
  const seen = new Set<string>();
  const freedom = ({ request: { hostPort } }: Wanted) => (hostPort === undefined ? 2 : Array.isArray(hostPort) ? 1 : 0);
  for (const each of wanted.toSorted((a, b) => freedom(a) - freedom(b))) {
    const { request, addresses } = each;
    // What is asked for twice in the same words is had once, as with docker.
    const words = JSON.stringify([addresses, request]);
    if (freedom(each) === 0 && seen.has(words)) continue;
    seen.add(words);
    const port = choosePort(each, takers, last, range);
    chosen.set(each, port);
    for (const address of addresses)
      takers.add(request.protocol, address, port, 'another -p of this container asks for it too');
  }
  return wanted.flatMap((each) => {
    const hostPort = chosen.get(each);
    const { containerPort, protocol } = each.request;
    if (hostPort === undefined) return [];
    return each.addresses.map((hostIp): PublishedPort => ({ protocol, hostIp, hostPort, containerPort }));
  });
}

function choosePort(
  { request: { hostPort, containerPort, protocol }, addresses }: Wanted,
  takers: Takers,
  last: Reservations['last'],
  [first, end]: [number, number],
): number {
  const takerOf = (port: number) =>
    addresses.map((address) => takers.of(protocol, address, port)).find((why) => why !== undefined);
  const refuse = (ports: string, why: string, remedy: string) =>
    new MinirunError(`cannot publish port ${ports}/${protocol} of ${addresses.join(' and ')}`, why, remedy, {
      code: 125,
    });
  if (typeof hostPort === 'number') {
    const why = takerOf(hostPort);
    if (why === undefined) return hostPort;
    throw refuse(
      String(hostPort),
      why,
      `Choose another port of the host, or let minirun choose: -p ${containerPort}/${protocol}`,
    );
  }
  if (hostPort !== undefined) {
    for (let port = hostPort[0]; port <= hostPort[1]; port++) if (takerOf(port) === undefined) return port;
    throw refuse(hostPort.join('-'), 'all of them are taken', 'Give a larger range, or other ports');
  }
  // Onwards from the last one: a port that has just become free may still be in some client's mind.
  const size = end - first + 1;
  const start = (last[protocol] ?? first - 1) + 1;
  for (let step = 0; step < size; step++) {
    const port = first + ((((start - first + step) % size) + size) % size);
    if (takerOf(port) !== undefined) continue;
    last[protocol] = port;
    return port;
  }
  throw refuse(`${first}-${end}`, 'all of them are taken', 'Remove containers, or name a port: -p HOST:CONTAINER');
}

/** Who has which port. Reservations of `0.0.0.0` and of an IPv4 address exclude each other, so do `::` and an IPv6 one. */
class Takers {
  private readonly byPort = new Map<string, { address: string; why: string }[]>();

  add(protocol: Protocol, address: string, port: number, why: string): void {
    const key = `${protocol} ${port}`;
    const list = this.byPort.get(key);
    if (list === undefined) this.byPort.set(key, [{ address, why }]);
    else list.push({ address, why });
  }

  of(protocol: Protocol, address: string, port: number): string | undefined {
    return this.byPort.get(`${protocol} ${port}`)?.find((taker) => excludes(taker.address, address))?.why;
  }
}

function excludes(a: string, b: string): boolean {
  return isIpv6(a) === isIpv6(b) && (a === b || isAnyAddress(a) || isAnyAddress(b));
}

/** The ports that the kernel hands out itself (32768–60999 unless changed); docker chooses from the same. */
function freePortRange(): [number, number] {
  const [first = 32768, last = 60999] = (textOrEmpty('/proc/sys/net/ipv4/ip_local_port_range').match(/\d+/g) ?? []).map(
    Number,
  );
  return [first, last];
}

/** Sockets of the host that a publication of their port would hide: listening ones, for UDP and SCTP all that have a port. */
function readListening(protocols: ReadonlySet<Protocol>): Listener[] {
  const found: Listener[] = [];
  for (const protocol of protocols) {
    if (protocol === 'sctp') found.push(...parseSctpEndpoints(textOrEmpty('/proc/self/net/sctp/eps')));
    else
      for (const file of [protocol, `${protocol}6`])
        found.push(...parseSockets(textOrEmpty(`/proc/self/net/${file}`), protocol));
  }
  return found;
}

/** TCP_LISTEN of the kernel's net/tcp_states.h. */
const listenState = '0A';

/** The sockets in the text of /proc/net/tcp, tcp6, udp or udp6 (proc_pid_net(5)) that have a port of their own. */
export function parseSockets(text: string, protocol: 'tcp' | 'udp'): Listener[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line): Listener[] => {
      const [, local = '', , state] = line.trim().split(/\s+/);
      const [hex = '', portHex = ''] = local.split(':');
      if (hex === '' || (protocol === 'tcp' && state !== listenState)) return [];
      const port = Number.parseInt(portHex, 16);
      const address = addressOfHex(hex);
      // Whether it takes IPv4 as well (it does unless IPV6_V6ONLY is set) is not to be seen from outside.
      return (address === '::' ? ['::', '0.0.0.0'] : [address]).map((each) => ({ protocol, address: each, port }));
    });
}

/** The kernel prints an address as 32-bit numbers in its own byte order. */
function addressOfHex(hex: string): string {
  const bytes = (hex.match(/.{8}/g) ?? []).flatMap((group) => {
    const four = (group.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16));
    return os.endianness() === 'LE' ? four.toReversed() : four;
  });
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, index) =>
    (((bytes[2 * index] ?? 0) << 8) | (bytes[2 * index + 1] ?? 0)).toString(16),
  );
  return hostAddressOf(groups.join(':')) ?? '::';
}

/** The endpoints in /proc/net/sctp/eps: `ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS…`. */
export function parseSctpEndpoints(text: string): Listener[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line): Listener[] => {
      const fields = line.trim().split(/\s+/);
      const port = Number(fields[5]);
      if (!(port > 0)) return [];
      return fields.slice(8).flatMap((word): Listener[] => {
        const address = hostAddressOf(word);
        if (address === undefined) return [];
        return (address === '::' ? ['::', '0.0.0.0'] : [address]).map((each) => ({
          protocol: 'sctp',
          address: each,
          port,
        }));
      });
    });
}

/**
 * Checks the addresses that ports are to be published on, before any effect.
 *
 * @param own the host's addresses
 * @throws MinirunError (125) for one that is not the host's
 */
export function checkHostIps(requests: readonly PortRequest[], own: readonly string[] = hostAddresses()): void {
  for (const { hostIp } of requests) {
    if (hostIp === undefined || isAnyAddress(hostIp) || hostIp.startsWith('127.') || own.includes(hostIp)) continue;
    throw new MinirunError(
      `cannot publish on ${hostIp}`,
      `this host does not have that address; it has ${own.join(', ') || 'none'}`,
      `Use one of them, or ${isIpv6(hostIp) ? '::' : '0.0.0.0'} for all`,
      { code: 125 },
    );
  }
}

/** The host's addresses, link-local ones left out: they mean nothing without their interface. */
function hostAddresses(): string[] {
  return Object.values(os.networkInterfaces())
    .flatMap((list) => list ?? [])
    .flatMap(({ address }) => hostAddressOf(address.replace(/%.*/, '')) ?? [])
    .filter((address) => !address.startsWith('fe80:'));
}
