import fs from 'node:fs';
import type { Overlay } from '../container/protocol.ts';
import { InitError } from './failure.ts';
import { MS, mount, type SyscallError, unmountLazily } from './libc.ts';
import { inUserNamespace } from './userns.ts';

/** mount(2) takes one page of options, with the zero at its end. Pages are larger on some machines, but never smaller. */
const mostOptions = 4095;
/** OVL_MAX_STACK of the kernel's fs/overlayfs/params.h. */
const mostLower = 500;

/** Mounts an overlay on a directory. */
export function mountOverlay(target: string, overlay: Overlay, flags = 0): void {
  if (overlay.lower.length > mostLower) {
    throw new InitError(
      'cannot mount the root filesystem',
      `overlayfs takes ${mostLower} directories, and there are ${overlay.lower.length}`,
      'Use an image of fewer layers',
    );
  }
  const options = optionsOf(overlay);
  try {
    if (Buffer.byteLength(options) <= mostOptions) mount('overlay', target, 'overlay', MS.NODEV | flags, options);
    else mountByShortNames(target, overlay, flags);
  } catch (error) {
    if (!inUserNamespace || (error as SyscallError).code !== 'EPERM') throw error;
    throw new InitError(
      'cannot mount the root filesystem',
      'this kernel has no overlay in user namespaces (it takes Linux 5.11)',
      'Boot a newer one, or run minirun as root',
    );
  }
}

/**
 * Mounts an overlay of so many directories that their names do not fit: they get short ones, in a tmpfs that exists only
 * as this process's working directory. overlayfs looks names up once, when it is mounted.
 */
function mountByShortNames(target: string, { lower, upper, work }: Overlay, flags: number): void {
  mount('layers', target, 'tmpfs', MS.NOSUID | MS.NODEV | MS.NOEXEC, 'mode=0700');
  process.chdir(target);
  unmountLazily(target);
  try {
    const named = (name: string, directory: string) => {
      fs.symlinkSync(directory, name);
      return name;
    };
    const short: Overlay = { lower: lower.map((directory, index) => named(String(index), directory)) };
    if (upper !== undefined && work !== undefined) {
      short.upper = named('upper', upper);
      short.work = named('work', work);
    }
    mount('overlay', target, 'overlay', MS.NODEV | flags, optionsOf(short));
  } finally {
    // Nobody else has that tmpfs: with this it is gone.
    process.chdir('/');
  }
}

function optionsOf({ lower, upper, work }: Overlay): string {
  const options = [`lowerdir=${lower.map(escaped).join(':')}`];
  if (upper !== undefined && work !== undefined) options.push(`upperdir=${escaped(upper)}`, `workdir=${escaped(work)}`);
  // In a user namespace overlayfs keeps its notes where no privilege is needed: Documentation/filesystems/overlayfs.rst.
  if (inUserNamespace) options.push('userxattr');
  return options.join(',');
}

/** overlayfs ends a directory at a colon or a comma unless it is escaped. */
function escaped(directory: string): string {
  return directory.replace(/[\\:,]/g, (character) => `\\${character}`);
}
