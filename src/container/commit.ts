import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import zlib from 'node:zlib';
import { isDiskFull, MinirunError } from '../errors.ts';
import { faultPoint } from '../host/fault.ts';
import { parseChanges } from '../image/changes.ts';
import { sweepImages } from '../image/collect.ts';
import type { Image, ImageConfig } from '../image/image.ts';
import { locked, readConfig, readIndex } from '../image/index-file.ts';
import { unpackLayer } from '../image/layer.ts';
import { type HistoryEntry, mediaTypes, type OciImageConfig } from '../image/manifest.ts';
import { packLayer } from '../image/pack.ts';
import { parseReference } from '../image/reference.ts';
import { Staging } from '../image/staging.ts';
import { type StagedLayer, storeImage } from '../image/store.ts';
import type { Definition } from './definition.ts';
import { recordContainer } from './events.ts';
import { parseSignal, signalName } from './options.ts';
import type { OciProcess } from './oci.ts';
import type { IdRange } from './protocol.ts';
import { containerFiles, readOwners, readSpec, requireContainer } from './store.ts';

/** What `commit` says of the new image. */
export interface CommitOptions {
  /** Dockerfile instructions for the image config, one each. */
  changes?: readonly string[];
  author?: string;
  message?: string;
  signal?: AbortSignal;
}

/**
 * Makes an image of a container: its image's layers, one more of what it has written, and its command, variables and
 * so on as the new image's. What is in volumes stays out.
 *
 * A container that runs goes on meanwhile: stopping its processes would be seen by them and would outlast a minirun
 * that is killed.
 *
 * @param name what to call it; without, the image has only its id
 */
export async function commitContainer(
  container: string,
  name: string | undefined,
  { changes = [], author, message, signal }: CommitOptions = {},
): Promise<Image> {
  const { definition } = requireContainer(container);
  const reference = name === undefined ? undefined : parseReference(name);
  if (reference?.digest !== undefined) {
    throw new MinirunError(`cannot commit as "${name}"`, 'a digest follows from the content', 'Give a name with a tag');
  }
  if (definition.rootfs !== undefined) {
    throw new MinirunError(
      `cannot commit container "${definition.name}"`,
      'it was made of a directory (--rootfs) and not of an image',
      `Make an image of all that is there: minirun export ${definition.name} | minirun import - NAME`,
    );
  }
  // What is wrong is refused before anything is done.
  parseChanges(changes);
  await sweepImages();
  const staging = new Staging();
  try {
    const base = await pinnedBase(definition, staging);
    const config = parseChanges(changes, configOf(definition, base.config));
    const { upper } = containerFiles(definition.id);
    const layer = isEmpty(upper) ? undefined : await stageUpper(upper, staging, readOwners(definition.id), signal);
    const created = new Date().toISOString();
    const entry: HistoryEntry = {
      created,
      created_by: [...definition.entrypoint, ...definition.command].join(' '),
      ...(author === undefined ? {} : { author }),
      ...(message === undefined ? {} : { comment: message }),
      ...(layer === undefined ? { empty_layer: true } : {}),
    };
    const about: OciImageConfig = {
      ...base,
      created,
      ...(author === undefined ? {} : { author }),
      config,
      rootfs: {
        type: 'layers',
        diff_ids: [...base.rootfs.diff_ids, ...(layer === undefined ? [] : [layer.diffId])],
      },
      history: [...(base.history ?? []), entry],
    };
    faultPoint('commit.staged');
    const image = await storeImage({
      references: reference === undefined ? [] : [reference],
      config: JSON.stringify(about),
      layers: layer === undefined ? [] : [layer],
      staging,
    });
    recordContainer(definition, 'commit', { comment: message ?? '', imageID: image.id });
    return image;
  } finally {
    staging.remove();
  }
}

/** The config of the container's image, whose layers nobody removes now, even when the container goes. */
async function pinnedBase({ name, imageId }: Definition, staging: Staging): Promise<OciImageConfig> {
  return locked(() => {
    const base = readIndex().images[imageId] === undefined ? undefined : readConfig(imageId);
    if (base === undefined) {
      throw new MinirunError(
        `cannot commit container "${name}"`,
        'its image is not here any more',
        'See minirun images',
      );
    }
    staging.pin(base.rootfs.diff_ids);
    return base;
  });
}

