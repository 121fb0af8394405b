import { MinirunError } from '../errors.ts';
import { isAlive, signalProcess } from '../host/process.ts';
import { withLock } from '../state/lock.ts';
import type { ContainerState } from './definition.ts';
import { finish } from './finish.ts';
import { reclaim } from './reconcile.ts';
import { type Container, isRunning, isSettled, readState, requireContainer, writeState } from './store.ts';

const SIGKILL = 9;

/**
 * Stops a container: its stop signal, then SIGKILL after a while. One that is at rest is left alone.
 *
 * @param options.timeout seconds to wait for the command to end by itself; negative waits for ever
 */
export async function stopContainer(reference: string, options: { signal?: number; timeout?: number } = {}): Promise<void> {
  const { definition } = requireContainer(reference);
  const { id } = definition;
  const state = await markStopped(id);
  if (state === undefined) return;
  if (state.status === 'restarting') {
    await finish(id, { exitCode: state.exitCode, finishedAt: state.finishedAt }, 'exited', { force: true });
    return;
  }
  const timeout = options.timeout ?? definition.stopTimeout;
  signalProcess(state.init, options.signal ?? definition.stopSignal);
  if (timeout !== 0 && (await atRest(id, timeout < 0 ? Number.POSITIVE_INFINITY : timeout * 1000))) return;
  signalProcess(state.init, SIGKILL);
  await atRest(id, Number.POSITIVE_INFINITY);
}

/** Notes that the user wants it stopped, so that no restart policy starts it again; undefined when it is at rest. */
async function markStopped(id: string): Promise<ContainerState | undefined> {
  return withLock(() => {
    const state = readState(id);
    if (state === undefined || state.status === 'created' || state.status === 'exited') return undefined;
    writeState(id, { ...state, stoppedByUser: true });
    return state;
  });
}

/** Sends a signal to a running container's first process. @throws MinirunError when it is not running */
export async function killContainer(reference: string, signal: number): Promise<void> {
  const container = requireContainer(reference);
  requireRunning(container, 'kill');
  const { id, stopSignal } = container.definition;
  if (signal === SIGKILL || signal === stopSignal || signal === 15) await markStopped(id);
  signalProcess(container.state.init, signal);
  // Docker's promise: after `kill` the container has ended.
  if (signal === SIGKILL) await atRest(id, 10_000);
}

/** @throws MinirunError when the container is not running */
export function requireRunning({ definition, state }: Container, verb: string): void {
  if (isRunning(state) && state.status === 'running') return;
  throw new MinirunError(`cannot ${verb} container "${definition.name}"`, `it is not running (${state.status})`, `Start it first: minirun start ${definition.name}`);
}

/**
 * Waits until a container has been taken down, or has been removed. When nobody is left who would do it, this does.
 *
 * @returns false when `milliseconds` have passed before
 */
export async function atRest(id: string, milliseconds: number): Promise<boolean> {
  const deadline = Date.now() + milliseconds;
  for (let delay = 2; ; delay = Math.min(delay * 1.3, 50)) {
    const state = readState(id);
    if (state === undefined || state.status === 'exited' || state.status === 'created') return true;
    if (!isSettled(state) && !isAlive(state.init)) await reclaim(id);
    if (Date.now() >= deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}
