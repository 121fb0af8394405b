import fs from 'node:fs';
import path from 'node:path';
import { bootId, isAlive, selfRef } from '../host/process.ts';
import { removeTree } from '../host/remove-tree.ts';
import { peekFile } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { kinds } from '../state/migrations.ts';
import { ensureStateRoot, paths } from '../state/paths.ts';
import { listOf, object, oneOf, text } from '../state/shape.ts';

let serial = 0;

const pinsFile = 'pins.json';

/** Layers that a running process needs, though no image names them yet. */
interface Pins {
  schema: 2;
  layers: string[];
}

const pinsShape = object<Pins>({ schema: oneOf(2), layers: listOf(text, { partly: true }) });

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

  /**
   * Keeps layers from being swept, though no image names them yet, for as long as this directory and process live.
   * Under the lock: a sweep that is at it must not have looked already.
   */
  pin(diffIds: readonly string[]): void {
    writeJson(this.file(pinsFile), { schema: 2, layers: [...diffIds] } satisfies Pins, { durable: false });
  }

  remove(): void {
    remove(this.directory);
  }
}

/** Deletes a directory of which another process may be deleting parts, too. */
function remove(directory: string): void {
  try {
    removeTree(directory);
  } catch {
    // The next sweep goes on: the name stays that of a dead process.
  }
}

/** Staging directories, with whether the process is alive that made each. */
export function stagings(): { directory: string; alive: boolean }[] {
  return fs.readdirSync(paths.images()).flatMap((entry) => {
    const match = /^\.staging-(\d+)-(\d+)-([0-9a-f]+)-\d+$/.exec(entry);
    if (match === null) return [];
    const [, pid, start, boot] = match;
    const alive = boot === bootId().slice(0, 8) && isAlive({ pid: Number(pid), start: Number(start) });
    return { directory: path.join(paths.images(), entry), alive };
  });
}

/** The layers that running processes have pinned. */
export function pinned(): string[] {
  return stagings().flatMap(({ directory, alive }) =>
    alive ? (peekFile(kinds.pins, pinsShape, path.join(directory, pinsFile))?.layers ?? []) : [],
  );
}

/** Deletes the staging directories of processes that are gone. */
export function sweepStaging(): void {
  for (const { directory, alive } of stagings()) if (!alive) remove(directory);
}
