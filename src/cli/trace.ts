import type { Command } from 'commander';
import type { Hop } from '../container/trace.ts';
import { MinirunError } from '../errors.ts';
import { reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

interface Options {
  maxHops: string;
  format?: string;
}

/** `minirun trace CONTAINER DESTINATION` */
export function registerTrace(program: Command): void {
  program
    .command('trace')
    .summary('Show the way of packets from a container to an address')
    .description(
      'Show the way of packets from a container: the hops as traceroute sees them, who they are, and the route that each of them takes on',
    )
    .argument('<container>', 'name or id of a running container, or host: where packets start')
    .argument('<destination>', 'a container, host, an address or a host name: where they are to arrive')
    .option('-m, --max-hops <number>', 'hops to try', '30')
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .action(async (reference: string, destination: string, { maxHops, format }: Options) => {
      const most = Number(maxHops);
      if (!/^\d+$/.test(maxHops) || most < 1 || most > 255)
        throw new MinirunError(`invalid --max-hops "${maxHops}"`, 'it is not a number of hops', 'Give 1 to 255');
      await reconcileFirst();
      const { trace } = await import('../container/trace.ts');
      const found = await trace(reference, destination, most);
      const { formatRows } = await import('./output/table.ts');
      const { printable } = await import('./output/printable.ts');
      const columns = [
        { name: 'Hop', header: 'HOP', value: ({ number }: Hop) => String(number) },
        {
          name: 'Address',
          header: 'ADDRESS',
          value: ({ number, address }: Hop) => (number > 0 && address === '' ? '*' : address),
        },
        { name: 'Name', header: 'NAME', value: ({ name }: Hop) => printable(name) },
        { name: 'Time', header: 'TIME', value: ({ time }: Hop) => time },
        { name: 'Route', header: 'ROUTE FROM THERE', value: ({ route }: Hop) => printable(route) },
      ];
      print(formatRows(format, columns, found.hops));
      if (found.isReached) return;
      throw new MinirunError(
        `${found.address} does not answer`,
        found.reason === undefined ? 'no more can be seen from here' : printable(found.reason),
      );
    });
}
