import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { faultPoint, killPoint } from '../host/fault.ts';
import { type Event, recordEvents } from '../state/events.ts';
import { paths } from '../state/paths.ts';
import { drawOnReserve } from '../state/reserve.ts';
import { hexOf, shortDigest } from './digest.ts';
import {
  blobDirectory,
  configDirectory,
  configPlace,
  type Index,
  layerDirectory,
  locate,
  locked,
  namesOf,
  noSuchImage,
  readConfig,
  readIndex,
  writeIndex,
} from './index-file.ts';
import { sweepClaims } from './claim.ts';
import { imageEvent } from './events.ts';
import { familiarName, parseReference } from './reference.ts';
import { pinned, Staging, sweepStaging } from './staging.ts';

/** What was removed, in docker's words: names without an image, and digests of what was deleted. */
export interface Removal {
  untagged: string[];
  deleted: string[];
}

/** The name of a container that uses an image, if there is one; called under the lock. */
export type InUse = (id: string) => string | undefined;

/**
 * Removes a name of an image and, with its last name, the image and the layers that no other image has; by id all of
 * it at once. Docker's rules: an image that a container uses keeps its last name unless forced, and is never deleted.
 */
export async function removeImage(
  name: string,
  { inUse, force = false }: { inUse: InUse; force?: boolean },
): Promise<Removal> {
  return collecting((index) => {
    const found = locate(index, name);
    if (found === undefined) throw noSuchImage(name, 'remove');
    const removal = untag(index, name, found, inUse(found.id), force);
    const isUnnamed = namesOf(index, found.id).length === 0;
    // After a forced untagging a container goes on using the layers, so the image stays without a name.
    if (isUnnamed && inUse(found.id) === undefined) {
      delete index.images[found.id];
      removal.deleted.push(found.id);
    }
    return removal;
  });
}

/**
 * Removes the images that no container uses and that `isWanted` does not keep.
 *
 * @returns what was removed and how many bytes of layers and archives went with it
 */
export async function pruneImages(
  isWanted: (id: string, names: readonly string[]) => boolean,
  inUse: InUse,
): Promise<Removal & { reclaimed: number }> {
  let reclaimed = 0;
  const removal = await collecting(
    (index) => {
      const gone: Removal = { untagged: [], deleted: [] };
      for (const id of Object.keys(index.images)) {
        const names = namesOf(index, id);
        if (isWanted(id, names) || inUse(id) !== undefined) continue;
        for (const name of names) delete index.references[name];
        delete index.images[id];
        gone.untagged.push(...names.map((name) => familiarName(parseReference(name))));
        gone.deleted.push(id);
      }
      return gone;
    },
    (bytes) => {
      reclaimed += bytes;
    },
  );
  return { ...removal, reclaimed };
}

/**
 * Deletes what processes that were killed have left in the store: staging directories, layers, blobs and configs that
 * nothing names, half-written files. For whoever is about to add an image, and for the clean-up of the state directory.
 */
export async function sweepImages(): Promise<void> {
  await collecting(() => ({ untagged: [], deleted: [] }));
}

/** Changes the index and deletes what nothing names then. */
async function collecting(change: (index: Index) => Removal, reclaimed?: (bytes: number) => void): Promise<Removal> {
  drawOnReserve();
  const trash = new Staging();
  try {
    faultPoint('collect.begun');
    return await locked(() => {
      const index = readIndex();
      const before = JSON.stringify(index);
      const removal = change(index);
      const layers = dropUnreachableLayers(index);
      reclaimed?.(layers.reduce((sum, { size, blob }) => sum + size + (blob?.size ?? 0), 0));
      // The index first: what nothing names is swept, whenever this process dies.
      if (JSON.stringify(index) !== before) {
        writeIndex(index);
        recordEvents(removalEvents(JSON.parse(before) as Index, index));
      }
      killPoint('collect.indexed');
      removal.deleted.push(...discardUnreachable(index, trash));
      return removal;
    });
  } finally {
    trash.remove();
    sweepStaging();
  }
}

/** Docker's events for what an index has lost. */
function removalEvents(before: Index, after: Index): Event[] {
  const names = Object.keys(before.references).filter((key) => after.references[key] === undefined);
  return [
    ...names.map((key) => imageEvent('untag', before.references[key]?.id ?? '', familiarName(parseReference(key)))),
    ...Object.keys(before.images)
      .filter((id) => after.images[id] === undefined)
      .map((id) => imageEvent('delete', id)),
  ];
}

