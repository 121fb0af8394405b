import fs from 'node:fs';
import { isDiskFull, MinirunErrors } from '../errors.ts';
import { undoSteps } from '../host/executor.ts';
import { faultPoint, killPoint } from '../host/fault.ts';
import {
  bootId,
  endGroup,
  endOrphans,
  isAlive,
  isSame,
  type ProcessRef,
  selfRef,
  signalProcess,
} from '../host/process.ts';
import { removeTree } from '../host/remove-tree.ts';
import type { Step } from '../host/steps.ts';
import { forgetLinksOf, linksOf } from '../network/link-store.ts';
import { type Departure, leave, lingerNetworks, tearDown } from '../network/lifecycle.ts';
import { heldPorts, releasePorts } from '../network/port-store.ts';
import { withLock } from '../state/lock.ts';
import { drawOnReserve } from '../state/reserve.ts';
import { lingerArgv } from './argv.ts';
import { endCaptures } from './captures.ts';
import type { ContainerState, Definition, Status } from './definition.ts';
import { recordContainer, recordDeath, recordDestruction } from './events.ts';
import { keepPeersInHosts } from './names.ts';
import { attachmentsOf } from './networking.ts';
import { forgetOwner } from './owners.ts';
import { readRoutes } from './routes-file.ts';
import {
  areStepsLost,
  type Container,
  containerFiles,
  readContainer,
  readState,
  readSteps,
  releaseName,
  writeState,
} from './store.ts';

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
  /** Leave its anonymous volumes, when it is removed. */
  keepsVolumes?: boolean;
}

/**
 * Takes a container down after its process has ended, or to end it: whoever calls this first becomes its owner;
 * for the others this returns false at once. Everything is undone even when parts fail; what has failed is tried once
 * more, and every error is reported. What still fails then is left for the next minirun command.
 *
 * @param then the state it is left in; `removed` deletes it
 */
export async function finish(
  id: string,
  ending: Ending,
  then: Status | 'removed',
  { force = false, linger = false, owner, keepsVolumes }: FinishOptions = {},
): Promise<boolean> {
  refuseNewer(id);
  drawOnReserve();
  const before = await takeOver(id, force, then === 'removed', keepsVolumes).catch((error: unknown) => {
    // Whoever fills it may have made room meanwhile.
    if (!isDiskFull(error)) throw error;
    return takeOver(id, force, then === 'removed', keepsVolumes);
  });
  if (before === undefined) return false;
  const errors: Error[] = [];
  let isTold = false;
  const announce = (definition: Definition) => {
    const isKilled = force && then === 'removed';
    // The first time only: what comes after it may have failed.
    if (!isTold) recordDeath(definition, before, { exitCode: ending.exitCode, isKilled });
    isTold = true;
  };
  const departure: Departure = { goingDown: [], idle: [] };
  for (let pass = 1; pass <= 2; pass++) {
    const failed = await takeDown(before, id, linger, departure, async () => {
      if (then === 'removed') {
        const definition = readContainer(id)?.definition;
        if (definition !== undefined) announce(definition);
        return deleteContainer(id);
      }
      await settle(id, announce, (state) => ({
        ...state,
        status: then,
        owner,
        init: undefined,
        netns: undefined,
        endpoints: [],
        ports: undefined,
        cgroup: undefined,
        paused: undefined,
        oomKilled: before.oomKilled,
        exitCode: ending.exitCode,
        finishedAt: ending.finishedAt ?? new Date().toISOString(),
        error: ending.error ?? '',
      }));
    });
    errors.push(...failed);
    if (failed.length === 0) break;
    if (pass === 2)
      throw new MinirunErrors(
        `cannot take all of container ${id.slice(0, 12)} down`,
        failed,
        'The next minirun command tries again',
      );
  }
  if (errors.length > 0)
    throw new MinirunErrors(`container ${id.slice(0, 12)} is down, but not at the first attempt`, errors);
  return true;
}

