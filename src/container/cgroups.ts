import fs from 'node:fs';
import path from 'node:path';
import { messageOf, MinirunError } from '../errors.ts';
import { moveProcess, oomKills, partWith, processesIn, setFrozen, thawTree, versionOf } from '../host/cgroup/cgroup.ts';
import {
  type Hierarchy,
  type Part,
  read,
  readHierarchies,
  remedyWithout,
  whyWithout,
} from '../host/cgroup/hierarchies.ts';
import { type Controller, controllersFor, type Resources } from '../host/cgroup/resources.ts';
import type { PartFacts } from '../host/cgroup/version.ts';
import { applySteps, undoSteps } from '../host/executor.ts';
import { faultPoint } from '../host/fault.ts';
import { processesOf } from '../host/processes.ts';
import type { Step } from '../host/steps.ts';
import { withLock } from '../state/lock.ts';
import { cgroupStep, partsIn, planCgroup, planLimits } from './cgroup.ts';
import type { ContainerState } from './definition.ts';
import type { OciSpec } from './oci.ts';
import { cgroupParent } from './spec.ts';
import {
  type Container,
  findSpec,
  isRunning,
  readSpec,
  readState,
  readSteps,
  writeState,
  writeSteps,
} from './store.ts';

/** The hierarchies of this machine, and in each the directories above the container's cgroup. */
function hierarchiesFor({ mounts, linux: { cgroupsPath } }: OciSpec): Hierarchy[] {
  const parent = cgroupsPath === undefined ? cgroupParent : cgroupsPath.slice(0, cgroupsPath.lastIndexOf('/')) || '/';
  // What a privileged container makes in cgroups that are not its own would stay on the host.
  const isWritable = mounts.some(({ type, options }) => type === 'cgroup' && !options.includes('ro'));
  return readHierarchies(parent, '', { all: isWritable });
}

/**
 * @param purpose what they are needed for, after "cannot": `limit the container`
 * @throws MinirunError naming the first controller that cannot be had
 */
export function requireControllers(
  hierarchies: readonly Hierarchy[],
  needed: readonly Controller[],
  purpose: string,
): void {
  for (const controller of needed) {
    const why = whyWithout(hierarchies, controller);
    if (why !== undefined)
      throw new MinirunError(`${purpose}: no ${controller} controller`, why, remedyWithout, { code: 125 });
  }
}

/** A cgroup for a container that is being started. */
export interface StartingCgroup {
  parts: Part[];
  steps: Step[];
  /** Puts the container's first process in, and then sets the limits: none that the command would not have by itself counts. */
  enter(pid: number): Promise<void>;
  limit(): Promise<void>;
}

/**
 * The cgroup that a container with limits gets. Init is put in before it mounts what shows it, and limited when it has
 * nothing left to do but become the command: what init itself takes is not the container's.
 *
 * @returns undefined for one that needs none, or on a machine that has no cgroups for one that could do without
 */
export function cgroupFor(id: string, spec: OciSpec): StartingCgroup | undefined {
  if (spec.linux.cgroupsPath === undefined) return undefined;
  const hierarchies = hierarchiesFor(spec);
  const resources = spec.linux.resources ?? {};
  const needed = controllersFor(resources);
  requireControllers(hierarchies, needed, 'cannot limit the container');
  const parts = partsIn(hierarchies, id);
  if (parts.length === 0) return undefined;
  return {
    parts,
    steps: [planCgroup(hierarchies, id, needed)],
    async enter(pid) {
      moveProcess(parts, pid);
      faultPoint('cgroup.entered');
    },
    limit: () => setLimits(parts, resources),
  };
}

/** The steps for a container that is to be explained; the second one's files are guessed. */
export function cgroupSteps(id: string, spec: OciSpec): { steps: Step[]; parts: Part[] } {
  const hierarchies = hierarchiesFor(spec);
  const resources = spec.linux.resources ?? {};
  const parts = partsIn(hierarchies, id);
  if (parts.length === 0 || spec.linux.cgroupsPath === undefined) return { steps: [], parts: [] };
  const limits = planLimits(parts, resources, presume);
  return {
    steps: [planCgroup(hierarchies, id, controllersFor(resources)), ...(limits === undefined ? [] : [limits])],
    parts,
  };
}

/** What a cgroup is like that is still to be made: as the one above it, unless that is the root, which has no limits. */
function presume(part: Part): PartFacts {
  const above = path.dirname(part.directory);
  const { memory, io } = {
    memory: fs.existsSync(`${above}/memory.limit_in_bytes`) || fs.existsSync(`${above}/memory.max`),
    io: part.controllers.includes('io'),
  };
  const facts = versionOf(part).facts(above);
  return {
    countsSwap: memory ? facts.countsSwap : true,
    ...(io ? { weightFile: facts.weightFile ?? versionOf(part).presumedWeightFile(above) } : {}),
    swapLimit: Number.POSITIVE_INFINITY,
  };
}

