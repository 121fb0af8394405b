import fs from 'node:fs';
import os from 'node:os';
import { MinirunError, MinirunErrors } from '../errors.ts';
import { faultPoint, killPoint } from '../host/fault.ts';
import { isAlive, isSame, type ProcessRef, selfRef } from '../host/process.ts';
import { sha256 } from '../host/sha256.ts';
import { type Event, lastRecorded, recordEvent } from '../state/events.ts';
import { withLock } from '../state/lock.ts';
import { drawOnReserve } from '../state/reserve.ts';
import { paths } from '../state/paths.ts';
import {
  blockOf,
  contains,
  encloses,
  type Family,
  formatAddress,
  formatRange,
  overlaps,
  parseAddress,
  parseDestination,
  parseSubnet,
  type Range,
  readAddress,
} from './address.ts';
import { defaultNetworkName, type Driver, type Network, type NetworkRoute, type Subnet } from './definition.ts';
import { hasIpv6, interfaceExists } from './facts.ts';
import { familiesOf } from './firewall.ts';
import { bringUp, handOver, tearDown } from './lifecycle.ts';
import { isIfname } from './ifname.ts';
import { canonicalNetwork, networkOptions } from './options.ts';
import {
  changeNetwork,
  claimNetwork,
  defineNetwork,
  freeSubnet,
  freeSubnet6,
  listNetworks,
  readNetwork,
  refuseOverlap,
  subnetOf,
  whenFree,
  writeNetwork,
} from './store.ts';

/** What `network create` takes, as it was typed. */
export interface NetworkRequest {
  name: string;
  driver: string;
  subnets: string[];
  gateways: string[];
  ranges: string[];
  /** `NAME=ADDRESS`. */
  reserved: string[];
  /** Give it an IPv6 range, too, when none is named. */
  ipv6: boolean;
  internal: boolean;
  isolate: boolean;
  /** `DESTINATION,GATEWAY`. */
  routes: string[];
  /** `--opt`. */
  options: string[];
  labels: Record<string, string>;
}

/** A network that is being made or removed: when the process that does so has died, the network goes. */
type Transient = Network & { transient?: ProcessRef };

/** Names that `--network` understands in another way. */
const reserved = new Set([defaultNetworkName, 'none', 'host', 'default', 'bridge', 'container']);

/**
 * Checks a request and makes a network of it on paper.
 *
 * @throws MinirunError when it makes no sense, or collides with another network or with something on the host
 */
export function draftNetwork(request: NetworkRequest): Network {
  const { name } = request;
  const refuse = (why: string, remedy: string) => new MinirunError(`cannot create network "${name}"`, why, remedy);
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name) || name.length > 200) {
    throw refuse('names are letters, digits, "_", "." and "-", and begin with a letter or digit', 'Choose such a name');
  }
  if (reserved.has(name)) throw refuse('minirun itself has a network of that name', 'Choose another name');
  if (readNetwork(name) !== undefined)
    throw refuse('there is one of that name', `Choose another name, or remove that one: minirun network rm ${name}`);
  const { driver, ...given } = networkOptions(request);
  const network = defineNetwork(name, {
    driver,
    ...given,
    subnets: subnetsOf(request, driver),
    labels: request.labels,
  });
  for (const route of network.routes) checkRoute(route, network, refuse);
  if (driver === 'macvlan') {
    checkParent(network, refuse);
    network.subnets = network.subnets.map((subnet) => withoutHostAddresses(subnet, network.bridge));
  } else checkBridge(network, refuse);
  refuseOverlap(network);
  return network;
}

type Refuse = (why: string, remedy: string) => MinirunError;

/** A bridge of its own, with a name that the kernel takes. */
function checkBridge({ bridge, name }: Network, refuse: Refuse): void {
  if (!isIfname(bridge)) {
    throw refuse(
      `"${bridge}" cannot be the name of a bridge`,
      'Give at most 15 characters without "/", ":" and spaces',
    );
  }
  const owner = listNetworks().find((each) => each.name !== name && each.bridge === bridge);
  if (owner !== undefined)
    throw refuse(`network "${owner.name}" has the bridge ${bridge}`, 'Choose another name for the bridge');
  if (interfaceExists(bridge)) {
    throw refuse(`the host has an interface ${bridge} already`, 'Choose another name for the bridge');
  }
}

