import fs from 'node:fs';
import { MinirunError, MinirunErrors } from '../errors.ts';
import { applySteps, undoSteps } from '../host/executor.ts';
import { faultPoint } from '../host/fault.ts';
import { ip, ipIn, type Step } from '../host/steps.ts';
import { hostIfnameOf, macOf } from '../network/address.ts';
import { planDefaultRoutes } from '../network/attach.ts';
import { type Attachment, defaultNetworkName, type Endpoint, type Network } from '../network/definition.ts';
import { hasIpv6, interfaceExists, interfaceNames, readFirewall } from '../network/facts.ts';
import { missingRules } from '../network/firewall.ts';
import { readStack } from '../network/interfaces.ts';
import { connectRunning, leaseAddresses, leave, tearDown } from '../network/lifecycle.ts';
import { findNetwork, type Member } from '../network/manage.ts';
import { publishStep } from '../network/publish.ts';
import { canonicalNetwork } from '../network/options.ts';
import { reloadNetworks } from '../network/reload.ts';
import { readNetwork } from '../network/store.ts';
import { type Event, lastRecorded, recordEvents } from '../state/events.ts';
import { withLock } from '../state/lock.ts';
import { nameOfContainer } from '../state/names.ts';
import { writeJson } from '../state/json.ts';
import type { ContainerState, Definition } from './definition.ts';
import { networkEvent } from './events.ts';
import { changeNames, type Place } from './names.ts';
import { attachmentsOf, hasOwnNetwork, namespaceName } from './networking.ts';
import { planPublished } from './publish.ts';
import { linkIfnames } from './routes-file.ts';
import { interfaceSysctls } from './spec.ts';
import { isAtRest } from './status.ts';
import {
  type Container,
  containerFiles,
  isRunning,
  listContainers,
  readContainer,
  readState,
  readSteps,
  requireContainer,
  writeState,
  writeSteps,
} from './store.ts';

/** The containers that have addresses in a network, by id. */
export function membersOf(network: Pick<Network, 'name' | 'leases'>): Map<string, Member> {
  const holders = new Set(Object.values(network.leases));
  const members = [...holders].map((id): [string, Member] => {
    const container = readContainer(id);
    const endpoint = container?.state.endpoints.find((each) => each.network === network.name);
    const text = (address: { address: string; prefixLength: number } | undefined) =>
      address === undefined ? '' : `${address.address}/${address.prefixLength}`;
    return [
      id,
      {
        name: nameOfContainer(id),
        mac: endpoint?.mac ?? '',
        ipv4: text(endpoint?.ipv4),
        ipv6: text(endpoint?.ipv6),
      },
    ];
  });
  return new Map(members);
}

/**
 * Puts a container into a further network: at once when it is running, and whenever it is started.
 *
 * @throws MinirunError before any effect when it is there already or has no network stack of its own
 */
export async function connectContainer(
  networkReference: string,
  reference: string,
  wanted: Omit<Attachment, 'network'>,
): Promise<void> {
  const network = nameOf(networkReference);
  const attachment: Attachment = { ...wanted, network };
  const container = await withLock(() => {
    const found = requireSteady(reference, `connect network "${network}" to`);
    const { definition, state } = found;
    const attachments = attachmentsOf(definition);
    const isIn = attachments.some((each) => each.network === network);
    const refuse = (why: string, remedy: string) =>
      new MinirunError(`cannot connect container "${definition.name}" to network "${network}"`, why, remedy);
    if (isIn && (!isRunning(state) || state.endpoints.some((each) => each.network === network)))
      throw refuse('it is in that network', `See minirun inspect ${definition.name}`);
    const { ifname } = attachment;
    const taken = [...attachments, ...state.endpoints].some(
      (each) => ifname !== undefined && each.ifname === ifname && each.network !== network,
    );
    if (taken || (ifname !== undefined && linkIfnames(definition.id).includes(ifname)))
      throw refuse(`it has an interface ${ifname} already`, 'Choose another ifname');
    writeAttachments(definition, [...attachments.filter((each) => each.network !== network), attachment]);
    return found;
  });
  const { id } = container.definition;
  try {
    faultPoint('connect.defined');
    if (isRunning(container.state)) await attachRunning(container, attachment);
  } catch (error) {
    const now = { ...container, state: readState(id) ?? container.state };
    if (isRunning(now.state)) await takeOut(now, network);
    await withLock(() => forget(id, network));
    throw error;
  }
}

