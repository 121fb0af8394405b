import type { Command } from 'commander';
import { forEach, reconcileFirst } from './each.ts';

/** `minirun wait CONTAINER...` */
export function registerWait(program: Command): void {
  program
    .command('wait')
    .summary('Wait until containers have ended and print their exit codes')
    .description('Wait until each of the containers has ended, and print the exit codes, one a line')
    .argument('<containers...>', 'names, ids or beginnings of ids')
    .action(async (containers: string[]) => {
      await reconcileFirst();
      const { waitForContainer } = await import('../container/wait.ts');
      // All begin at once: one that removes itself while another is waited for must not be missed.
      const codes = new Map(containers.map((container) => [container, waitForContainer(container)]));
      for (const code of codes.values()) code.catch(() => {});
      await forEach(
        containers,
        async (container) => {
          process.stdout.write(`${await codes.get(container)}\n`);
        },
        { print: false },
      );
    });
}
