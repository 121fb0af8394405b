import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { messageOf } from '../errors.ts';
import { paths } from '../state/paths.ts';
import { deadClaims } from './claim.ts';
import { type InUse, sweepImages } from './collect.ts';
import { decompressed } from './compression.ts';
import { algorithmOf, hexOf, shortDigest } from './digest.ts';
import {
  blobDirectory,
  blobPlace,
  configDirectory,
  configPlace,
  type Index,
  layerDirectory,
  layerPlace,
  locked,
  namesOf,
  readIndex,
  soundConfig,
  writeIndex,
} from './index-file.ts';
import type { Descriptor } from './manifest.ts';
import { familiarName, parseReference } from './reference.ts';
import { stagings } from './staging.ts';

/** Something in the store that is not as it should be. */
export interface Problem {
  /** What it is about and what is wrong, for the user. */
  what: string;
  remedy: string;
  /** What of it a repair takes out of the index; absent for what only lies about, or is not ours to delete. */
  damaged?: { image?: string; layer?: string; blobOf?: string; manifestOf?: string };
  /** Whether it is gone when the store is swept. */
  isLeftover?: boolean;
}

/** What a check has looked at and found. */
export interface CheckResult {
  images: number;
  layers: number;
  archives: number;
  problems: Problem[];
}

const repair = 'Repair it: minirun system check --repair';
const sweep = 'Sweep it away: minirun system reconcile';

/**
 * Checks the image store: the index can be read, what it names is there, and every config, manifest and archive is
 * what its digest says; an archive also gives the tar that its layer is named after. What nothing names is found, too.
 *
 * The unpacked files of a layer are not compared with its archive.
 *
 * @param options.quick look only whether things are there, and read nothing but configs
 * @param options.signal breaks it off between two pieces
 */
export async function checkImages({
  quick = false,
  signal,
}: {
  quick?: boolean;
  signal?: AbortSignal;
} = {}): Promise<CheckResult> {
  // One look under the lock: what lies there then and is not named is nobody's.
  const { index, problems } = await locked(() => {
    const read = readIndex();
    return { index: read, problems: leftovers(read) };
  });
  const images = layersOfImages(index);
  const damage = [...imageProblems(index, images), ...layerProblems(index, images)];
  const archives = Object.values(index.layers).filter(({ blob }) => blob !== undefined).length;
  if (!quick) {
    for (const [diffId, { blob }] of Object.entries(index.layers)) {
      signal?.throwIfAborted();
      if (blob === undefined || !fs.existsSync(blobPlace(blob.digest))) continue;
      const problem = await readArchive(diffId, blob, signal);
      if (problem !== undefined) damage.push(problem);
    }
  }
  const real = await locked(() => {
    const now = readIndex();
    const layers = layersOfImages(now);
    // What somebody has removed meanwhile is no damage.
    return damage.filter((problem) => isStillNamed(now, layers, problem));
  });
  return {
    images: Object.keys(index.images).length,
    layers: Object.keys(index.layers).length,
    archives,
    problems: [...real, ...problems],
  };
}

function isStillNamed(index: Index, layers: Layers, { damaged = {} }: Problem): boolean {
  const { image, layer, blobOf, manifestOf } = damaged;
  if (image !== undefined) return index.images[image] !== undefined;
  if (manifestOf !== undefined) return index.images[manifestOf]?.manifest !== undefined;
  if (blobOf !== undefined) return index.layers[blobOf]?.blob !== undefined;
  return layer === undefined || index.layers[layer] !== undefined || usersOf(layers, layer).length > 0;
}

/** An image as a user knows it. */
function called(index: Index, id: string): string {
  const [name] = namesOf(index, id);
  return name === undefined ? `image ${shortDigest(id)}` : `image ${familiarName(parseReference(name))}`;
}

/** The layers of each image whose config is what its id says. */
type Layers = ReadonlyMap<string, readonly string[]>;

