import { MinirunError, MinirunErrors, messageOf } from '../errors.ts';
import { applySteps, undoSteps } from '../host/executor.ts';
import { faultPoint } from '../host/fault.ts';
import { launchBackground } from '../host/launch.ts';
import { endGroup, endOrphans, isAlive, processRef } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { withLock } from '../state/lock.ts';
import { nameOfContainer } from '../state/names.ts';
import { endpointOf, inBatches, isHostIp, nextIfname, planAttach, planDefaultRoutes, planNamespace } from './attach.ts';
import { planBridge, planBridgeSettings } from './bridge.ts';
import {
  type Attachment,
  defaultNetworkName,
  type Endpoint,
  type Network,
  type NetworkDefinition,
} from './definition.ts';
import { defaultMtu, hasIpv6, interfaceExists, type NetworkFacts, readNetworkFacts } from './facts.ts';
import { familiesOf, planFirewall, sharedSteps } from './firewall.ts';
import { allocate, release } from './ipam.ts';
import { endNameServer, isUpElsewhere, type NameFacts, planNameServer, readNameFacts } from './names.ts';
import {
  changeNetwork,
  claimNetwork,
  isUp,
  listNetworks,
  newDefaultNetwork,
  readNetwork,
  requireNetwork,
  whenFree,
  writeNetwork,
} from './store.ts';

/** A container's addresses in a network, reserved; the network may have to be brought up by whoever got them. */
export interface Lease {
  endpoint: Endpoint;
  network: Network;
  /** This process has claimed the network and must bring it up (or give the claim back). */
  bringUp: boolean;
}

/**
 * Reserves addresses for a container, and the right to bring the network up when it is down.
 *
 * @param ifnames names of interfaces that it has already
 */
export async function leaseAddresses(
  attachment: Attachment,
  container: string,
  ifnames: readonly string[] = [],
): Promise<Lease> {
  const name = attachment.network;
  const orCreate = name === defaultNetworkName ? newDefaultNetwork : undefined;
  return changeNetwork(
    name,
    (network) => {
      const allocated = allocate(network, container, attachment, nameOfContainer);
      const bringUp = !isUp(network);
      if (bringUp) {
        network.up = false;
        claimNetwork(network);
      }
      const ifname = attachment.ifname ?? nextIfname(ifnames);
      return { endpoint: endpointOf(network, allocated, attachment, ifname, defaultMtu()), network, bringUp };
    },
    orCreate,
    (network) => !isUp(network),
  );
}

/**
 * Reserves addresses in all networks of a container. Of several, those that are down are brought up at once: nobody may
 * wait for a claim while holding one.
 *
 * @param taken names of interfaces that it has otherwise
 */
export async function leaseAll(
  attachments: readonly Attachment[],
  container: string,
  taken: readonly string[] = [],
): Promise<Lease[]> {
  const leases: Lease[] = [];
  const given = attachments.flatMap(({ ifname }) => ifname ?? []);
  for (const attachment of attachments) {
    const lease = await leaseAddresses(attachment, container, [
      ...taken,
      ...given,
      ...leases.map(({ endpoint }) => endpoint.ifname),
    ]);
    if (lease.bringUp && attachments.length > 1) {
      await bringUp(lease.network);
      lease.bringUp = false;
    }
    leases.push(lease);
  }
  return leases;
}

/** Gives the claim of a lease back that cannot be used, so that nobody waits for a network which this will not bring up. */
export async function forgoBringUp({ bringUp, network: { name } }: Lease): Promise<void> {
  if (!bringUp) return;
  await updateClaimed(name, (current) => {
    current.claim = undefined;
  });
}

/** All steps that make a network: bridge first, then its settings and the firewall. Pure. */
export function planNetwork(network: NetworkDefinition, facts: NetworkFacts, names: NameFacts): Step[] {
  const nameServer = planNameServer(network, names);
  // A macvlan is nothing but its containers' interfaces, and their names.
  if (network.driver === 'macvlan') return nameServer;
  return [
    ...planBridge(network, facts),
    planBridgeSettings(network, facts),
    ...planFirewall(network, facts),
    ...nameServer,
  ];
}

/** All steps that give a container its own network stack, wired to its networks. Pure. */
export function planConnection(netns: string, endpoints: readonly Endpoint[], ipv6: boolean, holder?: string): Step[] {
  return [
    ...planNamespace(netns, holder),
    ...endpoints.flatMap((endpoint) => planAttach(endpoint, netns, ipv6)),
    ...planDefaultRoutes(endpoints, netns),
  ];
}

