import { MinirunError } from '../errors.ts';
import { bootId } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { nextIfname } from '../network/attach.ts';
import { hasIpv6, interfaceExists } from '../network/facts.ts';
import { type KernelInterface, readStack, routesOver } from '../network/interfaces.ts';
import { bothPresent, inStacks, type Link, type PhysFacts, planLink } from '../network/link.ts';
import type { Contents } from '../network/files.ts';
import { applyChange, linksOf, listLinks, readLink, undoChange } from '../network/link-store.ts';
import { planRoutes, type Reach } from '../network/route.ts';
import { listNetworks, readNetwork } from '../network/store.ts';
import { writeJson } from '../state/json.ts';
import { nameOfContainer } from '../state/names.ts';
import { paths } from '../state/paths.ts';
import type { ContainerState } from './definition.ts';
import { attachmentsOf } from './networking.ts';
import { linkIfnames, readRoutes } from './routes-file.ts';
import { isAtRest } from './status.ts';
import { type Container, readContainer } from './store.ts';

/** The container, once it runs or is at rest: what is being started or stopped will be one of both in a moment. */
export async function settledContainer(id: string): Promise<Container> {
  const deadline = Date.now() + 15_000;
  for (;;) {
    const container = readContainer(id);
    if (container === undefined) throw new MinirunError(`no container ${id.slice(0, 12)}`, 'it has just been removed');
    if (isStable(container.state)) return container;
    if (Date.now() > deadline) {
      throw new MinirunError(
        `cannot change the links of container "${container.definition.name}"`,
        `it is ${container.state.status}`,
        'Try again when it runs or is at rest',
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function isStable(state: ContainerState): boolean {
  return state.status === 'running' || state.status === 'restarting' || isAtRest(state);
}

/** The namespace of a container that runs. */
export function namespaceOf(state: ContainerState): string | undefined {
  return state.status === 'running' && state.boot === bootId() ? state.netns : undefined;
}

/** Whether a container is in the same run, or still at rest. */
export function isSameRun(before: ContainerState, now: ContainerState | undefined): boolean {
  return (
    now !== undefined && isStable(now) && namespaceOf(now) === namespaceOf(before) && now.init?.pid === before.init?.pid
  );
}

/** An interface's addresses in CIDR form, without those that the kernel gives itself. */
export function addressesOf({ addr_info: list }: KernelInterface): string[] {
  return list.filter(({ scope }) => scope !== 'link').map(({ local, prefixlen }) => `${local}/${prefixlen}`);
}

/**
 * The interfaces that networks will give a container that is at rest, with their subnets: its addresses are not known
 * before it starts, its neighbours are.
 */
export function networkInterfaces({ definition }: Pick<Container, 'definition'>): Reach[] {
  const attachments = attachmentsOf(definition);
  const names = attachments.flatMap(({ ifname }) => ifname ?? []);
  const links = linkIfnames(definition.id);
  return attachments.map(({ network, ifname }) => {
    const name = ifname ?? nextIfname([...names, ...links]);
    names.push(name);
    return { ifname: name, addresses: (readNetwork(network)?.subnets ?? []).map(({ subnet }) => subnet) };
  });
}

/** An interface of the host, and what is to come back with it. */
export async function readPhys(ifname: string, title: string, force: boolean): Promise<PhysFacts> {
  const refuse = (why: string, remedy: string) => new MinirunError(`cannot ${title}`, why, remedy);
  const { interfaces, routes } = await readStack();
  const found = interfaces.find((each) => each.ifname === ifname);
  if (found === undefined) {
    const others = interfaces.map((each) => each.ifname).filter((each) => each !== 'lo');
    throw refuse(`the host has no interface ${ifname}`, `It has ${others.join(', ') || 'none but lo'}`);
  }
  if (found.linkinfo?.info_kind === 'bridge' || listNetworks().some((network) => network.bridge === ifname))
    throw refuse(`${ifname} is a bridge, and those stay where they were made`, 'Use minirun run --network instead');
  if (found.master !== undefined)
    throw refuse(`${ifname} is plugged into ${found.master}`, `Unplug it first: ip link set ${ifname} nomaster`);
  const owner = listLinks().find(
    ({ kind, ends }) => kind === 'veth' && ends.some((end) => end.container === undefined && end.ifname === ifname),
  );
  if (owner !== undefined)
    throw refuse(`${ifname} is an end of link "${owner.name}"`, `Remove that first: minirun link rm ${owner.name}`);
  if (!force && routes.some(({ dst, dev }) => dst === 'default' && dev === ifname)) {
    throw refuse(
      `the default route of the host leads over ${ifname}, and it would be cut off, with whoever is logged in by network`,
      'Give --force if that is meant; interface and route come back when the container ends',
    );
  }
  return { interface: found, routes: await routesOver(ifname) };
}

/** @throws MinirunError when the host has got an interface of that name otherwise */
export function refuseTakenName(link: Link): void {
  if (link.kind === 'phys') return;
  const taken = link.ends.find((end) => end.container === undefined && interfaceExists(end.ifname));
  if (taken === undefined) return;
  throw new MinirunError(
    `cannot make link "${link.name}"`,
    `the host has an interface ${taken.ifname} already, which is not of minirun`,
    `Remove it (ip link del ${taken.ifname}), or the link: minirun link rm ${link.name}`,
  );
}

/** Steps that set a link's containers' own routes over it. */
export function recordedRoutes(link: Link): Step[] {
  return link.ends.flatMap(({ container, netns, ifname, addresses, up }) => {
    if (container === undefined || netns === undefined || !up) return [];
    const routes = readRoutes(container);
    if (routes.length === 0) return [];
    const others = linksOf(container).flatMap((each) => reachOf(each, container));
    return planRoutes(routes, netns, [{ ifname, addresses }, ...others], (dev) => dev === ifname);
  });
}

/** What a container reaches over a link. */
export function reachOf(link: Link, container: string | undefined): Reach[] {
  return (link.kind === 'phys' ? link.ends.slice(0, 1) : link.ends)
    .filter((end) => end.container === container)
    .map(({ ifname, addresses }) => ({ ifname, addresses }));
}

/**
 * Makes the links of a container whose namespace is there now, as far as their other ends are there too, and its routes:
 * of the links, of its networks, and those of its peers that lead over these links. When it fails, all of it is undone.
 *
 * @param networks the interfaces that it has from networks
 */
export async function joinLinks(id: string, netns: string, networks: readonly Reach[]): Promise<void> {
  const facts = new Map<string, PhysFacts>();
  for (const { name, kind, ends } of linksOf(id)) {
    if (kind === 'phys')
      facts.set(
        name,
        await readPhys(ends[1].ifname, `start container "${nameOfContainer(id)}" with link "${name}"`, true),
      );
  }
  await applyChange(() => {
    const steps: Step[] = [];
    const write: Contents = [];
    const reach: Reach[] = [...networks];
    for (const link of linksOf(id)) {
      const ends = link.ends.map((end) => (end.container === id ? { ...end, netns } : end)) as Link['ends'];
      const next: Link = { ...link, ends };
      if (bothPresent(next) && (next.kind === 'veth' || facts.has(next.name))) {
        refuseTakenName(next);
        next.applied = planLink(next, nameOfContainer, hasIpv6(), facts.get(next.name));
        steps.push(...next.applied);
        reach.push(...reachOf(next, id));
        const peers = next.ends.map((end) =>
          end.container === id ? { ...end, netns: undefined } : end,
        ) as Link['ends'];
        steps.push(...recordedRoutes({ ...next, ends: peers }));
      }
      write.push([paths.link(link.name), next]);
    }
    steps.push(...planRoutes(readRoutes(id), netns, reach, () => true));
    return steps.length === 0 && write.length === 0 ? undefined : { steps: inStacks(steps), write };
  });
}

/** Makes a link again whose cable somebody has deleted although its containers run. */
export async function remakeLink(name: string): Promise<void> {
  await applyChange(() => {
    const link = readLink(name);
    if (link === undefined || link.kind !== 'veth' || !bothPresent(link)) return undefined;
    const applied = planLink(link, nameOfContainer, hasIpv6());
    const next = { ...link, applied };
    return { steps: inStacks([...applied, ...recordedRoutes(next)]), write: [[paths.link(name), next]] };
  });
}

/** Takes the links of a container away that is being taken down; they stay on file for its next start. */
export async function leaveLinks(id: string): Promise<void> {
  if (linksOf(id).length === 0) return;
  await undoChange(() => {
    const links = linksOf(id).filter(
      ({ applied, ends }) => applied.length > 0 || ends.some((end) => end.container === id && end.netns !== undefined),
    );
    if (links.length === 0) return undefined;
    return {
      steps: inStacks(links.flatMap(({ applied }) => applied)),
      restore: links.map((link) => [
        paths.link(link.name),
        {
          ...link,
          ends: link.ends.map((end) => (end.container === id ? { ...end, netns: undefined } : end)),
          applied: [],
        },
      ]),
    };
  });
}

/** Lets stored links find a container's namespace under these names, the first of which is its name now; under the lock. */
export function renameInLinks(id: string, names: readonly string[]): void {
  for (const link of linksOf(id)) {
    const old = new Set(
      link.ends.flatMap((end) => (end.container === id && end.netns !== undefined ? [end.netns] : [])),
    );
    if (old.size === 0) continue;
    for (const name of names) old.add(name);
    const applied = link.applied.map((step) => ({
      ...step,
      undo: step.undo
        .flatMap((command) =>
          command.tool === 'ip' && command.netns !== undefined && old.has(command.netns)
            ? names.map((name) => ({ ...command, netns: name }))
            : [command],
        )
        .filter(unique()),
    }));
    const ends = link.ends.map((end) =>
      end.container === id && end.netns !== undefined ? { ...end, netns: names[0] } : end,
    );
    writeJson(paths.link(link.name), { ...link, ends, applied });
  }
}

function unique<T>(): (value: T) => boolean {
  const seen = new Set<string>();
  return (value) => {
    const text = JSON.stringify(value);
    return !seen.has(text) && seen.add(text) !== undefined;
  };
}