/** Gives a running container the interface, and writes it down unless the container has ended meanwhile. */
async function attachRunning({ definition, state }: Container, attachment: Attachment): Promise<void> {
  const { id } = definition;
  const netns = namespaceName(definition);
  // What a killed process may have left of the same undertaking.
  await unplug({ definition, state }, attachment.network);
  const lease = await leaseAddresses(attachment, id, [...interfaceNames(pidOf(state)), ...linkIfnames(id)]);
  faultPoint('connect.leased');
  const { endpoint } = lease;
  const sysctls = Object.entries(interfaceSysctls([endpoint], hasIpv6()));
  await connectRunning(netns, lease, state.endpoints, [
    {
      id: 'container.sysctl',
      why: 'The interface is to be like those that the container was started with.',
      apply: sysctls.map(([key, value]) => ({ tool: 'sysctl', netns, key, value })),
      undo: [],
    },
  ]);
  faultPoint('connect.attached');
  const written = await updateRunning(id, state, (current) => ({
    ...current,
    endpoints: [...current.endpoints.filter((each) => each.network !== endpoint.network), endpoint],
  }));
  if (!written) return detachLeases(id, attachment.network);
  await movePorts(id, state, [...state.endpoints, endpoint]);
  await changeNames(definition, netns, placesOf([...state.endpoints, endpoint]));
}

/** The networks of a running container, which are up. */
function placesOf(endpoints: readonly Endpoint[]): Place[] {
  return endpoints.map((endpoint) => ({ network: findNetwork(endpoint.network), endpoint, bringUp: false }));
}

/** Leads published ports to another address of the container, when the one they led to is not the first choice any more. */
async function movePorts(
  id: string,
  { ports = [], endpoints: before }: ContainerState,
  after: readonly Endpoint[],
): Promise<void> {
  const old = planPublished(ports, before);
  const wanted = planPublished(ports, after);
  if (JSON.stringify(old) !== JSON.stringify(wanted)) await replacePublished(id, old, wanted, wanted);
}

/**
 * Sets the rules of published ports right, as far as they are not where the container is now: a `network connect` or
 * `disconnect` that was killed may have left them at an address that it had before.
 */
export async function republish(id: string): Promise<void> {
  const state = readState(id);
  if (state === undefined || state.status !== 'running' || !isRunning(state)) return;
  const wanted = planPublished(state.ports ?? [], state.endpoints);
  const texts = new Set(wanted.map((step) => JSON.stringify(step.undo)));
  const stale = readSteps(id).filter((step) => step.id === publishStep && !texts.has(JSON.stringify(step.undo)));
  const [four, six] = await Promise.all([readFirewall(4), hasIpv6() ? readFirewall(6) : []]);
  await replacePublished(id, stale, wanted, missingRules(wanted, { 4: four, 6: six }));
}

/** Takes rules of published ports away and makes others. Both are on record while they change. */
async function replacePublished(
  id: string,
  old: readonly Step[],
  wanted: readonly Step[],
  toApply: readonly Step[],
): Promise<void> {
  // Under the lock: `rename` rewrites them too. Nothing to do when the container has ended meanwhile.
  const record = async (steps: readonly Step[]) =>
    withLock(() => {
      if (!fs.existsSync(containerFiles(id).steps)) return false;
      const others = readSteps(id).filter((step) => step.id !== publishStep);
      writeSteps(id, [...others, ...steps]);
      return true;
    });
  if (!(await record([...old, ...wanted]))) return;
  faultPoint('ports.recorded');
  const errors = await undoSteps(old);
  await applySteps(toApply);
  faultPoint('ports.moved');
  await record(wanted);
  if (errors.length > 0) throw new MinirunErrors('cannot take the old rules of published ports away', errors);
}

