import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { faultPoint } from '../host/fault.ts';
import { bootId, selfRef, signalProcess } from '../host/process.ts';
import { withLock } from '../state/lock.ts';
import { drawOnReserve } from '../state/reserve.ts';
import { deleteContainer, finish, refuseNewer } from './finish.ts';
import { nextState } from './stop.ts';
import { type Container, containerFiles, findId, readState, requireContainer, writeState } from './store.ts';

/**
 * Removes a container with all that belongs to it but its anonymous volumes.
 *
 * @param options.force end it first when it is running
 * @param options.volumes remove the volumes, too
 * @throws MinirunError when it is running and `force` is not given
 */
export async function removeContainer(
  reference: string,
  { force, volumes }: { force: boolean; volumes: boolean },
): Promise<void> {
  const container = toBeRemoved(reference, force);
  if (container === undefined) return;
  const { id, name } = container.definition;
  const { removing } = containerFiles(id);
  refuseNewer(id);
  drawOnReserve();
  for (;;) {
    if (await claimAtRest(id, !volumes)) {
      faultPoint('remove.claimed');
      await deleteContainer(id);
      return;
    }
    const state = readState(id);
    if (state === undefined) return;
    if (!force) {
      throw new MinirunError(
        `cannot remove container "${name}"`,
        `it is ${state.paused ? 'paused' : state.status}`,
        `Stop it first (minirun stop ${name}), or use rm -f`,
      );
    }
    // The supervisor sees this and leaves the tear-down to us without starting anything.
    if (state.status === 'running') fs.writeFileSync(removing, '');
    if (await finish(id, { exitCode: 137 }, 'removed', { force: true, keepsVolumes: !volumes })) return;
    await nextState(id, state.status, 10_000);
    // A start takes milliseconds: that process hangs. What it has left is reclaimed then.
    if (state.status === 'starting' && readState(id)?.status === 'starting') signalProcess(state.owner, 'SIGKILL');
  }
}

/** With `force`, one that somebody else has just taken away is as good as removed. */
function toBeRemoved(reference: string, force: boolean): Container | undefined {
  try {
    return requireContainer(reference);
  } catch (error) {
    if (force && findId(reference) === undefined) return undefined;
    throw error;
  }
}

/** Becomes the owner of a container at rest, so that nobody starts it now. */
async function claimAtRest(id: string, keepsVolumes: boolean): Promise<boolean> {
  return withLock(() => {
    const state = readState(id);
    if (state === undefined || (state.status !== 'created' && state.status !== 'exited')) return false;
    writeState(id, { ...state, status: 'stopping', unborn: true, keepsVolumes, owner: selfRef(), boot: bootId() });
    return true;
  });
}
