import type { Command } from 'commander';
import { forEach, reconcileFirst } from './each.ts';

/** `minirun pause CONTAINER...` */
export function registerPause(program: Command): void {
  program
    .command('pause')
    .summary('Stop all processes of containers where they are')
    .argument('<container...>')
    .action(async (names: string[]) => {
      await reconcileFirst();
      const { pauseContainer } = await import('../container/pause.ts');
      await forEach(names, pauseContainer);
    });
}

/** `minirun unpause CONTAINER...` */
export function registerUnpause(program: Command): void {
  program
    .command('unpause')
    .summary('Let paused containers go on')
    .argument('<container...>')
    .action(async (names: string[]) => {
      await reconcileFirst();
      const { unpauseContainer } = await import('../container/pause.ts');
      await forEach(names, unpauseContainer);
    });
}