/** How a container is wired. */
export interface Connection {
  netns: string;
  /** A process whose network namespace it is, where it is not to be made. */
  holder?: number;
  leases: readonly Lease[];
  /** What else is done for it: names, published ports, links. */
  further: readonly Step[];
  /**
   * Is given the container's own steps before the first is applied, so that a killed process leaves a trail; on failure it
   * is given those that could not be undone. A namespace of that name that somebody else has made meanwhile is never
   * among them.
   */
  record: (steps: Step[]) => void;
  /** Is called as soon as the namespace is there with its interfaces, which then get addresses and routes. */
  present: () => void;
}

/**
 * Makes the container's namespace and wires it. When a lease says so, the network is brought up in the same go:
 * one `ip -batch` for the host, one for the namespace, one `iptables-restore` beside them.
 */
export async function connect({ netns, holder, leases, further, record, present }: Connection): Promise<void> {
  const endpoints = leases.map(({ endpoint }) => endpoint);
  const own = [...planConnection(netns, endpoints, hasIpv6(), holder?.toString()), ...further];
  const last = inBatches(own).findLast(isHostIp);
  const applied = (step: Step) => {
    if (step === last) present();
  };
  const toRaise = leases.find(({ bringUp: down }) => down);
  if (toRaise !== undefined) {
    await raise(toRaise.network.name, own, record, applied);
    return;
  }
  record(own);
  for (const { hostIfname } of endpoints) if (hostIfname !== '') await leftoverGone(hostIfname);
  await applySteps(inBatches(own), { left: record, applied });
}

/** Adds a network to a running container that has those of `before`. */
export async function connectRunning(
  netns: string,
  lease: Lease,
  before: readonly Endpoint[],
  further: readonly Step[],
): Promise<void> {
  const endpoints = [...before, lease.endpoint];
  const own = [
    ...planAttach(lease.endpoint, netns, hasIpv6()),
    ...planDefaultRoutes(endpoints, netns, before),
    ...further,
  ];
  if (lease.bringUp) return raise(lease.network.name, own, () => {});
  if (lease.endpoint.hostIfname !== '') await leftoverGone(lease.endpoint.hostIfname);
  await applySteps(inBatches(own));
}

/** Brings a network up without a container. The caller has claimed it. */
export async function bringUp(network: Network): Promise<void> {
  await raise(network.name, [], () => {});
}

/** Applies the steps of a network that this process has claimed, and those of its first container with them. */
async function raise(
  name: string,
  own: readonly Step[],
  record: (steps: Step[]) => void,
  applied?: (step: Step) => void,
): Promise<void> {
  try {
    const network = requireNetwork(name);
    const facts = await factsFor(network);
    refuseForeignBridge(network, facts);
    // Whoever took the network down may have been killed at it. Its name server holds the port that the new one needs, and
    // knows nothing of a bridge that has been made anew.
    await endNameServer(name);
    const steps = planNetwork(network, facts, readNameFacts(network));
    await updateClaimed(name, (current) => {
      current.applied = withUndoOf(current.applied, steps);
    });
    faultPoint('network.recorded');
    if (own.length > 0) record([...own]);
    await applySteps(inBatches([...steps, ...own]), {
      callersOwn: new Set(steps),
      left: (left) => (own.length > 0 ? record(left) : undefined),
      applied,
    });
    faultPoint('network.applied');
    await updateClaimed(name, (current) => {
      current.up = true;
      current.claim = undefined;
    });
  } catch (error) {
    const errors = await lower(name);
    if (errors.length === 0) throw error;
    throw new MinirunErrors(
      messageOf(error),
      errors,
      'What could not be undone is left for "minirun system reconcile"',
    );
  }
}

/** A bridge that another state directory's network of the same name has is not ours to use, nor to delete in the end. */
function refuseForeignBridge({ name, driver, bridge, applied }: Network, { bridgeExists }: NetworkFacts): void {
  if (driver !== 'bridge' || !bridgeExists || applied.length > 0 || !isUpElsewhere(name)) return;
  throw new MinirunError(
    `cannot bring network "${name}" up`,
    `the bridge ${bridge} is that of a minirun with another state directory (--root, MINIRUN_ROOT)`,
    'Use that one, or a network of your own: minirun network create NAME, and --network NAME',
  );
}

