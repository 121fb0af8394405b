import { MinirunError } from '../errors.ts';
import { faultPoint } from '../host/fault.ts';
import { bootId, isAlive, type ProcessRef, signalProcess } from '../host/process.ts';
import { withLock } from '../state/lock.ts';
import { drawOnReserve } from '../state/reserve.ts';
import type { ContainerState, Status } from './definition.ts';
import { recordContainer } from './events.ts';
import { finish } from './finish.ts';
import { reclaim } from './reconcile.ts';
import { isAtRest } from './status.ts';
import { type Container, isRunning, isSettled, readState, requireContainer, writeState } from './store.ts';

const SIGKILL = 9;

/**
 * Stops a container: its stop signal, then SIGKILL after a while. One that is at rest is left alone.
 *
 * @param options.timeout seconds to wait for the command to end by itself; negative waits for ever
 */
export async function stopContainer(
  reference: string,
  options: { signal?: number; timeout?: number } = {},
): Promise<void> {
  const { definition } = requireContainer(reference);
  const { id } = definition;
  if ((await markStopped(id)) === undefined) return;
  faultPoint('stop.marked');
  const timeout = options.timeout ?? definition.stopTimeout;
  let told: ProcessRef | undefined;
  let killAt = Number.POSITIVE_INFINITY;
  let hasKilled = false;
  await untilAtRest(id, Number.POSITIVE_INFINITY, async (state) => {
    if (state.status === 'restarting') {
      await finish(id, { exitCode: state.exitCode, finishedAt: state.finishedAt }, 'exited', { force: true });
    } else if (state.status === 'running' && state.init !== undefined && state.init.pid !== told?.pid) {
      // While it is being started there is nobody to tell; and it may have been restarted since.
      if (!state.stoppedByUser) await markStopped(id);
      told = state.init;
      const signal = timeout === 0 ? SIGKILL : (options.signal ?? definition.stopSignal);
      if (signalProcess(told, signal)) recordContainer(definition, 'kill', { signal: String(signal) });
      faultPoint('stop.told');
      await thawPaused(id);
      if (timeout > 0) killAt = Date.now() + timeout * 1000;
    } else if (Date.now() >= killAt) {
      const isFirst = signalProcess(told, SIGKILL) && !hasKilled;
      if (isFirst) recordContainer(definition, 'kill', { signal: String(SIGKILL) });
      hasKilled ||= isFirst;
      await thawPaused(id);
    }
  });
  recordContainer(definition, 'stop');
}

/** Notes that the user wants it stopped, so that no restart policy starts it again; undefined when it is at rest. */
async function markStopped(id: string): Promise<ContainerState | undefined> {
  drawOnReserve();
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
  const isEnd = signal === SIGKILL || signal === stopSignal || signal === 15;
  if (isEnd) await markStopped(id);
  if (signalProcess(container.state.init, signal))
    recordContainer(container.definition, 'kill', { signal: String(signal) });
  if (isEnd) await thawPaused(id);
  // Docker's promise: after `kill` the container has ended.
  if (signal === SIGKILL) await atRest(id, 10_000);
}

/** A paused container gets a signal only when it goes on: docker's rule is that what is to end it lets it. */
async function thawPaused(id: string): Promise<void> {
  if (readState(id)?.paused) await (await import('./pause.ts')).unpause(id);
}

/** @throws MinirunError when the container is not running */
export function requireRunning({ definition, state }: Container, verb: string): void {
  if (isRunning(state) && state.status === 'running') return;
  throw new MinirunError(
    `cannot ${verb} container "${definition.name}"`,
    `it is not running (${state.status})`,
    `Start it first: minirun start ${definition.name}`,
  );
}

/**
 * Waits until a container has been taken down, or has been removed. When nobody is left who would do it, this does.
 *
 * @returns false when `milliseconds` have passed before
 */
export async function atRest(id: string, milliseconds: number): Promise<boolean> {
  return untilAtRest(id, milliseconds, async () => {});
}

/** Waits until a container's state is another one, at most so long. */
export async function nextState(id: string, status: Status, milliseconds: number): Promise<void> {
  const deadline = Date.now() + milliseconds;
  await untilAtRest(id, milliseconds, async (state) => state.status !== status || Date.now() >= deadline);
}

/** @param look is shown the state again and again; true ends the waiting */
async function untilAtRest(
  id: string,
  milliseconds: number,
  look: (state: ContainerState) => Promise<boolean | void>,
): Promise<boolean> {
  const deadline = Date.now() + milliseconds;
  for (let delay = 2; ; delay = Math.min(delay * 1.3, 50)) {
    const state = readState(id);
    if (state === undefined || isAtRest(state)) return true;
    if (!isSettled(state) && (state.boot !== bootId() || !isAlive(state.init))) await reclaim(id);
    else if (await look(state)) return false;
    if (Date.now() >= deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}
