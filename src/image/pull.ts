import fs from 'node:fs';
import { isDiskFull, MinirunError } from '../errors.ts';
import { faultPoint } from '../host/fault.ts';
import { claimed } from './claim.ts';
import { sweepImages } from './collect.ts';
import { algorithmOf, digestOf, shortDigest } from './digest.ts';
import type { Image } from './image.ts';
import { locked } from './index-file.ts';
import { interruptible } from './interrupt.ts';
import type { Descriptor, Manifest, OciImageConfig, Platform, RawManifest } from './manifest.ts';
import { parseImageConfig, parseManifestDocument } from './manifest-document.ts';
import { inParallel } from './parallel.ts';
import { hostPlatform, isSamePlatform, platformName, selectManifest } from './platform.ts';
import type { Report } from './progress.ts';
import { canonicalName, familiarName, type Reference } from './reference.ts';
import { RegistryError } from './registry/failure.ts';
import { type PullSource, pullSources, type Repository } from './registry/repository.ts';
import { Damaged, stageLayer, Unstorable } from './staged-layer.ts';
import { Staging } from './staging.ts';
import { findImage, hasLayer, knownDigests, storeImage, storeLayer, tagImage } from './store.ts';

export interface PullOptions {
  /** Default: this machine's. */
  platform?: Platform;
  /** The registry may speak plain HTTP or show a certificate of its own. */
  insecure?: boolean;
  report: Report;
}

export interface Pulled {
  image: Image;
  /** Of the manifest, or of the index, that the name stands for at the registry. */
  digest: string;
  /** False when the image was here already. */
  isNew: boolean;
}

const largestConfig = 8 * 1024 * 1024;
/** An index may name further ones. */
const deepestIndex = 4;

/**
 * Gets an image from its registry, or from a mirror of that, and stores it under its name and its digest. Layers that
 * are here, or that another process is just fetching, are not fetched again.
 *
 * @throws MinirunError when it cannot be had; a `Damaged` one when what came is not what was promised, an `Unstorable`
 *   one when another source would not help
 */
export async function pullImage(reference: Reference, options: PullOptions): Promise<Pulled> {
  return interruptible(async (signal) => {
    const sources = await pullSources(reference);
    for (const [index, source] of sources.entries()) {
      const isLast = index === sources.length - 1;
      const { report } = options;
      try {
        const pulled = await pullFrom(source, reference, options, signal);
        report.notice(`Digest: ${pulled.digest}`);
        const status = pulled.isNew ? 'Downloaded newer image' : 'Image is up to date';
        report.notice(`Status: ${status} for ${familiarName(reference)}`);
        return pulled;
      } catch (error) {
        const isOurs = !(error instanceof MinirunError) || error instanceof Unstorable;
        if (isLast || signal.aborted || isOurs) throw explained(error, reference);
        report.notice(`${source.name} gives way: ${error.message}`);
      }
    }
    throw new MinirunError(`cannot pull ${familiarName(reference)}`, 'there is nowhere to pull it from');
  });
}

/** A full disk in plain words, wherever it was met. */
function explained(error: unknown, reference: Reference): unknown {
  if (!isDiskFull(error)) return error;
  return new Unstorable(
    `cannot store ${familiarName(reference)}`,
    'no space left on the disk of the state directory',
    'Free some, for example by minirun image prune',
  );
}

async function pullFrom(
  source: PullSource,
  reference: Reference,
  { platform = hostPlatform(), insecure, report }: PullOptions,
  signal: AbortSignal,
): Promise<Pulled> {
  // A layer that fails ends the transfers of the others.
  const failing = new AbortController();
  const together = AbortSignal.any([signal, failing.signal]);
  const repository = await source.open({ insecure, report, signal: together });
  const here = await imageHere(repository, reference, platform);
  if (here !== undefined) return here;
  const top = await repository.manifest(reference.digest ?? (reference.tag as string));
  report.notice(`${reference.tag ?? reference.digest}: Pulling from ${reference.path}`);
  const { raw, manifest } = await manifestFor(repository, top, platform, reference);
  const references = [
    reference,
    ...(reference.digest === undefined ? [{ ...reference, tag: undefined, digest: top.digest }] : []),
  ];

  // The same image may be here under another name.
  const known = findImage(manifest.config.digest);
  if (known !== undefined && known.layers.every((directory) => fs.existsSync(directory))) {
    try {
      return { image: await tagImage(known.id, references), digest: top.digest, isNew: false };
    } catch (error) {
      // Somebody has just removed it: then it is fetched.
      if (!(error instanceof MinirunError)) throw error;
    }
  }
  faultPoint('pull.manifest');
  const staging = new Staging();
  try {
    const config = await fetchConfig(repository, manifest.config);
    const parsed = parseImageConfig(config);
    checkConfig(parsed, manifest, platform, report);
    const { diff_ids: diffIds } = parsed.rootfs;
    // First the pin: what an earlier pull that was broken off has completed is not swept then.
    await locked(() => staging.pin(diffIds));
    faultPoint('pull.pinned');
    await sweepImages();
    faultPoint('pull.swept');
    await fetchLayers(repository, manifest.layers, diffIds, { staging, report, signal: together, failing });
    const image = await storeImage({ references, config, layers: [], manifest: raw, staging });
    return { image, digest: top.digest, isNew: true };
  } finally {
    staging.remove();
  }
}

