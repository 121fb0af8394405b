import type { Command } from 'commander';
import { reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

/** `minirun netns CONTAINER` */
export function registerNetns(program: Command): void {
  program
    .command('netns')
    .summary("Print the path of a container's network namespace")
    .description("Print the path of a container's network namespace, for nsenter --net=PATH and the like")
    .argument('<container>', 'name or id of a running container, or host')
    .action(async (reference: string) => {
      await reconcileFirst();
      const { namespacePath, requireStack } = await import('../container/stack.ts');
      print(`${namespacePath(requireStack(reference, 'find the network namespace of'))}\n`);
    });
}