/**
 * Reads all that a container is taken down by. Where a newer minirun has written part of it, that is to be known before the
 * first of it is gone.
 *
 * @throws NewerState
 */
export function refuseNewer(id: string): void {
  for (const read of [readContainer, readSteps, readRoutes, linksOf, heldPorts]) read(id);
}

/** The networks that a container may have addresses in: `network connect` writes down what it is going to do. */
function networksOf(id: string, { endpoints }: ContainerState): string[] {
  const definition = readContainer(id)?.definition;
  const wanted = definition === undefined ? [] : attachmentsOf(definition);
  return [...new Set([...endpoints, ...wanted].map(({ network }) => network))];
}

/**
 * Everything that is undone when a container ends, then `conclude` if nothing of it has failed.
 *
 * @param departure what an earlier pass has claimed and not taken down: nobody else does while this process lives
 */
async function takeDown(
  before: ContainerState,
  id: string,
  linger: boolean,
  departure: Departure,
  conclude: () => Promise<void>,
): Promise<Error[]> {
  const errors: Error[] = [];
  const attempt = async (work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      errors.push(error as Error);
    }
  };
  // Processes and steps of a former boot are gone, and their pids may be those of others now.
  const sameBoot = before.boot === bootId();
  const cgroup = sameBoot ? before.cgroup : undefined;
  await attempt(async () => {
    faultPoint('finish.claimed');
    const dies = sameBoot && signalProcess(before.init, 'SIGKILL');
    // What is stopped does not die, not in version 1 of cgroups; after the signal, so that it does nothing else.
    if (cgroup !== undefined) (await import('./cgroups.ts')).thaw(cgroup.parts);
    if (dies) await untilDead(before.init);
    // Who waits to start it again has nothing to wait for.
    if (sameBoot && before.status === 'restarting') {
      endGroup(before.owner);
      await untilDead(before.owner);
    }
  });
  // The count goes with the cgroup.
  await attempt(async () => {
    if (cgroup === undefined) return;
    if (!before.oomKilled && (await import('./cgroups.ts')).wasOutOfMemory(cgroup.parts)) {
      before.oomKilled = true;
      await withLock(() => {
        const state = readState(id);
        if (state !== undefined) writeState(id, { ...state, oomKilled: true });
      });
      const definition = readContainer(id)?.definition;
      if (definition !== undefined) recordContainer(definition, 'oom');
    }
    faultPoint('finish.counted');
  });
  // They would keep its namespace alive, and with that the interface that the next container of its address needs.
  if (sameBoot) await attempt(() => endCaptures(id));
  // Before the namespace goes: an interface of the host that is in it would go with it.
  await attempt(async () => {
    if (sameBoot && linksOf(id).length > 0) await (await import('./links.ts')).leaveLinks(id);
  });
  await attempt(async () => {
    if (sameBoot) errors.push(...(await undoSteps(await stepsOf(id, before))));
    faultPoint('finish.undone');
    // Not before: whoever gets the port next must not find the old rule in front of its own.
    if (errors.length === 0) await releasePorts(id);
  });
  // Nor the address: rules and names of this container stood for it.
  await attempt(async () => {
    const left = await leave(id, before.endpoints.length > 0 ? networksOf(id, before) : undefined, linger);
    departure.goingDown.push(...left.goingDown);
    departure.idle = left.idle;
    faultPoint('finish.left');
    errors.push(...(await tearDown(departure)));
    faultPoint('finish.lowered');
  });
  if (before.endpoints.length > 0) await attempt(keepPeersInHosts);
  await attempt(async () => {
    const definition = readContainer(id)?.definition;
    // As when they were mounted: not by a look at what is, which takes longer the more containers there are.
    if (definition?.volumes?.some(({ named }) => named === true))
      errors.push(...(await (await import('./volume-mounts.ts')).unmountVolumes(definition)));
  });
  if (errors.length > 0) return errors;
  await attempt(conclude);
  await attempt(async () => {
    if (departure.idle.length > 0) await lingerNetworks(departure.idle, lingerArgv());
  });
  return errors;
}

