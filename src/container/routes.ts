import { MinirunError } from '../errors.ts';
import { renderScript } from '../host/script.ts';
import type { Step } from '../host/steps.ts';
import { type KernelRoute, readStack, type Stack } from '../network/interfaces.ts';
import { applyChange, hostRoutesFile, ifindexOf, linksOf, readHostRoutes, undoChange } from '../network/link-store.ts';
import {
  checkRoute,
  deviceOf,
  parseRoute,
  planRoute,
  type PresentRoute,
  type Reach,
  type Route,
  routeText,
  samePlace,
} from '../network/route.ts';
import { readNetwork } from '../network/store.ts';
import { paths } from '../state/paths.ts';
import { addressesOf, isSameRun, namespaceOf, networkInterfaces, reachOf, settledContainer } from './links.ts';
import { attachmentsOf } from './networking.ts';
import { containerFiles, type RoutesFile } from './files.ts';
import { readRoutes } from './routes-file.ts';
import { type Container, readState, requireContainer } from './store.ts';

type Known = PresentRoute & { family: 4 | 6 };

/** What a place reaches directly, and which routes it has. */
interface Surroundings {
  interfaces: Reach[];
  routes: Known[];
}

/**
 * Adds a route to a container or to the host.
 *
 * @param place `host`, or a container
 * @param words as `ip route add` has them
 */
export async function addRoute(place: string, words: readonly string[]): Promise<void> {
  const route = parseRoute(words);
  if (place === 'host') return addHostRoute(route);
  for (;;) {
    const container = await containerOf(place);
    const { definition, state } = container;
    const { id } = definition;
    const steps = await draftRoute(container, route);
    let stale = false;
    await applyChange(() => {
      stale = !isSameRun(state, readState(id));
      if (stale) return undefined;
      const file: RoutesFile = { schema: 1, routes: [...readRoutes(id), route] };
      return { steps, write: [[containerFiles(id).routes, file]] };
    });
    if (!stale) return;
  }
}

/** Checks a route of a container. @returns the steps that set it now; none when the container is at rest */
async function draftRoute(container: Container, route: Route): Promise<Step[]> {
  const { definition, state } = container;
  const netns = namespaceOf(state);
  const around = await surroundings(container);
  if (around === undefined) return [];
  checkRoute(route, definition.name, around.interfaces, around.routes);
  if (netns === undefined) return [];
  const dev = deviceOf(route, around.interfaces, around.routes);
  return [planRoute({ ...route, ...(dev === undefined ? {} : { dev }) }, netns, 'add')];
}

async function addHostRoute(route: Route): Promise<void> {
  const step = await draftHostRoute(route);
  await applyChange(() => {
    const ifindex = ifindexOf(step.route.dev as string);
    if (ifindex === undefined) throw new MinirunError('cannot add the route', 'its interface has just gone');
    const routes = [...readHostRoutes(), { route: step.route, ifindex, steps: step.steps }];
    return { steps: step.steps, write: [[paths.hostRoutes(), hostRoutesFile(routes)]] };
  });
}

async function draftHostRoute(route: Route): Promise<{ route: Route; steps: Step[] }> {
  const around = surroundingsIn(await readStack());
  checkRoute(route, 'host', around.interfaces, around.routes);
  const whole = { ...route, dev: deviceOf(route, around.interfaces, around.routes) };
  return { route: whole, steps: [planRoute(whole, undefined, 'add')] };
}

/** `route add --explain` */
export async function explainRoute(place: string, words: readonly string[]): Promise<string> {
  const route = parseRoute(words);
  const title = `Route ${routeText(route)} of ${place}: what "minirun route add" does, as a person would type it.`;
  if (place === 'host') return renderScript(title, [{ title: 'Route', steps: (await draftHostRoute(route)).steps }]);
  const container = await containerOf(place);
  const steps = await draftRoute(container, route);
  const later = steps.length > 0 ? '' : ' The container does not run: minirun does this when it is started.';
  const shown = steps.length > 0 ? steps : [planRoute(route, container.definition.name, 'add')];
  return renderScript(title + later, [{ title: 'Route', steps: shown }]);
}

/** Takes a route of a container away, or one that minirun has set on the host. */
export async function removeRoute(place: string, words: readonly string[]): Promise<void> {
  const wanted = parseRoute(words);
  const fits = (route: Known | Route) =>
    route.destination === wanted.destination &&
    (wanted.via === undefined || route.via === wanted.via) &&
    (wanted.dev === undefined || route.dev === undefined || route.dev === wanted.dev) &&
    (wanted.metric === undefined || route.metric === wanted.metric) &&
    (wanted.destination !== 'default' ||
      wanted.via !== undefined ||
      words[0] === 'default' ||
      route.family === wanted.family);
  if (place === 'host') return removeHostRoute(wanted, fits);
  const container = await containerOf(place);
  const { definition, state } = container;
  const { id, name } = definition;
  const netns = namespaceOf(state);
  const live = netns === undefined ? [] : surroundingsIn(await readStack(netns)).routes.filter(fits);
  const recorded = readRoutes(id).filter(fits);
  const [found, more] = recorded.length > 0 ? recorded : live;
  if (found === undefined) throw noSuchRoute(`container "${name}"`, wanted, place);
  if (more !== undefined && !(found.family !== more.family && wanted.destination === 'default'))
    throw ambiguous(found, more);
  const running = live.find((route) => samePlace(route, found));
  const step = running === undefined ? undefined : planRoute({ ...running }, netns, 'add');
  await undoChange(() => {
    const rest = readRoutes(id).filter((route) => !(samePlace(route, found) && route.via === found.via));
    return {
      steps: step === undefined || !isSameRun(state, readState(id)) ? [] : [step],
      restore: [
        [containerFiles(id).routes, rest.length === 0 ? null : ({ schema: 1, routes: rest } satisfies RoutesFile)],
      ],
    };
  });
}

