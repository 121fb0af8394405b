import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import { forEach, reconcileFirst } from './each.ts';

export function registerStart(program: Command): void {
  program
    .command('start')
    .summary('Start containers that are at rest')
    .argument('<container...>')
    .option('-a, --attach', 'stay with it: pass its output on and return its exit code')
    .option('-i, --interactive', 'attach its standard input too')
    .action(async (names: string[], options: { attach?: boolean; interactive?: boolean }) => {
      await reconcileFirst('index');
      const { startDetached, startForeground } = await import('../container/run.ts');
      const { requireContainer } = await import('../container/store.ts');
      const notice = (line: string) => process.stderr.write(`minirun: ${line}\n`);
      const attach = options.attach === true || options.interactive === true;
      if (attach && names.length > 1) {
        throw new MinirunError(
          'cannot attach to several containers',
          'there is one terminal',
          'Start one at a time with -a',
          { code: 125 },
        );
      }
      await forEach(
        names,
        async (name) => {
          const { definition, state } = requireContainer(name);
          const before = state.startedAt === '' ? 'created' : 'exited';
          if (attach) process.exitCode = await startForeground(definition.id, before, { sigProxy: true, notice });
          else if (state.status !== 'running') await startDetached(definition.id, before, { notice });
        },
        { print: !attach },
      );
    });
}
