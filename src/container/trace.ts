import dns from 'node:dns/promises';
import { isIP } from 'node:net';
import { MinirunError } from '../errors.ts';
import { missingTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { listNetworks } from '../network/store.ts';
import { isContainer } from './capture.ts';
import {
  allPlaces,
  forwards,
  hostName,
  type Place,
  placeName,
  placeOf,
  readInterfaces,
  readNeighbours,
  requireStack,
  routeTo,
  runInStack,
  type Stack,
  withoutPrefix,
} from './stack.ts';

/** A stop on the way of a packet. */
export interface Hop {
  /** 0 is where it starts. */
  number: number;
  /** Who answered; empty when nobody did. */
  address: string;
  /** `web:eth0` when it is of minirun's. */
  name: string;
  /** `0.051 ms`; traceroute's marks, as `!H` for a host that cannot be reached, stand behind it. */
  time: string;
  /** What `ip route get` says there about the way on, where that can be asked. */
  route: string;
}

export interface Trace {
  from: string;
  to: string;
  address: string;
  hops: Hop[];
  isReached: boolean;
  /** Why the destination does not answer, as far as that can be seen. */
  reason?: string;
}

/**
 * Follows packets from a container to a destination: the hops that traceroute sees, and the routes that led there.
 *
 * @param destination a container, `host`, an address or a host name
 * @param most hops that are tried
 * @throws MinirunError when it cannot be tried
 */
export async function trace(reference: string, destination: string, most: number): Promise<Trace> {
  const stack = requireStack(reference, 'trace packets of');
  const what = `cannot trace from ${stack.name} to ${destination}`;
  if (which('traceroute') === undefined) throw missingTool('traceroute');
  const address = await addressFor(stack, destination, what);
  const start = await routeTo(stack, address);
  if (start === undefined) throw noRoute(stack, address, what);
  const { exitCode, stdout, stderr } = await runInStack(stack, [
    'traceroute',
    '-n',
    // As ping does: a port that happens to be open, or a filter for UDP, does not stop it.
    '-I',
    '-q',
    '1',
    '-w',
    '1',
    '-m',
    String(most),
    // All at once: then a second is all that silence costs.
    '-N',
    String(Math.min(most, 64)),
    address,
  ]);
  const answers = parseTraceroute(stdout);
  if (exitCode !== 0 && answers.length === 0) throw new MinirunError(what, stderr.trim().split('\n').at(-1));
  const places = await allPlaces();
  const hops: Hop[] = [{ number: 0, address: '', name: stack.name, time: '', route: start }];
  for (const answer of answers) {
    const place = placeOf(places, answer.address);
    const isEnd = answer.address === address;
    const route = place === undefined || isEnd ? undefined : await routeTo(place.stack, address);
    hops.push({ ...answer, name: place === undefined ? '' : placeName(place), route: route ?? '' });
  }
  const last = hops.at(-1);
  const isReached = last?.address === address && !last.time.includes('!');
  const reason = isReached ? undefined : await findReason(stack, address, places);
  return { from: stack.name, to: destination, address, hops, isReached, reason };
}

function noRoute(stack: Stack, address: string, what: string): MinirunError {
  return new MinirunError(
    what,
    `network is unreachable: no route of ${stack.name} leads to ${address}`,
    `Add one: minirun route add ${stack.name} ${address} via GATEWAY`,
  );
}

/** The answers in traceroute's output. Those at the end that did not come are one. Pure. */
export function parseTraceroute(output: string): Omit<Hop, 'name' | 'route'>[] {
  const hops = output.split('\n').flatMap((line) => {
    const [, number, answer] = /^ *(\d+) +(\S.*)$/.exec(line) ?? [];
    if (answer === undefined) return [];
    const [, address = '', time = ''] = /^([\da-f.:]+) +(.*)$/i.exec(answer) ?? [];
    return [{ number: Number(number), address, time: time.trim().replace(/ {2,}/g, ' ') }];
  });
  const heard = hops.findLastIndex(({ address }) => address !== '');
  return hops.slice(0, heard + 2);
}

/** The address that a destination stands for; of several the one that is nearest. */
async function addressFor(stack: Stack, destination: string, what: string): Promise<string> {
  if (destination === hostName || isContainer(destination)) {
    return nearest(stack, requireStack(destination, 'trace packets to'), what);
  }
  if (isIP(destination) !== 0) return destination;
  try {
    return (await dns.lookup(destination)).address;
  } catch {
    throw new MinirunError(
      what,
      'neither a container nor a host has that name',
      'See minirun ps for the containers that run',
    );
  }
}

async function nearest(stack: Stack, other: Stack, what: string): Promise<string> {
  const addresses = (await readInterfaces(other))
    .filter(({ isUp, isLoopback }) => isUp && !isLoopback)
    .flatMap((each) => each.addresses.map(withoutPrefix))
    .filter((address) => !address.startsWith('fe80:'))
    .toSorted((a, b) => isIP(a) - isIP(b));
  if (addresses.length === 0)
    throw new MinirunError(what, `${other.name} has no address`, `See minirun addr ${other.name}`);
  const routes = await Promise.all(addresses.map((address) => routeTo(stack, address)));
  const isDirect = (route: string | undefined) => route !== undefined && !route.includes(' via ');
  const best = [routes.findIndex(isDirect), routes.findIndex((route) => route !== undefined)].find((at) => at >= 0);
  if (best === undefined) throw noRoute(stack, addresses.join(' or '), what);
  return addresses[best] as string;
}

/** Walks the routes from stack to stack, and says what is wrong with the first that does not lead on. */
async function findReason(start: Stack, address: string, places: readonly Place[]): Promise<string | undefined> {
  const family = isIP(address) === 6 ? 6 : 4;
  const visited = new Set<string>();
  let stack = start;
  let source: string | undefined;
  let entered = '';
  while (!visited.has(stack.name)) {
    visited.add(stack.name);
    const route = await routeTo(stack, address);
    if (route === undefined) return `${stack.name} has no route to ${address}`;
    source ??= / src (\S+)/.exec(route)?.[1];
    const ifname = / dev (\S+)/.exec(route)?.[1] ?? '';
    const next = / via (?:inet6? )?(\S+)/.exec(route)?.[1] ?? address;
    const neighbour = (await readNeighbours(stack)).find((each) => each.address === next && each.ifname === ifname);
    if (neighbour?.state === 'FAILED' || neighbour?.state === 'INCOMPLETE')
      return `nobody answers for ${next} at ${placeName({ stack, ifname })}`;
    const walls = stack.name === hostName ? wallBetween(entered, ifname) : undefined;
    if (walls !== undefined) return walls;
    const place = placeOf(places, next, neighbour?.mac);
    if (place === undefined) return undefined;
    if (next === address) return source === undefined ? undefined : reasonOfReturn(place.stack, source);
    if (!(await forwards(place.stack, family))) {
      const sysctl = family === 4 ? 'net.ipv4.ip_forward' : 'net.ipv6.conf.all.forwarding';
      return `${place.stack.name} does not forward packets (${sysctl} is 0 there)`;
    }
    stack = place.stack;
    entered = place.ifname;
  }
  return `packets go in a circle by way of ${[...visited].join(', ')}`;
}

/** Why the host does not let packets from one network into another, by the bridges that they come and go by. */
function wallBetween(from: string, to: string): string | undefined {
  if (from === '' || from === to) return undefined;
  const networks = listNetworks().filter(({ driver }) => driver === 'bridge');
  const source = networks.find(({ bridge }) => bridge === from);
  const target = networks.find(({ bridge }) => bridge === to);
  const internal = [source, target].find((network) => network?.internal === true);
  if (internal !== undefined) return `network "${internal.name}" is internal: nothing gets in or out`;
  // A network with routes of its own may have one that opens the other.
  if (target?.isolate !== true || (source?.routes.length ?? 0) > 0) return undefined;
  return `network "${target.name}" is isolated: the host lets nothing from other networks in but to published ports`;
}

async function reasonOfReturn(stack: Stack, source: string): Promise<string> {
  const route = await routeTo(stack, source);
  return route === undefined
    ? `packets arrive at ${stack.name}, which has no route back to ${source}`
    : `the routes lead there and back (${stack.name}: ${route}); a firewall may drop the packets`;
}