/** The image, when the registry's name still stands for what is here. One request; none for a digest. */
async function imageHere(
  repository: Repository,
  reference: Reference,
  platform: Platform,
): Promise<Pulled | undefined> {
  const image = findImage(canonicalName(reference));
  if (image === undefined || image.standIn !== undefined) return undefined;
  // Not merely compatible: the registry may have a better one for the platform that is wanted now.
  if (!isSamePlatform(image.platform, platform)) return undefined;
  if (!image.layers.every((directory) => fs.existsSync(directory))) return undefined;
  const digests = knownDigests(reference);
  if (digests.length === 0) return undefined;
  const digest = reference.digest ?? (await repository.headManifest(reference.tag as string))?.digest;
  return digest !== undefined && digests.includes(digest) ? { image, digest, isNew: false } : undefined;
}

/** The manifest of the image for a platform, which an index may lead to. */
async function manifestFor(
  repository: Repository,
  top: RawManifest,
  platform: Platform,
  reference: Reference,
): Promise<{ raw: RawManifest; manifest: Manifest }> {
  let raw = top;
  for (let depth = 0; depth <= deepestIndex; depth++) {
    const document = parseManifestDocument(raw);
    if (document.kind === 'manifest') return { raw, manifest: document.manifest };
    const selected = selectManifest(document.list, platform);
    if (selected === undefined) {
      const there = document.list.manifests.flatMap(({ platform: each }) =>
        each === undefined || each.os === 'unknown' ? [] : platformName(each),
      );
      throw new MinirunError(
        `cannot pull ${familiarName(reference)}`,
        `there is none for ${platformName(platform)}`,
        there.length === 0 ? undefined : `Choose one of these by --platform: ${there.join(', ')}`,
      );
    }
    raw = await repository.manifest(selected.digest);
  }
  throw new MinirunError(`cannot pull ${familiarName(reference)}`, 'its indexes are nested too deeply');
}

async function fetchConfig(repository: Repository, descriptor: Descriptor): Promise<Buffer> {
  if (descriptor.size > largestConfig)
    throw new MinirunError('refusing the image config', `it is larger than ${largestConfig} bytes`);
  const parts: Uint8Array[] = [];
  for await (const chunk of repository.blob(descriptor)) parts.push(chunk);
  const config = Buffer.concat(parts);
  const digest = digestOf(config, algorithmOf(descriptor.digest));
  if (digest !== descriptor.digest)
    throw new Damaged(
      'the image config is damaged',
      `its digest is ${digest} and not ${descriptor.digest}`,
      'Try again',
    );
  return config;
}

function checkConfig(config: OciImageConfig, manifest: Manifest, platform: Platform, report: Report): void {
  if (config.os !== 'linux')
    throw new MinirunError('cannot use this image', `it is for ${config.os}`, 'Choose one for linux');
  if (config.rootfs.diff_ids.length !== manifest.layers.length) {
    throw new Damaged(
      'the image contradicts itself',
      `its manifest has ${manifest.layers.length} layers and its config ${config.rootfs.diff_ids.length}`,
      'Tell who made it',
    );
  }
  if (config.architecture !== platform.architecture) {
    report.notice(
      `warning: the image is for ${platformName(config)} and not for ${platformName(platform)}: its programs may not run here`,
    );
  }
}

interface Fetching {
  staging: Staging;
  report: Report;
  signal: AbortSignal;
}

interface FetchingAll extends Fetching {
  /** To end all by. */
  failing: AbortController;
}

/** Gets every layer into the store, several at once, the lowest first. */
async function fetchLayers(
  repository: Repository,
  layers: readonly Descriptor[],
  diffIds: readonly string[],
  { failing, ...fetching }: FetchingAll,
): Promise<void> {
  const { report } = fetching;
  const queue = layers.map((descriptor, index) => ({ descriptor, diffId: diffIds[index] as string, index }));
  for (const { descriptor } of queue) report.layer?.(shortDigest(descriptor.digest), { phase: 'Pulling fs layer' });
  // One that fails ends the others, which clean up before the first error is told.
  await inParallel(
    queue,
    (layer) => fetchLayer(repository, layer, fetching),
    (error) => failing.abort(error),
  );
}

async function fetchLayer(
  repository: Repository,
  { descriptor, diffId, index }: { descriptor: Descriptor; diffId: string; index: number },
  { staging, report, signal }: Fetching,
): Promise<void> {
  const id = shortDigest(descriptor.digest);
  const total = descriptor.size;
  const fetched = await claimed(
    diffId,
    { staging, isDone: () => hasLayer(diffId), onWait: () => report.layer?.(id, { phase: 'Waiting' }), signal },
    async () => {
      const source = repository.blob(descriptor, (why, seconds) =>
        report.layer?.(id, { phase: 'Retrying', detail: `in ${seconds} seconds (${why})` }),
      );
      const onBytes = (current: number) =>
        report.layer?.(id, current < total ? { phase: 'Downloading', current, total } : { phase: 'Extracting' });
      const { mediaType, digest, size } = descriptor;
      const archive = { source, mediaType, expected: { digest, size }, diffId };
      try {
        await storeLayer(await stageLayer(archive, staging, `layer-${index}`, { signal, onBytes }));
        faultPoint('layer.stored');
      } catch (error) {
        throw atLayer(id, error);
      }
      report.layer?.(id, { phase: 'Pull complete' });
      return true;
    },
  );
  if (fetched === undefined) report.layer?.(id, { phase: 'Already exists' });
}

/** An error with the layer's name, and whether another source may help. A registry's has the name already. */
function atLayer(id: string, error: unknown): unknown {
  if (!(error instanceof MinirunError) || error instanceof RegistryError) return error;
  const Kind = error instanceof Damaged ? Damaged : Unstorable;
  const what = error.why === undefined ? error.what : `${error.what}: ${error.why}`;
  return new Kind(`cannot pull layer ${id}`, what, error.remedy, { code: error.code });
}
