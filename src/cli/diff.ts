import type { Command } from 'commander';
import { reconcileFirst } from './each.ts';
import { printable } from './output/printable.ts';
import { print } from './output/stdout.ts';

/** `minirun diff CONTAINER` */
export function registerDiff(program: Command): void {
  program
    .command('diff')
    .summary('Show what a container has changed of its image')
    .description(
      'Show the files that a container has added (A), changed (C) or deleted (D), without what is in volumes',
    )
    .argument('<container>', 'name, id or beginning of an id')
    .action(async (container: string) => {
      await reconcileFirst();
      const { changesOf } = await import('../container/diff.ts');
      for (const { kind, path } of await changesOf(container)) print(`${kind} ${printable(path)}\n`);
    });
}
