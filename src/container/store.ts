import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { bootId, isAlive, selfRef } from '../host/process.ts';
import type { HostCommand, Step } from '../host/steps.ts';
import { damaged, noteDamage, peekFile, readFile, setAside } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { type Kind, kinds } from '../state/migrations.ts';
import { paths } from '../state/paths.ts';
import type { ContainerState, Definition } from './definition.ts';
import {
  containerFiles,
  definitionShape,
  fullId,
  namePattern,
  type OwnersFile,
  ownersShape,
  specShape,
  stateShape,
  type StepsFile,
  stepsFileShape,
} from './files.ts';
import type { OciSpec } from './oci.ts';
import type { IdRange } from './protocol.ts';
import { forgetOwner, noteOwner } from './owners.ts';
import { rebuiltDefinition, rebuiltState } from './rebuild.ts';
import { isAtRest } from './status.ts';

/** A container as the files say. */
export interface Container {
  definition: Definition;
  state: ContainerState;
}

export { containerFiles, namePattern } from './files.ts';

const idPattern = /^[0-9a-f]{1,64}$/;

/** The ids of all containers, in no order. @param entries of their directory, where that has just been read */
export function containerIds(entries: readonly string[] = fs.readdirSync(paths.containers())): string[] {
  return entries.filter((entry) => fullId.test(entry));
}

/** The container with that id; undefined when it is gone or only half there. */
export function readContainer(id: string): Container | undefined {
  const definition = readDefinition(id);
  const state = readState(id);
  return definition && state && { definition, state };
}

/** What a container is; put together from what is left, when the file that says so is damaged. */
export function readDefinition(id: string): Definition | undefined {
  const { definition: file, state } = containerFiles(id);
  const found = readFile(kinds.definition, definitionShape, file, (parts) => rebuiltDefinition(id, parts));
  if (found === undefined) return isMissing(kinds.definition, file, state) ? rebuiltDefinition(id) : undefined;
  // Not another container's: its name would be given back, its volumes removed.
  if (found.id === id) return found;
  const isOthers = () => peekFile(kinds.definition, definitionShape, file)?.id === found.id;
  noteDamage(kinds.definition, file, 'is that of another container', isOthers);
  return rebuiltDefinition(id);
}

/** Where a container is in its life; as far as it can be told, when the file that says so is damaged. */
export function readState(id: string): ContainerState | undefined {
  const { state: file, definition } = containerFiles(id);
  const rebuild = (parts: Partial<ContainerState> = {}) =>
    rebuiltState({ id, name: readDefinition(id)?.name ?? id.slice(0, 12) }, parts);
  return (
    readFile(kinds.state, stateShape, file, rebuild) ??
    (isMissing(kinds.state, file, definition) ? rebuild() : undefined)
  );
}

/**
 * Whether a file of a container has gone astray. A container comes and goes as a whole folder, so while the other file is
 * there and this one is not, somebody else has taken it away.
 */
function isMissing(kind: Kind, file: string, other: string): boolean {
  const isSo = () => fs.existsSync(other) && !fs.existsSync(file);
  if (!isSo()) return false;
  noteDamage(kind, file, 'is missing', isSo);
  return true;
}

/** Writes a state. Not durable: it names processes and namespaces, which end with the power anyway. */
export function writeState(id: string, state: ContainerState): void {
  const before = readState(id);
  try {
    noteOwner(id, state);
    writeJson(containerFiles(id).state, state, { durable: false });
  } catch (error) {
    if (before !== undefined) forgetOwner(id, state, before);
    throw error;
  }
  forgetOwner(id, before, state);
}

/** Every container, the newest first, as docker lists them. */
export function listContainers(): Container[] {
  return containerIds()
    .flatMap((id) => readContainer(id) ?? [])
    .toSorted((a, b) => (a.definition.created < b.definition.created ? 1 : -1));
}

export function readSpec(id: string): OciSpec {
  const spec = findSpec(id);
  if (spec === undefined)
    throw new MinirunError(
      `cannot read container ${id.slice(0, 12)}`,
      'its config.json is damaged or missing',
      `Remove it: minirun rm -f ${id.slice(0, 12)}`,
    );
  return spec;
}

/** The same for who can do without: undefined when it is damaged or missing. */
export function findSpec(id: string): OciSpec | undefined {
  // What only init looks at, init checks.
  return readFile(kinds.spec, specShape, containerFiles(id).spec) as OciSpec | undefined;
}

/** The ids of the host that the container's files belong to; undefined when they belong to whom they do in the image. */
export function readOwners(id: string): IdRange | undefined {
  return readFile(kinds.owners, ownersShape, containerFiles(id).owners, () => ownersOfUpper(id));
}

/** The same by the directory itself. */
function ownersOfUpper(id: string): OwnersFile | undefined {
  const stat = fs.statSync(containerFiles(id).upper, { throwIfNoEntry: false });
  const size = readContainer(id)?.definition.userns?.size;
  return stat === undefined || size === undefined ? undefined : { schema: 1, uid: stat.uid, gid: stat.gid, size };
}