/** A macvlan network needs to know nothing of the host. */
async function factsFor(network: Network): Promise<NetworkFacts> {
  const families = network.driver === 'macvlan' ? [] : familiesOf(network);
  return readNetworkFacts(network.bridge, families);
}

/** Takes down a network whose bring-up has failed; what it shares stays for another network that uses it. */
async function lower(name: string): Promise<Error[]> {
  let goingDown: Network | undefined;
  await updateClaimed(name, (network) => {
    // Up and given free already: others may be in it. When nobody is, whoever leaves it takes it down.
    if (network.claim?.pid !== process.pid) return;
    network.up = false;
    handOver(network);
    goingDown = network;
  });
  return goingDown === undefined ? [] : tearDown({ goingDown: [goingDown] });
}

/**
 * A namespace's interfaces go some milliseconds after the namespace, and their names derive from the address: a
 * container that gets the same address again at once waits for them.
 */
async function leftoverGone(ifname: string): Promise<void> {
  for (let tries = 0; tries < 200 && interfaceExists(ifname); tries++)
    await new Promise((resolve) => setTimeout(resolve, 5));
}

/**
 * What has to be undone after `steps` have been applied to a network where `before` is there already, in whole or in
 * part. An earlier step keeps its undo where the new plan finds nothing to do and so nothing to take back (ip_forward),
 * and where the new plan has nothing like it (a rule of a range that the network no longer has). What is planned again
 * keeps its place: it goes after what was made in it. Pure.
 */
export function withUndoOf(before: readonly Step[], steps: readonly Step[]): Step[] {
  const undoOf = (step: Step) => JSON.stringify(step.undo);
  const again = new Map(steps.filter(({ undo }) => undo.length > 0).map((step) => [undoOf(step), step]));
  const kept = new Map(
    before.filter(({ undo }) => undo.length > 0).map((step) => [undoOf(step), again.get(undoOf(step)) ?? step]),
  );
  return [...kept.values(), ...steps.filter((step) => !kept.has(undoOf(step)))];
}

