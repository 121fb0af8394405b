import { addressesOf } from '../network/attach.ts';
import type { Endpoint } from '../network/definition.ts';
import { linksOf } from '../network/link-store.ts';
import type { Reach, Route } from '../network/route.ts';
import { readFile } from '../state/files.ts';
import { kinds } from '../state/migrations.ts';
import { containerFiles, type RoutesFile, routesFileShape } from './files.ts';

/** The routes that a container was given on request. */
export function readRoutes(id: string): Route[] {
  const rest = ({ routes = [] }: Partial<RoutesFile>): RoutesFile => ({ schema: 1, routes });
  return readFile(kinds.routes, routesFileShape, containerFiles(id).routes, rest)?.routes ?? [];
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
