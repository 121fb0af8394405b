import type { Command } from 'commander';
import { reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

/** `minirun neigh CONTAINER` */
export function registerNeigh(program: Command): void {
  program
    .command('neigh')
    .summary('Show the neighbours that a container knows')
    .description('Show the neighbours that a container knows by ARP and by IPv6 neighbour discovery')
    .argument('<container>', 'name or id of a running container, or host')
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .action(async (reference: string, { format }: { format?: string }) => {
      await reconcileFirst();
      const { allPlaces, placeName, placeOf, readNeighbours, requireStack } = await import('../container/stack.ts');
      const stack = requireStack(reference, 'show the neighbours of');
      const neighbours = await readNeighbours(stack);
      const places = neighbours.length > 0 ? await allPlaces() : [];
      const { formatRows } = await import('./output/table.ts');
      const { printable } = await import('./output/printable.ts');
      type Row = (typeof neighbours)[number];
      const nameOf = ({ address, mac }: Row) => {
        const place = placeOf(places, address, mac);
        return place === undefined ? '' : printable(placeName(place));
      };
      const columns = [
        { name: 'Address', header: 'ADDRESS', value: ({ address }: Row) => address },
        { name: 'Interface', header: 'INTERFACE', value: ({ ifname }: Row) => printable(ifname) },
        { name: 'MAC', header: 'MAC', value: ({ mac }: Row) => mac },
        { name: 'State', header: 'STATE', value: ({ state }: Row) => state },
        { name: 'Name', header: 'NAME', value: nameOf },
      ];
      print(formatRows(format, columns, neighbours));
    });
}
