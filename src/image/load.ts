import fs from 'node:fs';
import type { Readable } from 'node:stream';
import { MinirunError, messageOf } from '../errors.ts';
import { recordEvents } from '../state/events.ts';
import { readSettings } from '../state/settings.ts';
import { type ArchiveFile, type ArchiveFiles, layoutDirectory, noImageArchive, readTar } from './archive-files.ts';
import { claimed } from './claim.ts';
import { sweepImages } from './collect.ts';
import { hexOf, shortDigest } from './digest.ts';
import { imageEvent } from './events.ts';
import type { Image } from './image.ts';
import { locked } from './index-file.ts';
import { unpackLayer } from './layer.ts';
import { blobOf } from './layer-archive.ts';
import { type Descriptor, mediaTypes, type OciImageConfig, type Platform, type RawManifest } from './manifest.ts';
import { largestManifest, parseImageConfig, parseManifestDocument } from './manifest-document.ts';
import { hostPlatform, isCompatible, isImage, platformName, selectManifest } from './platform.ts';
import type { Report } from './progress.ts';
import { canonicalName, isDigest, parseReference, type Reference } from './reference.ts';
import { Damaged } from './staged-layer.ts';
import { Staging } from './staging.ts';
import { hasLayer, type StagedLayer, storeImage, storeLayer } from './store.ts';

interface Options {
  /** Which of several is wanted; the machine's own where it is not said. */
  platform?: Platform;
  report: Report;
  signal?: AbortSignal;
}

/** An image of which everything but the layers is checked. */
interface FoundImage {
  /** Byte for byte. */
  config: Buffer;
  about: OciImageConfig;
  names: Reference[];
  /** Absent in docker's own archives. */
  manifest?: RawManifest;
  /** The lowest first. */
  layers: FoundLayer[];
}

interface FoundLayer {
  diffId: string;
  /** What to call it in messages. */
  name: string;
  /** Its archive; asked for only when the layer is not here. @throws MinirunError when it is missing or damaged */
  open: () => Promise<ArchiveFile>;
  /** From its manifest; docker's archives have none. */
  mediaType?: string;
}

/**
 * Takes the images of an archive into the store: one that docker save or podman save made, or an OCI image layout as an
 * archive or as a directory. It is recognized by its content, and may be compressed.
 *
 * The archive may be a pipe, and its entries may come in any order, so its files are kept in the staging directory until
 * it has ended. Nothing of it is stored before all of it is checked but layers, which go again when it fails.
 *
 * @param source a file or a directory; undefined for standard input
 * @returns every image with the names it has got, in the archive's order
 */
export async function loadImages(
  source: string | undefined,
  options: Options,
): Promise<{ image: Image; names: Reference[] }[]> {
  const input = openSource(source);
  await sweepImages();
  const staging = new Staging();
  try {
    return await loadFrom(input, staging, options);
  } catch (error) {
    staging.remove();
    // Layers that were unpacked already, and that no image names now.
    await sweepImages();
    throw error;
  } finally {
    staging.remove();
  }
}

async function loadFrom(input: Input, staging: Staging, options: Options) {
  const { signal } = options;
  // Nothing may ever come from a pipe.
  signal?.addEventListener('abort', () => input.stream?.destroy(signal.reason as Error));
  const { limits } = await readSettings();
  const files =
    input.stream === undefined
      ? layoutDirectory(input.name, staging, { signal })
      : await readTar(input.stream, staging, input.name, { signal, largest: limits.layerSize });
  const archive = new ImageArchive(files, input.name);
  const images = await archive.images(options.platform);
  // What is named here already must not be swept before the image is stored.
  await locked(() => staging.pin(images.flatMap(({ layers }) => layers.map(({ diffId }) => diffId))));
  const layers = new Map(images.flatMap((image) => image.layers).map((layer) => [layer.diffId, layer]));
  for (const layer of layers.values()) await loadLayer(layer, staging, options);
  const loaded: { image: Image; names: Reference[] }[] = [];
  for (const { config, names, manifest } of images) {
    signal?.throwIfAborted();
    loaded.push({ image: await storeImage({ references: names, config, layers: [], manifest, staging }), names });
  }
  recordEvents(loaded.map(({ image: { id } }) => imageEvent('load', id)));
  return loaded;
}

interface Input {
  /** For messages. */
  name: string;
  /** Absent for a directory. */
  stream?: Readable;
}

