import fs from 'node:fs';
import type { Go, Open } from '../container/protocol.ts';
import { receive, send } from './channel.ts';
import { failure, InitError } from './failure.ts';
import * as libc from './libc.ts';
import { mountOverlay } from './overlay.ts';

/**
 * Opens directories of an image, each path with the image's root as the root of every link in it (CVE-2024-45310), and
 * waits until minirun has copied what is in them.
 */
export function open({ root, overlay, directories }: Open): never {
  try {
    libc.prctl(libc.PR.SET_PDEATHSIG, 9);
    if (overlay !== undefined) mountOverlay(root, overlay, libc.MS.RDONLY);
    const top = fs.openSync(root, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    send({ type: 'opened', fds: directories.map((directory) => openDirectory(top, directory)) });
  } catch (error) {
    send(failure(error));
    process.exit(125);
  }
  // Its end, and nothing else, is what comes next.
  receive<Go>();
  process.exit(0);
}

function openDirectory(root: number, directory: string): number | null {
  try {
    return libc.openInRoot(root, directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  } catch (error) {
    const { code, reason } = error as libc.SyscallError;
    if (code === 'ENOENT') return null;
    throw new InitError(
      `cannot make a volume at ${directory}`,
      code === 'ENOTDIR' ? 'the image has a file there' : reason,
      'Choose another place',
    );
  }
}
