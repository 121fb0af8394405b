import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { faultPoint, killPoint } from '../host/fault.ts';
import { digestOf } from './digest.ts';
import type { Image } from './image.ts';
import {
  blobPlace,
  configDirectory,
  configPlace,
  findConfig,
  type Index,
  layerDirectory,
  layerPlace,
  locate,
  locked,
  namesOf,
  noSuchImage,
  readConfig,
  readIndex,
  writeIndex,
} from './index-file.ts';
import type { Descriptor, RawManifest } from './manifest.ts';
import { canonicalName, familiarName, familiarRepository, parseReference, type Reference } from './reference.ts';
import type { Staging } from './staging.ts';

/** A layer that is ready to be taken into the store. */
export interface StagedLayer {
  /** Digest of the uncompressed tar. */
  diffId: string;
  /** Bytes of all files. */
  size: number;
  /** Whether it hides all that lower layers have. */
  opaque?: boolean;
  /** Where it was unpacked. */
  directory: string;
  /** The archive it was unpacked from, verified. */
  blob?: { file: string; descriptor: Descriptor };
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

/** The image of that name, id or beginning of an id; undefined when it is not on this machine. */
export function findImage(name: string): Image | undefined {
  const index = readIndex();
  const found = locate(index, name);
  return found && loadImage(index, found.id, found.key);
}

function loadImage(index: Index, id: string, key?: string): Image | undefined {
  const config = readConfig(id);
  if (config === undefined) return undefined;
  const name = key ?? namesOf(index, id)[0];
  const tag = name === undefined ? undefined : index.references[name];
  return {
    id,
    reference: name === undefined ? id.slice(0, 'sha256:'.length + 12) : familiarName(parseReference(name)),
    platform: { os: config.os, architecture: config.architecture, variant: config.variant },
    layers: visibleLayers(index, config.rootfs.diff_ids).map(layerPlace),
    config: config.config,
    ...(tag?.standIn === undefined ? {} : { standIn: tag.standIn }),
  };
}

/** The layers that there is anything to see of, the topmost first. */
function visibleLayers(index: Index, diffIds: readonly string[]): string[] {
  // The same layer twice, which overlayfs refuses (an empty one is common): the upper one covers all of the lower one.
  const layers = [...new Set(diffIds.toReversed())];
  const last = layers.findIndex((diffId) => index.layers[diffId]?.opaque === true);
  return last < 0 ? layers : layers.slice(0, last + 1);
}

/** Every name of every image, and the images without one, the newest first. */
export function listImages(): ImageListing[] {
  const index = readIndex();
  return Object.entries(index.images)
    .flatMap(([id, { size, stored }]): ImageListing[] => {
      const config = findConfig(id);
      const about = { id, size, created: config?.created ?? stored, labels: config?.config?.Labels ?? {} };
      const names = namesOf(index, id);
      if (names.length === 0) return [about];
      return rowsOf(names).map(({ name, digest }) => {
        const reference = parseReference(name);
        const standIn = index.references[name]?.standIn;
        return { ...about, name, repository: familiarRepository(reference), tag: reference.tag, digest, standIn };
      });
    })
    .toSorted((a, b) => (a.created < b.created ? 1 : a.created > b.created ? -1 : 0));
}

/** A row for each tag, with the digest of its repository; a digest has one of its own where there is no such tag. */
function rowsOf(names: readonly string[]): { name: string; digest?: string }[] {
  const references = names.toSorted().map((name) => ({ name, ...parseReference(name) }));
  const tags = references.filter(({ digest }) => digest === undefined);
  const digests = references.filter(({ digest }) => digest !== undefined);
  const isSame = (a: Reference, b: Reference) => a.domain === b.domain && a.path === b.path;
  return [
    ...tags.map((tag) => ({ name: tag.name, digest: digests.find((each) => isSame(each, tag))?.digest })),
    ...digests.filter((each) => !tags.some((tag) => isSame(each, tag))),
  ];
}

/** Whether a layer is here, unpacked. */
export function hasLayer(diffId: string): boolean {
  return readIndex().layers[diffId] !== undefined && fs.existsSync(layerPlace(diffId));
}

/**
 * Takes an unpacked layer into the store, where others find it at once. Nothing names it yet: whoever does this keeps
 * it by a pin of its staging directory until the image is stored.
 */
export async function storeLayer(layer: StagedLayer): Promise<void> {
  await settle([layer]);
  faultPoint('layer.staged');
  makeDirectories();
  await locked(() => {
    const index = readIndex();
    takeLayer(index, layer);
    // Durable, though a layer that a power cut loses is fetched again: some file systems would lose the whole index.
    writeIndex(index);
  });
}

/**
 * Waits until layers are on the disk, where the settings ask for it: then the index never names what a power cut may leave
 * empty. All of the file system at once, as file by file takes seconds. Off unless asked for, as it is for docker and
 * podman: the user waits for the disk then (docs/adr/0009).
 */
async function settle(layers: readonly StagedLayer[]): Promise<void> {
  const { readSettings } = await import('../state/settings.ts');
  if (layers.length === 0 || (await readSettings()).syncLayers !== true) return;
  const { runDirectly } = await import('../host/tool.ts');
  for (const { directory } of layers) {
    const { exitCode, stderr } = await runDirectly('sync', ['-f', directory]);
    if (exitCode !== 0) throw new MinirunError('cannot bring a layer to the disk', stderr.trim());
  }
}

function makeDirectories(): void {
  for (const directory of [configDirectory(), layerDirectory()])
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
}

/** Moves a staged layer to its place; what is there already is left as it is. */
function takeLayer(index: Index, { diffId, size, opaque, directory, blob }: StagedLayer): void {
  if (fs.existsSync(layerPlace(diffId)) && index.layers[diffId] !== undefined) return;
  if (blob !== undefined) takeBlob(blob.descriptor.digest, blob.file);
  killPoint('layer.blob');
  if (!fs.existsSync(layerPlace(diffId))) fs.renameSync(directory, layerPlace(diffId));
  killPoint('layer.moved');
  const { mediaType, digest, size: length } = blob?.descriptor ?? {};
  index.layers[diffId] = {
    size,
    ...(opaque === true ? { opaque } : {}),
    ...(digest === undefined ? {} : { blob: { mediaType, digest, size: length } as Descriptor }),
  };
}

function takeBlob(digest: string, file: string): void {
  const place = blobPlace(digest);
  fs.mkdirSync(path.dirname(place), { recursive: true, mode: 0o700 });
  fs.renameSync(file, place);
}

/**
 * Takes an image into the store: its layers, as far as they are not here yet, its config and its manifest, and points
 * names at it. An image that had such a name before stays, without it.
 *
 * @param config the OCI config as text; its digest is the image's id
 * @param layers those that are staged; every other one of the config must be here already
 * @param manifest as a registry or an archive gave it
 * @throws MinirunError when a layer is missing
 */
export async function storeImage({
  references,
  config,
  layers,
  manifest,
  standIn,
  staging,
}: {
  references: readonly Reference[];
  config: string | Buffer;
  layers: readonly StagedLayer[];
  manifest?: RawManifest;
  standIn?: string;
  staging: Staging;
}): Promise<Image> {
  await settle(layers);
  faultPoint('image.staged');
  const id = digestOf(config);
  const stagedConfig = staging.file('config.json');
  fs.writeFileSync(stagedConfig, config, { mode: 0o600, flush: true });
  const diffIds = (JSON.parse(config.toString()) as { rootfs: { diff_ids: string[] } }).rootfs.diff_ids;
  const stagedManifest = staging.file('manifest.json');
  if (manifest !== undefined) fs.writeFileSync(stagedManifest, manifest.body, { mode: 0o600, flush: true });
  makeDirectories();
  return locked(() => {
    // One critical section: a sweep or `rmi` must not find layers that nothing names yet.
    const index = readIndex();
    for (const layer of layers) takeLayer(index, layer);
    const missing = diffIds.find((diffId) => !fs.existsSync(layerPlace(diffId)));
    if (missing !== undefined)
      throw new MinirunError('cannot store the image', `its layer ${missing} is not here any more`, 'Try again');
    fs.renameSync(stagedConfig, configPlace(id));
    killPoint('image.config');
    const size = diffIds.reduce((sum, diffId) => sum + (index.layers[diffId]?.size ?? 0), 0);
    const record = (index.images[id] ??= { size, stored: new Date().toISOString() });
    if (manifest !== undefined && record.manifest === undefined) {
      takeBlob(manifest.digest, stagedManifest);
      const { digest, mediaType, body } = manifest;
      record.manifest = { mediaType, digest, size: body.length };
    }
    for (const key of references.map(canonicalName))
      index.references[key] = { id, ...(standIn === undefined ? {} : { standIn }) };
    writeIndex(index);
    return loadImage(index, id, references[0] && canonicalName(references[0])) as Image;
  });
}

/** Gives an image that is here further names. */
export async function tagImage(id: string, references: readonly Reference[], standIn?: string): Promise<Image> {
  return locked(() => {
    const index = readIndex();
    if (index.images[id] === undefined) throw noSuchImage(id, 'name');
    const keys = references.map(canonicalName);
    for (const key of keys) index.references[key] = { id, ...(standIn === undefined ? {} : { standIn }) };
    writeIndex(index);
    return loadImage(index, id, keys[0]) as Image;
  });
}

/** Digests under which a registry has given the image of a reference, in the reference's repository. */
export function knownDigests(reference: Reference): string[] {
  const index = readIndex();
  const id = index.references[canonicalName(reference)]?.id;
  if (id === undefined) return [];
  return namesOf(index, id)
    .map(parseReference)
    .filter(({ domain, path: repository }) => domain === reference.domain && repository === reference.path)
    .flatMap(({ digest }) => digest ?? []);
}
