import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { bootId, selfRef } from '../host/process.ts';
import { withLock } from '../state/lock.ts';
import { deleteContainer, finish } from './finish.ts';
import { atRest } from './stop.ts';
import { containerFiles, readState, requireContainer, writeState } from './store.ts';

/**
 * Removes a container with all that belongs to it.
 *
 * @param force end it first when it is running
 * @throws MinirunError when it is running and `force` is not given
 */
export async function removeContainer(reference: string, force: boolean): Promise<void> {
  const { definition } = requireContainer(reference);
  const { id, name } = definition;
  const { removing } = containerFiles(id);
  for (;;) {
    if (await claimAtRest(id)) {
      deleteContainer(id);
      return;
    }
    const state = readState(id);
    if (state === undefined) return;
    if (!force) {
      throw new MinirunError(`cannot remove container "${name}"`, `it is ${state.status}`, `Stop it first (minirun stop ${name}), or use rm -f`);
    }
    // The supervisor sees this and leaves the tear-down to us without starting anything.
    fs.writeFileSync(removing, '');
    if (await finish(id, { exitCode: 137 }, 'removed', { force: true })) return;
    await atRest(id, 10_000);
  }
}

/** Becomes the owner of a container at rest, so that nobody starts it now. */
async function claimAtRest(id: string): Promise<boolean> {
  return withLock(() => {
    const state = readState(id);
    if (state === undefined || (state.status !== 'created' && state.status !== 'exited')) return false;
    writeState(id, { ...state, status: 'stopping', unborn: true, owner: selfRef(), boot: bootId() });
    return true;
  });
}
