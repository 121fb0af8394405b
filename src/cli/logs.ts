import type { Command } from 'commander';
import type { LogPiece } from '../container/logs.ts';
import { reconcileFirst } from './each.ts';
import { stdoutStream } from './output/stdout.ts';

interface Options {
  follow?: boolean;
  timestamps?: boolean;
  tail: string;
  since?: string;
  until?: string;
}

/** `minirun logs CONTAINER` */
export function registerLogs(program: Command): void {
  program
    .command('logs')
    .summary("Show a container's output")
    .description("Show a container's output: what it wrote to stdout on stdout, what it wrote to stderr on stderr")
    .argument('<container>', 'name, id or beginning of an id')
    .option('-f, --follow', 'go on until the container ends')
    .option('-n, --tail <number>', 'only the last NUMBER lines, or all', 'all')
    .option('--since <time>', 'only from then on: a time, seconds since 1970, or a duration like 10m')
    .option('--until <time>', 'only up to then')
    .option('-t, --timestamps', 'show when each line was written')
    .action(async (container: string, { follow = false, timestamps = false, tail, since, until }: Options) => {
      await reconcileFirst();
      const { readLog } = await import('../container/logs.ts');
      await print(readLog(container, { follow, timestamps, tail, since, until }));
    });
}

/** Writes pieces to the streams they are for, in order, as fast as their reader takes them; ends when it goes away. */
async function print(pieces: AsyncIterable<LogPiece>): Promise<void> {
  let open = true;
  for (const stream of [stdoutStream(), process.stderr]) {
    stream.on('error', () => {
      open = false;
    });
  }
  for await (const { stream, bytes } of pieces) {
    await new Promise<void>((resolve) => process[stream].write(bytes, () => resolve()));
    if (!open) return;
  }
}