/** Sets limits of a cgroup that is there. What was there is put back when one of them is refused. */
export async function setLimits(parts: readonly Part[], resources: Resources, keepsOthers = false): Promise<void> {
  const facts = (part: Part) => {
    const found = versionOf(part).facts(part.directory);
    if (resources.blockIO !== undefined && part.controllers.includes('io') && found.weightFile === undefined) {
      throw new MinirunError(
        'cannot weigh disk traffic',
        'this kernel has no I/O scheduler that does (bfq, iocost)',
        'Load bfq, or leave --blkio-weight out',
        { code: 125 },
      );
    }
    return found;
  };
  const step = planLimits(parts, resources, facts, keepsOthers ? (file) => read(file) : undefined);
  if (step !== undefined) await applySteps([step]);
}

/**
 * The cgroup of a running container, which is made now if it has none yet.
 *
 * @param needed what it is made for
 * @param purpose what cannot be done without, for messages: `cannot pause container "web"`
 * @throws MinirunError before any effect when one of them is missing; when the container ends meanwhile
 */
export async function ensureCgroup(
  { definition }: Pick<Container, 'definition'>,
  needed: readonly Controller[],
  purpose: string,
): Promise<Part[]> {
  const { id, name } = definition;
  const before = readState(id);
  if (before?.cgroup !== undefined) {
    for (const each of needed) {
      if (partWith(before.cgroup.parts, each) === undefined)
        throw new MinirunError(purpose, `its cgroup is without the ${each} controller`, remedyWithout);
    }
    return before.cgroup.parts;
  }
  const hierarchies = hierarchiesFor(readSpec(id));
  requireControllers(hierarchies, needed, purpose);
  const parts = partsIn(hierarchies, id);
  const step = planCgroup(hierarchies, id, needed);
  const init = await withLock(() => {
    const state = readState(id);
    if (state === undefined || !isRunning(state) || state.status !== 'running') throw hasEnded(purpose);
    const others = readSteps(id).filter((each) => each.id !== cgroupStep);
    writeSteps(id, [step, ...others]);
    return state.init;
  });
  faultPoint('cgroup.recorded');
  await applySteps([step]);
  await gather(parts, init?.pid ?? 0, purpose);
  faultPoint('cgroup.gathered');
  const stays = await withLock(() => {
    const state = readState(id);
    if (state?.status !== 'running' || state.init?.pid !== init?.pid) return false;
    writeState(id, { ...state, cgroup: { parts, late: true } });
    return true;
  });
  if (stays) return parts;
  // Whoever has taken it down may have done so before the cgroup was there.
  await undoSteps([step]);
  throw hasEnded(`${purpose} "${name}"`);
}

function hasEnded(purpose: string): MinirunError {
  return new MinirunError(purpose, 'it has just ended', 'See minirun ps -a');
}

/**
 * Moves every process of a running container into its new cgroup. A child begins where its parent is: who has been moved
 * has no children outside any more, so what is outside gets less until nothing is.
 */
async function gather(parts: readonly Part[], init: number, purpose: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (let refused: unknown; ; refused = undefined) {
    const members = processesOf(init);
    let outside = 0;
    for (const part of parts) {
      const inside = new Set(processesIn(part.directory));
      for (const pid of members.filter((each) => !inside.has(each))) {
        outside++;
        try {
          moveProcess([part], pid);
        } catch (error) {
          // The kernel does not move one that is just being born.
          refused = error;
        }
      }
    }
    if (outside === 0) return;
    if (Date.now() > deadline) {
      if (refused instanceof MinirunError) throw new MinirunError(purpose, messageOf(refused));
      throw new MinirunError(purpose, 'its processes multiply faster than they can be moved into a cgroup');
    }
    await new Promise((resolve) => setTimeout(resolve, refused === undefined ? 0 : 5));
  }
}

/**
 * Puts a process that joins a running container where the others are. To be called when it is known to the kernel as one of
 * the container's: whoever makes the cgroup just now takes it along, or has written down that there is one.
 */
export function joinCgroup(id: string, pid: number): void {
  const parts = readState(id)?.cgroup?.parts;
  if (parts !== undefined) moveProcess(parts, pid);
}

/** What there is of a container's cgroup, for when it is not on record any more. */
export function leftCgroup(id: string): { parts: Part[]; step: Step } | undefined {
  const spec = findSpec(id);
  const hierarchies = spec === undefined ? readHierarchies(cgroupParent) : hierarchiesFor(spec);
  const parts = partsIn(hierarchies, id).filter(({ directory }) => fs.existsSync(directory));
  return parts.length === 0 ? undefined : { parts, step: planCgroup(hierarchies, id, []) };
}

/** Lets a container's processes go on, whoever has stopped them: a stopped one cannot be killed in version 1. */
export function thaw(parts: readonly Part[]): void {
  for (const { directory } of parts) thawTree(directory);
}

/** Whether the kernel has killed something in a container because its memory was used up. */
export function wasOutOfMemory(parts: readonly Part[]): boolean {
  return parts.some(({ directory }) => oomKills(directory) > 0);
}

/** Stops or continues a container's processes, in the state first or last so that one that is stopped is always marked. */
export function freeze({ cgroup }: ContainerState, frozen: boolean): void {
  const part = partWith(cgroup?.parts ?? [], 'freezer');
  if (part !== undefined && fs.existsSync(part.directory)) setFrozen(part.directory, frozen);
}
