import fs from 'node:fs';
import { messageOf } from '../errors.ts';
import { which } from '../host/launch.ts';
import { type HostCommand, ip, ipIn, type Step } from '../host/steps.ts';
import { inParallel } from '../image/parallel.ts';
import { hostIfnameOf } from '../network/address.ts';
import { hasAddress, missingGateways, missingRuleCount, strayPorts, strayRules } from '../network/audit.ts';
import { addressesOf, gatewayEndpoint, planAttach, planDefaultRoutes, planPort } from '../network/attach.ts';
import { planBridge } from '../network/bridge.ts';
import type { Endpoint, Network } from '../network/definition.ts';
import { defaultMtu, hasIpv6, interfaceExists, ipForward, ipForward6, readFirewall } from '../network/facts.ts';
import { familiesOf, missingRules, planForwarding } from '../network/firewall.ts';
import { type KernelInterface, readStack, type Stack } from '../network/interfaces.ts';
import { bothPresent } from '../network/link.ts';
import { listLinks } from '../network/link-store.ts';
import {
  hasNameServer,
  nameFiles,
  networksWithNames,
  planNames,
  readNameFacts,
  servesNames,
} from '../network/names.ts';
import { publishStep } from '../network/publish.ts';
import { planRoutes } from '../network/route.ts';
import { listNetworks } from '../network/store.ts';
import { bySteps, cannot, type Found } from './finding.ts';
import { remakeLink, reachOf } from './links.ts';
import { finishDisconnect, reload, republish, tidyNetwork } from './networks.ts';
import { attachmentsOf, namespaceName } from './networking.ts';
import { planPublished } from './publish.ts';
import { reachOfEndpoint, readRoutes } from './routes-file.ts';
import { isAtRest } from './status.ts';
import { type Container, isGone, isRunning, listContainers, readSpec, readSteps } from './store.ts';

type Firewall = Record<4 | 6, string[]>;

/** What of networks, running containers and links is not in the kernel, and what is there for nobody. */
export async function auditKernel(): Promise<Found[]> {
  // Before the records: what is made is written down before, and what is in the kernel by now has its record.
  // Where nobody can make rules, none of ours are missed as long as no network is up.
  const canHaveRules = which('iptables-save') !== undefined || listNetworks().some(({ applied }) => applied.length > 0);
  const read = (family: 4 | 6) => (canHaveRules ? readFirewall(family) : []);
  const [host, four, six] = await Promise.all([readStack(), read(4), hasIpv6() ? read(6) : []]);
  const firewall: Firewall = { 4: four, 6: six };
  const namespaces = new Set(entries('/run/netns'));
  const networks = listNetworks();
  const containers = listContainers();
  const running = containers.filter(({ state }) => state.status === 'running' && isRunning(state));
  return [
    ...auditNetworks(networks, host, firewall),
    ...auditForwarding(networks),
    ...(await auditRunning(running, networks, host, namespaces)),
    ...auditPublished(running, networks, firewall),
    ...auditLinks(running),
    ...auditStray(containers, networks, host, namespaces),
  ];
}

/** Networks that are up and that nobody is at. */
function atRest(networks: readonly Network[]): Network[] {
  return networks.filter(({ driver, up, claim }) => driver === 'bridge' && up && claim === undefined);
}

function auditNetworks(networks: readonly Network[], host: Stack, firewall: Firewall): Found[] {
  return atRest(networks).flatMap((network): Found[] => {
    const { name, bridge } = network;
    const found = (problem: string, remedy: string, mend: () => Promise<unknown>): Found => ({
      kind: 'network',
      name,
      problem,
      remedy,
      mend,
    });
    const device = host.interfaces.find(({ ifname }) => ifname === bridge);
    if (device === undefined) return [found(`its bridge ${bridge} is gone`, 'made again', reload)];
    const steps = planBridge(network, { bridgeExists: true, mtu: defaultMtu() });
    const addresses = missingGateways(network, device);
    const rules = missingRuleCount(network, firewall);
    const facts = readNameFacts(network);
    return [
      ...(addresses.length === 0
        ? []
        : [found(`${bridge} lacks ${addresses.join(' and ')}`, 'put back', bySteps(...steps))]),
      ...(device.flags.includes('UP') ? [] : [found(`${bridge} is down`, 'put up', bySteps(...steps))]),
      ...(rules === 0 ? [] : [found(`${counted(rules, 'firewall rule')} or chains are missing`, 'put back', reload)]),
      // Its own name server has the port as long as it runs.
      ...(!hasNameServer(name) && servesNames(network, facts)
        ? [found('its name server does not run', 'started', reload)]
        : []),
    ];
  });
}