/** Changes a network that this process has claimed. */
export async function updateClaimed(name: string, change: (network: Network) => void): Promise<void> {
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
export async function leave(
  container: string,
  names: readonly string[] | undefined,
  linger: boolean,
): Promise<Departure> {
  return whenFree((free) => {
    const networks = names === undefined ? listNetworks() : names.flatMap((name) => readNetwork(name) ?? []);
    for (const network of networks) {
      const held = release(network, container);
      if (linger) network.idleSince = Date.now();
      if (held) writeNetwork(network);
    }
    const idle = networks.filter((network) => isIdle(network) && !isAlive(network.claim));
    if (linger || idle.length === 0) return { goingDown: [], idle: idle.map(({ name }) => name) };
    return free() ? { goingDown: idle.flatMap(({ name }) => claimIfIdle(name) ?? []), idle: [] } : undefined;
  });
}

/** Seconds for which an idle network stays up after a container in the foreground has ended. */
const lingerSeconds = 2;

/** Which idle networks are to go down: none that lingers, those that have lingered long enough, or all. */
export type Lingering = 'spared' | 'due' | 'all';

/** Sees to it that idle networks go down in a moment, by a process that outlives this one. */
export async function lingerNetworks(names: readonly string[], reconcileArgv: readonly string[]): Promise<void> {
  for (const name of names) {
    const waiting = readNetwork(name)?.linger;
    if (isAlive(waiting) && waiting?.pid !== process.pid) continue;
    const pid = launchBackground([
      'sh',
      '-c',
      `trap '' HUP INT; sleep ${lingerSeconds}; exec "$@"`,
      'minirun-linger',
      ...reconcileArgv,
    ]);
    await updateClaimed(name, (network) => {
      network.linger = processRef(pid);
    });
  }
}

/** A network that a loop of short containers uses stays up: what counts is when the last one left. */
function isDue({ linger, idleSince = 0 }: Network, lingering: Lingering): boolean {
  if (lingering === 'all') return true;
  if (lingering === 'due') return Date.now() - idleSince >= lingerSeconds * 900;
  return !isAlive(linger);
}

/** Names of idle networks that are used again and again: their time has not come. */
export function notYetDue(): string[] {
  return listNetworks().flatMap((network) => (isIdle(network) && !isDue(network, 'due') ? network.name : []));
}

/** Whether nobody uses a network that goes with its last container, and nobody is about to take it down. */
export function isLeftIdle(network: Network): boolean {
  return isIdle(network) && !isAlive(network.claim);
}

function isIdle(network: Network): boolean {
  return network.automatic && Object.keys(network.leases).length === 0 && (network.up || network.applied.length > 0);
}

/** Claims an automatic network that has parts on the host and no lease; under the lock. */
function claimIfIdle(name: string): Network | undefined {
  // Read anew: another network that went down before in the same go may have handed its shared steps to this one.
  const network = readNetwork(name);
  if (network === undefined || !isIdle(network)) return undefined;
  endOrphans(network.claim);
  network.up = false;
  // Who waits to take it down has nothing left to do.
  endGroup(network.linger);
  network.linger = undefined;
  claimNetwork(network);
  handOver(network);
  writeNetwork(network);
  return network;
}

/** Leaves to another network that is up what both share: the chains and ip_forward, of each family. Under the lock. */
export function handOver(network: Network): void {
  for (const family of [4, 6] as const) {
    const shared = (step: Step) => sharedSteps[family].has(step.id);
    const heir = listNetworks().find(
      (each) => each.name !== network.name && each.up && each.driver === 'bridge' && familiesOf(each).includes(family),
    );
    if (heir === undefined || !network.applied.some(shared)) continue;
    // Its own stay as well: the one that switched ip_forward on must still switch it off in the end.
    heir.applied = withUndoOf(network.applied.filter(shared), heir.applied);
    network.applied = network.applied.filter((step) => !shared(step));
    writeNetwork(heir);
  }
}

/**
 * Undoes networks that this process has claimed, and gives the claims back. Goes on after errors.
 *
 * @param departure keeps those networks in `goingDown` whose claim could not be given back
 */
export async function tearDown(departure: Pick<Departure, 'goingDown'>): Promise<Error[]> {
  const { goingDown } = departure;
  departure.goingDown = [];
  // What networks of another state directory need stays: whoever goes down last takes it away.
  const stays = ({ id }: Step) => sharedSteps[4].has(id) || sharedSteps[6].has(id);
  const applied = goingDown.flatMap((network) => network.applied);
  const errors = await undoSteps(
    applied.some(stays) && isUpElsewhere() ? applied.filter((step) => !stays(step)) : applied,
  );
  for (const network of goingDown) {
    try {
      await updateClaimed(network.name, (current) => {
        // What could not be undone stays on record: the next command tries again.
        if (errors.length === 0) current.applied = [];
        current.claim = undefined;
      });
    } catch (error) {
      departure.goingDown.push(network);
      errors.push(error as Error);
    }
  }
  return errors;
}

/**
 * Claims what a killed process left half up or half down, and what is idle, to be torn down; cheap when there is
 * nothing.
 *
 * @param lingering what becomes of networks that somebody will take down in a moment; with `all`, addresses of
 *   containers that are gone are given back too
 * @param present the ids of all containers there are
 */
export async function claimAbandoned(lingering: Lingering, present: () => readonly string[]): Promise<Departure> {
  // Somebody deleted a container's folder by hand, or by a script of `rm --explain`.
  const orphaned = ({ leases }: Network, there: ReadonlySet<string>) =>
    lingering === 'all' && Object.values(leases).some((container) => !there.has(container));
  const abandoned = (network: Network, there: ReadonlySet<string>) => {
    if (isAlive(network.claim)) return false;
    if (network.claim !== undefined) return true;
    return orphaned(network, there) || (isIdle(network) && isDue(network, lingering));
  };
  // Networks are read first: whoever has a lease in what was read had a folder before.
  const look = () => {
    const networks = listNetworks();
    const there = new Set(lingering === 'all' ? present() : []);
    return { there, found: networks.filter((network) => abandoned(network, there)) };
  };
  if (look().found.length === 0) return { goingDown: [], idle: [] };
  return whenFree((free) => {
    const { found, there } = look();
    if (found.length > 0 && !free()) return undefined;
    const goingDown = found.flatMap((network) => {
      if (orphaned(network, there)) {
        network.leases = Object.fromEntries(
          Object.entries(network.leases).filter(([, container]) => there.has(container)),
        );
        writeNetwork(network);
      }
      const claimed = claimIfIdle(network.name);
      if (claimed === undefined && network.claim !== undefined) {
        // In use, or not automatic: whoever uses it next finds it down and brings it up.
        endOrphans(network.claim);
        writeNetwork({ ...network, claim: undefined });
      }
      return claimed ?? [];
    });
    return { goingDown, idle: [] };
  });
}
