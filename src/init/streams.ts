import fs from 'node:fs';
import type { Ready, Stdio } from '../container/protocol.ts';
import type { Streams } from './become.ts';
import { openTerminal, pipe, setWindowSize } from './libc.ts';

/**
 * Makes the standard streams that `stdio` asks for. Pipes and not sockets, so that the container can open
 * /dev/stdout; a terminal of the container's own devpts, so that no terminal of the host gets in (CVE-2017-5226).
 *
 * @param devpts the container's /dev/pts as this process sees it
 */
export function makeStreams(
  stdio: Stdio,
  devpts: string,
  size?: { height: number; width: number },
): { streams: Streams; fds: Omit<Ready['fds'], 'status'> } {
  if (stdio === 'pty') {
    const { master, slave, number } = openTerminal(`${devpts}/ptmx`);
    if (size !== undefined) setWindowSize(master, size.height, size.width);
    return { streams: { stdin: slave, stdout: slave, stderr: slave, terminal: number }, fds: { terminal: master } };
  }
  const fds: Omit<Ready['fds'], 'status'> = {};
  const input = (): number => {
    if (stdio.stdin === 'null') return fs.openSync('/dev/null', 'r');
    if (typeof stdio.stdin === 'number') return stdio.stdin;
    const { read, write } = pipe();
    fds.stdin = write;
    return read;
  };
  const output = (name: 'stdout' | 'stderr'): number => {
    const wanted = stdio[name];
    if (wanted === 'null') return fs.openSync('/dev/null', 'w');
    if (typeof wanted === 'number') return wanted;
    const { read, write } = pipe();
    fds[name] = read;
    return write;
  };
  return { streams: { stdin: input(), stdout: output('stdout'), stderr: output('stderr') }, fds };
}

/** Closes init's copies of the ends that minirun has opened by now: an end kept here would never end the stream. */
export function closeHandedOver(fds: Partial<Ready['fds']>): void {
  for (const fd of Object.values(fds)) fs.closeSync(fd);
}