/** The name of the network that is meant; the default one need not be there yet. */
function nameOf(reference: string): string {
  return canonicalNetwork(reference) === defaultNetworkName ? defaultNetworkName : findNetwork(reference).name;
}

/**
 * Takes a container out of a network.
 *
 * @throws MinirunError before any effect when it is not in it
 */
export async function disconnectContainer(networkReference: string, reference: string): Promise<void> {
  let network = networkReference;
  const { definition, state } = await withLock(() => {
    const found = requireSteady(reference, `disconnect network "${network}" from`);
    const attachments = attachmentsOf(found.definition);
    // A stopped container can still be in one that has been removed since: that must not keep it from starting.
    if (!attachments.some((each) => each.network === network)) network = nameOf(networkReference);
    const known = [...attachments, ...found.state.endpoints].some((each) => each.network === network);
    if (!known) {
      throw new MinirunError(
        `cannot disconnect container "${found.definition.name}" from network "${network}"`,
        'it is not in that network',
        `See minirun inspect ${found.definition.name}`,
      );
    }
    writeAttachments(
      found.definition,
      attachments.filter((each) => each.network !== network),
    );
    return found;
  });
  faultPoint('disconnect.defined');
  if (!isRunning(state)) return;
  await takeOut({ definition, state }, network);
}

/** Takes a running container out of a network, and writes that down. */
async function takeOut({ definition, state }: Container, network: string): Promise<void> {
  const { id } = definition;
  const rest = state.endpoints.filter((each) => each.network !== network);
  await unplug({ definition, state }, network);
  await changeNames(definition, namespaceName(definition), placesOf(rest), [network]);
  await updateRunning(id, state, (current) => ({
    ...current,
    endpoints: current.endpoints.filter((each) => each.network !== network),
  }));
  await movePorts(id, state, rest);
}

/**
 * Takes what a running container has of a network away: its interface, its addresses. Whatever of it is gone already, or was
 * never finished, does not matter: a process that was killed at it may have come to any point.
 */
async function unplug({ definition, state }: Container, network: string): Promise<void> {
  const { id } = definition;
  const netns = namespaceName(definition);
  const endpoint = state.endpoints.find((each) => each.network === network);
  const rest = state.endpoints.filter((each) => each !== endpoint);
  const leases = Object.entries(readNetwork(network)?.leases ?? {});
  const ports = leases.flatMap(([address, holder]) => (holder === id ? hostIfnameOf(address) : [])).filter(isThere);
  const unfinished = endpoint === undefined ? await unfinishedMacvlan({ definition, state }, network) : [];
  if (endpoint !== undefined || ports.length > 0 || unfinished.length > 0) {
    const plugged = endpoint !== undefined && interfaceExists(endpoint.ifname, pidOf(state));
    const unplugging = plugged
      ? [ipIn(netns, 'link', 'del', endpoint.ifname)]
      : [
          ...ports.map((port) => ip('link', 'del', port)),
          ...unfinished.map((ifname) => ipIn(netns, 'link', 'del', ifname)),
        ];
    await applySteps([
      {
        id: 'container.detach',
        why: `Pull the plug: deleting one end of the pair deletes both, with the addresses and routes.`,
        apply: unplugging,
        undo: [],
      },
      // What a killed process had made of them is not known.
      ...planDefaultRoutes(rest, netns, plugged ? [...rest, endpoint] : []),
    ]);
  }
  faultPoint('disconnect.detached');
  await detachLeases(id, network);
}

/** The interface that a killed `network connect` to a macvlan has left in a container: it has the MAC that goes with the address. */
async function unfinishedMacvlan({ definition, state }: Container, name: string): Promise<string[]> {
  const network = readNetwork(name);
  const addresses = Object.entries(network?.leases ?? {}).flatMap(([address, id]) =>
    id === definition.id ? [address] : [],
  );
  if (network?.driver !== 'macvlan' || addresses.length === 0) return [];
  const chosen = attachmentsOf(definition).find((each) => each.network === name)?.mac;
  const macs = new Set([...addresses.map(macOf), ...(chosen === undefined ? [] : [chosen])]);
  const known = new Set([...state.endpoints.map(({ ifname }) => ifname), ...linkIfnames(definition.id)]);
  const { interfaces } = await readStack(namespaceName(definition));
  return interfaces.flatMap(({ ifname, address, linkinfo }) =>
    linkinfo?.info_kind === 'macvlan' && macs.has(address) && !known.has(ifname) ? [ifname] : [],
  );
}

