import type { Command } from 'commander';
import type { LogPiece } from '../container/logs.ts';
import { reconcileFirst } from './each.ts';

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

/** Bytes that are collected before they are written: a write for each line would take most of the time. */
const batchSize = 65536;

/** Writes pieces to the streams they are for, in order, as fast as the reader takes them; ends when it goes away. */
async function print(pieces: AsyncIterable<LogPiece>): Promise<void> {
  let open = true;
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', () => {
      open = false;
    });
  }
  let batch: Buffer[] = [];
  let size = 0;
  let target: LogPiece['stream'] = 'stdout';
  const flush = async (): Promise<void> => {
    if (size === 0) return;
    const bytes = Buffer.concat(batch);
    batch = [];
    size = 0;
    await new Promise<void>((resolve) => process[target].write(bytes, () => resolve()));
  };
  const iterator = pieces[Symbol.asyncIterator]();
  let pending = iterator.next();
  while (open) {
    // With nothing at hand, what was collected goes out: `logs -f` waits for the next line then.
    const step = await Promise.race([pending, soon()]);
    if (step === undefined) await flush();
    const { done, value } = step ?? (await pending);
    if (done === true) break;
    pending = iterator.next();
    if (value.stream !== target) await flush();
    target = value.stream;
    batch.push(value.bytes);
    size += value.bytes.length;
    if (size >= batchSize) await flush();
  }
  if (open) await flush();
  else await iterator.return?.();
}

/** Resolves with nothing after everything that is ready has had its turn. */
function soon(): Promise<undefined> {
  return new Promise((resolve) => setImmediate(resolve));
}
