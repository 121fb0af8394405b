import fs from 'node:fs';
import path from 'node:path';
import { messageOf } from '../errors.ts';
import { partWith, versionOf } from '../host/cgroup/cgroup.ts';
import { bootId } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { type Index, readIndex, rebuiltIndex } from '../image/index-file.ts';
import { canonicalName, parseReference } from '../image/reference.ts';
import type { Network } from '../network/definition.ts';
import type { Change } from '../network/files.ts';
import { hasIpv6 } from '../network/facts.ts';
import { planConnection, withUndoOf } from '../network/lifecycle.ts';
import { listLinks, readHostRoutes } from '../network/link-store.ts';
import { planNames, planOwnNameServer } from '../network/names.ts';
import { heldPorts, rebuiltPorts } from '../network/port-store.ts';
import { rebuiltEndpoints, rebuiltNetwork } from '../network/rebuild.ts';
import { listNetworks } from '../network/store.ts';
import { type Damage, damaged, setAside, shownFile, takenAside } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { kinds } from '../state/migrations.ts';
import { nameOfContainer } from '../state/names.ts';
import { paths } from '../state/paths.ts';
import { ownMarker } from '../state/root.ts';
import type { ContainerState } from './definition.ts';
import { leftCgroup } from './cgroups.ts';
import { idsOf, rebuiltIds } from './id-ranges.ts';
import { noteOwner } from './owners.ts';
import { planPublished } from './publish.ts';
import { rebuiltDefinition, rebuiltState } from './rebuild.ts';
import { readRoutes } from './routes-file.ts';
import { isAtRest } from './status.ts';
import { containerIds, findSpec, readContainer, readDefinition, readOwners, readState, readSteps } from './store.ts';

/** What comes of a damaged file. */
interface Remedy {
  /** What takes its place; absent when nothing can be made of it. */
  content?: object;
  /** What it means for the user, and what is to be done; a sentence each. */
  meaning: string;
}

/**
 * Sets the damaged files aside that this process has met, and puts in their place what can be made of them. Each is looked at
 * again under the lock: another process may have done so.
 *
 * @returns a line for each
 */
export async function settleDamage(): Promise<string[]> {
  if (damaged.size === 0 && takenAside.length === 0) return [];
  const lines = await withLock(() => {
    const done: string[] = [];
    const seen = new Set<string>();
    // What is read to put one together may turn out to be damaged, too.
    for (const [file, damage] of damaged) {
      damaged.delete(file);
      if (seen.has(file)) continue;
      seen.add(file);
      const now = damage.again();
      if (now !== undefined) done.push(settle(now));
    }
    return done;
  });
  // Those that were written anew on the way.
  for (const { damage, name } of takenAside.splice(0)) lines.push(lineOf(damage, name, ''));
  return lines;
}

function settle(damage: Damage): string {
  const { file } = damage;
  try {
    const { content, meaning } = remedyOf(damage);
    damaged.delete(file);
    const name = setAside(file);
    if (content !== undefined) writeJson(file, content);
    return lineOf(damage, name, meaning);
  } catch (error) {
    return `${shownFile(file)} ${damage.why}, and could not be set aside: ${messageOf(error)}`;
  }
}

function lineOf({ file, why }: Damage, name: string | undefined, meaning: string): string {
  const aside = name === undefined ? '' : `; it was set aside as ${name}`;
  return `${shownFile(file)} ${why}${aside}.${meaning === '' ? '' : ` ${meaning}`}`;
}

/** What the file is about: the id of a container, or a name. */
const ownerOf = (file: string) => path.basename(path.dirname(file));
const subjectOf = (file: string) => path.basename(file, '.json');

function remedyOf(damage: Damage): Remedy {
  const { file, parts } = damage;
  switch (damage.kind) {
    case kinds.definition: {
      const definition = rebuiltDefinition(ownerOf(file), parts);
      return {
        content: definition,
        meaning: `Container ${definition.name} can be looked at and removed, but not started any more: minirun rm -f ${definition.name}.`,
      };
    }
    case kinds.state:
      return remedyOfState(ownerOf(file), parts);
    case kinds.steps: {
      const id = ownerOf(file);
      const steps = stepsToUndo(id, (parts as { steps?: Step[] }).steps ?? []);
      const meaning = `What is to be undone when container ${nameOfContainer(id)} ends was planned anew.`;
      return steps.length === 0 ? { meaning: '' } : { content: { schema: 2, steps }, meaning };
    }
    case kinds.spec: {
      const name = nameOfContainer(ownerOf(file));
      return { meaning: `Container ${name} cannot be started any more: minirun rm -f ${name}.` };
    }
    case kinds.routes: {
      const id = ownerOf(file);
      const routes = (parts as { routes?: object[] }).routes ?? [];
      const meaning = `Routes that were added to container ${nameOfContainer(id)} may be missing when it is started again: minirun route ls ${nameOfContainer(id)}.`;
      return { ...(routes.length === 0 ? {} : { content: { schema: 1, routes } }), meaning };
    }
    case kinds.health:
      return {
        meaning: `What the health checks of container ${nameOfContainer(ownerOf(file))} have found is forgotten.`,
      };
    case kinds.renaming:
      return { meaning: `A rename of container ${nameOfContainer(ownerOf(file))} may have to be done again.` };
    case kinds.network:
      return remedyOfNetwork(subjectOf(file), parts);
    case kinds.ports:
      return { meaning: 'Which ports are taken was read from the containers.', content: rebuiltPorts(parts) };
    case kinds.ids:
      return { meaning: 'Which ids user namespaces have was read from the containers.', content: rebuiltIds() };
    case kinds.owners:
      return { meaning: 'Whom its files belong to was read from them.', content: readOwners(ownerOf(file)) };
    case kinds.link: {
      const name = subjectOf(file);
      return {
        meaning: `Link ${name} is forgotten. What of it is in a container ends with that; make it again: minirun link add.`,
      };
    }
    case kinds.hostRoutes:
      return { meaning: 'Routes of the host that were added by minirun are not known as such any more: see ip route.' };
    case kinds.changing: {
      const { undo = [], restore = [] } = parts as Partial<Change>;
      const content: Change = { schema: 1, boot: bootId(), ...parts, by: { pid: 0, start: 0 }, undo, restore };
      return {
        meaning: 'A change of links or routes was cut short. See minirun link ls and minirun route ls.',
        // Whoever comes next takes back what can be told of it.
        ...(undo.length + restore.length === 0 ? {} : { content }),
      };
    }
    case kinds.index:
      return { content: indexWithNames(parts), meaning: namesMeaning };
    case kinds.marker:
      return { content: ownMarker(), meaning: 'It was written anew.' };
    default:
      return { meaning: '' };
  }
}

