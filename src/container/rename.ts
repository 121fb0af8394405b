import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { applySteps } from '../host/executor.ts';
import { faultPoint } from '../host/fault.ts';
import { isAlive, isSame, type ProcessRef, selfRef } from '../host/process.ts';
import { ip, type Step } from '../host/steps.ts';
import { addressesOf } from '../network/attach.ts';
import { planNames } from '../network/names.ts';
import { lastRecorded } from '../state/events.ts';
import { readFile } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { kinds } from '../state/migrations.ts';
import { paths } from '../state/paths.ts';
import { recordContainer } from './events.ts';
import { type Renaming, renamingShape } from './files.ts';
import { renameInLinks } from './links.ts';
import { keepPeersInHosts } from './names.ts';
import {
  containerFiles,
  containerIds,
  idOfName,
  isRunning,
  isSettled,
  namePattern,
  readContainer,
  readDefinition,
  readSpec,
  readSteps,
  releaseName,
  requireContainer,
  reserveName,
  writeState,
  writeSteps,
} from './store.ts';

/**
 * Gives a container another name, also its network namespace while it runs.
 *
 * Both names are reserved from the first step to the last. A process that is killed in between leaves the file
 * `renaming`: `finishInterruptedRenames` then carries it through, and a container that ends before that takes the
 * namespace down under both names.
 *
 * @throws MinirunError before any effect when the new name is taken or impossible
 */
