import { applySteps, undoSteps } from '../host/executor.ts';
import { launchBackground } from '../host/launch.ts';
import { isAlive, processRef } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { withLock } from '../state/lock.ts';
import { endpointOf, inBatches, planAttach, planNamespace } from './attach.ts';
import { planBridge, planBridgeSettings } from './bridge.ts';
import { defaultNetworkName, type Endpoint, type Network, type NetworkDefinition } from './definition.ts';
import { defaultMtu, hasIpv6, interfaceExists, type NetworkFacts, readNetworkFacts } from './facts.ts';
import { planFirewall, sharedSteps } from './firewall.ts';
import { allocate, release } from './ipam.ts';
import { changeNetwork, claimNetwork, isUp, listNetworks, newDefaultNetwork, readNetwork, writeNetwork } from './store.ts';

/** A container's address, reserved; the network may have to be brought up by whoever got it. */
export interface Lease {
  endpoint: Endpoint;
  network: Network;
  /** This process has claimed the network and must bring it up (or give the claim back). */
  bringUp: boolean;
}

/** Reserves an address for a container, and the right to bring the network up when it is down. */
export async function leaseAddress(name: string, container: string, wanted?: string): Promise<Lease> {
  const orCreate = name === defaultNetworkName ? newDefaultNetwork : undefined;
  return changeNetwork(
    name,
    (network) => {
      const address = allocate(network, container, wanted);
      const bringUp = !isUp(network);
      if (bringUp) {
        network.up = false;
        claimNetwork(network);
      }
      return { endpoint: endpointOf(network, address, 'eth0', defaultMtu()), network, bringUp };
    },
    orCreate,
  );
}

/** All steps that make a network: bridge first, then its settings and the firewall. Pure. */
export function planNetwork(network: NetworkDefinition, facts: NetworkFacts): Step[] {
  return [...planBridge(network, facts), planBridgeSettings(network, facts), ...planFirewall(network, facts)];
}

/** All steps that give a container its own network stack, wired to the network. Pure. */
export function planConnection(netns: string, endpoints: readonly Endpoint[], ipv6: boolean): Step[] {
  return [...planNamespace(netns), ...endpoints.flatMap((endpoint) => planAttach(endpoint, netns, ipv6))];
}

/**
 * Makes the container's namespace and wires it. When the lease says so, the network is brought up in the same go:
 * one `ip -batch` for the host, one for the namespace, one `iptables-restore` beside them.
 *
 * @param record is given the container's own steps before the first is applied, so that a killed process leaves a trail
 */
export async function connect(netns: string, lease: Lease | undefined, record: (steps: Step[]) => void): Promise<void> {
  const own = planConnection(netns, lease === undefined ? [] : [lease.endpoint], hasIpv6());
  record(own);
  if (lease === undefined || !lease.bringUp) {
    if (lease !== undefined) await leftoverGone(lease.endpoint.hostIfname);
    await applySteps(inBatches(own));
    return;
  }
  const { network } = lease;
  const facts = await readNetworkFacts(network.bridge);
  const steps = planNetwork(network, facts);
  await updateClaimed(network.name, (current) => {
    current.applied = mergeShared(current.applied, steps);
  });
  try {
    await applySteps(inBatches([...steps, ...own]));
  } catch (error) {
    await updateClaimed(network.name, (current) => {
      current.applied = [];
      current.claim = undefined;
    });
    throw error;
  }
  await updateClaimed(network.name, (current) => {
    current.up = true;
    current.claim = undefined;
  });
}

/** Brings a network up without a container. The caller has claimed it. */
export async function bringUp(network: Network): Promise<void> {
  const steps = planNetwork(network, await readNetworkFacts(network.bridge));
  await updateClaimed(network.name, (current) => {
    current.applied = mergeShared(current.applied, steps);
  });
  await applySteps(inBatches(steps));
  await updateClaimed(network.name, (current) => {
    current.up = true;
    current.claim = undefined;
  });
}

/**
 * A namespace's interfaces go some milliseconds after the namespace, and their names derive from the address: a
 * container that gets the same address again at once waits for them.
 */
