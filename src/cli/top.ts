import type { Command } from 'commander';
import { reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

/** `minirun top CONTAINER [PS OPTIONS]` */
export function registerTop(program: Command): void {
  program
    .command('top')
    .summary('Show the processes of a container')
    .usage('CONTAINER [PS OPTIONS]')
    .argument('<container>')
    .argument('[options...]', 'for ps(1), whose output must have a column PID; default: -ef')
    .passThroughOptions()
    .action(async (name: string, options: string[]) => {
      await reconcileFirst();
      const { topContainer } = await import('../container/top.ts');
      const { renderTable } = await import('./output/table.ts');
      const { printable } = await import('./output/printable.ts');
      const { titles, rows } = await topContainer(name, options);
      const columns = titles.map((header, index) => ({
        header,
        value: (row: string[]) => printable(row[index] ?? ''),
      }));
      print(renderTable(columns, rows));
    });
}
