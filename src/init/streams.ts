import fs from 'node:fs';
import type { Ready, Stdio } from '../container/protocol.ts';
import type { Streams } from './become.ts';
import { InitError } from './failure.ts';
import { nullDevice, O_PATH, openTerminal, pipe, setWindowSize } from './libc.ts';

/**
 * Makes the standard streams that `stdio` asks for. Pipes and not sockets, so that the container can open
 * /dev/stdout; a terminal of the container's own devpts, so that no terminal of the host gets in (CVE-2017-5226).
 *
 * @param dev the container's /dev and /dev/pts as this process sees them
 */
export function makeStreams(
  stdio: Stdio,
  [dev, devpts]: readonly [string, string],
  size?: { height: number; width: number },
): { streams: Streams; fds: Omit<Ready['fds'], 'status'> } {
  if (stdio === 'pty') {
    const { master, slave, number } = openTerminal(`${devpts}/ptmx`);
    if (size !== undefined) setWindowSize(master, size.height, size.width);
    return { streams: { stdin: slave, stdout: slave, stderr: slave, terminal: number }, fds: { terminal: master } };
  }
  const fds: Omit<Ready['fds'], 'status'> = {};
  const input = (): number => {
    if (stdio.stdin === 'null') return openNull(dev, fs.constants.O_RDONLY);
    if (typeof stdio.stdin === 'number') return stdio.stdin;
    const { read, write } = pipe();
    fds.stdin = write;
    return read;
  };
  const output = (name: 'stdout' | 'stderr'): number => {
    const wanted = stdio[name];
    if (wanted === 'null') return openNull(dev, fs.constants.O_WRONLY);
    if (typeof wanted === 'number') return wanted;
    const { read, write } = pipe();
    fds[name] = read;
    return write;
  };
  return { streams: { stdin: input(), stdout: output('stdout'), stderr: output('stderr') }, fds };
}

/**
 * The container's own null device. Never the host's: by its descriptor, `chmod 0 /dev/stdin` in the container would change
 * the host's /dev/null. And never what a hostile container has put in its place: a FIFO would make this process wait.
 */
function openNull(dev: string, access: number): number {
  let found: number;
  try {
    found = fs.openSync(`${dev}/null`, O_PATH | fs.constants.O_NOFOLLOW);
  } catch {
    throw new InitError('cannot set up the standard streams', 'the container has no /dev/null');
  }
  try {
    if (!isNull(fs.fstatSync(found)))
      throw new InitError('cannot set up the standard streams', "the container's /dev/null is not the null device");
    return fs.openSync(`/proc/self/fd/${found}`, access);
  } finally {
    fs.closeSync(found);
  }
}

function isNull(stat: fs.Stats): boolean {
  return stat.isCharacterDevice() && stat.rdev === nullDevice;
}

/** Closes init's copies of the ends that minirun has opened by now: an end kept here would never end the stream. */
export function closeHandedOver(fds: Partial<Ready['fds']>): void {
  for (const fd of Object.values(fds)) fs.closeSync(fd);
}