const namesMeaning =
  'The index was made anew of the images that are whole; what is missing there can be pulled again: minirun images.';

function remedyOfState(id: string, parts: Partial<ContainerState>): Remedy {
  const definition = readDefinition(id);
  const name = definition?.name ?? id.slice(0, 12);
  const state = rebuiltState({ id, name }, parts, rebuiltEndpoints(id, definition?.attachments ?? []));
  const ports = isAtRest(state) ? undefined : (state.ports ?? heldPorts(id));
  const cgroup = isAtRest(state) ? {} : rebuiltCgroup(id, state);
  noteOwner(id, state);
  const meaning = isAtRest(state)
    ? `Container ${name} is at rest.`
    : state.status === 'running'
      ? `Container ${name} goes on running; where it is in its life was read from the kernel.`
      : `Container ${name} is brought to rest.`;
  return { content: { ...state, ports, ...cgroup }, meaning };
}

/** Whether it was paused is seen by what its processes do. */
function rebuiltCgroup(id: string, { cgroup, paused }: ContainerState): Pick<ContainerState, 'cgroup' | 'paused'> {
  const parts = cgroup?.parts ?? leftCgroup(id)?.parts;
  if (parts === undefined) return {};
  const freezer = partWith(parts, 'freezer');
  const isFrozen = freezer !== undefined && versionOf(freezer).isFrozen(freezer.directory);
  return { cgroup: cgroup ?? { parts, late: true }, paused: paused ?? (isFrozen || undefined) };
}

function remedyOfNetwork(name: string, parts: Partial<Network>): Remedy {
  const containers = containerIds().flatMap((id) => {
    const state = readState(id);
    return state === undefined || isAtRest(state) ? [] : [{ id, endpoints: state.endpoints }];
  });
  const network = rebuiltNetwork(name, parts, containers);
  if (network === undefined) {
    return {
      meaning: `Network ${name} is gone, and containers that are to be in it cannot be started: minirun network create ${name}. If its bridge is still there, see ip link show type bridge.`,
    };
  }
  return {
    content: network,
    meaning: `Network ${name} was put together from its containers and from the kernel; see whether it is as you want it: minirun network inspect ${name}.`,
  };
}

/** The index, with the names that containers know of images. */
function indexWithNames(parts: Partial<Index>): Index {
  const index = rebuiltIndex(parts);
  for (const id of containerIds()) {
    const { image = '', imageId = '' } = readDefinition(id) ?? {};
    if (index.images[imageId] === undefined) continue;
    try {
      index.references[canonicalName(parseReference(image))] ??= { id: imageId };
    } catch {
      // It was made of an id, or of a directory.
    }
  }
  return index;
}

/**
 * What has to be undone when a container ends: what is on record, and, where the record is damaged, what a plan of today would
 * have made.
 *
 * @param sound the steps that are still on record
 */
export function stepsToUndo(id: string, sound: readonly Step[]): Step[] {
  const container = readContainer(id);
  if (container === undefined || isAtRest(container.state)) return [...sound];
  const { definition, state } = container;
  const netns = state.netns ?? (fs.existsSync(`/run/netns/${definition.name}`) ? definition.name : undefined);
  const cgroup = leftCgroup(id)?.step;
  if (netns === undefined) return cgroup === undefined ? [...sound] : withUndoOf(sound, [cgroup]);
  const endpoints = state.endpoints.length > 0 ? state.endpoints : rebuiltEndpoints(id, definition.attachments);
  const hostname = findSpec(id)?.hostname ?? definition.name;
  const planned = [
    ...(cgroup === undefined ? [] : [cgroup]),
    ...planConnection(netns, endpoints, hasIpv6()),
    ...planNames({ id, name: definition.name, hostname }, endpoints),
    ...(endpoints.length > 1 ? planOwnNameServer(netns, id, endpoints, []) : []),
    ...planPublished(state.ports ?? heldPorts(id) ?? [], endpoints),
  ];
  return withUndoOf(sound, planned);
}

/** Reads every file of the state, so that each damaged one is met. */
export function readEverything(): void {
  for (const id of containerIds()) {
    readContainer(id);
    readSteps(id);
    findSpec(id);
    readRoutes(id);
  }
  listNetworks();
  listLinks();
  readHostRoutes();
  heldPorts('');
  idsOf('');
  if (fs.existsSync(paths.images())) readIndex();
}
