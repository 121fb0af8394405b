import type { Command } from 'commander';
import { reconcileFirst } from './each.ts';

/** `minirun rename CONTAINER NAME` */
export function registerRename(program: Command): void {
  program
    .command('rename')
    .summary('Rename a container')
    .description('Give a container another name; while it runs its network namespace is renamed with it')
    .argument('<container>', 'name, id or beginning of an id')
    .argument('<name>', 'the new name')
    .action(async (container: string, name: string) => {
      await reconcileFirst();
      const { finishInterruptedRenames, renameContainer } = await import('../container/rename.ts');
      await finishInterruptedRenames();
      await renameContainer(container, name);
    });
}