/** Takes away the names that are to go. @throws MinirunError when docker would refuse */
function untag(
  index: Index,
  name: string,
  { id, key }: { id: string; key?: string },
  user: string | undefined,
  force: boolean,
): Removal {
  const names = namesOf(index, id);
  const isTag = (each: string) => parseReference(each).digest === undefined;
  const short = shortDigest(id);
  const refuse = (why: string, remedy: string) => new MinirunError(`cannot remove image "${name}"`, why, remedy);
  const remove = (gone: readonly string[]): Removal => {
    for (const each of gone) delete index.references[each];
    return { untagged: gone.map((each) => familiarName(parseReference(each))), deleted: [] };
  };
  if (key !== undefined) {
    // The digests of a repository go with its last tag, as in docker: they were noted when the tag was pulled.
    const repository = key.slice(0, key.length - tagOrDigest(key).length);
    const sameRepository = names.filter((each) => each === repository + tagOrDigest(each));
    const others = sameRepository.filter((each) => each !== key && isTag(each));
    const going = isTag(key) && others.length === 0 ? sameRepository : [key];
    if (going.length === names.length && user !== undefined && !force) {
      throw refuse(
        `container ${user} uses its image ${short}`,
        `Remove the container first: minirun rm -f ${user}, or take away only the name: minirun rmi -f ${name}`,
      );
    }
    return remove(going);
  }
  const tags = names.filter(isTag);
  if (tags.length > 1 && !force) {
    throw refuse(`it has ${tags.length} names`, `Remove all of them: minirun rmi -f ${short}`);
  }
  if (user !== undefined) {
    throw refuse(`container ${user} uses it`, `Remove the container first: minirun rm -f ${user}`);
  }
  return remove(names);
}

/** What follows the repository in a canonical name, with its separator. */
function tagOrDigest(key: string): string {
  const { tag, digest } = parseReference(key);
  return digest === undefined ? `:${tag}` : `@${digest}`;
}

/** Takes layers out of the index that no image has and no running pull has pinned. */
function dropUnreachableLayers(index: Index): { size: number; blob?: { size: number } }[] {
  const keep = new Set(Object.keys(index.images).flatMap(layersOf));
  for (const diffId of pinned()) keep.add(diffId);
  return Object.entries(index.layers)
    .filter(([diffId]) => !keep.has(diffId))
    .map(([diffId, layer]) => {
      delete index.layers[diffId];
      return layer;
    });
}

/** @throws MinirunError when nobody can tell which layers an image has: a container may be using them */
function layersOf(id: string): string[] {
  const config = readConfig(id);
  if (config !== undefined) return config.rootfs.diff_ids;
  throw new MinirunError(
    'cannot clean up the images',
    `the config of image ${shortDigest(id)} is missing`,
    'See minirun system check',
  );
}

/** Moves files that the index does not lead to into the staging directory; under the lock. */
function discardUnreachable(index: Index, trash: Staging): string[] {
  const ids = Object.keys(index.images);
  discard(configDirectory(), new Set(ids.map((id) => path.basename(configPlace(id)))), trash);
  const blobs = [
    ...Object.values(index.images).flatMap(({ manifest }) => manifest?.digest ?? []),
    ...Object.values(index.layers).flatMap(({ blob }) => blob?.digest ?? []),
  ].map(hexOf);
  for (const algorithm of entriesOf(blobDirectory()))
    discard(path.join(blobDirectory(), algorithm), new Set(blobs), trash);
  // A layer of a store that knows no records of layers is led to by its image's config.
  const layers = [...Object.keys(index.layers), ...ids.flatMap(layersOf)];
  const deleted = discard(layerDirectory(), new Set(layers.map(hexOf)), trash).map((hex) => `sha256:${hex}`);
  // The index is written under the lock only, so any other copy of it is nobody's.
  const copies = entriesOf(paths.images()).filter((entry) => entry.startsWith('.index.json.'));
  for (const entry of copies) fs.renameSync(path.join(paths.images(), entry), trash.file(entry));
  sweepClaims();
  return deleted;
}

function discard(directory: string, keep: ReadonlySet<string>, trash: Staging): string[] {
  const gone = entriesOf(directory).filter((entry) => !keep.has(entry));
  for (const entry of gone) {
    fs.renameSync(path.join(directory, entry), trash.file(`${path.basename(directory)}-${entry}`));
    killPoint('collect.discarded');
  }
  return gone;
}

function entriesOf(directory: string): string[] {
  return fs.existsSync(directory) ? fs.readdirSync(directory) : [];
}
