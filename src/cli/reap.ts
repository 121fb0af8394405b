import type { Command } from 'commander';

/** What a supervisor turns into when its container has ended. Not for people. */
export function registerReap(program: Command): void {
  program
    .command('reap', { hidden: true })
    .argument('<id>')
    .option('--restart')
    .action(async (id: string, options: { restart?: boolean }) => {
      const { reap, restartReaped } = await import('../container/reap.ts');
      await (options.restart === true ? restartReaped(id) : reap(id));
    });
}
