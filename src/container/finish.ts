import fs from 'node:fs';
import { MinirunErrors } from '../errors.ts';
import { removeTree } from '../host/executor.ts';
import { faultPoint } from '../host/fault.ts';
import { ownBinary } from '../host/launch.ts';
import { bootId, isAlive, type ProcessRef, selfRef, signalProcess } from '../host/process.ts';
import { leave, lingerNetworks, tearDown } from '../network/lifecycle.ts';
import { withLock } from '../state/lock.ts';
import { stateRoot } from '../state/paths.ts';
import type { ContainerState, Status } from './definition.ts';
import { containerFiles, readContainer, readState, readSteps, releaseName, writeState } from './store.ts';

/** What is known of how a container ended. */
export interface Ending {
  exitCode: number;
  /** RFC 3339; now when it is not known. */
  finishedAt?: string;
  error?: string;
}

/** How a container is taken down. */
export interface FinishOptions {
  /** Take it over from an owner that is alive (`rm -f`). */
  force?: boolean;
  /** Leave a network that nobody uses any more up for a moment. */
  linger?: boolean;
  /** Who answers for it from then on, when it is to be restarted. */
  owner?: ProcessRef;
}

/**
 * Takes a container down after its process has ended, or to end it: whoever calls this first becomes its owner;
 * for the others this returns false at once. Everything is undone even when parts fail, and errors are reported.
 *
 * @param then the state it is left in; `removed` deletes it
 */
export async function finish(
  id: string,
  ending: Ending,
  then: Status | 'removed',
  { force = false, linger = false, owner }: FinishOptions = {},
): Promise<boolean> {
  const before = await takeOver(id, force);
  if (before === undefined) return false;
  faultPoint('finish.claimed');
  if (signalProcess(before.init, 'SIGKILL')) await untilDead(before.init);
  const departure = await leave(id, before.endpoints.length > 0 ? before.endpoints.map((endpoint) => endpoint.network) : undefined, linger);
  faultPoint('finish.left');
  const sameBoot = before.boot === bootId();
  const errors = await tearDown(sameBoot ? readSteps(id) : [], departure);
  faultPoint('finish.undone');
  if (then === 'removed') {
    deleteContainer(id);
  } else {
    fs.rmSync(containerFiles(id).steps, { force: true });
    writeState(id, {
      ...before,
      status: then,
      owner,
      init: undefined,
      netns: undefined,
      endpoints: [],
      exitCode: ending.exitCode,
      finishedAt: ending.finishedAt ?? new Date().toISOString(),
      error: ending.error ?? '',
    });
  }
  if (departure.idle.length > 0) {
    await lingerNetworks(departure.idle, [ownBinary, '--root', stateRoot(), 'system', 'reconcile']);
  }
  if (errors.length > 0) throw new MinirunErrors(`container ${id.slice(0, 12)} is gone but not all of its parts`, errors, 'The next minirun command tries again');
  return true;
}

/** The kernel takes a moment to end all processes of a pid namespace. */
async function untilDead(process: ProcessRef | undefined): Promise<void> {
  for (let tries = 0; tries < 1000 && isAlive(process); tries++) await new Promise((resolve) => setTimeout(resolve, 2));
}

/** Makes this process the container's owner; undefined when it is at rest, gone, or somebody else is at it. */
async function takeOver(id: string, force: boolean): Promise<ContainerState | undefined> {
  return withLock(() => {
    const state = readState(id);
    if (state === undefined || state.status === 'created' || state.status === 'exited') return undefined;
    const self = selfRef();
    const ours = state.owner?.pid === self.pid && state.owner.start === self.start;
    const free = ours || !isAlive(state.owner) || state.boot !== bootId();
    if (!free && (!force || state.status === 'stopping')) return undefined;
    writeState(id, { ...state, boot: state.boot, status: 'stopping', owner: self });
    return state;
  });
}

/** Deletes the files of a container that is at rest, its name last but for the folder: a name without one is void. */
export function deleteContainer(id: string): void {
  const container = readContainer(id);
  const name = container?.definition.name;
  const { directory } = containerFiles(id);
  // Out of sight in one move: a folder that is half deleted is not listed.
  const trash = `${directory}.removing`;
  try {
    fs.renameSync(directory, trash);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  if (name !== undefined) releaseName(name, id);
  removeTree(trash);
}
