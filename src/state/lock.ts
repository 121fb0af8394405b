import fs from 'node:fs';
import path from 'node:path';
import { lock } from 'proper-lockfile';
import { isDiskFull, MinirunError } from '../errors.ts';
import { killPoint } from '../host/fault.ts';
import { bootId, isAlive, type ProcessRef, selfRef } from '../host/process.ts';
import { randomHex } from '../host/random.ts';
import { Damage, examine } from './files.ts';
import type { Kind } from './migrations.ts';
import { stateRoot } from './paths.ts';
import { count, object, text, textLike } from './shape.ts';
import { makeRoom } from './reserve.ts';

/**
 * Milliseconds after which the library takes a lock away from its holder, alive or not: practically never. A holder
 * that is slow (a stalled disk, SIGSTOP) keeps it, and one that is dead is known by its name.
 */
const staleAfter = 86_400_000;

/** Who holds the lock: a process, and which time it has taken it. Read by older and newer minirun alike. */
interface Holder extends ProcessRef {
  boot: string;
  turn: string;
}

const holderShape = object<Holder>({ pid: count, start: count, boot: text, turn: textLike(/^[\w-]{1,80}$/) });

/** Milliseconds after which a lock that does not say whose it is counts as nobody's; it is held for one. */
const nobodysAfter = 300;

/**
 * Runs `critical` while no other minirun process of this state directory is in a critical section.
 *
 * For milliseconds only: never across a spawn, a download or an unpack. Longer work is claimed in the state itself
 * (see `network/store.ts`, `container/store.ts`) with the reference of the process that does it.
 *
 * A lock whose holder was killed is taken over at once: it names its holder by pid and start time.
 */
export async function withLock<T>(critical: () => T): Promise<T> {
  const file = path.join(stateRoot(), 'state');
  const release = await acquire(file);
  try {
    killPoint('lock.taken');
    const value = critical();
    killPoint('lock.done');
    return value;
  } finally {
    await release();
  }
}

/**
 * Waits until every critical section has ended that has begun before. What this process has written before is seen by
 * all that begin later. Costs one look where nobody is in one.
 */
export async function settled(): Promise<void> {
  if (fs.existsSync(path.join(stateRoot(), 'state.lock'))) await withLock(() => {});
}

async function acquire(file: string): Promise<() => Promise<void>> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    try {
      return await lock(file, {
        realpath: false,
        stale: staleAfter,
        retries: { retries: 12, minTimeout: 2, maxTimeout: 20, factor: 1.3, randomize: true },
        fs: namedLocks,
      });
    } catch (error) {
      if (makeRoom(error)) continue;
      if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') throw error;
      if (Date.now() > deadline) {
        throw new MinirunError(
          'cannot lock the state directory',
          `another minirun process has held ${file}.lock for 30 seconds`,
          'Look for a stopped minirun process and end it',
        );
      }
      removeDeadLock();
    }
  }
}

type Callback = (error: NodeJS.ErrnoException | null) => void;

/**
 * The file system as proper-lockfile sees it. A lock is born with its holder's name inside and vanishes as a whole, by
 * one rename each: a process that is killed at any moment leaves either no lock or one that names it.
 */
const namedLocks = {
  ...fs,
  mkdir(directory: string, done: Callback): void {
    // One look, where making a lock that cannot be had would be five changes to the disk for each attempt.
    if (fs.existsSync(path.join(directory, 'holder'))) return done(locked());
    const own = `${directory}.${unique()}`;
    try {
      fs.mkdirSync(own, { mode: 0o700 });
      const holder: Holder = { ...selfRef(), boot: bootId(), turn: unique() };
      fs.writeFileSync(path.join(own, 'holder'), JSON.stringify(holder), { mode: 0o600 });
    } catch (error) {
      // A full disk is not to be filled further.
      fs.rmSync(own, { recursive: true, force: true });
      done(error as NodeJS.ErrnoException);
      return;
    }
    try {
      // Onto a directory that is not empty this fails: somebody has the lock.
      fs.renameSync(own, directory);
    } catch (error) {
      fs.rmSync(own, { recursive: true, force: true });
      const { code } = error as NodeJS.ErrnoException;
      done(code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'ENOTDIR' ? locked() : (error as Error));
      return;
    }
    done(null);
  },
  rmdir(directory: string, done: Callback): void {
    try {
      removeLock(directory);
      done(null);
    } catch (error) {
      done(error as NodeJS.ErrnoException);
    }
  },
  rmdirSync: removeLock,
};