function openSource(source: string | undefined): Input {
  if (source === undefined) {
    if (process.stdin.isTTY) {
      throw new MinirunError(
        'cannot load from standard input',
        'it is a terminal',
        'Name a file with -i, or give the archive by < or |',
      );
    }
    return { name: 'standard input', stream: process.stdin };
  }
  let fd: number;
  try {
    fd = fs.openSync(source, 'r');
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : messageOf(error);
    throw new MinirunError(`cannot load ${source}`, why, 'Name an image archive or an OCI image layout');
  }
  if (fs.fstatSync(fd).isDirectory()) {
    fs.closeSync(fd);
    return { name: source };
  }
  return { name: source, stream: fs.createReadStream(source, { fd, highWaterMark: 1 << 20 }) };
}

type Json = Record<string, unknown>;

/** Bytes. One entry for each image, with the names of its layers. */
const largestList = 8 * 1024 * 1024;
const mostNesting = 5;
const mostImages = 1000;

/** The images that the files of an archive describe. Everything in it may be hostile. */
class ImageArchive {
  constructor(
    private readonly files: ArchiveFiles,
    private readonly source: string,
  ) {}

  /** @throws MinirunError when it holds none, or one of which something is missing or wrong */
  async images(platform: Platform | undefined): Promise<FoundImage[]> {
    const index = await this.files.find('index.json');
    const list = await this.files.find('manifest.json');
    if (index !== undefined && (await this.files.find('oci-layout')) !== undefined) {
      const found = await this.ociImages(index, platform);
      // Archives of docker since version 25 are both, and podman's names stand in docker's list only.
      const named = list === undefined ? [] : await this.dockerImages(list, undefined);
      for (const image of found) {
        const twin = named.find(({ config }) => config.equals(image.config));
        image.names = distinct([...image.names, ...(twin?.names ?? [])]);
      }
      return found;
    }
    if (list !== undefined) return this.dockerImages(list, platform);
    if (this.files.isCut) throw this.problem('it is cut off');
    if ((await this.files.find('repositories')) !== undefined) {
      throw this.problem('it is too old: of a docker before version 1.10', 'Convert it once with docker load and save');
    }
    throw noImageArchive(this.source, 'it has neither an index.json with an oci-layout nor a manifest.json');
  }

  private missing(what: string): MinirunError {
    return this.problem(this.files.isCut ? `it is cut off: ${what} is missing` : `${what} is missing in it`);
  }

  private problem(why: string, remedy = 'Make the archive anew'): MinirunError {
    return new MinirunError(`cannot load ${this.source}`, why, remedy);
  }

  /** `index.json` of the image-spec's layout: the images by their manifests, with names in annotations. */
  private async ociImages(index: ArchiveFile, platform: Platform | undefined): Promise<FoundImage[]> {
    const body = this.read(index, 'index.json', largestManifest);
    const document = parseManifestDocument({ digest: 'index.json', mediaType: mediaTypes.ociIndex, body });
    if (document.kind !== 'index') throw this.problem('its index.json is no list of images');
    const entries = document.list.manifests;
    if (entries.length > mostImages) throw this.problem(`it lists more than ${mostImages} images`);
    const found: FoundImage[] = [];
    const foreign: Platform[] = [];
    for (const entry of entries.filter(isImage)) {
      const image = await this.ociImage(entry, platform);
      if ('foreign' in image) {
        foreign.push(...image.foreign);
        continue;
      }
      const name = nameOf(entry);
      const twin = found.find(({ config }) => config.equals(image.config));
      const target = twin ?? image;
      if (twin === undefined) found.push(image);
      if (name !== undefined) target.names = distinct([...target.names, name]);
    }
    return this.forPlatform(found, foreign, platform);
  }

  /** Takes what several images of one name are for different platforms to the one that is meant. */
  private forPlatform(found: FoundImage[], foreign: Platform[], wanted: Platform | undefined): FoundImage[] {
    if (found.length === 0) {
      if (foreign.length === 0) throw noImageArchive(this.source, 'it lists no image');
      throw this.problem(
        `it has no image for ${platformName(wanted ?? hostPlatform())}, only for ` +
          [...new Set(foreign.map(platformName))].join(', '),
        'Give --platform to load another one',
      );
    }
    const host = wanted ?? hostPlatform();
    const keys = (image: FoundImage) => image.names.map(canonicalName);
    const better = (image: FoundImage) =>
      found.some(
        (other) =>
          other !== image && isCompatible(other.about, host) && keys(other).some((key) => keys(image).includes(key)),
      );
    return found.filter((image) => isCompatible(image.about, host) || !better(image));
  }