/** What is on record to be undone; planned anew where the record is lost. */
async function stepsOf(id: string, state: ContainerState): Promise<Step[]> {
  const steps = readSteps(id);
  if (!areStepsLost(id, state, steps)) return steps;
  return (await import('./heal.ts')).stepsToUndo(id, steps);
}

/** Writes down that a container is at rest, or who answers for it from now on. */
async function settle(
  id: string,
  announce: (definition: Definition) => void,
  change: (state: ContainerState) => ContainerState,
): Promise<void> {
  const files = containerFiles(id);
  fs.rmSync(files.steps, { force: true });
  faultPoint('finish.forgotten');
  await withLock(() => {
    // Read again: `stop` may have noted meanwhile that the user wants it stopped.
    const container = readContainer(id);
    if (container === undefined) return;
    announce(container.definition);
    killPoint('finish.announced');
    writeState(id, change(container.state));
  });
  faultPoint('finish.settled');
}

/** The kernel takes a moment to end all processes of a pid namespace. */
async function untilDead(process: ProcessRef | undefined): Promise<void> {
  for (let tries = 0; tries < 1000 && isAlive(process); tries++) await new Promise((resolve) => setTimeout(resolve, 2));
}

/** Makes this process the container's owner; undefined when it is at rest, gone, or somebody else is at it. */
async function takeOver(
  id: string,
  force: boolean,
  toRemove: boolean,
  keepsVolumes: boolean | undefined,
): Promise<ContainerState | undefined> {
  return withLock(() => {
    const state = readState(id);
    if (state === undefined || state.status === 'created' || state.status === 'exited') return undefined;
    const self = selfRef();
    const ours = isSame(state.owner, self);
    const free = ours || !isAlive(state.owner) || state.boot !== bootId();
    // One that is being started belongs to its starter until it runs: only that process knows what it has made so far.
    if (!free && !(force && (state.status === 'running' || state.status === 'restarting'))) return undefined;
    if (!ours && state.boot === bootId()) endOrphans(state.owner);
    // Whoever has to carry this on, because this process is killed, must know that it is to go.
    writeState(id, {
      ...state,
      status: 'stopping',
      owner: self,
      unborn: state.unborn || toRemove,
      keepsVolumes: keepsVolumes ?? state.keepsVolumes,
    });
    return state;
  });
}

/** Only a plain `rm` leaves volumes, and not those of a container that was to leave nothing. */
function volumesStay({ definition, state }: Container): boolean {
  return state.keepsVolumes === true && !definition.autoRemove;
}

/**
 * Deletes the files and the volumes of a container that is at rest, its name first: a name is freed by the owner of the container that
 * has it, and whoever wants it meanwhile sees that the container is there.
 */
export async function deleteContainer(id: string): Promise<void> {
  const container = readContainer(id);
  const { directory } = containerFiles(id);
  if (container !== undefined) releaseName(container.definition.name, id);
  faultPoint('delete.unnamed');
  forgetLinksOf(id);
  // While the container still names them: whoever has to go on with this finds them.
  if (container?.definition.volumes?.length && !volumesStay(container)) {
    (await import('./volume-store.ts')).removeVolumesOf(container.definition);
  }
  // Out of sight in one move: a folder that is half deleted is not listed.
  const trash = `${directory}.removing`;
  try {
    fs.renameSync(directory, trash);
    killPoint('delete.hidden');
    if (container !== undefined) recordDestruction(container.definition, container.state, false);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  forgetOwner(id);
  faultPoint('delete.moved');
  removeTree(trash);
  const userns = container?.definition.userns;
  if (userns !== undefined && userns.of === undefined) await (await import('./id-ranges.ts')).releaseIds(id);
  faultPoint('delete.done');
}
