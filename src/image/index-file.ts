import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { readJson, writeJson } from '../state/json.ts';
import { paths } from '../state/paths.ts';
import { algorithmOf, hexOf } from './digest.ts';
import type { Descriptor, OciImageConfig } from './manifest.ts';
import { canonicalName, isDigest, parseReference } from './reference.ts';

/** `images/index.json`: what is here and under which names. Read by anybody, changed under the lock. */
export interface Index {
  schema: 1;
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

export function readIndex(): Index {
  const index = readIntact<Partial<Index>>(indexFile());
  return { schema: 1, references: {}, images: {}, layers: {}, ...index };
}

function readIntact<T>(file: string): T | undefined {
  try {
    return readJson<T>(file);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new MinirunError(`cannot read ${file}`, 'it is damaged', 'See minirun system check');
  }
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

/** The OCI config of an image that is here. */
export function readConfig(id: string): OciImageConfig | undefined {
  return readIntact<OciImageConfig>(configPlace(id));
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