async function removeHostRoute(wanted: Route, fits: (route: Route) => boolean): Promise<void> {
  const found = readHostRoutes().filter(({ route }) => fits(route));
  const [first, second] = found;
  if (first === undefined) {
    const other = surroundingsIn(await readStack()).routes.some((route) => route.destination === wanted.destination);
    if (!other) throw noSuchRoute('the host', wanted, 'host');
    throw new MinirunError(
      `cannot remove the route ${routeText(wanted)}`,
      'minirun has not made it',
      `Take it away with: ip route del ${routeText(wanted)}`,
    );
  }
  if (second !== undefined) throw ambiguous(first.route, second.route);
  await undoChange(() => {
    const rest = readHostRoutes().filter(({ route }) => routeText(route) !== routeText(first.route));
    return { steps: first.steps, restore: [[paths.hostRoutes(), hostRoutesFile(rest)]] };
  });
}

function noSuchRoute(who: string, wanted: Route, place: string): MinirunError {
  return new MinirunError(
    `no route ${routeText(wanted)}`,
    `${who} has none`,
    `See minirun route ls ${place} for those there are`,
  );
}

function ambiguous(a: Omit<Route, 'family'>, b: Omit<Route, 'family'>): MinirunError {
  const text = (route: Omit<Route, 'family'>) => routeText({ family: 4, ...route });
  return new MinirunError(
    'cannot tell which route is meant',
    `there are "${text(a)}" and "${text(b)}"`,
    'Give via, dev or metric as well',
  );
}

/** A container whose own network stack it is, at rest or running. @throws MinirunError for one that shares another's */
async function containerOf(reference: string): Promise<Container> {
  const { definition } = requireContainer(reference);
  const { id, name, network } = definition;
  if (network === 'host' || network.startsWith('container:')) {
    const other = network === 'host' ? 'host' : network.slice('container:'.length);
    throw new MinirunError(
      `cannot change the routes of container "${name}"`,
      `it has the network of ${network === 'host' ? 'the host' : `container ${other}`}`,
      `Change those: minirun route … ${other} …`,
    );
  }
  return settledContainer(id);
}

/** What a container has, or will have; undefined when that is not known before its start. */
async function surroundings({ definition, state }: Container): Promise<Surroundings | undefined> {
  const netns = namespaceOf(state);
  if (netns !== undefined) return surroundingsIn(await readStack(netns));
  const { id } = definition;
  const attachments = attachmentsOf(definition);
  const networks = attachments.map(({ network }) => readNetwork(network));
  // The default network's range is chosen when it is used.
  if (networks.includes(undefined)) return undefined;
  return {
    interfaces: [...networkInterfaces({ definition }), ...linksOf(id).flatMap((link) => reachOf(link, id))],
    // A default route of its own takes the place of that of a network at each start, so that one is none to collide with.
    routes: readRoutes(id),
  };
}

function surroundingsIn({ interfaces, routes }: Stack): Surroundings {
  return {
    interfaces: interfaces
      .filter(({ ifname }) => ifname !== 'lo')
      .map((each) => ({ ifname: each.ifname, addresses: addressesOf(each) })),
    routes: routes.map((route) => ({
      destination: destinationOf(route),
      family: route.family,
      ...(route.gateway === undefined ? {} : { via: route.gateway }),
      ...(route.dev === undefined ? {} : { dev: route.dev }),
      ...(route.metric === undefined ? {} : { metric: route.metric }),
    })),
  };
}

/** `ip` leaves the prefix length of single addresses out. */
function destinationOf({ dst }: KernelRoute): string {
  if (dst === 'default' || dst.includes('/')) return dst;
  return `${dst}/${dst.includes(':') ? 128 : 32}`;
}

/** A route as `route ls` shows it. */
export interface RouteView {
  destination: string;
  gateway: string;
  dev: string;
  source: string;
  metric: string;
  /** `kernel` for what comes with an address. */
  protocol: string;
  scope: string;
  /** `linkdown` where nothing can go out. */
  flags: string[];
}

/** The routes of a container or of the host, as the kernel has them; of a container at rest, those it was given. */
export async function viewRoutes(place: string): Promise<RouteView[]> {
  if (place === 'host') return (await readStack()).routes.map(viewOf);
  const { definition, state } = requireContainer(place);
  if (definition.network === 'host') return viewRoutes('host');
  if (definition.network.startsWith('container:')) return viewRoutes(definition.network.slice('container:'.length));
  const netns = namespaceOf(state);
  if (netns !== undefined) return (await readStack(netns)).routes.map(viewOf);
  return readRoutes(definition.id).map(({ destination, via, dev, src, metric }) => ({
    destination,
    gateway: via ?? '',
    dev: dev ?? '',
    source: src ?? '',
    metric: metric === undefined ? '' : String(metric),
    protocol: '',
    scope: '',
    flags: [],
  }));
}

function viewOf(route: KernelRoute): RouteView {
  return {
    destination: route.type === undefined || route.type === 'unicast' ? route.dst : `${route.type} ${route.dst}`,
    gateway: route.gateway ?? route.via?.host ?? '',
    dev: route.dev ?? '',
    source: route.prefsrc ?? '',
    metric: route.metric === undefined ? '' : String(route.metric),
    protocol: route.protocol ?? '',
    scope: route.scope ?? '',
    flags: route.flags,
  };
}
