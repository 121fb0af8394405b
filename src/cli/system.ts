import { type Command, Option } from 'commander';

export function registerSystem(program: Command): void {
  const system = program.command('system').summary('Take back what killed processes have left');
  system
    .command('reconcile')
    .summary('Take back what killed processes have left; every command does this first')
    .addOption(new Option('--due', 'only those idle networks whose time has come').hideHelp())
    .action(async ({ due }: { due?: boolean }) => {
      const { reconcile } = await import('../container/reconcile.ts');
      const problems = await reconcile(due === true ? 'due' : 'all');
      for (const problem of problems) process.stderr.write(`minirun: ${problem}\n`);
      if (problems.length > 0) process.exitCode = 1;
      if (due === true) return;
      const { sweepImages } = await import('../image/collect.ts');
      await sweepImages();
    });
}
