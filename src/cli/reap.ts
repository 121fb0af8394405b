import type { Command } from 'commander';

/** What a supervisor turns into when its container has ended. Not for people. */
export function registerReap(program: Command): void {
  program.command('reap', { hidden: true }).argument('<id>').action(async (id: string) => {
    const { reap } = await import('../container/reap.ts');
    await reap(id);
  });
}
