import fs from 'node:fs';

/**
 * A full disk for the tests: what this process writes fails with ENOSPC from the Nth time on. A call that fails has done half
 * of it, as the kernel does: a file that was to get content is there and cut short.
 *
 * The functions of `node:fs` themselves are replaced, for whoever calls them as `fs.…`; that is all of this program but its
 * streams. So nothing that writes can be forgotten, and nothing has to be done where it does.
 *
 * @param first number of the first call that fails, from 1
 * @param times how many fail
 */
export function fillDisk(first: number, times: number): void {
  const whole = { ...fs };
  let calls = 0;
  const full = (what: string, target: string): boolean => {
    if (!isOnDisk(target)) return false;
    calls++;
    if (calls < first || calls >= first + times) return false;
    whole.writeSync(2, `minirun: disk full at ${what} ${target}\n`);
    return true;
  };
  const failure = (syscall: string, target: string): Error =>
    Object.assign(new Error(`ENOSPC: no space left on device, ${syscall} '${target}'`), {
      code: 'ENOSPC',
      errno: -28,
      syscall,
      path: target,
    });
  const replace = <K extends 'mkdirSync' | 'mkdtempSync' | 'openSync'>(
    name: K,
    makes: (...args: never[]) => boolean,
  ) => {
    const original = whole[name] as (...args: unknown[]) => unknown;
    Object.assign(fs, {
      [name]: (...args: unknown[]) => {
        const target = String(args[0]);
        if (makes(...(args as never[])) && full(name, target)) throw failure(name.replace('Sync', ''), target);
        return original(...args);
      },
    });
  };
  replace('mkdirSync', (directory: string) => !whole.existsSync(directory));
  replace('mkdtempSync', () => true);
  replace('openSync', (file: string, flags?: string | number) => creates(flags) && !whole.existsSync(file));
  // Of these it is the second path that gets an entry.
  for (const name of ['renameSync', 'symlinkSync', 'linkSync', 'copyFileSync'] as const) {
    const original = whole[name] as (...args: unknown[]) => void;
    Object.assign(fs, {
      [name]: (...args: unknown[]) => {
        if (full(name, String(args[1]))) throw failure(name.replace('Sync', ''), String(args[1]));
        original(...args);
      },
    });
  }
  for (const name of ['writeFileSync', 'appendFileSync', 'writeSync'] as const) {
    const original = whole[name] as (...args: unknown[]) => unknown;
    Object.assign(fs, {
      [name]: (file: unknown, content: unknown, ...rest: unknown[]) => {
        const target = typeof file === 'number' ? fileOf(file) : String(file);
        const length = (content as { length?: number }).length ?? 0;
        // An empty file needs a name, but nothing is written.
        if (length > 0 || typeof file !== 'number') {
          if (full(name, target)) {
            const half = (content as { slice(from: number, to: number): unknown }).slice(0, length >> 1);
            original(file, half, ...(name === 'writeSync' ? [] : rest));
            throw failure('write', target);
          }
        }
        return original(file, content, ...rest);
      },
    });
  }
}

function creates(flags: string | number = 'r'): boolean {
  return typeof flags === 'string' ? /[wa]/.test(flags) : (flags & fs.constants.O_CREAT) !== 0;
}

function fileOf(fd: number): string {
  try {
    return fs.readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}

/** What the kernel keeps in memory is never full; neither are pipes, sockets and terminals. */
function isOnDisk(target: string): boolean {
  return target.startsWith('/') && !/^\/(proc|sys|dev)\//.test(target);
}
