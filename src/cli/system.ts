import type { Command } from 'commander';

export function registerSystem(program: Command): void {
  const system = program.command('system').summary('Take back what killed processes have left');
  system
    .command('reconcile')
    .summary('Take back what killed processes have left; every command does this first')
    .action(async () => {
      const { reconcile } = await import('../container/reconcile.ts');
      const problems = await reconcile(true);
      for (const problem of problems) process.stderr.write(`minirun: ${problem}\n`);
      if (problems.length > 0) process.exitCode = 1;
    });
}
