import fs from 'node:fs';
import path from 'node:path';
import { bootId, isAlive, selfRef } from '../host/process.ts';
import { ensureStateRoot, paths } from '../state/paths.ts';

let serial = 0;

/**
 * A directory in which something is made that is then renamed into the store, or was taken out of it to be deleted. Its
 * name says who does it: what a killed process leaves behind is known by that.
 */
export class Staging {
  readonly directory: string;

  constructor() {
    ensureStateRoot();
    const { pid, start } = selfRef();
    this.directory = path.join(paths.images(), `.staging-${pid}-${start}-${bootId().slice(0, 8)}-${serial++}`);
    fs.mkdirSync(this.directory, { mode: 0o700 });
  }

  /** A path in it. */
  file(name: string): string {
    return path.join(this.directory, name);
  }

  /** A new directory in it, as the root directory of a layer is to be. */
  newLayer(name = 'layer'): string {
    const directory = this.file(name);
    fs.mkdirSync(directory, { mode: 0o755 });
    // mkdir(2) heeds the umask.
    fs.chmodSync(directory, 0o755);
    return directory;
  }

  remove(): void {
    removeTree(this.directory);
  }
}

/** Deletes a directory of which another process may be deleting parts, too. */
function removeTree(directory: string): void {
  try {
    fs.rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
  } catch {
    // The next sweep goes on: the name stays that of a dead process.
  }
}

/** Deletes the staging directories of processes that are gone. */
export function sweepStaging(): void {
  for (const entry of fs.readdirSync(paths.images())) {
    const match = /^\.staging-(\d+)-(\d+)-([0-9a-f]+)-\d+$/.exec(entry);
    if (match === null) continue;
    const [, pid, start, boot] = match;
    if (boot === bootId().slice(0, 8) && isAlive({ pid: Number(pid), start: Number(start) })) continue;
    removeTree(path.join(paths.images(), entry));
  }
}
