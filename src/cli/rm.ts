import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import { forEach, reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

export function registerRm(program: Command): void {
  program
    .command('rm')
    .summary('Remove containers')
    .argument('[container...]')
    .option('-f, --force', 'end running ones first; names that do not exist are no error')
    .option('-a, --all', 'all containers')
    .option('-v, --volumes', 'also their anonymous volumes, which are kept otherwise')
    .option('--explain', 'print the steps as a shell script instead of taking them')
    .action(
      async (names: string[], options: { force?: boolean; all?: boolean; volumes?: boolean; explain?: boolean }) => {
        if (names.length === 0 && options.all !== true) {
          throw new MinirunError(
            'no container given',
            'rm needs to know what to remove',
            'Name containers, or use --all',
            { code: 125 },
          );
        }
        await reconcileFirst('index');
        const { findId, listContainers } = await import('../container/store.ts');
        const wanted = options.all === true ? listContainers().map((container) => container.definition.name) : names;
        if (options.explain === true) {
          const { explainRemove } = await import('../container/explain.ts');
          for (const name of wanted) print(await explainRemove(name, options.volumes === true));
          return;
        }
        const { removeContainer } = await import('../container/remove.ts');
        await forEach(
          wanted,
          async (name) => {
            // Docker's: with -f, removing what is not there is a success.
            if (options.force === true && findId(name) === undefined) return false;
            await removeContainer(name, { force: options.force === true, volumes: options.volumes === true });
            return true;
          },
          { parallel: 8 },
        );
        const { leaveNothing } = await import('../container/reconcile.ts');
        // What fails the next command says.
        await leaveNothing().catch(() => {});
      },
    );
}
