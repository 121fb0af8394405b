import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { bytesBelow } from '../host/disk-usage.ts';
import { Damage, examine, readFile, soundFile } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { kinds } from '../state/migrations.ts';
import { paths } from '../state/paths.ts';
import {
  anything,
  count,
  either,
  listOf,
  mapOf,
  object,
  oneOf,
  optional,
  type Shape,
  text,
  textLike,
  time,
} from '../state/shape.ts';
import { algorithmOf, digestOf, hexOf } from './digest.ts';
import type { ImageConfig } from './image.ts';
import type { Descriptor, OciImageConfig } from './manifest.ts';
import { canonicalName, isDigest, parseReference } from './reference.ts';

/** `images/index.json`: what is here and under which names. Read by anybody, changed under the lock. */
export interface Index {
  schema: 2;
  /** By canonical name: with a tag, or with the digest under which a registry has given the image. */
  references: Record<string, Tag>;
  /** By id. An image that no name leads to is kept until somebody removes it. */
  images: Record<string, ImageRecord>;
  /** By diffID. */
  layers: Record<string, LayerRecord>;
}

export interface Tag {
  id: string;
  /** What the image stands in for under this name: one line for the user. */
  standIn?: string;
}

export interface ImageRecord {
  /** Bytes of all files of all layers. */
  size: number;
  /** RFC 3339. */
  stored: string;
  /** The manifest as it came, kept as a blob. Absent for an image that was made here. */
  manifest?: Descriptor;
}

export interface LayerRecord {
  /** Bytes of all files. */
  size: number;
  /** It hides all that lower layers have: they are left out where it is used. */
  opaque?: true;
  /** The archive it was unpacked from, kept as a blob. Absent for a layer of an older minirun. */
  blob?: Descriptor;
}

const words = listOf(text);

/** Go writes what is empty as null. */
const orNull = (shape: Shape): Shape => optional(either(oneOf(null), shape));

const digest: Shape = {
  wrong: (value) => (typeof value === 'string' && isDigest(value) ? undefined : ': no digest'),
};

/** Names as `canonicalName` makes them. */
const imageName = textLike(/^[a-zA-Z0-9.:[\]-]+\/[a-z0-9][a-z0-9._/-]*(:\w[\w.-]{0,127}|@[a-z0-9]+:[0-9a-f]+)$/);

const descriptorShape = object<Descriptor>({
  mediaType: text,
  digest: digest,
  size: count,
  urls: anything,
  annotations: anything,
  platform: anything,
});

export const indexShape = object<Index>({
  schema: oneOf(2),
  references: mapOf(object<Tag>({ id: digest, standIn: optional(text) }), imageName),
  images: mapOf(object<ImageRecord>({ size: count, stored: time, manifest: optional(descriptorShape) }), digest),
  layers: mapOf(
    object<LayerRecord>({ size: count, opaque: optional(oneOf(true)), blob: optional(descriptorShape) }),
    digest,
  ),
});

/** The index; of a damaged one what can be read, and what the files beside it say. */
export function readIndex(): Index {
  return (
    readFile(kinds.index, indexShape, indexFile(), rebuiltIndex) ?? {
      schema: 2,
      references: {},
      images: {},
      layers: {},
    }
  );
}

let rebuilt: { of: string; index: Index } | undefined;

/**
 * An index of the images whose config and layers are here: names, sizes and archives as far as `parts` has them. What nothing
 * names any more is left to be swept.
 */
export function rebuiltIndex(parts: Partial<Index> = {}): Index {
  const of = JSON.stringify(parts);
  // It takes a look at every file of a layer that is not in what is left.
  if (rebuilt?.of === of) return structuredClone(rebuilt.index);
  const { references = {}, images = {}, layers = {} } = parts;
  const index: Index = { schema: 2, references: {}, images: {}, layers: {} };
  for (const entry of entriesOf(configDirectory())) {
    const id = `sha256:${path.basename(entry, '.json')}`;
    const diffIds = isDigest(id) ? soundConfig(id)?.rootfs.diff_ids : undefined;
    if (diffIds === undefined || !diffIds.every((diffId) => fs.existsSync(layerPlace(diffId)))) continue;
    for (const diffId of diffIds) index.layers[diffId] ??= layers[diffId] ?? { size: bytesBelow(layerPlace(diffId)) };
    const size = diffIds.reduce((sum, diffId) => sum + (index.layers[diffId]?.size ?? 0), 0);
    index.images[id] = images[id] ?? { size, stored: new Date().toISOString() };
  }
  for (const [name, tag] of Object.entries(references)) if (index.images[tag.id]) index.references[name] = tag;
  rebuilt = { of, index };
  return structuredClone(index);
}