/** What was, or was about to be, applied for the container. */
export function readSteps(id: string): Step[] {
  const rest = ({ steps = [] }: Partial<StepsFile>): StepsFile => ({ schema: 2, steps });
  return readFile(kinds.steps, stepsFileShape, containerFiles(id).steps, rest)?.steps ?? [];
}

/** Whether what takes a container down is not on record: its namespace, with all that is in it, above all. */
export function areStepsLost(
  id: string,
  { netns, cgroup }: Pick<ContainerState, 'netns' | 'cgroup'>,
  steps: readonly Step[],
): boolean {
  const file = containerFiles(id).steps;
  if (damaged.has(file) || (cgroup !== undefined && !fs.existsSync(file))) return true;
  const isDeleted = (command: HostCommand) =>
    command.tool === 'ip' && command.args[1] === 'del' && command.args[2] === netns;
  return netns !== undefined && !steps.some(({ undo }) => undo.some(isDeleted));
}

/** Writes down what is, or is about to be, applied. Not durable: it names what ends with the power. */
export function writeSteps(id: string, steps: readonly Step[]): void {
  writeJson(containerFiles(id).steps, { schema: 2, steps: [...steps] } satisfies StepsFile, { durable: false });
}

/** The id that a name, an id or the beginning of one stands for. */
export function findId(reference: string): string | undefined {
  if (namePattern.test(reference)) {
    const id = idOfName(reference);
    if (id !== undefined) return id;
  }
  if (!idPattern.test(reference)) return undefined;
  const matches = containerIds().filter((id) => id.startsWith(reference));
  if (matches.length > 1) {
    throw new MinirunError(
      `ambiguous container id "${reference}"`,
      `${matches.length} containers begin with it`,
      'Give more digits, or the name',
    );
  }
  return matches[0];
}

/** The id that has reserved a name. */
export function idOfName(name: string): string | undefined {
  try {
    const id = fs.readlinkSync(paths.name(name));
    return fullId.test(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

/**
 * @param unborn also one that its creator has not finished
 * @throws MinirunError when there is no such container
 */
export function requireContainer(reference: string, unborn = false): Container {
  const id = findId(reference);
  const container = id === undefined ? undefined : readContainer(id);
  if (container !== undefined && (unborn || container.state.status !== 'creating')) return container;
  throw new MinirunError(
    `no container "${reference}"`,
    'none has that name or id',
    'See minirun ps -a for those there are',
  );
}

/**
 * Reserves a name for an id: the link is created only where there is none, so of two processes one gets it.
 *
 * @throws MinirunError when the name is taken
 */
export function reserveName(name: string, id: string): void {
  for (;;) {
    try {
      fs.symlinkSync(id, paths.name(name));
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const holder = idOfName(name);
    if (holder === undefined) {
      // Gone meanwhile, or not the link to an id that it has to be.
      if (fs.lstatSync(paths.name(name), { throwIfNoEntry: false }) !== undefined) setAsideName(name);
      continue;
    }
    // The link outlives a process that was killed between the two removals.
    if (!fs.existsSync(containerFiles(holder).directory)) {
      releaseName(name, holder);
      continue;
    }
    throw new MinirunError(
      `the container name "${name}" is taken`,
      `container ${holder.slice(0, 12)} has it`,
      `Remove or rename that one: minirun rm -f ${name}, or choose another --name`,
    );
  }
}

/** Moves away what lies in the place of a name and is none. */
function setAsideName(name: string): void {
  noteDamage(kinds.name, paths.name(name), 'is no link to an id', () => true);
  setAside(paths.name(name));
}

/**
 * Gives a name back, if that id has it. Moved aside first and looked at there: between a look at its place and its
 * removal the name might have become another's.
 */
export function releaseName(name: string, id: string): void {
  if (idOfName(name) !== id) return;
  const self = selfRef();
  const aside = path.join(paths.containers(), `.new-${self.pid}-${self.start}-name-${name}`);
  try {
    fs.renameSync(paths.name(name), aside);
    if (fs.readlinkSync(aside) !== id) fs.linkSync(aside, paths.name(name));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'EEXIST') throw error;
  }
  fs.rmSync(aside, { force: true });
}

/** Whether the container's first process is running. */
export function isRunning(state: ContainerState): boolean {
  return (
    state.boot === bootId() &&
    state.init !== undefined &&
    isAlive(state.init) &&
    state.status !== 'exited' &&
    state.status !== 'created'
  );
}

/**
 * Whether nothing of a container can be running: it is at rest, or there is none. One that is there but cannot be read may
 * be running very well.
 */
export function isGone(id: string, containers: readonly Container[]): boolean {
  const found = containers.find(({ definition }) => definition.id === id);
  return found === undefined ? !fs.existsSync(containerFiles(id).directory) : isAtRest(found.state);
}

/** Whether somebody answers for the container, or it is at rest and needs nobody. */
export function isSettled(state: ContainerState): boolean {
  if (state.status === 'created' || state.status === 'exited') return true;
  return state.boot === bootId() && isAlive(state.owner);
}