function isThere(ifname: string): boolean {
  return interfaceExists(ifname);
}

/** A process of a running container. */
function pidOf({ init }: ContainerState): number {
  return init?.pid ?? 0;
}

/** A container whose networks may be changed now. @throws MinirunError when it has none of its own or is in between two states */
function requireSteady(reference: string, verb: string): Container {
  const container = requireContainer(reference);
  const { definition, state } = container;
  const refuse = (why: string, remedy: string) =>
    new MinirunError(`cannot ${verb} container "${definition.name}"`, why, remedy);
  if (!hasOwnNetwork(definition)) {
    const whose = definition.network === 'host' ? "the host's" : "another container's";
    throw refuse(`it uses ${whose} network`, 'Create it without --network');
  }
  if (!['running', 'created', 'exited'].includes(state.status))
    throw refuse(`it is ${state.status}`, 'Try again in a moment');
  return container;
}

/** Under the lock. */
function writeAttachments(definition: Definition, attachments: Attachment[]): void {
  writeJson(containerFiles(definition.id).definition, { ...definition, attachments });
}

function forget(id: string, network: string): void {
  const definition = readContainer(id)?.definition;
  if (definition === undefined) return;
  writeAttachments(
    definition,
    attachmentsOf(definition).filter((each) => each.network !== network),
  );
}

/** Gives a container's addresses in one network back, and takes the network down when that leaves it idle. */
async function detachLeases(id: string, network: string): Promise<void> {
  const departure = await leave(id, [network], false);
  if (departure.goingDown.length > 0) await tearDown(departure);
}

/** Gives back what a container that does not run has of a network. */
export async function giveAddressesBack(id: string, network: string): Promise<void> {
  const state = readState(id);
  if (state !== undefined && !isAtRest(state)) return;
  await detachLeases(id, network);
}

/** Goes on with a `network disconnect` that was killed: the definition says already that the container is not in it. */
export async function finishDisconnect(id: string, network: string): Promise<void> {
  const container = readContainer(id);
  if (container === undefined || !isRunning(container.state)) return;
  if (attachmentsOf(container.definition).some((each) => each.network === network)) return;
  await takeOut(container, network);
}

/** Takes away what a killed `network connect` has left in a running container. */
export async function tidyNetwork(id: string, network: string): Promise<void> {
  const container = readContainer(id);
  if (container !== undefined && isRunning(container.state)) await unplug(container, network);
}

/** Changes the state of a container that still runs as it did. */
async function updateRunning(
  id: string,
  before: ContainerState,
  change: (state: ContainerState) => ContainerState,
): Promise<boolean> {
  return withLock(() => {
    const state = readState(id);
    if (state === undefined || state.status !== 'running' || state.init?.start !== before.init?.start) return false;
    const changed = change(state);
    const has = ({ endpoints }: ContainerState, name: string) => endpoints.some(({ network }) => network === name);
    const events = [
      ...changed.endpoints
        .filter(({ network }) => !has(state, network))
        .map(({ network }) => networkEvent(id, network, 'connect')),
      ...state.endpoints
        .filter(({ network }) => !has(changed, network))
        .map(({ network }) => networkEvent(id, network, 'disconnect')),
    ];
    // Somebody who was killed before he wrote the state may have told it.
    const isNew = (event: Event) => lastRecorded(event.id, ['connect', 'disconnect'], id)?.action !== event.action;
    recordEvents(events.filter(isNew));
    writeState(id, changed);
    return true;
  });
}

/** `network reload`. @returns the names of the networks */
export async function reload(): Promise<string[]> {
  const running = listContainers().filter(({ state }) => isRunning(state));
  return reloadNetworks(
    running.flatMap(({ state }) => state.endpoints),
    running.flatMap(({ state }) => planPublished(state.ports ?? [], state.endpoints)),
  );
}
