import fs from 'node:fs';
import { MinirunError, MinirunErrors } from '../errors.ts';
import { faultPoint } from '../host/fault.ts';
import { isAlive, type ProcessRef, selfRef } from '../host/process.ts';
import { withLock } from '../state/lock.ts';
import { paths } from '../state/paths.ts';
import { macOf } from './address.ts';
import { defaultNetworkName, type Network } from './definition.ts';
import { interfaceExists } from './facts.ts';
import { bringUp, handOver, tearDown } from './lifecycle.ts';
import {
  changeNetwork,
  claimNetwork,
  defineNetwork,
  freeSubnet,
  listNetworks,
  readNetwork,
  refuseOverlap,
  whenFree,
  writeNetwork,
} from './store.ts';

/** What `network create` takes, as it was typed. */
export interface NetworkRequest {
  name: string;
  subnet?: string;
  gateway?: string;
  bridge?: string;
  labels: Record<string, string>;
}

/** A network that is being made or removed: when the process that does so has died, the network goes. */
type Transient = Network & { transient?: ProcessRef };

/** Names that `--network` understands in another way. */
const reserved = new Set([defaultNetworkName, 'none', 'host', 'default', 'bridge', 'container']);

/**
 * Checks a request and makes a network of it on paper.
 *
 * @throws MinirunError when it collides with another network or with something on the host
 */
export function draftNetwork({ name, subnet, gateway, bridge, labels }: NetworkRequest): Network {
  const refuse = (why: string, remedy: string) => new MinirunError(`cannot create network "${name}"`, why, remedy);
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name) || name.length > 200) {
    throw refuse('names are letters, digits, "_", "." and "-", and begin with a letter or digit', 'Choose such a name');
  }
  if (reserved.has(name)) throw refuse('minirun itself has a network of that name', 'Choose another name');
  if (readNetwork(name) !== undefined)
    throw refuse('there is one of that name', `Choose another name, or remove that one: minirun network rm ${name}`);
  if (gateway !== undefined && subnet === undefined)
    throw refuse('--gateway needs a --subnet', 'Add the --subnet that the gateway is in');
  const network = defineNetwork(name, subnet ?? freeSubnet(), { gateway, bridge, labels });
  // The kernel's rule for names of interfaces.
  if (!/^[^\s/:]{1,15}$/.test(network.bridge) || network.bridge === '.' || network.bridge === '..') {
    throw refuse(
      `"${network.bridge}" cannot be the name of a bridge`,
      'Give at most 15 characters without "/", ":" and spaces',
    );
  }
  const owner = listNetworks().find((each) => each.bridge === network.bridge);
  if (owner !== undefined)
    throw refuse(`network "${owner.name}" has the bridge ${network.bridge}`, 'Choose another name for the bridge');
  if (interfaceExists(network.bridge)) {
    throw refuse(`the host has an interface ${network.bridge} already`, 'Choose another name for the bridge');
  }
  refuseOverlap(network);
  return network;
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
 * @throws MinirunError when it is the default network or a container is in it
 */
export async function removeNetwork(name: string, nameOf: (container: string) => string): Promise<void> {
  const refuse = (why: string, remedy: string) => new MinirunError(`cannot remove network "${name}"`, why, remedy);
  if (name === defaultNetworkName)
    throw refuse('it is the default network', 'It goes down with its last container by itself');
  const network = await changeNetwork(
    name,
    (current: Transient) => {
      const users = [...new Set(Object.values(current.leases))].map(nameOf);
      if (users.length > 0) {
        throw refuse(
          `${users.join(', ')} ${users.length === 1 ? 'is' : 'are'} in it`,
          `Stop first: minirun stop ${users.join(' ')}`,
        );
      }
      current.transient = selfRef();
      current.up = false;
      claimNetwork(current);
      handOver(current);
      return current;
    },
    undefined,
    () => true,
  );
  const errors = await tearDown([], { goingDown: [network] });
  if (errors.length > 0)
    throw new MinirunErrors(`cannot remove all of network "${name}"`, errors, 'The next minirun command tries again');
  faultPoint('network.down');
  await deleteNetwork(name);
}

/** Removes networks whose creation or removal was cut short. With nothing to do it reads one file per network. */
export async function finishInterruptedChanges(): Promise<void> {
  for (const { name, transient } of listNetworks() as Transient[]) {
    if (transient !== undefined && !isAlive(transient)) await removeNetwork(name, (id) => id.slice(0, 12));
  }
}

async function deleteNetwork(name: string): Promise<void> {
  await withLock(() => fs.rmSync(paths.network(name), { force: true }));
}

/** The network that a name, an id or the beginning of one stands for. @throws MinirunError when there is none */
export function findNetwork(reference: string): Network {
  const networks = listNetworks();
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

/** A network in docker's words and order, as `network inspect` shows it. */
export function describeNetwork(network: Network, nameOf: (container: string) => string): object {
  const prefixLength = network.subnet.split('/')[1];
  const containers = Object.entries(network.leases).map(([address, id]) => [
    id,
    {
      Name: nameOf(id),
      EndpointID: '',
      MacAddress: macOf(address),
      IPv4Address: `${address}/${prefixLength}`,
      IPv6Address: '',
    },
  ]);
  return {
    Name: network.name,
    Id: network.id,
    Created: network.created,
    Scope: 'local',
    Driver: network.driver,
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: { Driver: 'default', Options: {}, Config: [{ Subnet: network.subnet, Gateway: network.gateway }] },
    Internal: false,
    Attachable: false,
    Ingress: false,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: Object.fromEntries(containers),
    Options: { 'com.docker.network.bridge.name': network.bridge },
    Labels: network.labels,
  };
}
