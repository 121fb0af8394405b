import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import { printable } from './output/printable.ts';
import { stdoutStream } from './output/stdout.ts';

/** `minirun cp [OPTIONS] CONTAINER:PATH PATH|-` and the other way round */
export function registerCp(program: Command): void {
  program
    .command('cp')
    .summary('copy files between a container and this machine')
    .description('Copy files and directories between a container, running or not, and this machine; - is a tar archive')
    .usage('[OPTIONS] CONTAINER:SOURCE DESTINATION|- or [OPTIONS] SOURCE|- CONTAINER:DESTINATION')
    .argument('<source>', 'what to copy; DIR/. for what is in a directory')
    .argument('<destination>', 'where to, by the rules of cp -r')
    .option('-a, --archive', 'keep the numbers of owners and groups')
    .option('-L, --follow-link', 'when the source is a symbolic link, copy what it points to')
    .option('-q, --quiet', 'say nothing')
    .action(
      async (
        source: string,
        destination: string,
        options: { archive?: boolean; followLink?: boolean; quiet?: boolean },
      ) => {
        const from = split(source);
        const to = split(destination);
        if ((from.container === undefined) === (to.container === undefined)) refuseSides(from.container !== undefined);
        const { reconcile } = await import('../container/reconcile.ts');
        await reconcile();
        const copy = await import('../container/copy.ts');
        const { recordCopy } = await import('../container/events.ts');
        const flags = { archive: options.archive === true, followLink: options.followLink === true };
        let bytes: number;
        if (from.container !== undefined) {
          if (destination === '-') {
            if (stdoutStream().isTTY) refuseTerminal('write', 'minirun cp web:/etc - | tar t');
            await copy.copyOutAsTar(from.container, from.path, stdoutStream(), flags);
            recordCopy(from.container, 'archive-path', from.path);
            return;
          }
          bytes = await copy.copyOut(from.container, from.path, to.path, flags);
          recordCopy(from.container, 'archive-path', from.path);
        } else if (source === '-') {
          if (process.stdin.isTTY) refuseTerminal('read', 'tar c FILES | minirun cp - web:/tmp');
          bytes = await copy.copyInFromTar(process.stdin, to.container as string, to.path);
        } else {
          bytes = await copy.copyIn(from.path, to.container as string, to.path, flags);
        }
        if (to.container !== undefined) recordCopy(to.container, 'extract-to-dir', to.path);
        if (options.quiet === true) return;
        const { humanSize } = await import('./output/units.ts');
        process.stderr.write(`Successfully copied ${humanSize(bytes, 3)} to ${printable(destination)}\n`);
      },
    );
}

/** `CONTAINER:PATH` or `PATH`, as docker tells them apart: a colon behind a `/` or a leading `.` names no container. */
function split(argument: string): { container?: string; path: string } {
  const colon = argument.indexOf(':');
  const container = argument.slice(0, Math.max(colon, 0));
  if (container === '' || container.startsWith('.') || container.includes('/')) return { path: argument };
  return { container, path: argument.slice(colon + 1) };
}

function refuseSides(both: boolean): never {
  throw new MinirunError(
    'cannot copy',
    both ? 'both sides are containers' : 'neither side is a container',
    both
      ? 'Copy to this machine first, or: minirun cp A:FILE - | minirun cp - B:DIRECTORY'
      : 'Name one as CONTAINER:PATH',
  );
}

function refuseTerminal(verb: 'read' | 'write', example: string): never {
  throw new MinirunError(`refusing to ${verb} a tar archive at a terminal`, undefined, `For example: ${example}`);
}