async function leftoverGone(ifname: string): Promise<void> {
  for (let tries = 0; tries < 200 && interfaceExists(ifname); tries++) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** What an unfinished earlier bring-up applied to all networks keeps its undo: now it is there, so the new plan has none. */
function mergeShared(before: readonly Step[], steps: readonly Step[]): Step[] {
  return steps.map((step) => {
    const old = before.find((each) => each.id === step.id);
    return sharedSteps.has(step.id) && step.undo.length === 0 && old !== undefined ? old : step;
  });
}

/** Changes a network that this process has claimed. */
async function updateClaimed(name: string, change: (network: Network) => void): Promise<void> {
  await withLock(() => {
    const network = readNetwork(name);
    if (network === undefined) return;
    change(network);
    writeNetwork(network);
  });
}

/** What has to be undone after a container has left its networks. */
export interface Departure {
  /** Networks that this process has claimed because nobody uses them any more. */
  goingDown: Network[];
  /** Names of networks that nobody uses any more and that may stay for a moment. */
  idle: string[];
}

/**
 * Gives back every address of a container, and claims the automatic networks that nobody uses any more.
 *
 * @param names the networks it is in; all are looked through when that is not known
 * @param linger leave idle networks up: taking a bridge and its rules away costs the kernel some 80 ms, which a
 * loop of short containers would pay each time
 */
export async function leave(container: string, names: readonly string[] | undefined, linger: boolean): Promise<Departure> {
  const departure: Departure = { goingDown: [], idle: [] };
  for (const name of names ?? listNetworks().map((network) => network.name)) {
    if (readNetwork(name) === undefined) continue;
    await changeNetwork(name, (network) => {
      for (const [address, holder] of Object.entries(network.leases)) if (holder === container) release(network, container, address);
      if (!isIdle(network)) return;
      if (linger) departure.idle.push(name);
      else if (claimIfIdle(network)) departure.goingDown.push(network);
    });
  }
  return departure;
}

/** Seconds for which an idle network stays up after a container in the foreground has ended. */
const lingerSeconds = 2;

/** Sees to it that idle networks go down in a moment, by a process that outlives this one. */
export async function lingerNetworks(names: readonly string[], reconcileArgv: readonly string[]): Promise<void> {
  for (const name of names) {
    if (isAlive(readNetwork(name)?.linger)) continue;
    const pid = launchBackground(['sh', '-c', `trap '' HUP INT; sleep ${lingerSeconds}; exec "$@"`, 'minirun-linger', ...reconcileArgv]);
    await updateClaimed(name, (network) => {
      network.linger = processRef(pid);
    });
  }
}

function isIdle(network: Network): boolean {
  return network.automatic && Object.keys(network.leases).length === 0 && (network.up || network.applied.length > 0);
}

/** Claims an automatic network that has parts on the host and no lease; under the lock. */
function claimIfIdle(network: Network): boolean {
  if (!isIdle(network)) return false;
  network.up = false;
  network.linger = undefined;
  claimNetwork(network);
  handOver(network);
  return true;
}

/** Leaves to another network that is up what both share: the chains and ip_forward. Under the lock. */
export function handOver(network: Network): void {
  const heir = listNetworks().find((each) => each.name !== network.name && each.up);
  if (heir === undefined) return;
  heir.applied = [...network.applied.filter((step) => sharedSteps.has(step.id)), ...heir.applied.filter((step) => !sharedSteps.has(step.id))];
  network.applied = network.applied.filter((step) => !sharedSteps.has(step.id));
  writeNetwork(heir);
}

/** Undoes networks that this process has claimed, together with a container's own steps. Goes on after errors. */
export async function tearDown(own: readonly Step[], { goingDown }: Pick<Departure, 'goingDown'>): Promise<Error[]> {
  const errors = await undoSteps([...goingDown.flatMap((network) => network.applied), ...own]);
  for (const { name } of goingDown) {
    await updateClaimed(name, (current) => {
      current.applied = [];
      current.claim = undefined;
    });
  }
  return errors;
}

/**
 * Claims what a killed process left half up or half down, and what is idle, to be torn down; cheap when there is
 * nothing.
 *
 * @param lingering also what somebody will take down in a moment
 */
export async function claimAbandoned(lingering: boolean): Promise<Departure> {
  const departure: Departure = { goingDown: [], idle: [] };
  for (const network of listNetworks()) {
    const { name, claim, linger } = network;
    const claimed = isAlive(claim);
    if (claimed || (claim === undefined && !isIdle(network))) continue;
    if (!lingering && claim === undefined && isAlive(linger)) continue;
    await changeNetwork(name, (current) => {
      if (claimIfIdle(current)) departure.goingDown.push(current);
    });
  }
  return departure;
}