export async function renameContainer(reference: string, wanted: string): Promise<void> {
  const to = wanted.replace(/^\//, '');
  if (!namePattern.test(to) || to.length > 200) {
    throw new MinirunError(
      `invalid container name "${to}"`,
      'names are letters, digits, "_", "." and "-", at least two, and begin with a letter or digit',
      'Choose such a name',
    );
  }
  const id = requireContainer(reference).definition.id;
  const renaming = await withLock((): Renaming => {
    const { definition, state } = requireContainer(id);
    const from = definition.name;
    const refuse = (why: string, remedy: string) => new MinirunError(`cannot rename container "${from}"`, why, remedy);
    if (from === to) throw refuse('that is its name already', 'Choose another name');
    if (['starting', 'stopping', 'restarting'].includes(state.status) || !isSettled(state)) {
      throw refuse(`it is ${state.status}`, 'Try again in a moment');
    }
    if (isAlive(readRenaming(id)?.by)) throw refuse('another process is renaming it', 'Try again in a moment');
    if (state.netns !== undefined && fs.existsSync(namespaceFile(to))) {
      throw refuse(
        `a network namespace "${to}" exists already and is not of minirun`,
        `Delete it (ip netns del ${to}), or choose another name`,
      );
    }
    reserveName(to, id);
    const entry: Renaming = { schema: 1, by: selfRef(), from, to };
    writeJson(containerFiles(id).renaming, entry);
    return entry;
  });
  faultPoint('rename.reserved');
  await carryThrough(id, renaming);
}

/** Carries renames through whose process was killed. With nothing to do it only compares two counts. */
export async function finishInterruptedRenames(): Promise<void> {
  const names = fs.readdirSync(paths.names());
  if (names.length === containerIds().length) return;
  for (const name of names) {
    const id = idOfName(name);
    if (id === undefined) continue;
    if (!fs.existsSync(containerFiles(id).directory)) {
      releaseName(name, id);
      continue;
    }
    const renaming = readRenaming(id);
    if (renaming !== undefined && !isAlive(renaming.by)) {
      // It may have finished, and ended, since that was read.
      if (isSame(readRenaming(id)?.by, renaming.by)) await carryThrough(id, renaming);
    } else if (renaming === undefined) await releaseStray(name, id);
  }
}

/** A name that was reserved by a process that was killed before it could say what for. */
async function releaseStray(name: string, id: string): Promise<void> {
  await withLock(() => {
    const definition = readDefinition(id);
    if (definition !== undefined && definition.name !== name && readRenaming(id) === undefined) releaseName(name, id);
  });
}

/** The rest of a rename, from wherever it stands. */
async function carryThrough(id: string, { from, to }: Renaming): Promise<void> {
  try {
    const { state } = requireContainer(id);
    if (state.netns !== undefined && isRunning(state)) await addNamespaceName(id, from, to, state.init as ProcessRef);
  } catch (error) {
    await rollBack(id, from, to);
    throw error;
  }
  faultPoint('rename.attached');
  const hadNamespace = await withLock(() => {
    const container = readContainer(id);
    // It was removed meanwhile, with whatever of it there was.
    if (container === undefined) return false;
    const renamed = { ...container.definition, name: to };
    // Whoever carries this on for a killed process tells of it only if that one has not.
    if (container.definition.name !== to && lastRecorded(id, ['rename'])?.attributes.name !== to)
      recordContainer(renamed, 'rename', { oldName: `/${from}` });
    writeJson(containerFiles(id).definition, renamed);
    renameInHosts(id, from, to);
    // It may have ended and even been started anew in between, which took the namespace's second name away.
    if (container.state.netns === undefined || !fs.existsSync(namespaceFile(to))) return false;
    writeState(id, { ...container.state, netns: to });
    return true;
  });
  await renameInNetworks(id);
  faultPoint('rename.written');
  if (hadNamespace && idOfName(from) === id && fs.existsSync(namespaceFile(from))) {
    await applySteps([
      {
        id: 'netns.forget',
        why: 'Nobody is to find it under its old name.',
        apply: [ip('netns', 'del', from)],
        undo: [],
      },
    ]);
  }
  faultPoint('rename.forgotten');
  await withLock(() => {
    const exists = readContainer(id) !== undefined;
    if (hadNamespace && exists && fs.existsSync(containerFiles(id).steps)) rewriteUndo(id, [to]);
    // The file first: once the old name is free another container may have it, and this is not to be carried on then.
    fs.rmSync(containerFiles(id).renaming, { force: true });
    releaseName(from, id);
    if (!exists) releaseName(to, id);
  });
}

/** A second name for the namespace; its undo is stored first, so that the end of the container takes both away. */
async function addNamespaceName(id: string, from: string, to: string, init: ProcessRef): Promise<void> {
  await withLock(() => {
    if (fs.existsSync(containerFiles(id).steps)) rewriteUndo(id, [to, from]);
  });
  faultPoint('rename.recorded');
  if (fs.existsSync(namespaceFile(to))) return;
  await applySteps([
    {
      id: 'netns.rename',
      why: `A namespace lives as long as a process or a name has it; from now on ${to} is its name.`,
      apply: [ip('netns', 'attach', to, String(init.pid))],
      undo: [ip('netns', 'del', to)],
    },
  ]);
}

async function rollBack(id: string, from: string, to: string): Promise<void> {
  await withLock(() => {
    if (readContainer(id) !== undefined && fs.existsSync(containerFiles(id).steps)) rewriteUndo(id, [from]);
    fs.rmSync(containerFiles(id).renaming, { force: true });
    releaseName(to, id);
  });
}

/** Lets the container's stored steps take its namespace down under these names; under the lock. */
function rewriteUndo(id: string, names: readonly string[]): void {
  const steps = readSteps(id).map(
    (step): Step => (step.id === 'netns.add' ? { ...step, undo: names.map((name) => ip('netns', 'del', name)) } : step),
  );
  writeSteps(id, steps);
  renameInLinks(id, names);
}

/** Puts the new name into the container's own line of its /etc/hosts, in place: the file is mounted in the container. */
function renameInHosts(id: string, from: string, to: string): void {
  const file = containerFiles(id).hosts;
  const addresses = (readContainer(id)?.state.endpoints ?? []).flatMap(addressesOf).map(({ address }) => address);
  if (addresses.length === 0 || !fs.existsSync(file)) return;
  const lines = fs.readFileSync(file, 'utf8').split('\n');
  const renamed = lines.map((line) => {
    const [first, ...names] = line.split(/\s+/);
    return addresses.includes(first as string) && names.includes(from)
      ? `${first}\t${names.map((name) => (name === from ? to : name)).join(' ')}`
      : line;
  });
  fs.writeFileSync(file, renamed.join('\n'));
}

/** The other containers of its networks find it under the new name from now on. */
async function renameInNetworks(id: string): Promise<void> {
  const container = readContainer(id);
  if (container === undefined || !isRunning(container.state)) return;
  const { name } = container.definition;
  await applySteps(planNames({ id, name, hostname: readSpec(id).hostname }, container.state.endpoints));
  await keepPeersInHosts();
}

const namespaceFile = (name: string) => `/run/netns/${name}`;

function readRenaming(id: string): Renaming | undefined {
  return readFile(kinds.renaming, renamingShape, containerFiles(id).renaming);
}