function layersOfImages(index: Index): Layers {
  return new Map(
    Object.keys(index.images).flatMap((id) => {
      const config = soundConfig(id);
      return config === undefined ? [] : [[id, config.rootfs.diff_ids] as const];
    }),
  );
}

/** Images that have a layer. */
function usersOf(layers: Layers, diffId: string): string[] {
  return [...layers].filter(([, diffIds]) => diffIds.includes(diffId)).map(([id]) => id);
}

function imageProblems(index: Index, layers: Layers): Problem[] {
  return Object.entries(index.images).flatMap(([id, { manifest }]) => {
    const found: Problem[] = [];
    const name = called(index, id);
    if (!layers.has(id)) {
      const state = fs.existsSync(configPlace(id)) ? 'is damaged' : 'is missing';
      found.push({ what: `${name}: its config ${hexOf(id)}.json ${state}`, remedy: repair, damaged: { image: id } });
    }
    const state = manifest === undefined ? undefined : manifestState(manifest);
    if (state !== undefined) {
      const what = `${name}: its manifest ${shortDigest(manifest?.digest ?? '')} ${state}`;
      found.push({ what, remedy: repair, damaged: { manifestOf: id } });
    }
    return found;
  });
}

function manifestState({ digest, size }: Descriptor): string | undefined {
  if (!fs.existsSync(blobPlace(digest))) return 'is missing';
  const body = fs.readFileSync(blobPlace(digest));
  const [algorithm = ''] = digest.split(':');
  const isSame = body.length === size && createHash(algorithm).update(body).digest('hex') === hexOf(digest);
  return isSame ? undefined : 'is damaged';
}

function layerProblems(index: Index, layers: Layers): Problem[] {
  return [...new Set([...[...layers.values()].flat(), ...Object.keys(index.layers)])].flatMap((diffId): Problem[] => {
    const users = usersOf(layers, diffId).map((id) => called(index, id));
    const whose =
      users.length === 0 ? `layer ${shortDigest(diffId)}` : `layer ${shortDigest(diffId)} of ${users.join(', ')}`;
    const { blob } = index.layers[diffId] ?? {};
    if (!fs.statSync(layerPlace(diffId), { throwIfNoEntry: false })?.isDirectory()) {
      return [{ what: `${whose}: its directory is missing`, remedy: repair, damaged: { layer: diffId } }];
    }
    if (blob === undefined || fs.existsSync(blobPlace(blob.digest))) return [];
    const what = `${whose}: its archive ${shortDigest(blob.digest)} is missing`;
    return [{ what, remedy: repair, damaged: { blobOf: diffId } }];
  });
}

/** Compares an archive with its digest, and what is in it with the layer's. */
async function readArchive(diffId: string, blob: Descriptor, signal?: AbortSignal): Promise<Problem | undefined> {
  const name = `archive ${shortDigest(blob.digest)} of layer ${shortDigest(diffId)}`;
  const open = () => fs.createReadStream(blobPlace(blob.digest), { highWaterMark: 1 << 20, signal });
  const damage = (why: string): Problem => ({
    what: `${name} is damaged: ${why}`,
    remedy: repair,
    damaged: { blobOf: diffId },
  });
  try {
    const { digest, length } = await digestOfAll(open(), blob.digest);
    if (length !== blob.size) return damage(`it has ${length} of ${blob.size} bytes`);
    if (digest !== blob.digest) return damage('its digest is another');
    if (digest === diffId || (await digestOfAll(decompressed(open()), diffId)).digest === diffId) return undefined;
  } catch (error) {
    signal?.throwIfAborted();
    // Somebody has removed the image.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    return damage(messageOf(error));
  }
  return {
    what: `${name} is not what the layer is named after: its content has another digest`,
    remedy: repair,
    damaged: { layer: diffId },
  };
}

/** @param like whose algorithm is to be used */
async function digestOfAll(
  source: AsyncIterable<Uint8Array>,
  like: string,
): Promise<{ digest: string; length: number }> {
  const algorithm = algorithmOf(like);
  const hash = createHash(algorithm);
  let length = 0;
  for await (const chunk of source) {
    hash.update(chunk);
    length += chunk.length;
  }
  return { digest: `${algorithm}:${hash.digest('hex')}`, length };
}

