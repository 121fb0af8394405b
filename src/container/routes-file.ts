import path from 'node:path';
import { addressesOf } from '../network/attach.ts';
import type { Endpoint } from '../network/definition.ts';
import { linksOf } from '../network/link-store.ts';
import type { Reach, Route } from '../network/route.ts';
import { readJson } from '../state/json.ts';
import { paths } from '../state/paths.ts';

/** The routes that a container was given on request: `containers/<id>/routes.json`. */
export interface RoutesFile {
  schema: 1;
  routes: Route[];
}

export function routesFile(id: string): string {
  return path.join(paths.container(id), 'routes.json');
}

export function readRoutes(id: string): Route[] {
  return readJson<RoutesFile>(routesFile(id))?.routes ?? [];
}

/** Whether a container has links or routes of its own, which its start has to make. Cheap. */
export function hasLinks(id: string): boolean {
  return linksOf(id).length > 0 || readRoutes(id).length > 0;
}

/** The names of the interfaces that a container's links give it. */
export function linkIfnames(id: string): string[] {
  return linksOf(id).flatMap(({ ends }) => ends.flatMap(({ container, ifname }) => (container === id ? [ifname] : [])));
}

/** What a container reaches over the interface that a network gives it. */
export function reachOfEndpoint(endpoint: Endpoint): Reach {
  return {
    ifname: endpoint.ifname,
    addresses: addressesOf(endpoint).map(({ address, prefixLength }) => `${address}/${prefixLength}`),
  };
}
