import { MinirunError } from '../errors.ts';
import { partWith, versionOf } from '../host/cgroup/cgroup.ts';
import { faultPoint } from '../host/fault.ts';
import { withLock } from '../state/lock.ts';
import { ensureCgroup, freeze } from './cgroups.ts';
import { recordContainer } from './events.ts';
import { isRunning, readContainer, readState, requireContainer, writeState } from './store.ts';
import { requireRunning } from './stop.ts';

/** Milliseconds that the kernel may take to stop all processes of a container. */
const patience = 5000;

/**
 * Stops all processes of a container where they are. @throws MinirunError when it does not run or is paused already
 *
 * The state says so first: a process that is killed on the way leaves a container that is marked, and whoever ends or continues
 * a marked one lets it go on before.
 */
export async function pauseContainer(reference: string): Promise<void> {
  const container = requireContainer(reference);
  requireRunning(container, 'pause');
  const { id, name } = container.definition;
  const purpose = `cannot pause container "${name}"`;
  const parts = await ensureCgroup(container, ['freezer'], purpose);
  await withLock(() => {
    const state = readState(id);
    if (state?.status !== 'running' || !isRunning(state)) throw new MinirunError(purpose, 'it is not running any more');
    if (state.paused) throw new MinirunError(purpose, 'it is paused already', `Let it go on: minirun unpause ${name}`);
    writeState(id, { ...state, paused: true });
  });
  faultPoint('pause.marked');
  const part = partWith(parts, 'freezer');
  const isFrozen = () => part !== undefined && versionOf(part).isFrozen(part.directory);
  for (const deadline = Date.now() + patience; ; ) {
    // Again and again: version 1 may leave one out that was just being born. Under the lock, as `unpause` may have come.
    const wanted = await withLock(() => {
      const state = readState(id);
      if (state?.paused !== true || state.status !== 'running') return false;
      freeze(state, true);
      return true;
    });
    faultPoint('pause.frozen');
    if (!wanted) return;
    if (isFrozen()) return recordContainer(container.definition, 'pause');
    if (Date.now() > deadline) {
      await unpause(id);
      throw new MinirunError(
        purpose,
        'not all of its processes can be stopped: some wait for a device or a file server',
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Lets a paused container go on. @throws MinirunError when it is not paused */
export async function unpauseContainer(reference: string): Promise<void> {
  const container = requireContainer(reference);
  const { id, name } = container.definition;
  requireRunning(container, 'unpause');
  if (!(await unpause(id)))
    throw new MinirunError(`cannot unpause container "${name}"`, 'it is not paused', `See minirun ps`);
}

/** Lets a container go on if it is paused. @returns whether it was */
export async function unpause(id: string): Promise<boolean> {
  const definition = await withLock(() => {
    const state = readState(id);
    if (!state?.paused) return undefined;
    freeze(state, false);
    writeState(id, { ...state, paused: undefined });
    return readContainer(id)?.definition;
  });
  if (definition !== undefined) recordContainer(definition, 'unpause');
  return definition !== undefined;
}