/** A macvlan is on a real interface of the host, or on what passes for one. */
function checkParent({ bridge: parent }: Network, refuse: Refuse): void {
  if (parent === '') throw refuse('a macvlan network needs an interface of the host', 'Name it: --opt parent=eth0');
  if (!interfaceExists(parent)) throw refuse(`the host has no interface ${parent}`, 'See those there are: ip -br link');
  if (listNetworks().some(({ driver, bridge }) => driver === 'bridge' && bridge === parent))
    throw refuse(
      `${parent} is the bridge of another network`,
      'Name an interface that leads outside: --opt parent=eth0',
    );
}

/** On somebody else's wire the host's own addresses are no container's. */
function withoutHostAddresses(subnet: Subnet, parent: string): Subnet {
  const range = parseSubnet(subnet.subnet);
  const own = (os.networkInterfaces()[parent] ?? [])
    .flatMap(({ address }) => readAddress(address.replace(/%.*/, '')) ?? [])
    .filter((address) => contains(range, address))
    .map((address, index) => [index === 0 ? 'host' : `host${index}`, formatAddress(address)]);
  return own.length === 0
    ? subnet
    : { ...subnet, reserved: { ...Object.fromEntries(own), ...subnet.reserved } as Record<string, string> };
}

/** A route's gateway must be reachable from every container: on one of the network's own ranges. */
function checkRoute({ destination, gateway }: NetworkRoute, { subnets }: Network, refuse: Refuse): void {
  const range = parseDestination(destination);
  if (parseAddress(gateway).family !== range.family)
    throw refuse(
      `the route ${destination},${gateway} mixes IPv4 and IPv6`,
      'Give a destination and a gateway of one kind',
    );
  if (!subnets.some(({ subnet }) => contains(parseSubnet(subnet), parseAddress(gateway)))) {
    throw refuse(
      `its containers cannot reach the gateway ${gateway} of the route to ${destination}`,
      `Choose a gateway in ${subnets.map(({ subnet }) => subnet).join(' or ')}`,
    );
  }
}

/** The ranges with their gateways, parts and reserved addresses, each of which belongs to the range it lies in. */
function subnetsOf(request: NetworkRequest, driver: Driver): Subnet[] {
  const refuse = (why: string, remedy: string) =>
    new MinirunError(`cannot create network "${request.name}"`, why, remedy);
  const given = request.subnets.map((text) => formatRange(parseSubnet(text)));
  const has = (family: Family) => given.some((subnet) => parseSubnet(subnet).family === family);
  if (driver === 'macvlan' && given.length === 0)
    throw refuse(
      'a macvlan network has the addresses of the network it is on',
      'Give them: --subnet RANGE --gateway ROUTER',
    );
  const automatic = [...(given.length > 0 ? [] : [freeSubnet()]), ...(request.ipv6 && !has(6) ? [freeSubnet6()] : [])];
  if (has(6) && !hasIpv6()) throw refuse('this kernel has no IPv6', 'Leave the IPv6 range out');
  const ranges = [...given, ...automatic].map((subnet) => ({ subnet, range: parseSubnet(subnet) }));
  for (const [index, { subnet, range }] of ranges.entries()) {
    const other = ranges.slice(0, index).find((each) => overlaps(each.range, range));
    if (other !== undefined)
      throw refuse(`${subnet} overlaps ${other.subnet}`, 'Give ranges that have nothing in common');
  }
  const within = (what: string, inner: Range, text: string) => {
    const found = ranges.find(({ range }) => encloses(range, inner));
    if (found !== undefined) return found.subnet;
    if (given.length === 0) throw refuse(`${what} needs a --subnet`, `Add the --subnet that ${text} is in`);
    throw refuse(`${what} ${text} is in none of its subnets`, `Choose one in ${given.join(' or ')}`);
  };
  const gateways = new Map<string, string>();
  for (const text of request.gateways) {
    const address = parseAddress(text);
    const subnet = within('--gateway', blockOf(address, address.family === 4 ? 32 : 128), text);
    if (gateways.has(subnet)) throw refuse(`there are two gateways for ${subnet}`, 'Give one for each subnet');
    gateways.set(subnet, formatAddress(address));
  }
  const parts = new Map(
    request.ranges.map(
      (text) => [within('--ip-range', parseSubnet(text), text), formatRange(parseSubnet(text))] as const,
    ),
  );
  const kept = request.reserved.map((text) => {
    const [, what = '', address = ''] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    if (what === '')
      throw refuse(`--aux-address "${text}" is not of the form NAME=ADDRESS`, 'For example printer=10.20.0.9');
    const value = parseAddress(address);
    return {
      what,
      address: formatAddress(value),
      subnet: within('--aux-address', blockOf(value, value.family === 4 ? 32 : 128), address),
    };
  });
  return ranges
    .map(({ subnet, range }): Subnet & { family: Family } => {
      const reserve = kept.filter((each) => each.subnet === subnet).map(({ what, address }) => [what, address]);
      return {
        family: range.family,
        ...subnetOf(subnet, gateways.get(subnet)),
        ...(parts.has(subnet) ? { range: parts.get(subnet) } : {}),
        ...(reserve.length === 0 ? {} : { reserved: Object.fromEntries(reserve) as Record<string, string> }),
      };
    })
    .toSorted((a, b) => a.family - b.family)
    .map(({ family: _family, ...subnet }) => subnet);
}

