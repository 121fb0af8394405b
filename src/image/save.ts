import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Header } from 'tar/header';
import { Pax } from 'tar/pax';
import { MinirunError, messageOf } from '../errors.ts';
import { recordEvents } from '../state/events.ts';
import { decompressed } from './compression.ts';
import { hexOf } from './digest.ts';
import { imageEvent } from './events.ts';
import { locate, noSuchImage, readIndex } from './index-file.ts';
import { writeHashed } from './layer-archive.ts';
import { mediaTypes } from './manifest.ts';
import { type LayerFile, type OutgoingImage, outgoingImages, readVerified } from './oci-manifest.ts';
import { canonicalName, parseReference, type Reference } from './reference.ts';
import { Staging } from './staging.ts';

/**
 * `oci-archive` is an OCI image layout with docker's list of images in it, which everybody can load; `oci-dir` the
 * same as a directory; `docker-archive` has uncompressed layers, for old dockers.
 */
export const archiveFormats = ['oci-archive', 'docker-archive', 'oci-dir'] as const;
export type ArchiveFormat = (typeof archiveFormats)[number];

interface SavedImage extends OutgoingImage {
  names: Reference[];
}

/** A file of the archive. */
interface Member {
  name: string;
  content: Buffer | LayerFile;
}

/**
 * Writes images to an archive. The same images give the same bytes every time.
 *
 * @param names of images; one that is named by its id is saved without a name
 * @param output a file or (`oci-dir`) a directory to be made; undefined for standard output
 * @throws MinirunError; then nothing is left of the file, and what was there before is as it was
 */
export async function saveImages(
  names: readonly string[],
  { format, output, signal }: { format: ArchiveFormat; output: string | undefined; signal?: AbortSignal },
): Promise<void> {
  const wanted = namesById(names);
  const staging = new Staging();
  try {
    const outgoing = await outgoingImages([...wanted.keys()], staging, signal);
    const images = outgoing.map((image) => ({ ...image, names: wanted.get(image.id) ?? [] }));
    const members = format === 'docker-archive' ? dockerMembers(images, staging, signal) : each(ociMembers(images));
    if (output !== undefined && format === 'oci-dir') await writeDirectory(members, output, signal);
    else if (output === undefined) await writeOut(tarOf(members, signal), signal);
    else await writeFile(tarOf(members, signal), output, signal);
    recordEvents(images.map(({ id }) => imageEvent('save', id)));
  } finally {
    staging.remove();
  }
}

/** The images that are meant, in the order in which they are named first, each with the tags among those names. */
function namesById(names: readonly string[]): Map<string, Reference[]> {
  const index = readIndex();
  const wanted = new Map<string, Reference[]>();
  for (const name of names) {
    const found = locate(index, name);
    if (found === undefined) throw noSuchImage(name, 'save');
    const tags = wanted.get(found.id) ?? [];
    wanted.set(found.id, tags);
    const reference = found.key === undefined ? undefined : parseReference(found.key);
    const isNew = reference?.tag !== undefined && !tags.some((tag) => canonicalName(tag) === found.key);
    if (isNew) tags.push(reference);
  }
  return wanted;
}

async function* each<T>(list: Iterable<T>): AsyncGenerator<T> {
  yield* list;
}