/** The config of an image, when it is what its id says. */
export function soundConfig(id: string): OciImageConfig | undefined {
  try {
    const content = fs.readFileSync(configPlace(id));
    const config = JSON.parse(content.toString()) as OciImageConfig;
    return digestOf(content) === id && config.rootfs.diff_ids.every(isDigest) ? config : undefined;
  } catch {
    return undefined;
  }
}

function entriesOf(directory: string): string[] {
  return fs.existsSync(directory) ? fs.readdirSync(directory) : [];
}

/** Under the lock. */
export function writeIndex(index: Index): void {
  writeJson(indexFile(), index);
}

const indexFile = (): string => path.join(paths.images(), 'index.json');

/** The lock is loaded only where something changes: finding an image is part of every start. */
export async function locked<T>(change: () => T): Promise<T> {
  const { withLock } = await import('../state/lock.ts');
  return withLock(change);
}

export const configDirectory = (): string => path.join(paths.images(), 'configs');
export const layerDirectory = (): string => path.join(paths.images(), 'layers');
export const blobDirectory = (): string => path.join(paths.images(), 'blobs');

/** `images/configs/<hex of the id>.json`, byte for byte what the id is the digest of. */
export const configPlace = (id: string): string => path.join(configDirectory(), `${hexOf(id)}.json`);

/** Where a layer is, unpacked. */
export const layerPlace = (diffId: string): string => path.join(layerDirectory(), hexOf(diffId));

/** Where content is, byte for byte what the digest is made of: `images/blobs/<algorithm>/<hex>`. */
export function blobPlace(digest: string): string {
  // What is not a digest must never become a path (CVE-2024-3727).
  if (!isDigest(digest)) throw new MinirunError('invalid digest', JSON.stringify(digest.slice(0, 200)));
  return path.join(blobDirectory(), algorithmOf(digest), hexOf(digest));
}

const configOfImage = object<ImageConfig>({
  Env: orNull(words),
  Entrypoint: orNull(words),
  Cmd: orNull(words),
  WorkingDir: orNull(text),
  User: orNull(text),
  StopSignal: orNull(text),
  Labels: orNull(mapOf(text)),
  ExposedPorts: orNull(mapOf(anything)),
  Volumes: orNull(mapOf(anything)),
  Healthcheck: anything,
  OnBuild: orNull(words),
  Shell: orNull(words),
  ArgsEscaped: anything,
});

/** What of a config is worked with here. */
const configShape = object<Pick<OciImageConfig, 'architecture' | 'os' | 'config' | 'rootfs' | 'created'>>({
  architecture: text,
  os: text,
  created: orNull(time),
  config: orNull(configOfImage),
  rootfs: object<OciImageConfig['rootfs']>({ type: anything, diff_ids: listOf(digest) }),
});

/**
 * The OCI config of an image that is here.
 *
 * @throws MinirunError when it is damaged. It is not set aside: its name is its digest, and the next pull replaces it
 */
export function readConfig(id: string): OciImageConfig | undefined {
  const file = configPlace(id);
  const found = examine(kinds.imageConfig, configShape, file);
  if (!(found instanceof Damage)) return found;
  throw new MinirunError(`cannot read ${file}`, 'it is damaged', 'See minirun system check');
}

/** The same for lists of images: undefined when it is missing or damaged. */
export function findConfig(id: string): OciImageConfig | undefined {
  return soundFile(kinds.imageConfig, configShape, configPlace(id));
}

/** Every name of an image. */
export function namesOf(index: Index, id: string): string[] {
  return Object.keys(index.references).filter((key) => index.references[key]?.id === id);
}

interface Location {
  id: string;
  /** The canonical name by which it was found; absent when by id. */
  key?: string;
}

/** What a name, an id or the beginning of an id leads to. @throws MinirunError when several ids begin so */
export function locate(index: Index, name: string): Location | undefined {
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

export function noSuchImage(name: string, verb: string): MinirunError {
  return new MinirunError(
    `cannot ${verb} image "${name}"`,
    'it is not on this machine',
    'See minirun images for those that are',
  );
}
