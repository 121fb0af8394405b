import type { Command } from 'commander';
import { registerCommit } from './commit.ts';
import { registerCp } from './cp.ts';
import { registerDiff } from './diff.ts';
import { registerExec } from './exec.ts';
import { registerExport } from './export.ts';
import { renameCommand } from './group.ts';
import { addInspectOf } from './inspect.ts';
import { registerLogs } from './logs.ts';
import { registerPause, registerUnpause } from './pause.ts';
import { registerPort } from './port.ts';
import { registerPs } from './ps.ts';
import { registerRename } from './rename.ts';
import { registerRm } from './rm.ts';
import { registerCreate, registerRun } from './run.ts';
import { registerStart } from './start.ts';
import { registerStats } from './stats.ts';
import { registerKill, registerRestart, registerStop } from './stop.ts';
import { registerTop } from './top.ts';
import { registerUpdate } from './update.ts';
import { registerWait } from './wait.ts';

/** Commands of the command line that are also in this group. */
const shared = [
  registerCommit,
  registerCp,
  registerCreate,
  registerDiff,
  registerExec,
  registerExport,
  registerKill,
  registerLogs,
  registerPause,
  registerPort,
  registerPs,
  registerRename,
  registerRestart,
  registerRm,
  registerRun,
  registerStart,
  registerStats,
  registerStop,
  registerTop,
  registerUnpause,
  registerUpdate,
  registerWait,
];

/** `minirun container COMMAND`: docker's other names for what `minirun COMMAND` does. All but `prune` are here for `--help`: see `shortened`. */
export function registerContainer(program: Command): void {
  const container = program
    .command('container')
    .summary('The commands for containers, by docker’s longer names')
    .enablePositionalOptions();
  for (const register of shared) register(container);
  renameCommand(container, 'ps', 'ls', 'list', 'ps');
  container.commands.find((each) => each.name() === 'rm')?.alias('remove');
  addInspectOf(container, 'container');
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
      process.stdout.write(`Total reclaimed space: ${humanSize(reclaimed)}\n`);
    });
}
