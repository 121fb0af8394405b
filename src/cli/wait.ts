import type { Command } from 'commander';
import type { WaitCondition } from '../container/wait.ts';
import { MinirunError } from '../errors.ts';
import { forEach, reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

interface Options {
  condition: string[];
  interval?: string;
  ignore?: boolean;
}

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `minirun wait CONTAINER...` */
export function registerWait(program: Command): void {
  program
    .command('wait')
    .summary('Wait until containers have ended and print their exit codes')
    .description(
      'Wait until each of the containers has ended, and print the exit codes, one a line; with --condition until something else is true of each, and -1',
    )
    .argument('<containers...>', 'names, ids or beginnings of ids')
    .option(
      '--condition <condition>',
      'stopped, running, healthy, unhealthy, exited, removed, created, paused, stopping, restarting, next-exit, … (repeatable: one of them)',
      collect,
      [],
    )
    .option('-i, --interval <duration>', 'time between two looks when nothing is heard of a container')
    .option('--ignore', 'print -1 for a container that does not exist')
    .action(async (containers: string[], options: Options) => {
      const { waitConditions, waitForContainer } = await import('../container/wait.ts');
      const conditions = options.condition.map((text): WaitCondition => {
        const found = waitConditions.find((each) => each === text);
        if (found !== undefined) return found;
        throw new MinirunError(
          `invalid --condition "${text}"`,
          'there is no such condition',
          `Use one of: ${waitConditions.join(', ')}`,
          { code: 125 },
        );
      });
      const patience = await intervalOf(options.interval);
      await reconcileFirst();
      const { findId } = await import('../container/store.ts');
      // All begin at once: one that removes itself while another is waited for must not be missed.
      const codes = new Map(
        containers.map((container) => [
          container,
          options.ignore === true && findId(container) === undefined
            ? Promise.resolve(-1)
            : waitForContainer(container, conditions.length === 0 ? undefined : conditions, patience),
        ]),
      );
      for (const code of codes.values()) code.catch(() => {});
      await forEach(
        containers,
        async (container) => {
          print(`${await codes.get(container)}\n`);
        },
        { prints: false },
      );
    });
}

/** Milliseconds; podman takes a number without a unit for them. */
async function intervalOf(text: string | undefined): Promise<number | undefined> {
  if (text === undefined) return undefined;
  const { parseDuration } = await import('../container/duration.ts');
  const milliseconds = parseDuration(/^\d+$/.test(text) ? `${text}ms` : text);
  if (milliseconds !== undefined && milliseconds >= 1) return milliseconds;
  throw new MinirunError(`invalid --interval "${text}"`, 'it is no duration', 'Give one like 250ms or 2s', {
    code: 125,
  });
}
