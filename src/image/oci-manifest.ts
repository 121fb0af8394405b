import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { algorithmOf, digestOf, hexOf } from './digest.ts';
import { blobPlace, configPlace, type Index, layerPlace, locked, noSuchImage, readIndex } from './index-file.ts';
import { writeHashed } from './layer-archive.ts';
import { type Descriptor, type Manifest, mediaTypes, type OciImageConfig, type RawManifest } from './manifest.ts';
import { packLayer } from './pack.ts';
import type { Staging } from './staging.ts';

/** A layer as it leaves this machine. */
export interface LayerFile {
  diffId: string;
  descriptor: Descriptor;
  /** Where what the descriptor describes is. */
  file: string;
}

/** An image as it leaves this machine. */
export interface OutgoingImage {
  id: string;
  /** Byte for byte what the id is the digest of. */
  config: Buffer;
  about: OciImageConfig;
  /** The manifest with which the image came, when its layers are here as they came; otherwise one of what is here. */
  manifest: RawManifest;
  /** The lowest first. */
  layers: LayerFile[];
}

/**
 * Images as they leave this machine, with layers that stay here as long as the staging directory does.
 *
 * A layer whose archive is not here is packed again, which is right only when that gives the tar of its diffID.
 *
 * @param ids of images that are here
 * @throws MinirunError when one has gone meanwhile, or a layer cannot be packed as it was
 */
export async function outgoingImages(
  ids: readonly string[],
  staging: Staging,
  signal?: AbortSignal,
): Promise<OutgoingImage[]> {
  const found = await locked(() => {
    const index = readIndex();
    const images = ids.map((id) => readImage(index, id));
    staging.pin(images.flatMap(({ diffIds }) => diffIds));
    return images;
  });
  const packed = new Map<string, LayerFile>();
  const outgoing: OutgoingImage[] = [];
  for (const { id, config, about, diffIds, blobs, original } of found) {
    const layers: LayerFile[] = [];
    for (const [at, diffId] of diffIds.entries()) {
      const descriptor = blobs[at];
      const layer =
        packed.get(diffId) ??
        (descriptor === undefined
          ? await packAgain(diffId, staging, signal)
          : { diffId, descriptor, file: blobPlace(descriptor.digest) });
      packed.set(diffId, layer);
      layers.push(layer);
    }
    const manifest = original ?? makeManifest(id, config.length, layers);
    outgoing.push({ id, config, about, layers, manifest });
  }
  return outgoing;
}

interface FoundImage {
  id: string;
  config: Buffer;
  about: OciImageConfig;
  diffIds: string[];
  /** Of each layer; undefined where its archive is not here. */
  blobs: (Descriptor | undefined)[];
  original?: RawManifest;
}

/** Under the lock: what is read here belongs together. */
function readImage(index: Index, id: string): FoundImage {
  const record = index.images[id];
  if (record === undefined) throw noSuchImage(id, 'read');
  const config = fs.readFileSync(configPlace(id));
  const about = JSON.parse(config.toString()) as OciImageConfig;
  const diffIds = about.rootfs.diff_ids;
  const blobs = diffIds.map((diffId) => {
    const blob = index.layers[diffId]?.blob;
    return blob !== undefined && fs.existsSync(blobPlace(blob.digest)) ? blob : undefined;
  });
  const image = { id, config, about, diffIds, blobs };
  if (record.manifest === undefined || !fs.existsSync(blobPlace(record.manifest.digest))) return image;
  const { digest, mediaType } = record.manifest;
  const body = fs.readFileSync(blobPlace(digest));
  const { layers } = JSON.parse(body.toString()) as Manifest;
  // A layer may have come with another image first, compressed otherwise.
  const isWhole = layers.length === blobs.length && layers.every((layer, at) => layer.digest === blobs[at]?.digest);
  return isWhole ? { ...image, original: { digest, mediaType, body } } : image;
}

/** The manifest of an image that was made here, or whose layers are here otherwise than they came. */
export function makeManifest(id: string, configSize: number, layers: readonly LayerFile[]): RawManifest {
  const manifest = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: { mediaType: mediaTypes.ociConfig, digest: id, size: configSize },
    layers: layers.map(({ descriptor: { mediaType, digest, size } }) => ({
      mediaType: ociLayerType(mediaType),
      digest,
      size,
    })),
  };
  const body = Buffer.from(JSON.stringify(manifest));
  return { digest: digestOf(body), mediaType: manifest.mediaType, body };
}

/** Docker's types and those of nondistributable layers have their match in the image-spec's. */
function ociLayerType(mediaType: string): string {
  if (mediaType.endsWith('gzip')) return mediaTypes.ociLayerGzip;
  return mediaType.endsWith('zstd') ? mediaTypes.ociLayerZstd : mediaTypes.ociLayer;
}

async function packAgain(diffId: string, staging: Staging, signal?: AbortSignal): Promise<LayerFile> {
  const file = staging.file(`packed-${hexOf(diffId)}`);
  const { digest, size } = await writeHashed(packLayer(layerPlace(diffId)), file, signal);
  if (digest !== diffId) {
    throw new MinirunError(
      `cannot pack the layer ${diffId} as it was`,
      `its archive was not kept, and packing its files again gives another one (${digest})`,
      'Get the image again: pull, load or import it, or make a new one of a container with minirun commit',
    );
  }
  return { diffId, descriptor: { mediaType: mediaTypes.ociLayer, digest, size }, file };
}

/** A file that is a piece of content of the store, checked while it is read. @throws MinirunError when it is damaged */
export async function* readVerified({ descriptor, file }: LayerFile, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const { digest, size } = descriptor;
  const hash = createHash(algorithmOf(digest));
  let length = 0;
  for await (const chunk of fs.createReadStream(file, { highWaterMark: 1 << 20, signal }) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    length += chunk.length;
    yield chunk;
  }
  if (length !== size || !digest.endsWith(`:${hash.digest('hex')}`)) {
    throw new MinirunError(
      `the stored layer ${digest} is damaged`,
      length === size ? 'its content is not what its digest says' : `it has ${length} of ${size} bytes`,
      'Remove the image and get it again',
    );
  }
}
