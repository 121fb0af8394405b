import { MinirunError } from '../errors.ts';
import { renderScript } from '../host/script.ts';
import { bootId } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { hasIpv6, interfaceExists } from '../network/facts.ts';
import { readStack, type Stack } from '../network/interfaces.ts';
import {
  addressArgs,
  at,
  bothPresent,
  checkIfname,
  checkLink,
  checkMac,
  checkMtu,
  endText,
  inStacks,
  type Link,
  type LinkEnd,
  type PhysFacts,
  type Place,
  planLink,
} from '../network/link.ts';
import { applyChange, deleteLink, linksOf, listLinks, readLink, requireLink } from '../network/link-store.ts';
import { requireShaping, type Shape, shapeCommand, shapeText } from '../network/shape.ts';
import { nameOfContainer } from '../state/names.ts';
import { paths } from '../state/paths.ts';
import type { ContainerState } from './definition.ts';
import {
  addressesOf,
  isSameRun,
  namespaceOf,
  networkInterfaces,
  readPhys,
  recordedRoutes,
  refuseTakenName,
  settledContainer,
} from './links.ts';
import { type Container, readState, requireContainer } from './store.ts';

/** What `link add` takes, as it was typed. */
export interface LinkRequest {
  /** `web:eth1`, `host:veth0`. */
  end: string;
  /** The same, or `phys:enp3s1`. */
  peer: string;
  name?: string;
  addresses: string[];
  peerAddresses: string[];
  mac?: string;
  peerMac?: string;
  mtu?: number;
  shape: Shape;
  force: boolean;
}

interface ParsedEnd {
  where: 'host' | 'phys' | 'container';
  ifname: string;
  container?: Container;
}

function parseEnd(text: string): ParsedEnd {
  const colon = text.indexOf(':');
  const [place, ifname] = [text.slice(0, colon), text.slice(colon + 1)];
  if (colon < 1 || ifname === '') {
    throw new MinirunError(
      `invalid end of a link "${text}"`,
      'it must say where and how the interface is called',
      'Give CONTAINER:INTERFACE such as web:eth1, host:INTERFACE, or phys:INTERFACE for one that the host has',
    );
  }
  checkIfname(ifname);
  if (place === 'host' || place === 'phys') return { where: place, ifname };
  const container = requireContainer(place);
  const { network, name } = container.definition;
  if (network === 'host') {
    throw new MinirunError(
      `cannot link container "${name}"`,
      'it has the network of the host',
      `Use host:${ifname} for an end on the host, or run it with another --network`,
    );
  }
  if (network.startsWith('container:')) {
    const other = network.slice('container:'.length);
    throw new MinirunError(
      `cannot link container "${name}"`,
      `it has the network of container ${other}`,
      `Link that one: ${other}:${ifname}`,
    );
  }
  return { where: 'container', ifname, container };
}

/** A link on paper, with what it takes to make it. */
interface Draft {
  link: Link;
  phys?: PhysFacts;
  /** The states of its containers when this was read. */
  states: Map<string, ContainerState>;
}