/** Makes a network and brings it up; it stays up until `removeNetwork`. */
export async function createNetwork(request: NetworkRequest): Promise<Network> {
  const network = await whenFree((free): Network | undefined => {
    if (!free()) return undefined;
    const draft: Transient = { ...draftNetwork(request), transient: selfRef() };
    claimNetwork(draft);
    writeNetwork(draft);
    return draft;
  });
  try {
    await bringUp(network);
    faultPoint('network.up');
    recordEvent(networkEvent(network, 'create'));
    killPoint('network.announced');
    await changeNetwork(network.name, (current: Transient) => {
      current.transient = undefined;
    });
  } catch (error) {
    await removeNetwork(network.name, (id) => id.slice(0, 12));
    throw error;
  }
  return network;
}

/**
 * Takes a network down and deletes it.
 *
 * @param nameOf what to call a container in the error
 * @param interrupted only if that process was making or removing it and has not finished
 * @throws MinirunError when it is the default network or a container is in it
 */
export async function removeNetwork(
  name: string,
  nameOf: (container: string) => string,
  interrupted?: ProcessRef,
): Promise<void> {
  const refuse = (why: string, remedy: string) => new MinirunError(`cannot remove network "${name}"`, why, remedy);
  drawOnReserve();
  if (name === defaultNetworkName)
    throw refuse('it is the default network', 'It goes down with its last container by itself');
  let wasTransient = false;
  const network = await changeNetwork(
    name,
    (current: Transient) => {
      if (interrupted !== undefined && !isSame(current.transient, interrupted)) return undefined;
      const users = [...new Set(Object.values(current.leases))].map(nameOf);
      if (users.length > 0) {
        throw refuse(
          `${users.join(', ')} ${users.length === 1 ? 'is' : 'are'} in it`,
          `Stop first: minirun stop ${users.join(' ')}`,
        );
      }
      wasTransient = current.transient !== undefined;
      current.transient = selfRef();
      current.up = false;
      claimNetwork(current);
      handOver(current);
      return current;
    },
    undefined,
    () => true,
  );
  if (network === undefined) return;
  const errors = await tearDown({ goingDown: [network] });
  if (errors.length > 0)
    throw new MinirunErrors(`cannot remove all of network "${name}"`, errors, 'The next minirun command tries again');
  faultPoint('network.down');
  // What a killed process has made or was removing: what it has told decides whether there is an end to tell of.
  const isKnown = !wasTransient || lastRecorded(network.id, ['create', 'destroy'])?.action === 'create';
  await deleteNetwork(network, isKnown);
}

/** Docker's event of a network. */
function networkEvent({ id, name, driver }: Network, action: string): Event {
  return { type: 'network', action, id, attributes: { name, type: driver } };
}

/** Removes networks whose creation or removal was cut short. With nothing to do it reads one file per network. */
export async function finishInterruptedChanges(): Promise<void> {
  for (const { name, transient } of listNetworks() as Transient[])
    if (transient !== undefined && !isAlive(transient)) await finishInterrupted(name, transient);
}

/**
 * Removes a network that a process was making or removing that is dead now. It may have finished, and ended, since the
 * network was read: then what it has made stays.
 */
export async function finishInterrupted(name: string, by: ProcessRef): Promise<void> {
  try {
    await removeNetwork(name, (id) => id.slice(0, 12), by);
  } catch (error) {
    // It was removing it.
    if (readNetwork(name) !== undefined) throw error;
  }
}

async function deleteNetwork(network: Network, isKnown: boolean): Promise<void> {
  await withLock(() => {
    if (isKnown) recordEvent(networkEvent(network, 'destroy'));
    killPoint('network.told');
    fs.rmSync(paths.network(network.name), { force: true });
  });
}

/** A network as it is shown: `host` and `none` have drivers of their own. */
export type ShownNetwork = Omit<Network, 'driver'> & { driver: string };

