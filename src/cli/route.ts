import type { Command } from 'commander';
import type { RouteView } from '../container/routes.ts';
import { reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

/** `minirun route COMMAND` */
export function registerRoute(program: Command): void {
  const route = program
    .command('route')
    .summary('Add, remove and list routes of containers and of the host')
    .description('Add, remove and list routes of containers and of the host, in the words of ip route');
  const place = ['<container>', 'a container, or host'] as const;
  const words = [
    '<route...>',
    'DEST via GATEWAY [dev INTERFACE] [src ADDRESS] [metric N]; DEST may be default',
  ] as const;
  route
    .command('add')
    .summary('Add a route; a container has it again after each start')
    .argument(...place)
    .argument(...words)
    .option('--explain', 'print the steps as a shell script instead of taking them')
    .action(async (name: string, rest: string[], { explain }: { explain?: boolean }) => {
      await reconcileFirst();
      const { addRoute, explainRoute } = await import('../container/routes.ts');
      if (explain === true) print(await explainRoute(name, rest));
      else await addRoute(name, rest);
    });
  route
    .command('del')
    .alias('rm')
    .summary('Remove a route')
    .argument(...place)
    .argument('<route...>', 'DEST, and via, dev or metric where there are several')
    .action(async (name: string, rest: string[]) => {
      await reconcileFirst();
      const { removeRoute } = await import('../container/routes.ts');
      await removeRoute(name, rest);
    });
  route
    .command('ls')
    .alias('list')
    .summary('List routes, as the kernel has them')
    .argument(...place)
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .action(async (name: string, { format }: { format?: string }) => {
      await reconcileFirst();
      const { viewRoutes } = await import('../container/routes.ts');
      const { formatRows } = await import('./output/table.ts');
      const columns = [
        { name: 'Destination', header: 'DESTINATION', value: (each: RouteView) => each.destination },
        { name: 'Gateway', header: 'GATEWAY', value: (each: RouteView) => each.gateway },
        { name: 'Interface', header: 'INTERFACE', value: (each: RouteView) => each.dev },
        { name: 'Source', header: 'SOURCE', value: (each: RouteView) => each.source },
        { name: 'Metric', header: 'METRIC', value: (each: RouteView) => each.metric },
        { name: 'Protocol', header: 'PROTOCOL', value: (each: RouteView) => each.protocol },
        { name: 'Scope', header: 'SCOPE', value: (each: RouteView) => each.scope, hidden: true },
        { name: 'Flags', header: 'FLAGS', value: (each: RouteView) => each.flags.join(',') },
      ];
      print(formatRows(format, columns, await viewRoutes(name)));
    });
}