/** Checks a request and makes a link of it on paper. @throws MinirunError when it would not work */
async function draftLink(request: LinkRequest): Promise<Draft> {
  const [first, second] = [parseEnd(request.end), parseEnd(request.peer)];
  const swapped = first.where === 'phys';
  const [a, b] = swapped ? [second, first] : [first, second];
  const title = `link ${request.end} with ${request.peer}`;
  if (a.where === 'phys' || (b.where === 'phys' && a.where !== 'container')) {
    throw new MinirunError(
      `cannot ${title}`,
      'an interface of the host moves into a container',
      `Give a container as the other end: web:eth1 ${b.where === 'phys' ? request.peer : request.end}`,
    );
  }
  const kind = b.where === 'phys' ? 'phys' : 'veth';
  if (kind === 'phys' && !swapped && (request.peerAddresses.length > 0 || request.peerMac !== undefined)) {
    throw new MinirunError(
      `cannot ${title}`,
      'the second end is the interface itself, there is nobody behind it to have an address',
      'Leave --peer-addr and --peer-mac out',
    );
  }
  if (request.mac !== undefined) checkMac(request.mac, '--mac');
  if (request.peerMac !== undefined) checkMac(request.peerMac, '--peer-mac');
  if (request.mtu !== undefined) checkMtu(request.mtu, [...request.addresses, ...request.peerAddresses]);
  const states = new Map<string, ContainerState>();
  const places: Place[] = [];
  for (const end of [a, b]) {
    const id = end.container?.definition.id;
    if (id !== undefined) {
      end.container = await settledContainer(id);
      states.set(id, end.container.state);
    }
    places.push(await placeOf(end.container));
  }
  const end = (parsed: ParsedEnd, addresses: string[], mac?: string): LinkEnd => {
    const netns = parsed.container === undefined ? undefined : namespaceOf(parsed.container.state);
    return {
      ...(parsed.container === undefined ? {} : { container: parsed.container.definition.id }),
      ifname: parsed.ifname,
      addresses,
      ...(mac === undefined ? {} : { mac: mac.toLowerCase() }),
      up: true,
      ...(netns === undefined ? {} : { netns }),
    };
  };
  const link: Link = {
    schema: 1,
    name: request.name ?? freeLinkName(a, b),
    created: new Date().toISOString(),
    kind,
    ends:
      kind === 'phys'
        ? [end(a, [...request.addresses, ...request.peerAddresses], request.peerMac ?? request.mac), end(b, [])]
        : [end(a, request.addresses, request.mac), end(b, request.peerAddresses, request.peerMac)],
    ...(request.mtu === undefined ? {} : { mtu: request.mtu }),
    shape: request.shape,
    boot: bootId(),
    applied: [],
  };
  checkName(link.name);
  checkLink(link, places as [Place, Place], request.force, title);
  const phys = kind === 'phys' ? await readPhys(b.ifname, title, request.force) : undefined;
  return { link, states, ...(phys === undefined ? {} : { phys }) };
}

function checkName(name: string): void {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}$/.test(name)) {
    throw new MinirunError(
      `invalid link name "${name}"`,
      'names are letters, digits, "_", "." and "-", and begin with a letter or digit',
      'Choose such a name',
    );
  }
  if (readLink(name) !== undefined) {
    throw new MinirunError(
      `cannot make link "${name}"`,
      'there is one of that name',
      `Choose another --name, or remove that one: minirun link rm ${name}`,
    );
  }
}

/** `web-db`, `web-host`, `veth0-veth1`, `enp3s1`; with a number when that is taken. */
function freeLinkName(a: ParsedEnd, b: ParsedEnd): string {
  const part = ({ container, ifname }: ParsedEnd, other: ParsedEnd) =>
    container?.definition.name ?? (other.container === undefined ? ifname : 'host');
  const base = b.where === 'phys' ? b.ifname.replaceAll('@', '-') : `${part(a, b)}-${part(b, a)}`.replaceAll('@', '-');
  for (let number = 1; ; number++) {
    const name = number === 1 ? base : `${base}-${number}`;
    if (readLink(name) === undefined) return name;
  }
}

/** What the network stack of a container, or of the host, has; or will have when the container runs. */
async function placeOf(container: Container | undefined): Promise<Place> {
  const netns = container === undefined ? undefined : namespaceOf(container.state);
  const links = container === undefined ? listLinks() : linksOf(container.definition.id);
  const planned = links.flatMap((link) =>
    (link.kind === 'phys' ? link.ends.slice(0, 1) : link.ends)
      .filter((end) => end.container === container?.definition.id)
      .map((end) => ({ ...end, link: link.name })),
  );
  const name = container?.definition.name ?? 'host';
  if (container !== undefined && netns === undefined) {
    return {
      name,
      interfaces: [...networkInterfaces(container).map(({ ifname }) => ({ ifname, addresses: [] })), ...planned],
      routes: [...networkInterfaces(container), ...planned].flatMap(({ addresses, ifname }) =>
        addresses.map((address) => ({ destination: address, dev: ifname })),
      ),
    };
  }
  const stack = await readStack(netns);
  return {
    name,
    interfaces: [
      ...stack.interfaces.map((each) => ({ ifname: each.ifname, addresses: addressesOf(each) })),
      ...planned.filter(({ ifname }) => !stack.interfaces.some((each) => each.ifname === ifname)),
    ],
    routes: placeRoutes(stack).map((route) => ({
      ...route,
      owner: planned.find(({ ifname }) => ifname === route.dev)?.link,
    })),
  };
}