function counted(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

function auditForwarding(networks: readonly Network[]): Found[] {
  const families = new Set(atRest(networks).flatMap(familiesOf));
  return ([4, 6] as const).flatMap((family): Found[] => {
    if (!families.has(family) || (family === 4 ? ipForward() : ipForward6())) return [];
    const { apply } = planForwarding(family, false);
    const step: Step = { id: 'forward.sysctl', why: 'Networks need it.', apply, undo: [] };
    return [
      {
        kind: 'host',
        name: family === 4 ? 'net.ipv4.ip_forward' : 'net.ipv6.conf.all.forwarding',
        problem: 'it is off, and networks are up',
        remedy: 'switched on',
        mend: bySteps(step),
      },
    ];
  });
}

async function auditRunning(
  running: readonly Container[],
  networks: readonly Network[],
  host: Stack,
  namespaces: ReadonlySet<string>,
): Promise<Found[]> {
  const found: Found[] = [];
  await inParallel(
    running.filter(({ state }) => state.netns !== undefined),
    async (each) => void found.push(...(await auditContainer(each, networks, host, namespaces))),
  );
  return found;
}

async function auditContainer(
  container: Container,
  networks: readonly Network[],
  host: Stack,
  namespaces: ReadonlySet<string>,
): Promise<Found[]> {
  const { definition, state } = container;
  const { id, name } = definition;
  const netns = namespaceName(definition);
  const found: Found[] = [];
  const tell = (problem: string, remedy: string, mend: () => Promise<unknown>) =>
    void found.push({ kind: 'container', name, problem, remedy, mend });
  const bySettledSteps = (problem: string, remedy: string, ...apply: HostCommand[]) =>
    tell(problem, remedy, bySteps({ id: 'audit.mend', why: problem, apply, undo: [] }));
  const pid = state.init?.pid ?? 0;
  if (!namespaces.has(netns)) {
    bySettledSteps(
      'its network namespace has no name any more',
      'named again',
      ip('netns', 'attach', netns, String(pid)),
    );
    return found;
  }
  if (!isSameNamespace(`/run/netns/${netns}`, `/proc/${pid}/ns/net`)) {
    const why = `another network namespace is called ${netns}`;
    tell(why, 'told', cannot(`cannot name the network namespace of ${name}`, why, `Look at it: ip netns identify`));
    return found;
  }
  let stack: Stack;
  try {
    stack = await readStack(netns);
  } catch (error) {
    // It has ended meanwhile; or it has not, and that is told.
    if (interfaceNamesOf(pid)) tell(`its network cannot be read: ${messageOf(error)}`, 'told', reload);
    return found;
  }
  const leaving = leavingOf(container);
  for (const network of leaving)
    tell(`it was to leave ${network}`, 'taken out', async () => finishDisconnect(id, network));
  const endpoints = state.endpoints.filter(({ network }) => !leaving.includes(network));
  const half = networks.filter(
    (network) =>
      Object.values(network.leases).includes(id) &&
      !state.endpoints.some((endpoint) => endpoint.network === network.name),
  );
  for (const network of half)
    tell(`it has an address of ${network.name} but is not in it`, 'taken out', async () =>
      tidyNetwork(id, network.name),
    );
  for (const endpoint of endpoints) {
    const device = stack.interfaces.find(({ ifname }) => ifname === endpoint.ifname);
    const bridge = networks.find((network) => network.name === endpoint.network);
    if (device === undefined) {
      if (endpoint.driver === 'bridge' && !host.interfaces.some(({ ifname }) => ifname === endpoint.bridge)) continue;
      tell(`its interface ${endpoint.ifname} is gone`, 'made again', bySteps(...replug(endpoint, endpoints, netns)));
      continue;
    }
    const lacking = addressesOf(endpoint)
      .map(({ address, prefixLength }) => `${address}/${prefixLength}`)
      .filter((address) => !hasAddress(device, address));
    if (lacking.length > 0)
      bySettledSteps(
        `${endpoint.ifname} lacks ${lacking.join(' and ')}`,
        'put back',
        ...lacking.map((address) =>
          ipIn(netns, 'addr', 'replace', address, 'dev', endpoint.ifname, ...(address.includes(':') ? ['nodad'] : [])),
        ),
      );
    const port = host.interfaces.find(({ ifname }) => ifname === endpoint.hostIfname);
    if (port !== undefined && bridge?.up && (port.master !== endpoint.bridge || !port.flags.includes('UP')))
      tell(
        `${endpoint.hostIfname} is not plugged into ${endpoint.bridge}`,
        'plugged in',
        bySteps(...planPort(endpoint)),
      );
  }
  if (leaving.length === 0) found.push(...auditRoutes(container, stack, netns), ...auditNames(container));
  return found;
}

/** The networks that a container is in but is not to be in any more: a `network disconnect` was killed, or is at it. */
function leavingOf({ definition, state }: Container): string[] {
  const wanted = attachmentsOf(definition).map(({ network }) => network);
  return state.endpoints.flatMap(({ network }) => (wanted.includes(network) ? [] : [network]));
}

/** Steps that make a container's interface anew. */
function replug(endpoint: Endpoint, endpoints: readonly Endpoint[], netns: string): Step[] {
  return [...planAttach(endpoint, netns, hasIpv6()), ...planDefaultRoutes(endpoints, netns, [])];
}

function auditRoutes({ definition, state }: Container, stack: Stack, netns: string): Found[] {
  const { id, name } = definition;
  const { endpoints } = state;
  const there = (ifname: string | undefined) => stack.interfaces.some((each) => each.ifname === ifname);
  const own = readRoutes(id);
  const found: Found[] = [];
  for (const [family, number] of [
    ['ipv4', 4],
    ['ipv6', 6],
  ] as const) {
    const endpoint = gatewayEndpoint(endpoints, family);
    // One that leads elsewhere was put there by somebody.
    const has = stack.routes.some((route) => route.family === number && route.dst === 'default');
    if (endpoint === undefined || has || !there(endpoint.ifname)) continue;
    found.push({
      kind: 'container',
      name,
      problem: `it has no default route (IPv${number})`,
      remedy: 'put back',
      mend: bySteps(...planDefaultRoutes([withOnly(endpoint, family)], netns, [])),
    });
  }
  const links = listLinks().flatMap((link) => (link.applied.length > 0 ? reachOf(link, id) : []));
  const reach = [...endpoints.map(reachOfEndpoint), ...links].filter(({ ifname }) => there(ifname));
  for (const route of own) {
    if (stack.routes.some(({ dst }) => dst === route.destination)) continue;
    const steps = planRoutes([route], netns, reach, () => true);
    if (steps.length === 0) continue;
    const problem = `its route to ${route.destination} is gone`;
    found.push({ kind: 'container', name, problem, remedy: 'put back', mend: bySteps(...steps) });
  }
  return found;
}

function withOnly(endpoint: Endpoint, family: 'ipv4' | 'ipv6'): Endpoint {
  return { ...endpoint, [family === 'ipv4' ? 'ipv6' : 'ipv4']: undefined };
}

/** The files by which others find a container. */
function auditNames({ definition: { id, name }, state: { endpoints } }: Container): Found[] {
  const files = nameFiles();
  const lacking = endpoints.filter(
    ({ network }) => !files.some((file) => file.container === id && file.network === network),
  );
  if (lacking.length === 0) return [];
  const { hostname } = readSpec(id);
  return [
    {
      kind: 'container',
      name,
      problem: `${lacking.map(({ network }) => network).join(' and ')} does not know its name`,
      remedy: 'made known',
      mend: bySteps(...planNames({ id, name, hostname }, lacking)),
    },
  ];
}

function auditPublished(running: readonly Container[], networks: readonly Network[], firewall: Firewall): Found[] {
  const found: Found[] = [];
  const published: Step[] = [];
  for (const container of running) {
    const { definition, state } = container;
    if (leavingOf(container).length > 0) return [];
    const steps = planPublished(state.ports ?? [], state.endpoints);
    published.push(...steps);
    const rules = steps.filter(({ apply }) => apply.some(({ tool }) => tool === 'iptables'));
    const missing = missingRules(rules, firewall);
    const mend = async () => republish(definition.id);
    const problem =
      missing.length > 0
        ? `${counted(missing.length, 'rule')} of its published ports missing`
        : 'what its end takes away is not what its published ports are';
    if (missing.length > 0 || !isOnRecord(definition.id, rules))
      found.push({ kind: 'container', name: definition.name, problem, remedy: 'put back', mend });
  }
  // Of one that is just being started or moved nobody can tell.
  if (listContainers().some(({ state }) => !isAtRest(state) && state.status !== 'running')) return found;
  for (const { text, step } of strayRules(firewall, networks, published, goneBridges(networks)))
    found.push({ kind: 'rule', name: text, problem: 'it is for nobody', remedy: 'removed', mend: bySteps(step) });
  return found;
}

/** Whether these steps, and no others of published ports, are on record to be undone. */
function isOnRecord(id: string, steps: readonly Step[]): boolean {
  const undos = (list: readonly Step[]) =>
    list
      .flatMap(({ undo }) => (undo.length === 0 ? [] : [JSON.stringify(undo)]))
      .toSorted()
      .join();
  return undos(steps) === undos(readSteps(id).filter((step) => step.id === publishStep));
}

function auditLinks(running: readonly Container[]): Found[] {
  const pids = new Map(running.map(({ definition, state }) => [definition.id, state.init?.pid ?? 0]));
  return listLinks().flatMap((link): Found[] => {
    const { name, kind, ends, applied } = link;
    if (kind !== 'veth' || applied.length === 0 || !bothPresent(link)) return [];
    const gone = ends.filter(({ container, ifname }) => {
      if (container === undefined) return !interfaceExists(ifname);
      const pid = pids.get(container);
      return pid !== undefined && !interfaceExists(ifname, pid);
    });
    // Somebody inside may have renamed one end. That of the host, or both, are not renamed by accident.
    if (gone.length === 0 || (gone.length < 2 && gone[0]?.container !== undefined)) return [];
    const problem = `its cable is gone`;
    return [{ kind: 'link', name, problem, remedy: 'made again', mend: async () => remakeLink(name) }];
  });
}

/** What is there of containers and networks that are not there any more. */
function auditStray(
  containers: readonly Container[],
  networks: readonly Network[],
  host: Stack,
  namespaces: ReadonlySet<string>,
): Found[] {
  const held = new Set(networks.flatMap(({ leases }) => Object.keys(leases).map(hostIfnameOf)));
  const live = containers.filter(({ state }) => !isAtRest(state)).map(({ definition }) => definition);
  const liveNames = new Set(live.map(({ name }) => name));
  const stray = nameFiles().filter(({ container }) => isGone(container, containers));
  // The files of the name servers outlive the records: they say whose an interface and a namespace was.
  const named = stray.flatMap(({ addresses }) => addresses.map(hostIfnameOf)).filter((ifname) => !held.has(ifname));
  const ports = new Set([...strayPorts(host.interfaces, networks, held), ...named]);
  const found: Found[] = host.interfaces
    .filter(({ ifname, linkinfo }) => linkinfo?.info_kind === 'veth' && ports.has(ifname))
    .map(({ ifname }) => remove('interface', ifname, 'its container is gone', ip('link', 'del', ifname)));
  for (const { file, container, network, name } of stray) {
    found.push(
      remove('file', file, `container ${container.slice(0, 12)} is not in ${network}`, { tool: 'remove', path: file }),
    );
    const isKnown = found.some((each) => each.kind === 'namespace' && each.name === name);
    if (name !== undefined && namespaces.has(name) && !liveNames.has(name) && !isKnown)
      found.push(remove('namespace', name, 'its container is gone', ip('netns', 'del', name)));
  }
  for (const { driver, bridge, name, up, claim, applied, id } of networks) {
    // The name of a bridge of its own is made of its id: nobody else has it.
    const isIts = driver === 'bridge' && bridge === `mr-${id.slice(0, 12)}`;
    if (!isIts || up || claim !== undefined || applied.length > 0) continue;
    if (host.interfaces.some(({ ifname }) => ifname === bridge))
      found.push(remove('interface', bridge, `network ${name} is down`, ip('link', 'del', bridge)));
  }
  const known = new Set(networks.map(({ name }) => name));
  for (const { network, directory, bridge } of networksWithNames()) {
    if (known.has(network)) continue;
    const device = host.interfaces.find(({ ifname }) => ifname === bridge);
    if (device !== undefined && isBridge(device) && !networks.some((each) => each.bridge === bridge))
      found.push(remove('interface', device.ifname, `network ${network} is gone`, ip('link', 'del', device.ifname)));
    found.push(remove('folder', directory, `network ${network} is gone`, { tool: 'remove', path: directory }));
  }
  return found;
}

/** Bridges on which a name server of ours listens, for a network that is not on record any more. */
function goneBridges(networks: readonly Network[]): string[] {
  return networksWithNames().flatMap(({ network, bridge }) =>
    bridge === undefined || networks.some((each) => each.name === network || each.bridge === bridge) ? [] : [bridge],
  );
}

function isBridge({ linkinfo }: KernelInterface): boolean {
  return linkinfo?.info_kind === 'bridge';
}

function remove(kind: string, name: string, problem: string, command: HostCommand): Found {
  const mend = bySteps({ id: 'audit.remove', why: problem, apply: [command], undo: [] });
  return { kind, name, problem, remedy: 'removed', mend };
}

function isSameNamespace(a: string, b: string): boolean {
  try {
    const [one, other] = [fs.statSync(a), fs.statSync(b)];
    return one.ino === other.ino && one.dev === other.dev;
  } catch {
    // One of them has just gone: the second look tells.
    return true;
  }
}

function interfaceNamesOf(pid: number): boolean {
  return fs.existsSync(`/proc/${pid}/net/dev`);
}

function entries(directory: string): string[] {
  try {
    return fs.readdirSync(directory);
  } catch {
    return [];
  }
}