  /** The image that an entry of an index leads to, through indexes in it; or the platforms that are there instead. */
  private async ociImage(
    entry: Descriptor,
    platform: Platform | undefined,
    nesting = 0,
  ): Promise<FoundImage | { foreign: Platform[] }> {
    if (nesting > mostNesting) throw this.problem(`its lists of images are nested more than ${mostNesting} times`);
    const body = this.read(await this.blob(entry), entry.digest, largestManifest);
    const manifest: RawManifest = { digest: entry.digest, mediaType: entry.mediaType, body };
    const document = parseManifestDocument(manifest);
    if (document.kind === 'index') {
      const selected = selectManifest(document.list, platform ?? hostPlatform());
      if (selected !== undefined) return this.ociImage(selected, platform, nesting + 1);
      return { foreign: document.list.manifests.filter(isImage).flatMap((each) => each.platform ?? []) };
    }
    const { config, layers } = document.manifest;
    const { body: configBody, about } = this.config(await this.blob(config), config.digest);
    if (platform !== undefined && !isCompatible(about, platform)) return { foreign: [about] };
    const diffIds = about.rootfs.diff_ids;
    this.checkCount(layers.length, diffIds.length);
    return {
      config: configBody,
      about,
      names: [],
      manifest: { ...manifest, mediaType: document.manifest.mediaType },
      layers: layers.map((layer, at) => ({
        diffId: diffIds[at] as string,
        name: layer.digest,
        open: () => this.blob(layer),
        mediaType: layer.mediaType,
      })),
    };
  }

  /** `manifest.json` of docker save: a list of images by the names of their files. */
  private async dockerImages(list: ArchiveFile, platform: Platform | undefined): Promise<FoundImage[]> {
    const entries = this.json(this.read(list, 'manifest.json', largestList), 'manifest.json');
    if (!Array.isArray(entries) || entries.length === 0)
      throw noImageArchive(this.source, 'its manifest.json is empty');
    if (entries.length > mostImages) throw this.problem(`it lists more than ${mostImages} images`);
    const found: FoundImage[] = [];
    const foreign: Platform[] = [];
    for (const entry of entries as unknown[]) {
      const image = await this.dockerImage(entry);
      if (platform === undefined || isCompatible(image.about, platform)) found.push(image);
      else foreign.push(image.about);
    }
    return this.forPlatform(found, foreign, platform);
  }

  private async dockerImage(entry: unknown): Promise<FoundImage> {
    const { Config, RepoTags, Layers } = (entry ?? {}) as Json;
    const names = Layers ?? [];
    if (typeof Config !== 'string' || !isTexts(names) || !isTexts(RepoTags ?? []))
      throw this.problem('its manifest.json is not as docker makes it');
    const file = await this.files.find(Config);
    if (file === undefined) throw this.missing(`the config ${quote(Config)}`);
    const { body, about } = this.config(file, quote(Config));
    const diffIds = about.rootfs.diff_ids;
    this.checkCount(names.length, diffIds.length);
    const layers = names.map((name, at) => ({
      diffId: diffIds[at] as string,
      name: quote(name),
      open: async () => {
        const layer = await this.files.find(name);
        if (layer === undefined) throw this.missing(`the layer ${quote(name)}`);
        return layer;
      },
    }));
    return { config: body, about, names: distinct(((RepoTags ?? []) as string[]).map((tag) => this.tag(tag))), layers };
  }

  private tag(text: string): Reference {
    let reference: Reference | undefined;
    try {
      reference = parseReference(text);
    } catch {
      // The message would have the text as it is.
    }
    if (reference?.tag === undefined) throw this.problem(`it has an image with the name ${quote(text)}, which is none`);
    return reference;
  }

  private checkCount(layers: number, diffIds: number): void {
    if (layers !== diffIds)
      throw this.problem(`an image in it has ${layers} layers, but its config tells of ${diffIds}`);
  }

  /** A blob by its digest, which the content must have. */
  private async blob({ digest, size }: Descriptor): Promise<ArchiveFile> {
    const file = isDigest(digest) ? await this.files.find(`blobs/${digest.replace(':', '/')}`) : undefined;
    if (file === undefined) throw this.missing(`the blob ${digest}`);
    if (file.size !== size) throw this.problem(`the blob ${digest} has ${file.size} bytes and not ${size}`);
    if (file.digest !== digest) throw this.problem(`the blob ${digest} is damaged: its digest is ${file.digest}`);
    return file;
  }

