import fs from 'node:fs';
import { faultPoint } from '../host/fault.ts';
import { launchBackground, ownBinary } from '../host/launch.ts';
import { isAlive, isSame, processRef, selfRef } from '../host/process.ts';
import { withLock } from '../state/lock.ts';
import { stateRoot } from '../state/paths.ts';
import type { ContainerState, RestartPolicy } from './definition.ts';
import { finish } from './finish.ts';
import { forgetOwner } from './owners.ts';
import { reclaim, recordedEnding } from './reconcile.ts';
import { startDetached } from './run.ts';
import { isAtRest } from './status.ts';
import { containerFiles, readContainer, readState, writeState } from './store.ts';

/**
 * Takes a detached container down whose process has ended; runs in the supervisor's place, with its pid. While the
 * command that started the container has not handed it over yet, waits for that.
 */
export async function reap(id: string): Promise<void> {
  try {
    await takeDownOrRestart(id);
  } finally {
    // A script of `rm --explain`, or somebody by hand, deletes the folder and knows nothing of the index.
    if (!fs.existsSync(containerFiles(id).directory)) forgetOwner(id);
  }
}

async function takeDownOrRestart(id: string): Promise<void> {
  let container = readContainer(id);
  while (container !== undefined && !isOurs(container.state) && isAlive(container.state.owner)) {
    // Under another owner that is at work, or running again, it is none of this process's business.
    if (container.state.status !== 'starting' && container.state.status !== 'creating') return;
    await new Promise((resolve) => setTimeout(resolve, 5));
    container = readContainer(id);
  }
  if (container === undefined || isAtRest(container.state)) return;
  faultPoint('reap.begun');
  // Whoever started it was killed before it handed the container over.
  if (!isOurs(container.state)) return reclaim(id);
  const ending = recordedEnding(id) ?? { exitCode: 137 };
  const { definition, state } = container;
  if (shouldRestart(definition.restart, state, ending.exitCode)) {
    const delay = nextDelay(state, Date.now());
    const argv = [
      'sh',
      '-c',
      `trap '' HUP INT; sleep ${delay / 1000}; exec "$@"`,
      'minirun-restart',
      ownBinary,
      '--root',
      stateRoot(),
      'reap',
      '--restart',
      id,
    ];
    const waiting = processRef(launchBackground(argv));
    await finish(id, ending, 'restarting', { owner: waiting });
    return;
  }
  await finish(id, ending, definition.autoRemove ? 'removed' : 'exited');
}

/** Starts a container again that its restart policy has kept; runs with the pid of the process that waited. */
export async function restartReaped(id: string): Promise<void> {
  // The tear-down may take longer than the pause.
  for (let state = readState(id); state?.status === 'stopping' && isAlive(state.owner); state = readState(id)) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const wanted = await withLock(() => {
    const state = readState(id);
    if (state?.status !== 'restarting' || !isOurs(state)) return false;
    writeState(id, { ...state, restartCount: state.restartCount + 1, restartDelay: nextDelay(state, Date.now()) });
    return true;
  });
  if (wanted) await startDetached(id, 'exited');
}

function isOurs({ owner }: Pick<ContainerState, 'owner'>): boolean {
  const self = selfRef();
  return isSame(owner, self);
}

/** Whether the policy wants it started again: docker's rules. Pure. */
export function shouldRestart(
  policy: RestartPolicy,
  state: Pick<ContainerState, 'stoppedByUser' | 'restartCount'>,
  exitCode: number,
): boolean {
  if (state.stoppedByUser || policy.name === 'no') return false;
  if (policy.name !== 'on-failure') return true;
  return exitCode !== 0 && (policy.maximum === 0 || state.restartCount < policy.maximum);
}

/** Milliseconds until the next start: 100, doubled each time up to a minute, from the beginning after ten good seconds. */
export function nextDelay(state: Pick<ContainerState, 'startedAt' | 'restartDelay' | 'status'>, now: number): number {
  if (state.status !== 'restarting' && now - Date.parse(state.startedAt) >= 10_000) return 100;
  return Math.min(60_000, Math.max(100, state.restartDelay * 2));
}