/** The image-spec's layout: https://github.com/opencontainers/image-spec/blob/main/image-layout.md */
function ociMembers(images: readonly SavedImage[]): Member[] {
  const blobs = new Map<string, Member>();
  const place = (digest: string) => `blobs/${digest.replace(':', '/')}`;
  const add = (digest: string, content: Member['content']) => {
    const name = place(digest);
    if (!blobs.has(name)) blobs.set(name, { name, content });
  };
  for (const { id, config, manifest, layers } of images) {
    add(id, config);
    add(manifest.digest, manifest.body);
    for (const layer of layers) add(layer.descriptor.digest, layer);
  }
  const manifests = images.flatMap(({ manifest, names, about: { os, architecture, variant } }) => {
    const descriptor = { mediaType: manifest.mediaType, digest: manifest.digest, size: manifest.body.length };
    const platform = { architecture, os, ...(variant === undefined ? {} : { variant }) };
    // Docker and containerd read the first one, podman and skopeo the second one.
    const annotationsOf = (name: Reference) => ({
      'io.containerd.image.name': canonicalName(name),
      'org.opencontainers.image.ref.name': canonicalName(name),
    });
    if (names.length === 0) return [{ ...descriptor, platform }];
    return names.map((name) => ({ ...descriptor, annotations: annotationsOf(name), platform }));
  });
  const list = images.map(({ id, names, layers }) => ({
    Config: place(id),
    // Whole: podman takes a short name for one of localhost.
    RepoTags: names.length === 0 ? null : names.map(canonicalName),
    Layers: layers.map(({ descriptor }) => place(descriptor.digest)),
  }));
  return [
    ...[...blobs.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    { name: 'index.json', content: json({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests }) },
    { name: 'manifest.json', content: json(list) },
    { name: 'oci-layout', content: json({ imageLayoutVersion: '1.0.0' }) },
  ];
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

/** What docker has loaded since version 1.10. A layer is decompressed when it is its turn, as its length stands first. */
async function* dockerMembers(
  images: readonly SavedImage[],
  staging: Staging,
  signal?: AbortSignal,
): AsyncGenerator<Member> {
  const nameOf = (diffId: string) => `${hexOf(diffId)}.tar`;
  const layers = new Map(images.flatMap((image) => image.layers).map((layer) => [layer.diffId, layer]));
  for (const layer of [...layers.values()].toSorted((a, b) => (a.diffId < b.diffId ? -1 : 1))) {
    const file = staging.file(nameOf(layer.diffId));
    const content = decompressed(readVerified(layer, signal));
    const { digest, size } = await writeHashed(content, file, signal);
    if (digest !== layer.diffId) {
      throw new MinirunError(
        `the stored layer ${layer.descriptor.digest} is damaged`,
        `its content has the digest ${digest} and not ${layer.diffId}`,
        'Remove the image and get it again',
      );
    }
    const descriptor = { mediaType: mediaTypes.ociLayer, digest, size };
    yield { name: nameOf(layer.diffId), content: { diffId: digest, descriptor, file } };
    fs.rmSync(file);
  }
  for (const { id, config } of images) yield { name: `${hexOf(id)}.json`, content: config };
  const list = images.map(({ id, names, layers: own }) => ({
    Config: `${hexOf(id)}.json`,
    RepoTags: names.length === 0 ? null : names.map(canonicalName),
    Layers: own.map(({ diffId }) => nameOf(diffId)),
  }));
  yield { name: 'manifest.json', content: json(list) };
}

const block = 512;

/** A tar archive of root's files of 1970, so that only the images count. */
async function* tarOf(members: AsyncIterable<Member>, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const directories = new Set<string>();
  for await (const { name, content } of members) {
    signal?.throwIfAborted();
    const parts = name.split('/').slice(0, -1);
    for (const parent of parts.map((_, at) => `${parts.slice(0, at + 1).join('/')}/`)) {
      if (!directories.has(parent)) yield headerOf(parent, 0);
      directories.add(parent);
    }
    const size = Buffer.isBuffer(content) ? content.length : content.descriptor.size;
    yield headerOf(name, size);
    if (Buffer.isBuffer(content)) yield content;
    else yield* readVerified(content, signal);
    yield Buffer.alloc((block - (size % block)) % block);
  }
  yield Buffer.alloc(2 * block);
}

function headerOf(name: string, size: number): Buffer {
  const isDirectory = name.endsWith('/');
  const fields = { path: name, mode: isDirectory ? 0o755 : 0o644, uid: 0, gid: 0, size, mtime: new Date(0) };
  const header = new Header({ ...fields, type: isDirectory ? 'Directory' : 'File' });
  const needsMore = header.encode();
  return Buffer.concat([...(needsMore ? [new Pax({ path: name, size }).encode()] : []), header.block as Buffer]);
}

async function writeOut(chunks: AsyncIterable<Buffer>, signal?: AbortSignal): Promise<void> {
  const file = '/proc/self/fd/1';
  // Bun writes to a pipe without letting anything else happen, and nobody could break it off.
  const isPipe = fs.fstatSync(1).isFIFO();
  try {
    await writeStream(chunks, isPipe ? fs.createWriteStream(file) : process.stdout, { file, end: isPipe, signal });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
    throw new MinirunError('cannot write the archive', 'whoever should read it has ended');
  }
}

/** Writes to what may be a pipe. A thread that waits for the reader of a pipe cannot be told to stop, so it is let go. */
async function writeStream(
  chunks: AsyncIterable<Buffer>,
  stream: Writable,
  { file, end, signal }: { file: string; end: boolean; signal?: AbortSignal },
): Promise<void> {
  let drain: { fd: number; timer: NodeJS.Timeout } | undefined;
  const release = () => {
    if (!fs.statSync(file).isFIFO()) return;
    const fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    drain = { fd, timer: setInterval(() => emptyPipe(fd), 5) };
  };
  signal?.addEventListener('abort', release);
  try {
    await pipeline(Readable.from(chunks, { objectMode: false }), stream, { end, signal });
  } finally {
    signal?.removeEventListener('abort', release);
    clearInterval(drain?.timer);
    if (drain !== undefined) fs.closeSync(drain.fd);
  }
}

function emptyPipe(fd: number): void {
  const rest = Buffer.allocUnsafe(1 << 16);
  try {
    while (fs.readSync(fd, rest) > 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
  }
}

/** Writes a file whole or not at all; what is no file (a device, a FIFO) is written as it is. */
async function writeFile(chunks: AsyncIterable<Buffer>, output: string, signal?: AbortSignal): Promise<void> {
  try {
    const stat = fs.statSync(output, { throwIfNoEntry: false });
    if (stat?.isDirectory()) throw new MinirunError(`cannot write ${output}`, 'it is a directory', 'Name a file');
    if (stat !== undefined && !stat.isFile()) {
      await writeStream(chunks, fs.createWriteStream(output), { file: output, end: true, signal });
      return;
    }
    // A link stays one.
    const place = stat === undefined ? output : fs.realpathSync(output);
    const temporary = path.join(path.dirname(place), `.${path.basename(place)}.${randomBytes(6).toString('hex')}`);
    const fd = fs.openSync(temporary, 'wx', 0o600);
    try {
      await copyTo(chunks, fd, signal);
      signal?.throwIfAborted();
      fs.renameSync(temporary, place);
    } catch (error) {
      fs.rmSync(temporary, { force: true });
      throw error;
    }
  } catch (error) {
    throw explain(output, error);
  }
}

async function copyTo(chunks: AsyncIterable<Buffer>, fd: number, signal?: AbortSignal): Promise<void> {
  try {
    for await (const chunk of chunks) {
      signal?.throwIfAborted();
      for (let written = 0; written < chunk.length; ) written += fs.writeSync(fd, chunk, written);
    }
    if (fs.fstatSync(fd).isFile()) fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Makes a directory whole or not at all. */
async function writeDirectory(members: AsyncIterable<Member>, output: string, signal?: AbortSignal): Promise<void> {
  const place = path.resolve(output);
  if (fs.existsSync(place) && !(fs.statSync(place).isDirectory() && fs.readdirSync(place).length === 0)) {
    throw new MinirunError(`cannot write ${output}`, 'it is there already', 'Name a directory that is to be made');
  }
  const temporary = path.join(path.dirname(place), `.${path.basename(place)}.${randomBytes(6).toString('hex')}`);
  try {
    fs.mkdirSync(temporary, { mode: 0o755 });
    for await (const { name, content } of members) {
      const file = path.join(temporary, name);
      fs.mkdirSync(path.dirname(file), { recursive: true });
      const source = Buffer.isBuffer(content) ? each([content]) : readVerified(content, signal);
      await copyTo(source, fs.openSync(file, 'wx', 0o644), signal);
    }
    fs.renameSync(temporary, place);
  } catch (error) {
    fs.rmSync(temporary, { recursive: true, force: true });
    throw explain(output, error);
  }
}

function explain(output: string, error: unknown): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (error instanceof MinirunError || code === undefined || syscall === undefined) return error;
  const words: Record<string, string> = {
    ENOENT: 'there is no such directory',
    ENOTDIR: 'a part of its path is not a directory',
    EACCES: 'it is not allowed',
    EROFS: 'the file system is read-only',
    ENOSPC: 'no space left on the disk',
    EDQUOT: 'no space left on the disk',
    EPIPE: 'whoever should read it has ended',
  };
  return new MinirunError(`cannot write ${output}`, words[code] ?? messageOf(error));
}