/** What the index does not lead to; under the lock. */
function leftovers(index: Index): Problem[] {
  const ids = Object.keys(index.images);
  const layers = [...Object.keys(index.layers), ...[...layersOfImages(index).values()].flat()];
  const blobs = [
    ...Object.values(index.images).flatMap(({ manifest }) => manifest?.digest ?? []),
    ...Object.values(index.layers).flatMap(({ blob }) => blob?.digest ?? []),
  ].map(blobPlace);
  const keep = new Set([...ids.map(configPlace), ...layers.map(layerPlace), ...blobs]);
  const algorithms = entriesOf(blobDirectory()).map((algorithm) => path.join(blobDirectory(), algorithm));
  const stray = [configDirectory(), layerDirectory(), ...algorithms]
    .flatMap((directory) => entriesOf(directory).map((entry) => path.join(directory, entry)))
    .filter((place) => !keep.has(place))
    .map((place): Problem => leftover(place, 'nothing names it'));
  for (const { directory, alive } of stagings())
    if (!alive) stray.push(leftover(directory, 'the process that worked there is gone'));
  for (const claim of deadClaims()) stray.push(leftover(claim, 'the process that claimed it is gone'));
  for (const entry of entriesOf(paths.images())) {
    const place = path.join(paths.images(), entry);
    if (['index.json', 'configs', 'layers', 'blobs'].includes(entry) || /^\.(?:staging|claim)-/.test(entry)) continue;
    if (entry.startsWith('index.json.damaged-')) {
      const remedy = `See what was in it, and take it away: rm ${place}`;
      stray.push({ what: `${inStore(place)}: an index that was damaged`, remedy });
      continue;
    }
    // It is written under the lock, which is ours now.
    if (entry.startsWith('.index.json.')) stray.push(leftover(place, 'a change that was cut short'));
    else stray.push({ what: `${inStore(place)}: minirun did not put it there`, remedy: `Take it away: ${place}` });
  }
  return stray;
}

function leftover(place: string, why: string): Problem {
  return { what: `${inStore(place)}: ${why}`, remedy: sweep, isLeftover: true };
}

const inStore = (place: string) => path.join('images', path.relative(paths.images(), place));

function entriesOf(directory: string): string[] {
  return fs.existsSync(directory) ? fs.readdirSync(directory) : [];
}

/**
 * Takes what is damaged out of the index, so that the next pull or load gets it again, and sweeps the store. An image that
 * a container uses stays, and so do the files of its layers.
 *
 * @returns the problems that are left
 */
export async function repairImages(problems: readonly Problem[], inUse: InUse): Promise<Problem[]> {
  const left: Problem[] = problems.filter(({ damaged, isLeftover }) => damaged === undefined && isLeftover !== true);
  let mayInterfere = false;
  await locked(() => {
    const index = readIndex();
    const layers = layersOfImages(index);
    for (const problem of problems) {
      const { image, layer, blobOf, manifestOf } = problem.damaged ?? {};
      if (blobOf !== undefined) delete index.layers[blobOf]?.blob;
      if (manifestOf !== undefined) delete index.images[manifestOf]?.manifest;
      const going = image !== undefined ? [image] : layer === undefined ? [] : usersOf(layers, layer);
      for (const id of going) {
        const user = inUse(id);
        if (user === undefined) dropImage(index, id);
        else {
          left.push({ what: problem.what, remedy: `Remove the container that uses it first: minirun rm -f ${user}` });
          // Without its config nobody knows which layers the container needs.
          if (image !== undefined) mayInterfere = true;
        }
      }
      if (layer !== undefined) delete index.layers[layer];
    }
    writeIndex(index);
  });
  if (!mayInterfere) await sweepImages();
  return left;
}

function dropImage(index: Index, id: string): void {
  for (const name of namesOf(index, id)) delete index.references[name];
  delete index.images[id];
}
