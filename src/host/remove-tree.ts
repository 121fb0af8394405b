import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { toolPath } from './exec.ts';

/** Levels of directories that are removed without a tool: as many as a container's folder has when it wrote little. */
const shallow = 3;

/**
 * Deletes a directory tree, or a single file, mounted file systems below it excepted. What is gone already is no error, and overlayfs's work
 * directory with its mode 0 is none either.
 *
 * rm(1) does it where the tree is deep: it changes directories on its way, and so does not mind names that are longer than
 * the kernel takes at once. Bun's own removal needs minutes for some thousand levels, which any container can make.
 */
export function removeTree(directory: string): void {
  if (fs.lstatSync(directory, { throwIfNoEntry: false })?.isDirectory() === false) {
    fs.rmSync(directory, { force: true });
    return;
  }
  if (!isShallow(directory, shallow)) {
    const { status } = spawnSync('rm', ['-rf', '--one-file-system', '--', directory], {
      stdio: 'ignore',
      env: { PATH: toolPath, LC_ALL: 'C' },
      cwd: '/',
    });
    if (status === 0) return;
  }
  for (let tries = 1; ; tries++) {
    try {
      fs.rmSync(directory, { recursive: true, force: true });
      return;
    } catch (error) {
      // Another process deletes it too, or a logger that is just ending still writes.
      const { code } = error as NodeJS.ErrnoException;
      if (tries >= 20 || (code !== 'ENOENT' && code !== 'ENOTEMPTY')) throw error;
      // An init that is told to end while it mounts is not gone at once.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, tries);
    }
  }
}

function isShallow(directory: string, levels: number): boolean {
  try {
    return fs
      .readdirSync(directory, { withFileTypes: true })
      .every(
        (entry) => !entry.isDirectory() || (levels > 0 && isShallow(path.join(directory, entry.name), levels - 1)),
      );
  } catch {
    // Not there, or by a name that is no UTF-8.
    return !fs.existsSync(directory);
  }
}
