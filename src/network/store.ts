import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { bootId, endOrphans, isAlive, type ProcessRef, selfRef } from '../host/process.ts';
import { randomHex } from '../host/random.ts';
import { noteDamage, peekFile, readFile } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { kinds } from '../state/migrations.ts';
import { paths } from '../state/paths.ts';
import { blockOf, formatAddress, formatRange, overlaps, parseSubnet, type Range } from './address.ts';
import { defaultNetworkName, defaultPools, type Network, type Subnet } from './definition.ts';
import { checkGateway, interfaceExists, overlappingRoute } from './facts.ts';
import { fileName, networkShape } from './files.ts';
import { usableRange } from './ipam.ts';

/** Reads a network as it is true in this boot; undefined when there is none of that name. */
export function readNetwork(name: string): Network | undefined {
  const file = paths.network(name);
  const network = readFile(kinds.network, networkShape, file);
  if (network === undefined) return undefined;
  if (network.name !== name) {
    const isSo = () => peekFile(kinds.network, networkShape, file)?.name === network.name;
    noteDamage(kinds.network, file, 'is that of another network', isSo, { ...network, name });
    return undefined;
  }
  if (network.boot !== bootId()) {
    // A reboot took bridges, rules and containers along: nothing of that is leased any more.
    return {
      ...network,
      leases: {},
      up: false,
      applied: [],
      claim: undefined,
      linger: undefined,
      idleSince: undefined,
      boot: bootId(),
    };
  }
  return network;
}

/** What a network is like when nothing else was asked for. */
const plain = {
  routes: [],
  internal: false,
  isolate: true,
  masquerade: true,
  icc: true,
  hostAddress: true,
} satisfies Partial<Network>;

/** The ranges of all networks. */
function takenRanges(): Range[] {
  return listNetworks().flatMap(rangesOf);
}

function rangesOf({ subnets }: Pick<Network, 'subnets'>): Range[] {
  return subnets.map(({ subnet }) => parseSubnet(subnet));
}

/** Writes a network; under the lock only. */
export function writeNetwork(network: Network): void {
  writeJson(paths.network(network.name), network, { durable: !network.automatic });
}

/** All networks, by name. */
export function listNetworks(): Network[] {
  return fs
    .readdirSync(paths.networks())
    .filter((file) => file.endsWith('.json') && fileName.test(file))
    .toSorted()
    .flatMap((file) => readNetwork(file.slice(0, -'.json'.length)) ?? []);
}

/** The network of that name. @throws MinirunError when there is none */
export function requireNetwork(name: string): Network {
  const network = readNetwork(name);
  if (network !== undefined) return network;
  throw new MinirunError(`no network "${name}"`, 'it was never created', `Create it: minirun network create ${name}`);
}

/** The default network's definition: the first range that overlaps no route of the host and no other network. */
export function newDefaultNetwork(): Network {
  const taken = takenRanges();
  const subnet = defaultPools.find(
    (pool) =>
      overlappingRoute(pool, defaultNetworkName) === undefined &&
      !taken.some((range) => overlaps(range, parseSubnet(pool))),
  );
  if (subnet === undefined) {
    throw new MinirunError(
      'cannot choose a range for the default network',
      `each of ${defaultPools.join(', ')} overlaps a route of this host`,
      'Create a network with a free range: minirun network create --subnet RANGE NAME, and use --network NAME',
    );
  }
  return { ...defineNetwork(defaultNetworkName, { subnets: [subnetOf(subnet)] }), automatic: true };
}

/** A range with its gateway: the first address unless another is given. @throws MinirunError when that is none of it */
export function subnetOf(subnet: string, gateway?: string): Subnet {
  const range = parseSubnet(subnet);
  const chosen = gateway ?? formatAddress({ family: range.family, value: usableRange(range).first });
  checkGateway(subnet, chosen);
  return { subnet, gateway: chosen };
}

/** A network definition with everything that was not given filled in. Nothing is written. */
export function defineNetwork(name: string, given: Pick<Network, 'subnets'> & Partial<Network>): Network {
  const id = randomHex(32);
  return {
    schema: 2,
    name,
    id,
    driver: 'bridge',
    bridge: name === defaultNetworkName ? name : `mr-${id.slice(0, 12)}`,
    ...plain,
    created: new Date().toISOString(),
    labels: {},
    automatic: false,
    leases: {},
    last: {},
    up: false,
    boot: bootId(),
    applied: [],
    ...given,
  };
}

