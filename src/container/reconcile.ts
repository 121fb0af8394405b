import fs from 'node:fs';
import path from 'node:path';
import { messageOf } from '../errors.ts';
import { removeTree } from '../host/executor.ts';
import { isAlive } from '../host/process.ts';
import { claimAbandoned, tearDown } from '../network/lifecycle.ts';
import { paths } from '../state/paths.ts';

import type { Definition } from './definition.ts';
import { finish } from './finish.ts';
import { containerFiles, containerIds, isSettled, readState, releaseName } from './store.ts';
import { readJson } from '../state/json.ts';

/**
 * Takes back what processes that were killed have left: containers whose owner is dead, addresses, networks,
 * folders. Runs at the start of commands; with nothing to do it reads one small file per container and spawns nothing.
 *
 * @param lingering also take down networks that are only kept up for a next container
 * @returns what could not be reclaimed, as messages
 */
export async function reconcile(lingering = false): Promise<string[]> {
  const problems: string[] = [];
  const attempt = async (work: () => Promise<unknown>) => {
    try {
      await work();
    } catch (error) {
      problems.push(messageOf(error));
    }
  };
  for (const entry of fs.readdirSync(paths.containers())) {
    if (entry.endsWith('.removing')) sweepHalfDeleted(path.join(paths.containers(), entry));
    if (entry.startsWith('.new-') && !creatorIsAlive(entry)) removeTree(path.join(paths.containers(), entry));
  }
  for (const id of containerIds()) {
    const state = readState(id);
    if (state === undefined || isSettled(state)) continue;
    await attempt(() => reclaim(id));
  }
  await attempt(async () => {
    const departure = await claimAbandoned(lingering);
    if (departure.goingDown.length > 0) await tearDown([], departure);
  });
  return problems;
}

/** Goes on with a deletion that was cut short; the name may still point at it. */
function sweepHalfDeleted(directory: string): void {
  const definition = readJson<Definition>(path.join(directory, 'definition.json'));
  if (definition !== undefined) releaseName(definition.name, definition.id);
  removeTree(directory);
}

/** Folders being made carry their maker's pid: `.new-PID-START-…`. */
function creatorIsAlive(entry: string): boolean {
  const [, pid, start] = entry.split('-');
  return isAlive({ pid: Number(pid), start: Number(start) });
}

/** Brings one container whose owner is dead to rest: removed if it never came to life or was to remove itself. */
export async function reclaim(id: string): Promise<void> {
  const state = readState(id);
  const definition = readJson<Definition>(containerFiles(id).definition);
  if (state === undefined || definition === undefined) return;
  const unborn = state.status === 'creating' || state.unborn;
  const ending = recordedEnding(id) ?? { exitCode: 137, error: 'its minirun process was killed' };
  await finish(id, ending, unborn || definition.autoRemove ? 'removed' : state.startedAt === '' ? 'created' : 'exited');
}

/** Exit code and time that the supervisor wrote down. */
export function recordedEnding(id: string): { exitCode: number; finishedAt: string } | undefined {
  const { exit } = containerFiles(id);
  try {
    const exitCode = Number(fs.readFileSync(exit, 'latin1').trim());
    return { exitCode, finishedAt: fs.statSync(exit).mtime.toISOString() };
  } catch {
    return undefined;
  }
}
