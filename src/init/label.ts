import fs from 'node:fs';
import { InitError } from './failure.ts';

/** A profile of AppArmor that this process is to get by its next execve, and the file of the kernel's that takes the name. */
export interface Label {
  profile: string;
  fd: number;
}

/**
 * Opens the file before the root changes: in the container's root nothing vouches for /proc (CVE-2019-16884, CVE-2025-52881).
 * The kernel takes what is written to it from the process that opened it only.
 */
export function openLabel(profile: string | undefined): Label | undefined {
  if (profile === undefined) return undefined;
  for (const file of ['/proc/thread-self/attr/apparmor/exec', '/proc/thread-self/attr/exec']) {
    // The first has been there since Linux 5.8; the second belongs to whatever module of the kernel's comes first.
    if (fs.existsSync(file)) return { profile, fd: fs.openSync(file, 'w') };
  }
  throw new InitError(
    `cannot confine the container by AppArmor profile "${profile}"`,
    'the kernel has no file to ask for it',
    'Run it with --security-opt apparmor=unconfined',
  );
}

/** From the next execve on the profile confines this process. */
export function takeLabel({ profile, fd }: Label): void {
  try {
    fs.writeSync(fd, `exec ${profile}`);
  } catch (error) {
    throw new InitError(
      `cannot confine the container by AppArmor profile "${profile}"`,
      (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'it is not loaded (any more)' : (error as Error).message,
      'See aa-status for what is loaded',
    );
  }
  fs.closeSync(fd);
}
