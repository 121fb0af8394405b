import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import { forEach, reconcileFirst } from './each.ts';
import { limitOptions, limitsFrom } from './limits.ts';

/** `minirun update OPTIONS CONTAINER...` */
export function registerUpdate(program: Command): void {
  limitOptions(program.command('update'))
    .summary('Change limits and restart policy of containers')
    .description('Change limits and restart policy of containers, running or not; what is not given stays as it is')
    .argument('<container...>')
    .option('--restart <policy>', 'no, on-failure[:N], always, unless-stopped')
    .action(async (names: string[], options: Record<string, string | undefined>) => {
      const limits = limitsFrom(options);
      const { restart } = options;
      if (limits === undefined && restart === undefined)
        throw new MinirunError('nothing to update', 'no option says what', 'For example: minirun update -m 512m web', {
          code: 125,
        });
      await reconcileFirst();
      const { updateContainer } = await import('../container/update.ts');
      await forEach(names, async (name) => {
        for (const warning of await updateContainer(name, { limits, restart }))
          process.stderr.write(`minirun: warning: ${warning}\n`);
      });
    });
}