function placeRoutes({ routes }: Stack): { destination: string; dev?: string }[] {
  return routes
    .filter(({ dst }) => dst !== 'default' && !dst.startsWith('fe80:') && !dst.startsWith('ff'))
    .map(({ dst, dev }) => ({ destination: dst, dev }));
}

/** Makes a link, now when its containers run, otherwise when they do. @returns its name */
export async function addLink(request: LinkRequest): Promise<Link> {
  for (;;) {
    const { link, phys, states } = await draftLink(request);
    await requireShaping(request.shape);
    const made = bothPresent(link) ? { ...link, applied: planLink(link, nameOfContainer, hasIpv6(), phys) } : link;
    const routes = made.applied.length === 0 ? [] : recordedRoutes(made);
    let stale = false;
    await applyChange(() => {
      stale =
        readLink(link.name) !== undefined ||
        [...states].some(([id, state]) => !isSameRun(state, readState(id))) ||
        listLinks().some((other) => other.ends.some((end) => link.ends.some((own) => sameInterface(end, own))));
      if (stale) return undefined;
      return {
        steps: inStacks([...made.applied, ...routes]),
        write: [[paths.link(link.name), made]],
      };
    });
    if (!stale) return made;
  }
}

function sameInterface(a: LinkEnd, b: LinkEnd): boolean {
  return a.container === b.container && a.ifname === b.ifname;
}

/** `link add --explain`: what would be done if all of its containers ran. */
export async function explainLink(request: LinkRequest): Promise<string> {
  const { link, phys } = await draftLink(request);
  const ends = link.ends.map((end) =>
    end.container === undefined ? end : { ...end, netns: end.netns ?? nameOfContainer(end.container) },
  ) as Link['ends'];
  const running = bothPresent(link)
    ? ''
    : ' Not all of its containers run now: minirun does this when the last of them is started.';
  const title = `Link ${link.name}: what "minirun link add" does, as a person would type it.${running}`;
  const steps = inStacks(planLink({ ...link, ends }, nameOfContainer, hasIpv6(), phys));
  return renderScript(title, [{ title: `Link ${link.name}`, steps }]);
}

/** The link that a name or one of its ends (`web:eth1`, `host:veth0`, `phys:enp3s1`) stands for, and which end it is. */
function findLink(reference: string): { link: Link; end?: 0 | 1 } {
  if (!reference.includes(':')) return { link: requireLink(reference) };
  for (const link of listLinks()) {
    for (const end of [0, 1] as const) {
      const { container, ifname } = link.ends[end];
      if (endText(link, end, nameOfContainer) === reference) return { link, end };
      if (container !== undefined && reference === `${container}:${ifname}`) return { link, end };
    }
  }
  throw new MinirunError(`no link ends in ${reference}`, undefined, 'See minirun link ls for those there are');
}

/** Takes a link away. */
export async function removeLink(reference: string): Promise<void> {
  await deleteLink(findLink(reference).link.name);
}

/** New settings of a link; absent fields stay, null takes away. */
export interface LinkSettings {
  mtu?: number;
  rate?: number | null;
  delay?: number | null;
  loss?: number | null;
}

/** Changes MTU, rate, delay or loss of a link, both of its ends. */
export async function setLink(reference: string, settings: LinkSettings): Promise<void> {
  const { link } = findLink(reference);
  const shape = newShape(link.shape, settings);
  if (settings.mtu !== undefined)
    checkMtu(
      settings.mtu,
      link.ends.flatMap((end) => end.addresses),
    );
  await requireShaping(shape);
  await changeLink(link.name, (current) => {
    const next: Link = { ...current, shape: newShape(current.shape, settings), mtu: settings.mtu ?? current.mtu };
    return { next, steps: current.applied.length === 0 ? [] : planSettings(current, next) };
  });
}

function newShape(before: Shape, settings: LinkSettings): Shape {
  const value = (key: keyof Shape) => (settings[key] === undefined ? before[key] : (settings[key] ?? undefined));
  return Object.fromEntries(
    (['rate', 'delay', 'loss'] as const).flatMap((key) => {
      const found = value(key);
      return found === undefined ? [] : [[key, found]];
    }),
  );
}

