import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { readJson, writeJson } from '../state/json.ts';
import { paths } from '../state/paths.ts';
import type { Image } from './image.ts';
import type { OciImageConfig } from './manifest.ts';
import { canonicalName, familiarName, familiarRepository, parseReference, type Reference } from './reference.ts';
import type { Staging } from './staging.ts';

/** `images/index.json`: what is here and under which names. */
interface Index {
  schema: 1;
  /** By canonical name. */
  references: Record<string, Tag>;
  /** By id. An image that no name leads to is kept until somebody removes it. */
  images: Record<string, { size: number; stored: string }>;
}

interface Tag {
  id: string;
  /** What the image stands in for under this name: one line for the user. */
  standIn?: string;
}

/** A layer that is ready in a staging directory. */
export interface StagedLayer {
  /** Digest of the uncompressed tar, or what stands for it in a layer that was never one. */
  diffId: string;
  /** Where it was unpacked. */
  directory: string;
}

/** One name of an image, or none of it, as a line of `minirun images`. */
export interface ImageListing {
  id: string;
  /** `alpine`, or undefined for an image without a name. */
  repository?: string;
  tag?: string;
  digest?: string;
  /** Canonical name. */
  name?: string;
  standIn?: string;
  /** RFC 3339. */
  created: string;
  /** Bytes of all files of all layers. */
  size: number;
  labels: Record<string, string>;
}

const indexFile = () => path.join(paths.images(), 'index.json');
const configDirectory = () => path.join(paths.images(), 'configs');
const layerDirectory = () => path.join(paths.images(), 'layers');
const hexOf = (digest: string) => digest.slice(digest.indexOf(':') + 1);
/** `images/configs/<hex of the id>.json`, byte for byte what the id is the digest of. */
const configFile = (id: string) => path.join(configDirectory(), `${hexOf(id)}.json`);
const layerPlace = (diffId: string) => path.join(layerDirectory(), hexOf(diffId));

function readIndex(): Index {
  return readJson<Index>(indexFile()) ?? { schema: 1, references: {}, images: {} };
}

/** The lock is loaded only where something changes: finding an image is part of every start. */
async function locked<T>(change: () => T): Promise<T> {
  const { withLock } = await import('../state/lock.ts');
  return withLock(change);
}

/** The image of that name, id or beginning of an id; undefined when it is not on this machine. */
export function findImage(name: string): Image | undefined {
  const index = readIndex();
  const found = locate(index, name);
  return found && loadImage(index, found.id, found.key);
}

interface Location {
  id: string;
  /** The canonical name by which it was found; absent when by id. */
  key?: string;
}

function locate(index: Index, name: string): Location | undefined {
  if (Object.hasOwn(index.images, name)) return { id: name };
  const digits = /^(?:sha256:)?([0-9a-f]{1,64})$/.exec(name)?.[1];
  // A name goes before an id that begins with it, as in docker.
  if (digits !== name || digits.length < 64) {
    if (!name.startsWith('sha256:')) {
      const key = canonicalName(parseReference(name));
      const tag = index.references[key];
      if (tag !== undefined) return { id: tag.id, key };
    }
    if (digits === undefined) return undefined;
  }
  const matches = Object.keys(index.images).filter((id) => hexOf(id).startsWith(digits));
  if (matches.length > 1) {
    throw new MinirunError(
      `ambiguous image id "${name}"`,
      `${matches.length} images begin with it`,
      'Give more digits',
    );
  }
  return matches[0] === undefined ? undefined : { id: matches[0] };
}

function loadImage(index: Index, id: string, key?: string): Image | undefined {
  const config = readConfig(id);
  if (config === undefined) return undefined;
  const name = key ?? namesOf(index, id)[0];
  const tag = name === undefined ? undefined : index.references[name];
  return {
    id,
    reference: name === undefined ? id.slice(0, 'sha256:'.length + 12) : familiarName(parseReference(name)),
    layers: config.rootfs.diff_ids.map(layerPlace).toReversed(),
    config: config.config,
    ...(tag?.standIn === undefined ? {} : { standIn: tag.standIn }),
  };
}

