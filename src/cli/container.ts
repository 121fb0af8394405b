import type { Command } from 'commander';
import { containerCommands, shortened } from './group.ts';
import { print } from './output/stdout.ts';

/** `minirun container COMMAND`: docker's other names for what `minirun COMMAND` does. All but `prune` are here for `--help`: see `shortened`. */
export function registerContainer(program: Command): void {
  const container = program.command('container').summary('The commands for containers, by docker’s longer names');
  for (const name of ['ls', 'inspect', ...containerCommands])
    container.command(name).summary(`The same as minirun ${shortened(['container', name])[0]}`);
  registerPrune(container);
}

function registerPrune(container: Command): void {
  container
    .command('prune')
    .summary('Remove containers that do not run')
    .option('-f, --force', 'do not ask')
    .action(async ({ force }: { force?: boolean }) => {
      const { confirmed } = await import('./output/question.ts');
      if (force !== true && !(await confirmed('This will remove all stopped containers.'))) return;
      const { reconcileFirst } = await import('./each.ts');
      await reconcileFirst();
      const { printPruned } = await import('./output/pruned.ts');
      const { pruneContainers } = await import('../container/prune.ts');
      const { humanSize } = await import('./output/units.ts');
      const reclaimed = await printPruned('Deleted Containers', pruneContainers());
      print(`Total reclaimed space: ${humanSize(reclaimed)}\n`);
    });
}