/** The container's settings as an image's, over those of its own image. */
function configOf(definition: Definition, image: ImageConfig): ImageConfig {
  const { process } = readSpec(definition.id);
  const { entrypoint, command, labels, exposedPorts = [], volumes = [] } = definition;
  const set = (keys: readonly string[]): Record<string, object> => Object.fromEntries(keys.map((key) => [key, {}]));
  const ports = { ...image.ExposedPorts, ...set(exposedPorts) };
  const places = { ...image.Volumes, ...set(volumes.map(({ destination }) => destination)) };
  const imageSignal = parseSignal(image.StopSignal ?? 'TERM');
  return {
    ...image,
    Env: variablesOf(definition, process, image),
    Entrypoint: entrypoint.length > 0 ? entrypoint : undefined,
    Cmd: command.length > 0 ? command : undefined,
    User: process.user.username || undefined,
    // The root directory is what a container has that was told nothing.
    WorkingDir: process.cwd === '/' ? image.WorkingDir : process.cwd,
    StopSignal: definition.stopSignal === imageSignal ? image.StopSignal : signalName(definition.stopSignal),
    Labels: Object.keys(labels).length > 0 ? labels : undefined,
    ExposedPorts: Object.keys(ports).length > 0 ? ports : undefined,
    Volumes: Object.keys(places).length > 0 ? places : undefined,
  };
}

/** The variables that are the user's or the image's: the name of this one container is not the next one's. */
function variablesOf({ id, tty }: Definition, { env }: OciProcess, image: ImageConfig): string[] {
  const { hostname } = readSpec(id);
  const own = new Set([`HOSTNAME=${hostname}`, ...(tty ? ['TERM=xterm'] : [])]);
  return env.filter((entry) => !own.has(entry) || image.Env?.includes(entry) === true);
}

function isEmpty(directory: string): boolean {
  return !fs.existsSync(directory) || fs.readdirSync(directory).length === 0;
}

/**
 * Packs what a container has written, keeps the archive, and unpacks it as a layer: a layer must not change any more,
 * and the container's own directory does.
 */
async function stageUpper(
  upper: string,
  staging: Staging,
  owners?: IdRange,
  signal?: AbortSignal,
): Promise<StagedLayer> {
  const file = staging.file('upper.tar.gz');
  const tar = hashing();
  const blob = hashing();
  await pipeline(
    packLayer(upper, { owners }),
    tar.stream,
    zlib.createGzip({ level: zlib.constants.Z_BEST_SPEED }),
    blob.stream,
    fs.createWriteStream(file, { flags: 'wx', mode: 0o600 }),
    { signal },
  ).catch((error: unknown) => {
    throw outOfSpace(error) ?? error;
  });
  faultPoint('commit.packed');
  const diffId = tar.digest();
  const directory = staging.newLayer();
  const unpacked = await unpackLayer(fs.createReadStream(file, { highWaterMark: 1 << 18 }), directory, { signal });
  if (unpacked.diffId !== diffId) {
    throw new MinirunError('cannot commit the container', 'its archive was changed while it was read', 'Try again');
  }
  faultPoint('commit.unpacked');
  const descriptor = { mediaType: mediaTypes.ociLayerGzip, digest: blob.digest(), size: blob.length() };
  return { diffId, size: unpacked.size, directory, blob: { file, descriptor } };
}

/** A stream that passes everything on and computes its digest and length. */
function hashing(): { stream: Transform; digest: () => string; length: () => number } {
  const hash = createHash('sha256');
  let length = 0;
  const stream = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      length += chunk.length;
      done(null, chunk);
    },
  });
  return { stream, digest: () => `sha256:${hash.digest('hex')}`, length: () => length };
}

function outOfSpace(error: unknown): MinirunError | undefined {
  if (!isDiskFull(error)) return undefined;
  return new MinirunError(
    'cannot commit the container',
    'no space left on the disk of the state directory',
    'Free some, for example by minirun image prune',
  );
}