/** The OCI config of an image that is here. */
function readConfig(id: string): OciImageConfig | undefined {
  return readJson<OciImageConfig>(configFile(id));
}

function namesOf(index: Index, id: string): string[] {
  return Object.keys(index.references).filter((key) => index.references[key]?.id === id);
}

/** Every name of every image, and the images without one, the newest first. */
export function listImages(): ImageListing[] {
  const index = readIndex();
  return Object.entries(index.images)
    .flatMap(([id, { size, stored }]): ImageListing[] => {
      const config = readConfig(id);
      const about = { id, size, created: config?.created ?? stored, labels: config?.config.Labels ?? {} };
      const names = namesOf(index, id);
      if (names.length === 0) return [about];
      return names.toSorted().map((name) => {
        const reference = parseReference(name);
        const { tag, digest } = reference;
        const standIn = index.references[name]?.standIn;
        return { ...about, name, repository: familiarRepository(reference), tag, digest, standIn };
      });
    })
    .toSorted((a, b) => (a.created < b.created ? 1 : a.created > b.created ? -1 : 0));
}

/**
 * Takes an image into the store: moves the staged layers to their places (what is there already is left as it is),
 * writes the config and points the name at it. The name's former image stays, without that name.
 *
 * @param config the OCI config as text; its digest is the image's id
 * @param layers the lowest first, in the order of the config's diff_ids
 */
export async function storeImage({
  reference,
  config,
  layers,
  size,
  standIn,
  staging,
}: {
  reference?: Reference;
  config: string;
  layers: StagedLayer[];
  /** Bytes of all files of all layers. */
  size: number;
  standIn?: string;
  staging: Staging;
}): Promise<Image> {
  const id = `sha256:${createHash('sha256').update(config).digest('hex')}`;
  const stagedConfig = staging.file('config.json');
  fs.writeFileSync(stagedConfig, config, { mode: 0o600, flush: true });
  return locked(() => {
    // One critical section: a sweep or `rmi` must not find layers that nothing names yet.
    for (const directory of [configDirectory(), layerDirectory()])
      fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const { diffId, directory } of layers) {
      if (!fs.existsSync(layerPlace(diffId))) fs.renameSync(directory, layerPlace(diffId));
    }
    fs.renameSync(stagedConfig, configFile(id));
    const index = readIndex();
    index.images[id] ??= { size, stored: new Date().toISOString() };
    const key = reference && canonicalName(reference);
    if (key !== undefined) index.references[key] = { id, ...(standIn === undefined ? {} : { standIn }) };
    writeJson(indexFile(), index);
    return loadImage(index, id, key) as Image;
  });
}

/** Gives an image that is here a further name. */
export async function tagImage(id: string, reference: Reference, standIn?: string): Promise<Image> {
  return locked(() => {
    const index = readIndex();
    if (index.images[id] === undefined) throw noSuchImage(id, 'name');
    const key = canonicalName(reference);
    index.references[key] = { id, ...(standIn === undefined ? {} : { standIn }) };
    writeJson(indexFile(), index);
    return loadImage(index, id, key) as Image;
  });
}

function noSuchImage(name: string, verb: string): MinirunError {
  return new MinirunError(
    `cannot ${verb} image "${name}"`,
    'it is not on this machine',
    'See minirun images for those that are',
  );
}

/** What `removeImage` did, in docker's words: names without an image, and digests of what was deleted. */
export interface Removal {
  untagged: string[];
  deleted: string[];
}

/**
 * Removes a name of an image and, with its last name, the image and the layers that no other image has; by id all of
 * it at once. Docker's rules: an image that a container uses keeps its last name unless forced, and is never deleted.
 *
 * @param inUse the name of a container that uses the image, if there is one; called under the lock
 */
