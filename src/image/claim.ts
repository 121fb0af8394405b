import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { bootId, isAlive, type ProcessRef, selfRef } from '../host/process.ts';
import { Damage, examine } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { kinds } from '../state/migrations.ts';
import { removeTree } from '../host/remove-tree.ts';
import { paths } from '../state/paths.ts';
import { count, object, oneOf, text } from '../state/shape.ts';
import { hexOf } from './digest.ts';
import { locked } from './index-file.ts';
import type { Staging } from './staging.ts';

interface Claimant extends ProcessRef {
  schema: 1;
  boot: string;
}

const claimShape = object<Claimant>({ schema: oneOf(1), boot: text, pid: count, start: count });

/** Milliseconds between two looks at whether somebody else has finished. */
const interval = 20;

/**
 * Does a piece of work that several processes may want at once, and only one is to do: the others wait for it. When
 * the one fails or dies, another takes over.
 *
 * @param digest what the work is about
 * @param isDone whether it needs not be done (any more)
 * @param onWait called once when somebody else is at it
 * @returns the work's value, or undefined when it was done already
 */
export async function claimed<T>(
  digest: string,
  {
    staging,
    isDone,
    onWait,
    signal,
  }: { staging: Staging; isDone: () => boolean; onWait?: () => void; signal?: AbortSignal },
  work: () => Promise<T>,
): Promise<T | undefined> {
  const file = path.join(paths.images(), `.claim-${hexOf(digest)}`);
  let waits = false;
  for (;;) {
    if (isDone()) return undefined;
    if (take(file, staging)) break;
    if (!waits) onWait?.();
    waits = true;
    await untilGone(file, signal);
  }
  try {
    // The one before may have finished between the two looks.
    return isDone() ? undefined : await work();
  } finally {
    fs.rmSync(file, { force: true });
  }
}

/** Looks at the claim alone, often: the index may be large. A claim of a process that is dead is removed. */
async function untilGone(file: string, signal?: AbortSignal): Promise<void> {
  for (let claimant = readClaim(file); claimant !== undefined; claimant = readClaim(file)) {
    if (!isAliveNow(claimant)) await free(file);
    else await delay(interval, undefined, { signal });
  }
}

/** link(2) makes a file with its content at once, and only one of several. */
function take(file: string, staging: Staging): boolean {
  const own = staging.file('claim');
  if (!fs.existsSync(own)) {
    const claimant: Claimant = { schema: 1, ...selfRef(), boot: bootId() };
    // Whole or not at all, on a full disk, too: an empty claim would be nobody's.
    writeJson(own, claimant, { durable: false });
  }
  try {
    fs.linkSync(own, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return false;
  }
}

/** Undefined when there is no claim. One that a power cut has left without its content is that of a dead process. */
function readClaim(file: string): Claimant | undefined {
  const found = examine(kinds.claim, claimShape, file);
  return found instanceof Damage ? { schema: 1, pid: 0, start: 0, boot: '' } : found;
}

const isAliveNow = (claimant: Claimant): boolean => claimant.boot === bootId() && isAlive(claimant);

/** Takes a claim from a process that is dead: one waiter does it, and looks again first. */
async function free(file: string): Promise<void> {
  await locked(() => {
    const claimant = readClaim(file);
    if (claimant !== undefined && !isAliveNow(claimant)) removeTree(file);
  });
}

/** The claims of processes that are gone. */
export function deadClaims(): string[] {
  return fs.readdirSync(paths.images()).flatMap((entry) => {
    const file = path.join(paths.images(), entry);
    const claimant = entry.startsWith('.claim-') ? readClaim(file) : undefined;
    return claimant === undefined || isAliveNow(claimant) ? [] : [file];
  });
}

/** Removes the claims of processes that are gone; under the lock. */
export function sweepClaims(): void {
  for (const file of deadClaims()) removeTree(file);
}