/** What docker lists as networks, too: the host's own, and none at all. They are always there and are nowhere written down. */
function fixedNetworks(): ShownNetwork[] {
  return [
    ['host', 'host'],
    ['none', 'null'],
  ].map(([name = '', driver = '']) => ({
    ...defineNetwork(name, { subnets: [], bridge: '', isolate: false, masquerade: false, hostAddress: false }),
    id: sha256(`minirun network ${name}`).toString('hex'),
    created: new Date(0).toISOString(),
    driver,
  }));
}

/** All networks as `network ls` shows them, by name. */
export function shownNetworks(): ShownNetwork[] {
  return [...listNetworks(), ...fixedNetworks()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

/** Whether a network is there without anybody having created it. */
export function isBuiltIn({ automatic, driver }: ShownNetwork): boolean {
  return automatic || driver === 'host' || driver === 'null';
}

/** The network that a name, an id or the beginning of one stands for, `host` and `none` too. @throws MinirunError when there is none */
export function findShown(reference: string): ShownNetwork {
  return oneOf(shownNetworks(), canonicalNetwork(reference));
}

/** The network that a name, an id or the beginning of one stands for. @throws MinirunError when there is none, or none that could change */
export function findNetwork(reference: string): Network {
  const found = findShown(reference);
  if (found.driver === 'bridge' || found.driver === 'macvlan') return found as Network;
  throw new MinirunError(
    `cannot change network "${found.name}"`,
    'it is always there, and a container has it from its creation or never',
    `Give it to a new container: minirun run --network ${found.name}`,
  );
}

function oneOf(networks: readonly ShownNetwork[], reference: string): ShownNetwork {
  const named = networks.find(({ name }) => name === reference);
  if (named !== undefined) return named;
  const matches = /^[0-9a-f]{1,64}$/.test(reference) ? networks.filter(({ id }) => id.startsWith(reference)) : [];
  if (matches.length > 1) {
    throw new MinirunError(
      `ambiguous network id "${reference}"`,
      `${matches.length} networks begin with it`,
      'Give more digits, or the name',
    );
  }
  if (matches[0] !== undefined) return matches[0];
  const remedy =
    reference === defaultNetworkName
      ? 'It comes with the first container'
      : 'See minirun network ls for those there are';
  throw new MinirunError(`no network "${reference}"`, 'none has that name or id', remedy);
}

/** What is known of a container in a network, for `network inspect`. */
export interface Member {
  name: string;
  mac: string;
  /** With prefix length; empty without one. */
  ipv4: string;
  ipv6: string;
}

/** A network in docker's words and order, as `network inspect` shows it. */
export function describeNetwork(
  network: ShownNetwork,
  membersOf: (network: ShownNetwork) => Map<string, Member>,
): object {
  const containers = [...membersOf(network)].map(([id, { name, mac, ipv4, ipv6 }]) => [
    id,
    { Name: name, EndpointID: '', MacAddress: mac, IPv4Address: ipv4, IPv6Address: ipv6 },
  ]);
  const families = familiesOf(network);
  return {
    Name: network.name,
    Id: network.id,
    Created: network.created,
    Scope: 'local',
    Driver: network.driver,
    EnableIPv4: families.includes(4),
    EnableIPv6: families.includes(6),
    IPAM: {
      Driver: 'default',
      Options: {},
      Config: network.subnets.map(({ subnet, gateway, range, reserved: kept }) => ({
        Subnet: subnet,
        ...(range === undefined ? {} : { IPRange: range }),
        Gateway: gateway,
        ...(kept === undefined ? {} : { AuxiliaryAddresses: kept }),
      })),
    },
    Internal: network.internal,
    Attachable: false,
    Ingress: false,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: Object.fromEntries(containers),
    Options: describeOptions(network),
    Labels: network.labels,
    Isolated: network.isolate,
    Routes: network.routes.map(({ destination, gateway }) => ({ Destination: destination, Gateway: gateway })),
  };
}

function describeOptions({ driver, bridge, mtu, masquerade, icc, hostAddress }: ShownNetwork): Record<string, string> {
  if (bridge === '') return {};
  if (driver === 'macvlan')
    return { parent: bridge, ...(mtu === undefined ? {} : { 'com.docker.network.driver.mtu': String(mtu) }) };
  return {
    'com.docker.network.bridge.name': bridge,
    ...(mtu === undefined ? {} : { 'com.docker.network.driver.mtu': String(mtu) }),
    ...(masquerade ? {} : { 'com.docker.network.bridge.enable_ip_masquerade': 'false' }),
    ...(icc ? {} : { 'com.docker.network.bridge.enable_icc': 'false' }),
    ...(hostAddress ? {} : { 'com.docker.network.bridge.inhibit_ipv4': 'true' }),
  };
}
