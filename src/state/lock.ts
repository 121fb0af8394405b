import fs from 'node:fs';
import path from 'node:path';
import { lock } from 'proper-lockfile';
import { MinirunError } from '../errors.ts';
import { isAlive, type ProcessRef, selfRef } from '../host/process.ts';
import { stateRoot } from './paths.ts';

/** Milliseconds after which a lock that names no owner counts as left behind. The library's least value. */
const staleAfter = 2000;

/**
 * Runs `critical` while no other minirun process of this state directory is in a critical section.
 *
 * For milliseconds only: never across a spawn, a download or an unpack. Longer work is claimed in the state itself
 * (see `network/store.ts`, `container/store.ts`) with the reference of the process that does it.
 *
 * A lock whose owner was killed is taken over at once: its owner is written beside it, by pid and start time.
 */
export async function withLock<T>(critical: () => T): Promise<T> {
  const file = path.join(stateRoot(), 'state');
  const owner = `${file}.owner`;
  const release = await acquire(file, owner);
  try {
    fs.writeFileSync(owner, JSON.stringify(selfRef()), { mode: 0o600 });
    return critical();
  } finally {
    // The owner goes first: an owner file always belongs to the lock that is held now.
    fs.rmSync(owner, { force: true });
    await release();
  }
}

async function acquire(file: string, owner: string): Promise<() => Promise<void>> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    try {
      return await lock(file, {
        realpath: false,
        stale: staleAfter,
        retries: { retries: 12, minTimeout: 2, maxTimeout: 20, factor: 1.3, randomize: true },
      });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') throw error;
      if (Date.now() > deadline) {
        throw new MinirunError(
          'cannot lock the state directory',
          `another minirun process has held ${file}.lock for 30 seconds`,
          'Look for a stopped minirun process and end it',
        );
      }
      await takeOverFromDead(file, owner);
    }
  }
}

/** Frees a lock whose owner is provably gone. A second lock makes sure that only one process does it. */
async function takeOverFromDead(file: string, owner: string): Promise<void> {
  if (ownerIsAlive(owner)) return;
  let done: () => Promise<void>;
  try {
    done = await lock(`${file}.takeover`, { realpath: false, stale: staleAfter });
  } catch {
    return;
  }
  try {
    if (ownerIsAlive(owner)) return;
    fs.rmSync(owner, { force: true });
    fs.rmSync(`${file}.lock`, { recursive: true, force: true });
  } finally {
    await done();
  }
}

/** False only when the owner is known and dead: without an owner file the lock is just being taken or given back. */
function ownerIsAlive(owner: string): boolean {
  try {
    return isAlive(JSON.parse(fs.readFileSync(owner, 'utf8')) as ProcessRef);
  } catch {
    return true;
  }
}
