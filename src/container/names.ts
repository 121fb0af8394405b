import fs from 'node:fs';
import { applySteps } from '../host/executor.ts';
import { which } from '../host/launch.ts';
import type { Step } from '../host/steps.ts';
import type { Endpoint, NetworkDefinition } from '../network/definition.ts';
import {
  allNames,
  endOwnNameServer,
  hasNameServer,
  hasOwnNameServer,
  type NamedNetwork,
  planNames,
  planNamesGone,
  planOwnNameServer,
  readNameFacts,
  type Resolution,
  resolutionOf,
  servesNames,
} from '../network/names.ts';
import { withLock } from '../state/lock.ts';
import type { Definition } from './definition.ts';
import { hostResolvers, hostsContent, resolvConfContent, upstreamServers } from './etc.ts';
import { attachmentsOf } from './networking.ts';
import { containerFiles, readSpec, readSteps, writeSteps } from './store.ts';

/** A container's place in a network, and whether that network is being brought up with it. */
export interface Place {
  network: NetworkDefinition;
  endpoint: Endpoint;
  bringUp: boolean;
}

function namedNetworkOf({ network, endpoint, bringUp }: Place): NamedNetwork {
  return {
    network,
    endpoint,
    served: bringUp ? servesNames(network, readNameFacts(network)) : hasNameServer(network.name),
  };
}

/** How a container will find names, and the steps for that and for others to find it. Nothing is applied. */
export function planContainerNames(
  definition: Definition,
  hostname: string,
  netns: string,
  places: readonly Place[],
  { redirected = false } = {},
): { resolution: Resolution; steps: Step[] } {
  if (places.length === 0) return { resolution: { nameservers: [], inHostsFile: false }, steps: [] };
  const host = hostResolvers();
  const dnsmasq = which('dnsmasq') !== undefined;
  const resolution = resolutionOf(places.map(namedNetworkOf), definition.dns, upstreamServers(host), dnsmasq);
  const endpoints = places.map(({ endpoint }) => endpoint);
  const { id, name } = definition;
  return {
    resolution,
    steps: [
      planNameFiles(definition, hostname, endpoints, resolution, host),
      ...planNames({ id, name, hostname }, endpoints),
      ...(resolution.upstream === undefined
        ? []
        : planOwnNameServer(netns, id, endpoints, resolution.upstream, redirected)),
    ],
  };
}

/** The step that completes /etc/hosts and /etc/resolv.conf when the addresses are known. */
function planNameFiles(
  definition: Definition,
  hostname: string,
  endpoints: readonly Endpoint[],
  { nameservers, inHostsFile }: Resolution,
  host: ReturnType<typeof hostResolvers>,
): Step {
  const { hosts, resolvConf } = containerFiles(definition.id);
  return {
    id: 'etc.names',
    why: `The container's own name stands for its addresses; for other names it asks ${nameservers.join(' and ') || 'nobody'}${inHostsFile ? ', and those of its neighbours are kept in /etc/hosts' : ''}.`,
    apply: [
      { tool: 'file', path: hosts, content: hostsContent(definition, hostname, endpoints), mode: 0o644 },
      {
        tool: 'file',
        path: resolvConf,
        content: resolvConfContent(definition, host, inHostsFile ? undefined : nameservers),
        mode: 0o644,
      },
    ],
    undo: [],
  };
}

/** Sees that the name server which a container is to ask is there; without it the container asks the host's. */
export async function settleNames(
  definition: Definition,
  hostname: string,
  endpoints: readonly Endpoint[],
  { upstream, inHostsFile }: Resolution,
): Promise<void> {
  if (endpoints.length === 0) return;
  if (inHostsFile) return keepPeersInHosts();
  const [first] = endpoints as [Endpoint];
  if (upstream === undefined ? hasNameServer(first.network) : hasOwnNameServer(definition.id)) return;
  const fallback: Resolution = { nameservers: [], inHostsFile: true };
  await applySteps([planNameFiles(definition, hostname, endpoints, fallback, hostResolvers())]);
}

/**
 * Brings the names of a running container in line with the networks it has now. How it is undone is written down first.
 *
 * @param left networks that it is not in any more
 */
export async function changeNames(
  definition: Definition,
  netns: string,
  places: readonly Place[],
  left: readonly string[] = [],
): Promise<void> {
  const { id } = definition;
  const { hostname } = readSpec(id);
  for (const network of left) await applySteps([planNamesGone(id, network)]);
  const redirected = readSteps(id).some((step) => step.id === 'names.port');
  const plan = planContainerNames(definition, hostname, netns, places, { redirected });
  await withLock(() => {
    // Under the lock: `rename` rewrites them too. Nothing to do when the container has ended meanwhile.
    if (fs.existsSync(containerFiles(id).steps)) writeSteps(id, [...readSteps(id), ...plan.steps]);
  });
  if (plan.steps.length === 0) return keepPeersInHosts();
  await endOwnNameServer(id);
  await applySteps(plan.steps);
  await settleNames(
    definition,
    hostname,
    places.map(({ endpoint }) => endpoint),
    plan.resolution,
  );
}

const peersMark = '# The other containers of its networks, kept up to date by minirun:\n';

/**
 * On a machine without dnsmasq: writes into the /etc/hosts of every container who else is in its networks. Called
 * after each coming and going. In place, because the files are mounted in the containers.
 */
export async function keepPeersInHosts(): Promise<void> {
  if (which('dnsmasq') !== undefined) return;
  // Under the lock, with the names read under it: whoever comes last writes down all of them.
  await withLock(() => {
    const networks = allNames();
    const ids = new Set(networks.flatMap((names) => [...names.keys()]));
    for (const id of ids) {
      const peers = networks
        .filter((names) => names.has(id))
        .flatMap((names) => [...names].filter(([other]) => other !== id).map(([, lines]) => lines));
      writePeers(id, peers.join(''));
    }
  });
}

function writePeers(id: string, peers: string): void {
  const file = containerFiles(id).hosts;
  try {
    const before = fs.readFileSync(file, 'utf8');
    const own = before.split(peersMark)[0] as string;
    const after = peers === '' ? own : own + peersMark + peers;
    if (after !== before) fs.writeFileSync(file, after);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** What a user should know of names before a container is started; undefined when all is well. */
export function warningAboutNames(definition: Definition): string | undefined {
  if (attachmentsOf(definition).length === 0 || which('dnsmasq') !== undefined) return undefined;
  return 'names of containers stand in /etc/hosts only: this machine has no dnsmasq (package dnsmasq-base; bin/setup installs it)';
}