export async function removeImage(
  name: string,
  { inUse, force = false }: { inUse: (id: string) => string | undefined; force?: boolean },
): Promise<Removal> {
  const { Staging: NewStaging, sweepStaging } = await import('./staging.ts');
  const trash = new NewStaging();
  try {
    return await locked(() => {
      const index = readIndex();
      const found = locate(index, name);
      if (found === undefined) throw noSuchImage(name, 'remove');
      const removal = untag(index, name, found, inUse(found.id), force);
      const isUnnamed = namesOf(index, found.id).length === 0;
      // After a forced untagging a container goes on using the layers, so the image stays without a name.
      if (isUnnamed && inUse(found.id) === undefined) {
        delete index.images[found.id];
        removal.deleted.push(found.id);
      }
      // The index first: what nothing names is swept, whenever this process dies.
      writeJson(indexFile(), index);
      removal.deleted.push(...discardUnreachable(index, trash));
      return removal;
    });
  } finally {
    trash.remove();
    sweepStaging();
  }
}

/** Takes away the names that are to go. @throws MinirunError when docker would refuse */
function untag(index: Index, name: string, { id, key }: Location, user: string | undefined, force: boolean): Removal {
  const names = namesOf(index, id);
  const short = id.slice('sha256:'.length, 'sha256:'.length + 12);
  const refuse = (why: string, remedy: string) => new MinirunError(`cannot remove image "${name}"`, why, remedy);
  if (key !== undefined) {
    if (names.length === 1 && user !== undefined && !force) {
      throw refuse(
        `container ${user} uses its image ${short}`,
        `Remove the container first: minirun rm -f ${user}, or take away only the name: minirun rmi -f ${name}`,
      );
    }
    delete index.references[key];
    return { untagged: [familiarName(parseReference(key))], deleted: [] };
  }
  if (names.length > 1 && !force) {
    throw refuse(`it has ${names.length} names`, `Remove all of them: minirun rmi -f ${short}`);
  }
  if (user !== undefined) {
    throw refuse(`container ${user} uses it`, `Remove the container first: minirun rm -f ${user}`);
  }
  for (const each of names) delete index.references[each];
  return { untagged: names.map((each) => familiarName(parseReference(each))), deleted: [] };
}

/** Moves configs and layers that no image of the index has into the staging directory; under the lock. */
function discardUnreachable(index: Index, trash: Staging): string[] {
  const ids = Object.keys(index.images);
  const configs = new Set(ids.map((id) => path.basename(configFile(id))));
  const layers = new Set(ids.flatMap((id) => readConfig(id)?.rootfs.diff_ids ?? []).map(hexOf));
  discard(configDirectory(), configs, trash);
  return discard(layerDirectory(), layers, trash).map((hex) => `sha256:${hex}`);
}

function discard(directory: string, keep: ReadonlySet<string>, trash: Staging): string[] {
  if (!fs.existsSync(directory)) return [];
  const gone = fs.readdirSync(directory).filter((entry) => !keep.has(entry));
  for (const entry of gone) fs.renameSync(path.join(directory, entry), trash.file(entry));
  return gone;
}

/**
 * Deletes what processes that were killed have left in the store: staging directories, layers and configs that nothing
 * names, half-written files. For whoever is about to add an image, and for the clean-up of the state directory.
 */
export async function sweepImages(): Promise<void> {
  const { Staging: NewStaging, sweepStaging } = await import('./staging.ts');
  const trash = new NewStaging();
  try {
    await locked(() => {
      discardUnreachable(readIndex(), trash);
      // The index is written under the lock only, so any other copy of it is nobody's.
      for (const entry of fs.readdirSync(paths.images())) {
        if (entry.startsWith('.index.json.')) fs.renameSync(path.join(paths.images(), entry), trash.file(entry));
      }
    });
  } finally {
    trash.remove();
    sweepStaging();
  }
}
