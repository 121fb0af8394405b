import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { bootId, endOrphans, isAlive, type ProcessRef, selfRef } from '../host/process.ts';
import { readJson, writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { paths } from '../state/paths.ts';
import { formatAddress, overlaps, parseSubnet } from './address.ts';
import { defaultNetworkName, defaultPools, type Network } from './definition.ts';
import { checkGateway, interfaceExists, overlappingRoute } from './facts.ts';

/** Reads a network as it is true in this boot; undefined when there is none of that name. */
export function readNetwork(name: string): Network | undefined {
  const network = readJson<Network>(paths.network(name));
  if (network === undefined) return undefined;
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

/** Writes a network; under the lock only. */
export function writeNetwork(network: Network): void {
  writeJson(paths.network(network.name), network, { durable: !network.automatic });
}

/** All networks, by name. */
export function listNetworks(): Network[] {
  return fs
    .readdirSync(paths.networks())
    .filter((file) => file.endsWith('.json') && !file.startsWith('.'))
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
  const taken = listNetworks().map((network) => parseSubnet(network.subnet));
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
  return { ...defineNetwork(defaultNetworkName, subnet), automatic: true };
}

/** A network definition with everything that was not given filled in. Nothing is written. */
export function defineNetwork(
  name: string,
  subnet: string,
  options: { gateway?: string; bridge?: string; labels?: Record<string, string> } = {},
): Network {
  const range = parseSubnet(subnet);
  const gateway = options.gateway ?? formatAddress(range.first + 1);
  checkGateway(subnet, gateway);
  const id = randomBytes(32).toString('hex');
  return {
    schema: 1,
    name,
    id,
    driver: 'bridge',
    bridge: options.bridge ?? (name === defaultNetworkName ? name : `mr-${id.slice(0, 12)}`),
    subnet,
    gateway,
    created: new Date().toISOString(),
    labels: options.labels ?? {},
    automatic: false,
    leases: {},
    up: false,
    boot: bootId(),
    applied: [],
  };
}

/** A range for a new network that overlaps nothing. */
export function freeSubnet(): string {
  const taken = listNetworks().map((network) => parseSubnet(network.subnet));
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

/** @throws MinirunError when the range of a new network overlaps another network or a route of the host */
export function refuseOverlap(network: Network): void {
  const range = parseSubnet(network.subnet);
  const other = listNetworks().find((each) => each.name !== network.name && overlaps(range, parseSubnet(each.subnet)));
  if (other !== undefined) {
    throw new MinirunError(
      `cannot create network "${network.name}"`,
      `${network.subnet} overlaps ${other.subnet} of network "${other.name}"`,
      'Choose another --subnet',
    );
  }
  const route = overlappingRoute(network.subnet, network.bridge);
  if (route !== undefined) {
    throw new MinirunError(
      `cannot create network "${network.name}"`,
      `${network.subnet} overlaps the host's route ${route}`,
      'Choose another --subnet',
    );
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
  if (overlappingRoute(network.subnet, network.bridge) === undefined) return network;
  const { subnet, gateway } = newDefaultNetwork();
  return { ...network, subnet, gateway, last: undefined };
}

/** Whether the network is up in fact: somebody may have deleted the bridge, or this is another host namespace. */
export function isUp(network: Network): boolean {
  return network.up && interfaceExists(network.bridge);
}

/** Marks the network as being changed by a process; under the lock. */
export function claimNetwork(network: Network, by: ProcessRef = selfRef()): void {
  network.claim = by;
}