  private config(file: ArchiveFile, name: string): { body: Buffer; about: OciImageConfig } {
    const body = this.read(file, name, largestList);
    let about: OciImageConfig;
    try {
      about = parseImageConfig(body);
    } catch (error) {
      if (!(error instanceof MinirunError)) throw error;
      throw this.problem(`${error.what}: ${error.why}`);
    }
    if (about.os !== 'linux') {
      throw this.problem(`an image in it is for ${quote(about.os)}`, 'minirun runs Linux containers only');
    }
    return { body, about };
  }

  private read(file: ArchiveFile, name: string, largest: number): Buffer {
    if (file.size > largest) throw this.problem(`${name} in it is larger than ${largest / 1024 / 1024} MiB`);
    return fs.readFileSync(file.file);
  }

  private json(body: Buffer, name: string): unknown {
    try {
      return JSON.parse(body.toString());
    } catch {
      throw this.problem(`its ${name} is not JSON`);
    }
  }
}

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((each) => typeof each === 'string');

/**
 * The name that an entry of an index has been given: docker, containerd and BuildKit write it whole into an annotation of
 * their own, skopeo and podman into the image-spec's, where others have only a tag.
 */
function nameOf({ annotations = {} }: Descriptor): Reference | undefined {
  const own = annotations['io.containerd.image.name'];
  const common = annotations['org.opencontainers.image.ref.name'];
  for (const text of [own, common !== undefined && /[/:]/.test(common) ? common : undefined]) {
    if (text === undefined) continue;
    try {
      const reference = parseReference(text);
      if (reference.tag !== undefined) return reference;
    } catch {
      // Anything may stand in an annotation.
    }
  }
  return undefined;
}

function distinct(references: readonly Reference[]): Reference[] {
  return [...new Map(references.map((reference) => [canonicalName(reference), reference])).values()];
}

/** Unpacks a layer into the store, unless it is there or another process is at it. */
async function loadLayer(layer: FoundLayer, staging: Staging, { report, signal }: Options): Promise<void> {
  const { diffId } = layer;
  const id = shortDigest(diffId);
  const work = async () => {
    const file = await layer.open();
    const onBytes = (current: number) => report.layer?.(id, { phase: 'Extracting', current, total: file.size });
    onBytes(0);
    await storeLayer(await stageLayer(layer, file, staging, onBytes, signal));
    report.layer?.(id, { phase: 'Pull complete' });
    return true;
  };
  const onWait = () => report.layer?.(id, { phase: 'Waiting' });
  const isDone = () => hasLayer(diffId);
  const done = await claimed(diffId, { staging, isDone, onWait, signal }, work);
  if (done === undefined) report.layer?.(id, { phase: 'Already exists' });
}

async function stageLayer(
  { diffId, name, mediaType }: FoundLayer,
  archived: ArchiveFile,
  staging: Staging,
  onBytes: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<StagedLayer> {
  const place = `layer-${hexOf(diffId)}`;
  const directory = staging.newLayer(place);
  // One file may be several layers of an archive, but it moves into the store.
  const file = staging.file(`${place}.blob`);
  fs.linkSync(archived.file, file);
  let bytes = 0;
  const unpacked = await unpackLayer(fs.createReadStream(file, { highWaterMark: 1 << 20 }), directory, {
    onCompressed: (chunk) => onBytes((bytes += chunk.length)),
    signal,
  }).catch((error: unknown) => {
    if (!(error instanceof MinirunError)) throw error;
    throw new MinirunError(error.what, `${error.why} (in the layer ${name})`, error.remedy, { cause: error });
  });
  if (unpacked.diffId !== diffId) {
    throw new Damaged(
      `the layer ${name} is not the one that the image config names`,
      `its content has the digest ${unpacked.diffId} and not ${diffId}`,
      'Tell who made the archive',
    );
  }
  const { digest, size } = archived;
  const blob =
    mediaType === undefined
      ? await blobOf(file, { digest, size }, signal)
      : { file, descriptor: { mediaType, digest, size } };
  return { diffId, size: unpacked.size, opaque: unpacked.opaque, directory, blob };
}

/** A text of the archive for a message. */
function quote(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}
