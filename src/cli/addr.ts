import type { Command } from 'commander';
import { reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

/** `minirun addr CONTAINER` */
export function registerAddr(program: Command): void {
  program
    .command('addr')
    .summary("Show a container's interfaces and addresses")
    .description("Show a container's interfaces and addresses, as the kernel has them now")
    .argument('<container>', 'name or id of a running container, or host')
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .action(async (reference: string, { format }: { format?: string }) => {
      await reconcileFirst();
      const { readInterfaces, requireStack } = await import('../container/stack.ts');
      const stack = requireStack(reference, 'show the addresses of');
      const interfaces = await readInterfaces(stack);
      const endpointOf = (name: string) => stack.container?.state.endpoints.find(({ ifname }) => ifname === name);
      const { formatRows } = await import('./output/table.ts');
      const { printable } = await import('./output/printable.ts');
      type Row = (typeof interfaces)[number];
      const columns = [
        // The kernel lets an interface have almost any name.
        { name: 'Interface', header: 'INTERFACE', value: ({ ifname }: Row) => printable(ifname) },
        { name: 'State', header: 'STATE', value: ({ state }: Row) => state },
        { name: 'Addresses', header: 'ADDRESSES', value: ({ addresses }: Row) => addresses.join(' ') },
        { name: 'MAC', header: 'MAC', value: ({ mac }: Row) => mac },
        { name: 'MTU', header: 'MTU', value: ({ mtu }: Row) => String(mtu), hidden: true },
        { name: 'Network', header: 'NETWORK', value: ({ ifname }: Row) => endpointOf(ifname)?.network ?? '' },
        {
          name: 'Peer',
          header: 'PEER',
          value: ({ ifname }: Row) => endpointOf(ifname)?.hostIfname ?? '',
          hidden: true,
        },
      ];
      print(formatRows(format, columns, interfaces));
    });
}