/** What proper-lockfile takes for a lock that somebody has. */
function locked(): NodeJS.ErrnoException {
  return Object.assign(new Error('locked'), { code: 'EEXIST' });
}

let serial = 0;

/** A name no other process and no earlier call has used; it tells whose it is. */
function unique(): string {
  const { pid, start } = selfRef();
  return `${pid}-${start}-${serial++}-${randomHex(3)}`;
}

function removeLock(directory: string): void {
  const gone = `${directory}.${unique()}`;
  try {
    fs.renameSync(directory, gone);
  } catch (error) {
    if (!isDiskFull(error)) throw error;
    // Not even a new name has room. Where it is, then: what is left of it in between is empty, and that is no lock.
    fs.rmSync(directory, { recursive: true, force: true });
    return;
  }
  fs.rmSync(gone, { recursive: true, force: true });
}

/**
 * Frees a lock whose holder was killed, at once. Whoever makes the mark named after that holder's turn may do it, and
 * looks again first: a lock that somebody else has taken meanwhile stays.
 */
function removeDeadLock(): void {
  const directory = path.join(stateRoot(), 'state.lock');
  const holder = holderOf(directory);
  if (holder === 'nobody') return removeNobodysLock(directory);
  if (holder === undefined || (holder.boot === bootId() && isAlive(holder))) return;
  const mark = `${directory}.free-${holder.turn}`;
  try {
    fs.mkdirSync(mark, { mode: 0o700 });
  } catch {
    return;
  }
  try {
    const now = holderOf(directory);
    if (now !== 'nobody' && now?.turn === holder.turn) removeLock(directory);
  } finally {
    fs.rmSync(mark, { recursive: true, force: true });
  }
}

/** What was seen of a lock without a holder, and when. */
let nobodys: { identity: string; since: number } | undefined;

/**
 * Frees what lies in the place of a lock and does not say whose it is: no minirun has put it there so. Not before it has
 * been the same for a while.
 */
function removeNobodysLock(directory: string): void {
  const stat = fs.lstatSync(directory, { throwIfNoEntry: false });
  if (stat === undefined) return;
  const identity = `${stat.ino}:${stat.mtimeMs}:${stat.ctimeMs}`;
  if (nobodys?.identity !== identity) nobodys = { identity, since: Date.now() };
  if (Date.now() - nobodys.since < nobodysAfter) return;
  removeLock(directory);
}

/** Whether the lock is held by a process that is dead. */
export function isDeadLock(): boolean {
  const holder = holderOf(path.join(stateRoot(), 'state.lock'));
  return holder !== undefined && holder !== 'nobody' && !(holder.boot === bootId() && isAlive(holder));
}

/** Who holds the lock; undefined when it is free, `nobody` when it does not say. */
function holderOf(directory: string): Holder | 'nobody' | undefined {
  const file = path.join(directory, 'holder');
  const found = examine(unmarked, holderShape, file);
  if (found !== undefined && !(found instanceof Damage)) return found;
  return fs.lstatSync(directory, { throwIfNoEntry: false }) === undefined ? undefined : 'nobody';
}

/** A holder says nothing of its schema: minirun of every age has to know who it is. */
const unmarked: Kind = { name: 'lock', schema: 1, migrations: [], isUnmarked: true };

/** Removes what killed processes have left of their locks. Cheap when there is nothing: the caller lists the directory. */
export function sweepLocks(entries: readonly string[]): void {
  if (entries.includes('state.lock')) removeDeadLock();
  for (const entry of entries) {
    const [, pid, start] = /^state\.lock\.(?:free-)?(\d+)-(\d+)-/.exec(entry) ?? [];
    // A mark carries the dead holder's name, not its maker's: it is in the way of nobody once that lock is gone.
    if (pid === undefined || isAlive({ pid: Number(pid), start: Number(start) })) continue;
    if (entry.includes('.free-') && entries.includes('state.lock')) continue;
    fs.rmSync(path.join(stateRoot(), entry), { recursive: true, force: true });
  }
}
