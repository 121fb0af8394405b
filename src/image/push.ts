import { Readable } from 'node:stream';
import zlib from 'node:zlib';
import { MinirunError } from '../errors.ts';
import { recordEvent } from '../state/events.ts';
import { hexOf, shortDigest } from './digest.ts';
import { transferEvent } from './events.ts';
import { locked, namesOf, readConfig, readIndex } from './index-file.ts';
import { writeHashed } from './layer-archive.ts';
import { type Descriptor, mediaTypes } from './manifest.ts';
import { type LayerFile, makeManifest, outgoingImages, readVerified } from './oci-manifest.ts';
import { inParallel } from './parallel.ts';
import type { Report } from './progress.ts';
import { canonicalName, parseReference, type Reference, shortName } from './reference.ts';
import { openRepository, type Repository } from './registry/repository.ts';
import { Staging } from './staging.ts';
import { tagImage } from './store.ts';

/** Repositories that are asked for each layer. */
const mostMounts = 3;

interface Options {
  /** Any certificate, and plain HTTP, will do. */
  insecure?: boolean;
  report: Report;
  signal?: AbortSignal;
}

/**
 * Pushes an image to the registry of its name. What the registry has already is not sent; the manifest goes last.
 *
 * An image goes as it came, with the same digest. Only layers that are not compressed are compressed on the way, and the
 * manifest is another one then.
 *
 * @returns the manifest's digest and bytes
 * @throws MinirunError when there is no such image, or the registry does not take it
 */
export async function pushImage(
  reference: Reference,
  { insecure, report, signal }: Options,
): Promise<{ digest: string; size: number }> {
  const { tag } = reference;
  if (tag === undefined) {
    throw new MinirunError('cannot push a digest', 'it follows from what is pushed', 'Name the image with a tag');
  }
  const id = readIndex().references[canonicalName(reference)]?.id;
  if (id === undefined) {
    const name = shortName(reference);
    throw new MinirunError(
      `cannot push "${name}"`,
      'no image on this machine has that name',
      `Give it to one first: minirun tag IMAGE ${name}`,
    );
  }
  const staging = new Staging();
  try {
    const repository = await openRepository(reference, { actions: 'pull,push', insecure, report, signal });
    const [image] = await outgoingImages([id], staging, signal);
    if (image === undefined) throw new Error('unreachable');
    const { config } = image;
    const pusher = new LayerPusher(repository, reference, staging, report, signal);
    const layers = await pusher.pushAll(image.layers);
    const configDescriptor: Descriptor = { mediaType: mediaTypes.ociConfig, digest: id, size: config.length };
    if (!(await repository.hasBlob(id))) await repository.uploadBlob(configDescriptor, () => Readable.from([config]));
    const isSame = layers.every(({ descriptor }, at) => descriptor.digest === image.layers[at]?.descriptor.digest);
    const { mediaType, body } = isSame ? image.manifest : makeManifest(id, config.length, layers);
    const digest = await repository.putManifest(tag, mediaType, body);
    await tagImage(id, [{ domain: reference.domain, path: reference.path, digest }]);
    recordEvent(transferEvent('push', reference));
    return { digest, size: body.length };
  } finally {
    staging.remove();
  }
}

class LayerPusher {
  constructor(
    private readonly repository: Repository,
    private readonly reference: Reference,
    private readonly staging: Staging,
    private readonly report: Report,
    private readonly signal?: AbortSignal,
  ) {}

  /** @returns the layers as the registry has them now, in the same order */
  async pushAll(layers: readonly LayerFile[]): Promise<LayerFile[]> {
    const distinct = [...new Map(layers.map((layer) => [layer.diffId, layer])).values()];
    for (const layer of distinct) this.tell(layer, { phase: 'Preparing' });
    const pushed = new Map<string, LayerFile>();
    const mounts = await this.mountSources(distinct);
    // All have ended before the staging directory goes.
    await inParallel(distinct, async (layer) => {
      pushed.set(layer.diffId, await this.push(layer, mounts.get(layer.diffId) ?? []));
    });
    return layers.map(({ diffId }) => pushed.get(diffId) as LayerFile);
  }

  private tell({ diffId }: LayerFile, event: Parameters<NonNullable<Report['layer']>>[1]): void {
    this.report.layer?.(shortDigest(diffId), event);
  }

  private async push(layer: LayerFile, mounts: readonly string[]): Promise<LayerFile> {
    if (/nondistributable|\bforeign\b/.test(layer.descriptor.mediaType)) {
      this.tell(layer, { phase: 'Skipped', detail: 'foreign layer' });
      return layer;
    }
    const ready = isPlain(layer.descriptor.mediaType) ? await this.compress(layer) : layer;
    const { digest, size: total } = ready.descriptor;
    if (await this.repository.hasBlob(digest)) {
      this.tell(layer, { phase: 'Already exists' });
      return ready;
    }
    for (const path of mounts) {
      if (!(await this.repository.mountBlob(digest, path))) continue;
      this.tell(layer, { phase: 'Mounted', detail: `from ${path}` });
      return ready;
    }
    await this.repository.uploadBlob(ready.descriptor, () => this.measured(layer, ready));
    this.tell(layer, { phase: 'Pushed', current: total, total });
    return ready;
  }

  private async *measured(layer: LayerFile, ready: LayerFile): AsyncGenerator<Buffer> {
    const total = ready.descriptor.size;
    let current = 0;
    for await (const chunk of readVerified(ready, this.signal)) {
      this.tell(layer, { phase: 'Pushing', current, total });
      yield chunk;
      current += chunk.length;
    }
  }

  /** The same content gives the same bytes: the header that zlib writes has no name and no time. */
  private async compress(layer: LayerFile): Promise<LayerFile> {
    const { diffId } = layer;
    const file = this.staging.file(`compressed-${hexOf(diffId)}`);
    const source = Readable.from(readVerified(layer, this.signal), { objectMode: false });
    const gzip = zlib.createGzip({ chunkSize: 1 << 18 });
    source.on('error', (error) => gzip.destroy(error));
    const { digest, size } = await writeHashed(source.pipe(gzip), file, this.signal);
    return { diffId, descriptor: { mediaType: mediaTypes.ociLayerGzip, digest, size }, file };
  }

  /** Repositories of the same registry that have, or will have got, an image with the layer, by diffID. */
  private async mountSources(layers: readonly LayerFile[]): Promise<Map<string, string[]>> {
    const { domain, path: own } = this.reference;
    const images = await locked(() => {
      const index = readIndex();
      return Object.keys(index.images).map((id) => ({
        diffIds: new Set(readConfig(id)?.rootfs.diff_ids ?? []),
        names: namesOf(index, id).map(parseReference),
      }));
    });
    const isElsewhere = (name: Reference) => name.domain === domain && name.path !== own;
    return new Map(
      layers.map(({ diffId }) => {
        const having = images.filter(({ diffIds }) => diffIds.has(diffId));
        const names = having.flatMap((image) => image.names.filter(isElsewhere));
        // A digest is known only from the registry itself.
        const known = names.filter(({ digest }) => digest !== undefined);
        const paths = new Set([...known, ...names].map(({ path }) => path));
        return [diffId, [...paths].slice(0, mostMounts)];
      }),
    );
  }
}

/** Whether a layer is not compressed. */
function isPlain(mediaType: string): boolean {
  return mediaType.endsWith('tar');
}
