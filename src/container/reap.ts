import { launchBackground, ownBinary } from '../host/launch.ts';
import { isAlive, processRef, selfRef } from '../host/process.ts';
import { stateRoot } from '../state/paths.ts';
import type { ContainerState, RestartPolicy } from './definition.ts';
import { finish } from './finish.ts';
import { recordedEnding } from './reconcile.ts';
import { startDetached } from './run.ts';
import { readContainer, readState, writeState } from './store.ts';

/**
 * Takes a detached container down whose process has ended; runs in the supervisor's place, with its pid. While the
 * command that started the container has not handed it over yet, waits for that.
 */
export async function reap(id: string): Promise<void> {
  const self = selfRef();
  for (;;) {
    const container = readContainer(id);
    if (container === undefined) return;
    const { owner, status } = container.state;
    if (status === 'created' || status === 'exited') return;
    const ours = owner?.pid === self.pid && owner.start === self.start;
    if (ours || !isAlive(owner)) break;
    if (status === 'stopping') return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const container = readContainer(id);
  if (container === undefined) return;
  const ending = recordedEnding(id) ?? { exitCode: 137 };
  const { definition, state } = container;
  if (shouldRestart(definition.restart, state, ending.exitCode)) {
    const delay = nextDelay(state, Date.now());
    const argv = ['sh', '-c', `trap '' HUP INT; sleep ${delay / 1000}; exec "$@"`, 'minirun-restart', ownBinary, '--root', stateRoot(), 'reap', '--restart', id];
    const waiting = processRef(launchBackground(argv));
    await finish(id, ending, 'restarting', { owner: waiting });
    return;
  }
  await finish(id, ending, definition.autoRemove ? 'removed' : 'exited');
}

/** Starts a container again that its restart policy has kept; runs with the pid of the process that waited. */
export async function restartReaped(id: string): Promise<void> {
  const state = readState(id);
  if (state?.status !== 'restarting') return;
  writeState(id, { ...state, restartCount: state.restartCount + 1, restartDelay: nextDelay(state, Date.now()) });
  await startDetached(id, 'exited');
}

/** Whether the policy wants it started again: docker's rules. Pure. */
export function shouldRestart(policy: RestartPolicy, state: Pick<ContainerState, 'stoppedByUser' | 'restartCount'>, exitCode: number): boolean {
  if (state.stoppedByUser || policy.name === 'no') return false;
  if (policy.name !== 'on-failure') return true;
  return exitCode !== 0 && (policy.maximum === 0 || state.restartCount < policy.maximum);
}

/** Milliseconds until the next start: 100, doubled each time up to a minute, from the beginning after ten good seconds. */
export function nextDelay(state: Pick<ContainerState, 'startedAt' | 'restartDelay' | 'status'>, now: number): number {
  if (state.status !== 'restarting' && now - Date.parse(state.startedAt) >= 10_000) return 100;
  return Math.min(60_000, Math.max(100, state.restartDelay * 2));
}
