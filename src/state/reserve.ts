import fs from 'node:fs';
import path from 'node:path';
import { isDiskFull } from '../errors.ts';
import { randomBytes } from '../host/random.ts';
import { stateRoot } from './paths.ts';

/**
 * A file that is there to be deleted. On a full disk nobody can stop or remove a container, which is what would make room:
 * that, too, has to be written down. So some room is kept for what takes things away, and taken again when there is enough.
 */
const reserveFile = () => path.join(stateRoot(), 'reserve');

/** Enough for the lock and the few small files of a tear-down, on a file system with blocks of 4 KiB and its own needs. */
const size = 256 * 1024;

/** Below this many free bytes it is not made again: whoever is filling the disk would only be done sooner. */
const plenty = 64 * size;

let allowed = false;

/** From now on this process may use the reserve: it is taking something away. */
export function drawOnReserve(): void {
  allowed = true;
}

/** Gives the reserve up when this is what has failed for lack of room. @returns whether it is worth another try */
export function makeRoom(error: unknown): boolean {
  if (!allowed || !isDiskFull(error)) return false;
  try {
    fs.unlinkSync(reserveFile());
    return true;
  } catch {
    // It is used up.
    return false;
  }
}

/** Puts room aside, unless there is little. One look where it has been done. */
export function keepReserve(): void {
  const file = reserveFile();
  if (fs.existsSync(file)) return;
  const { bavail, bsize } = fs.statfsSync(stateRoot());
  if (bavail * bsize < plenty) return;
  const part = `${file}.${process.pid}`;
  try {
    // Random: a file system may store zeros without taking room for them.
    fs.writeFileSync(part, randomBytes(size), { mode: 0o600 });
    fs.renameSync(part, file);
  } catch {
    fs.rmSync(part, { force: true });
  }
}
