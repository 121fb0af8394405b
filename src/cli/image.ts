import type { Command } from 'commander';
import { renameCommand } from './group.ts';
import { registerHistory } from './history.ts';
import { registerImages } from './images.ts';
import { registerImport } from './import.ts';
import { addInspectOf } from './inspect.ts';
import { registerLoad } from './load.ts';
import { printRemoval } from './output/removal.ts';
import { registerPull } from './pull.ts';
import { registerPush } from './push.ts';
import { registerRmi } from './rmi.ts';
import { registerSave } from './save.ts';
import { registerTag } from './tag.ts';
import { print } from './output/stdout.ts';

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** Commands of the command line that are also in this group. */
const shared = [
  registerHistory,
  registerImages,
  registerImport,
  registerLoad,
  registerPull,
  registerPush,
  registerRmi,
  registerSave,
  registerTag,
];

/** `minirun image COMMAND` */
export function registerImage(program: Command): void {
  const image = program.command('image').summary('List, show, fetch, name and remove images');
  for (const register of shared) register(image);
  renameCommand(image, 'images', 'ls', 'list');
  renameCommand(image, 'rmi', 'rm', 'remove');
  addInspectOf(image, 'image');
  registerPrune(image);
}

function registerPrune(image: Command): void {
  image
    .command('prune')
    .summary('Remove images that nobody needs')
    .description('Remove images without a name, or with -a all that no container uses')
    .option('-a, --all', 'also those with a name')
    .option('-f, --force', 'do not ask')
    .option('--filter <key=value>', 'until or label (repeatable)', collect, [])
    .action(async ({ all, force, filter }: { all?: boolean; force?: boolean; filter: string[] }) => {
      const { unwanted } = await import('./output/prune.ts');
      const isUnwanted = await unwanted({ all: all === true, filter });
      const { confirmed } = await import('./output/question.ts');
      const warning =
        all === true
          ? 'This will remove all images without at least one container associated to them.'
          : 'This will remove all dangling images.';
      if (force !== true && !(await confirmed(warning))) return;
      const { reconcileFirst } = await import('./each.ts');
      await reconcileFirst();
      const { pruneImages } = await import('../image/collect.ts');
      const { imageUser } = await import('../container/image-users.ts');
      const removal = await pruneImages((id, names) => !isUnwanted(id, names), imageUser());
      const { humanSize } = await import('./output/units.ts');
      printRemoval(removal);
      print(`Total reclaimed space: ${humanSize(removal.reclaimed)}\n`);
    });
}
