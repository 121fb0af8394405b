import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { bootId, isAlive, selfRef } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { readJson, writeJson } from '../state/json.ts';
import { paths } from '../state/paths.ts';
import type { ContainerState, Definition } from './definition.ts';
import type { OciSpec } from './oci.ts';
import { forgetOwner, noteOwner } from './owners.ts';

/** A container as the files say. */
export interface Container {
  definition: Definition;
  state: ContainerState;
}

/** Files and folders of one container. */
export const containerFiles = (id: string) => {
  const directory = paths.container(id);
  // Not path.join: commands that look at every container call this for each.
  const file = (name: string) => `${directory}/${name}`;
  return {
    directory,
    definition: file('definition.json'),
    spec: file('config.json'),
    state: file('state.json'),
    steps: file('steps.json'),
    exit: file('exit'),
    unshareErrors: file('unshare.err'),
    removing: file('removing'),
    upper: file('upper'),
    work: file('work'),
    rootfs: file('rootfs'),
    log: file('log'),
    hosts: file('hosts'),
    hostname: file('hostname'),
    resolvConf: file('resolv.conf'),
  };
};

const idPattern = /^[0-9a-f]{1,64}$/;

/** What a container may be called: docker's rule. */
export const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/** The ids of all containers, in no order. @param entries of their directory, where that has just been read */
export function containerIds(entries: readonly string[] = fs.readdirSync(paths.containers())): string[] {
  return entries.filter((entry) => /^[0-9a-f]{64}$/.test(entry));
}

/** The container with that id; undefined when it is gone or only half there. */
export function readContainer(id: string): Container | undefined {
  const files = containerFiles(id);
  const definition = readJson<Definition>(files.definition);
  const state = readJson<ContainerState>(files.state);
  return definition && state && { definition, state };
}

export function readState(id: string): ContainerState | undefined {
  return readJson<ContainerState>(containerFiles(id).state);
}

/** Writes a state. Not durable: it names processes and namespaces, which end with the power anyway. */
export function writeState(id: string, state: ContainerState): void {
  const before = readState(id);
  noteOwner(id, state);
  writeJson(containerFiles(id).state, state, { durable: false });
  forgetOwner(id, before, state);
}

/** Every container, the newest first, as docker lists them. */
export function listContainers(): Container[] {
  return containerIds()
    .flatMap((id) => readContainer(id) ?? [])
    .toSorted((a, b) => (a.definition.created < b.definition.created ? 1 : -1));
}

export function readSpec(id: string): OciSpec {
  const spec = readJson<OciSpec>(containerFiles(id).spec);
  if (spec === undefined)
    throw new MinirunError(
      `cannot read container ${id.slice(0, 12)}`,
      'its config.json is missing',
      `Remove it: minirun rm -f ${id.slice(0, 12)}`,
    );
  return spec;
}

/** What was, or was about to be, applied for the container. */
export function readSteps(id: string): Step[] {
  return readJson<Step[]>(containerFiles(id).steps) ?? [];
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
    return fs.readlinkSync(paths.name(name));
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
    if (holder === undefined) continue;
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

/** Whether somebody answers for the container, or it is at rest and needs nobody. */
export function isSettled(state: ContainerState): boolean {
  if (state.status === 'created' || state.status === 'exited') return true;
  return state.boot === bootId() && isAlive(state.owner);
}