/** Steps from the settings of a link that is there to others; their undo goes back. */
function planSettings(before: Link, after: Link): Step[] {
  const ends = before.kind === 'phys' ? before.ends.slice(0, 1) : before.ends;
  return ends.flatMap(({ ifname, netns }): Step[] => [
    ...(after.mtu === before.mtu
      ? []
      : [
          {
            id: 'link.mtu',
            why: `The largest packet that ${ifname} takes. Both ends need the same.`,
            apply: [at(netns, 'link', 'set', 'dev', ifname, 'mtu', String(after.mtu))],
            undo: [at(netns, 'link', 'set', 'dev', ifname, 'mtu', String(before.mtu ?? 1500))],
          },
        ]),
    ...(shapeText(after.shape) === shapeText(before.shape)
      ? []
      : [
          {
            id: 'link.shape',
            why: `What leaves ${ifname} is now held back: ${shapeText(after.shape) || 'not at all'}.`,
            apply: [shapeCommand(ifname, netns, after.shape, after.mtu)],
            undo: [shapeCommand(ifname, netns, before.shape, before.mtu)],
          },
        ]),
  ]);
}

/** Brings a link up or down: both ends, or the one that was named. What the kernel drops with a link that is down comes back with it. */
export async function setLinkState(reference: string, up: boolean): Promise<void> {
  const { link, end } = findLink(reference);
  await changeLink(link.name, (current) => {
    const ends = current.ends.map((each, index) =>
      (end === undefined || end === index) && !(current.kind === 'phys' && index === 1) ? { ...each, up } : each,
    ) as Link['ends'];
    const next: Link = { ...current, ends };
    if (isGone(current)) {
      // This makes a link of the host alone again, which does not outlive the machine's boot.
      if (!up || !bothPresent(current) || current.kind === 'phys') return { next, steps: [] };
      refuseTakenName(current);
      const applied = planLink(next, nameOfContainer, hasIpv6());
      return { next: { ...next, applied }, steps: [...applied, ...recordedRoutes(next)] };
    }
    const changed = ends.filter((each, index) => each.up !== current.ends[index as 0 | 1].up);
    return { next, steps: [...changed.map((each) => planState(each)), ...(up ? recordedRoutes(next) : [])] };
  });
}

function planState({ ifname, netns, addresses, up }: LinkEnd): Step {
  const set = (state: string) => at(netns, 'link', 'set', 'dev', ifname, state);
  // The kernel drops IPv6 addresses when an interface goes down.
  const restored = addresses
    .filter((address) => address.includes(':'))
    .map((address) => at(netns, 'addr', 'replace', ...addressArgs(address, ifname)));
  return up
    ? {
        id: 'link.up',
        why: `${ifname} passes packets again.`,
        apply: [set('up'), ...restored],
        undo: [set('down')],
      }
    : {
        id: 'link.down',
        why: `${ifname} passes nothing, and the routes over it go.`,
        apply: [set('down')],
        undo: [set('up'), ...restored],
      };
}

async function changeLink(name: string, change: (link: Link) => { next: Link; steps: Step[] }): Promise<void> {
  await applyChange(() => {
    const current = requireLink(name);
    const { next, steps } = change(current);
    return { steps: inStacks(steps), write: [[paths.link(name), next]] };
  });
}

/** A link as `link ls` and others show it. */
export interface LinkView {
  link: Link;
  /** `web:eth1`, `host:veth0`, `phys:enp3s1`. */
  ends: [string, string];
  /** `waiting`: a container of it does not run. `gone`: somebody has deleted the host's end; `link up` makes it again. */
  state: 'up' | 'down' | 'waiting' | 'gone';
  /** `rate 10mbit delay 20ms`. */
  shaping: string;
}

/** All links, by name. */
export function viewLinks(): LinkView[] {
  return listLinks().map((link) => ({
    link,
    ends: [endText(link, 0, nameOfContainer), endText(link, 1, nameOfContainer)],
    state: stateOf(link),
    shaping: shapeText(link.shape),
  }));
}

function stateOf(link: Link): LinkView['state'] {
  if (!bothPresent(link)) return 'waiting';
  if (isGone(link)) return 'gone';
  return link.ends.every(({ up }) => up) ? 'up' : 'down';
}

/** Whether it is not there although its containers run: the machine was booted anew, or somebody has deleted it. */
function isGone({ kind, applied, ends }: Link): boolean {
  if (applied.length === 0) return true;
  return kind === 'veth' && ends.some(({ container, ifname }) => container === undefined && !interfaceExists(ifname));
}
