import fs from 'node:fs';
import path from 'node:path';
import type { Readable } from 'node:stream';
import type { Command } from 'commander';
import { isDiskFull, messageOf, MinirunError } from '../errors.ts';
import { stdoutStream } from './output/stdout.ts';

/** `minirun export [-o FILE] CONTAINER` */
export function registerExport(program: Command): void {
  program
    .command('export')
    .summary('Write the file system of a container as a tar archive')
    .description(
      'Write the whole file system of a container, running or not, as a tar archive; without what is in volumes',
    )
    .argument('<container>', 'name, id or beginning of an id')
    .option('-o, --output <file>', 'write to a file (default: standard output)')
    .action(async (container: string, { output }: { output?: string }) => {
      if (output === undefined && stdoutStream().isTTY) {
        throw new MinirunError(
          'refusing to write a tar archive at a terminal',
          undefined,
          `Give a file with -o, or for example: minirun export ${container} | tar t`,
        );
      }
      const { reconcileFirst } = await import('./each.ts');
      await reconcileFirst();
      const { Readable: Stream } = await import('node:stream');
      const { exportContainer } = await import('../container/export.ts');
      const archive = Stream.from(exportContainer(container), { objectMode: false });
      if (output === undefined) await toStandardOutput(archive);
      else await toFile(archive, output);
      const { recordContainer } = await import('../container/events.ts');
      const { requireContainer } = await import('../container/store.ts');
      recordContainer(requireContainer(container).definition, 'export');
    });
}

async function toStandardOutput(archive: Readable): Promise<void> {
  const { pipeline } = await import('node:stream/promises');
  try {
    await pipeline(archive, stdoutStream(), { end: false });
  } catch (error) {
    // Whoever reads it has had enough (`| head`).
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  }
}

/** Puts the archive in its place when it is whole; what is there before stays until then. */
async function toFile(archive: Readable, output: string): Promise<void> {
  const { interruptible } = await import('../image/interrupt.ts');
  const { pipeline } = await import('node:stream/promises');
  const there = fs.statSync(output, { throwIfNoEntry: false });
  if (there?.isDirectory()) throw new MinirunError(`cannot write ${output}`, 'it is a directory', 'Name a file in it');
  // A pipe or a device is written to, and not replaced.
  const isInPlace = there !== undefined && !there.isFile();
  const part = isInPlace ? output : path.join(path.dirname(output), `.${path.basename(output)}.${process.pid}.part`);
  let sink: fs.WriteStream;
  try {
    sink = fs.createWriteStream(part, { fd: fs.openSync(part, isInPlace ? 'w' : 'wx', 0o600) });
  } catch (error) {
    archive.destroy();
    throw new MinirunError(`cannot write ${output}`, messageOf(error));
  }
  try {
    await interruptible(async (signal) => pipeline(archive, sink, { signal }));
    if (!isInPlace) fs.renameSync(part, output);
  } catch (error) {
    if (!isInPlace) fs.rmSync(part, { force: true });
    if (isDiskFull(error)) throw new MinirunError(`cannot write ${output}`, 'no space left on its disk', 'Free some');
    throw error;
  }
}