/** An IPv4 range for a new network that overlaps nothing. */
export function freeSubnet(): string {
  const taken = takenRanges();
  for (let second = 100; second < 256; second++) {
    const subnet = `10.${second}.0.0/24`;
    if (!taken.some((range) => overlaps(range, parseSubnet(subnet))) && overlappingRoute(subnet) === undefined)
      return subnet;
  }
  throw new MinirunError(
    'cannot choose a range for the network',
    'all of 10.100-255.0.0/24 is in use',
    'Give one with --subnet',
  );
}

/** A unique local range with a random global id, as RFC 4193 section 3.2 wants it. */
export function freeSubnet6(): string {
  const globalId = BigInt(`0x${randomHex(5)}`);
  return formatRange(blockOf({ family: 6, value: (0xfdn << 120n) | (globalId << 80n) }, 64));
}

/** @throws MinirunError when a range of a new network overlaps another network or a route of the host */
export function refuseOverlap(network: Network): void {
  const refuse = (why: string) =>
    new MinirunError(`cannot create network "${network.name}"`, why, 'Choose another --subnet');
  for (const { subnet } of network.subnets) {
    const range = parseSubnet(subnet);
    for (const other of listNetworks()) {
      const overlapped =
        other.name === network.name
          ? undefined
          : other.subnets.find((each) => overlaps(range, parseSubnet(each.subnet)));
      if (overlapped !== undefined) throw refuse(`${subnet} overlaps ${overlapped.subnet} of network "${other.name}"`);
    }
    // A macvlan is on somebody else's wire, to which the host has a route, too.
    const route = network.driver === 'macvlan' ? undefined : overlappingRoute(subnet, network.bridge);
    if (route !== undefined) throw refuse(`${subnet} overlaps the host's route ${route}`);
  }
}

/**
 * Runs `change` on the network under the lock, once nobody else is bringing it up or down. When the process that
 * was doing so has died, its claim is void and the change sees the network as it was left.
 *
 * @param orCreate makes a network that does not exist yet
 * @param claims whether the change is going to claim the network: then nobody may be bringing another one up or down
 */
export async function changeNetwork<T>(
  name: string,
  change: (network: Network) => T,
  orCreate?: () => Network,
  claims: (network: Network) => boolean = () => false,
): Promise<T> {
  const outcome = await whenFree((free): { value: T } | undefined => {
    let network = readNetwork(name) ?? orCreate?.();
    if (network === undefined) network = requireNetwork(name);
    if (network.claim !== undefined && isAlive(network.claim)) return undefined;
    if (claims(network) && !free()) return undefined;
    endOrphans(network.claim);
    network.claim = undefined;
    if (network.automatic && !network.up && Object.keys(network.leases).length === 0) network = repooled(network);
    const value = change(network);
    writeNetwork(network);
    return { value };
  });
  return outcome.value;
}

/**
 * Runs `attempt` under the lock, again and again until it gives a result. It may claim networks only when `free()`:
 * networks share chains and ip_forward, so one process at a time brings networks up or down. A process never waits
 * here while it holds a claim.
 */
export async function whenFree<T>(attempt: (free: () => boolean) => T | undefined): Promise<T> {
  for (let delay = 1; ; delay = Math.min(delay * 1.5, 20)) {
    const result = await withLock(() => attempt(() => !listNetworks().some((network) => isAlive(network.claim))));
    if (result !== undefined) return result;
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}

/** An idle default network moves to another range when the host has got a route to its old one. */
function repooled(network: Network): Network {
  if (network.subnets.every(({ subnet }) => overlappingRoute(subnet, network.bridge) === undefined)) return network;
  return { ...network, subnets: newDefaultNetwork().subnets, last: {} };
}

/** Whether the network is up in fact: somebody may have deleted the bridge, or this is another host namespace. */
export function isUp(network: Network): boolean {
  return network.up && interfaceExists(network.bridge);
}

/** Marks the network as being changed by a process; under the lock. */
export function claimNetwork(network: Network, by: ProcessRef = selfRef()): void {
  network.claim = by;
}
