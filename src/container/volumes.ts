import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { faultPoint } from '../host/fault.ts';
import { launch, ownBinary } from '../host/launch.ts';
import { removeTree } from '../host/remove-tree.ts';
import { runDirectly } from '../host/tool.ts';
import { recordEvent } from '../state/events.ts';
import { settled, withLock } from '../state/lock.ts';
import { paths } from '../state/paths.ts';
import { initEnvironment } from './argv.ts';
import type { Definition, Volume } from './definition.ts';
import type { Failure, Open, Opened } from './protocol.ts';
import { containerFiles } from './store.ts';
import {
  checkVolumeOptions,
  isMountedBySomebody,
  newRecord,
  publishVolume,
  readVolume,
  refuseOther,
  shareVolume,
  volumeData,
  volumeEvent,
  workplace,
} from './volume-store.ts';

/** A directory that is to become what the image has at a place. */
interface Filling {
  destination: string;
  directory: string;
}

/**
 * Makes the volumes of a container that is being created, where they are missing, and copies into those that are empty
 * what its image has at their places.
 *
 * A volume without a name is the container's own: the container's definition names it before it is made, and stays until
 * it is removed, so that one cut short is found by the container. One with a name is got ready elsewhere and put in its
 * place in one move, so that nobody ever sees it half full.
 */
export async function makeVolumes(definition: Definition): Promise<void> {
  const { volumes = [] } = definition;
  if (volumes.length === 0) return;
  // Whoever removes a volume looks for containers in a critical section: one that had begun before this container was
  // listed has ended now, and each later one sees the container.
  if (volumes.some(({ named, from }) => named === true || from === true)) await settled();
  const fillings: Filling[] = [];
  const drafts: { volume: Volume; directory: string }[] = [];
  try {
    for (const volume of volumes) {
      if (volume.named === true) {
        const directory = draftOf(volume);
        if (directory === undefined) continue;
        drafts.push({ volume, directory });
        if (volume.copy && takesCopies(volume))
          fillings.push({ destination: volume.destination, directory: path.join(directory, '_data') });
      } else if (volume.from === true) {
        shareVolume(volume.name);
      } else {
        makeOwn(volume.name);
        if (volume.copy) fillings.push({ destination: volume.destination, directory: volumeData(volume.name) });
      }
    }
    if (fillings.length > 0) await fillAll(definition, fillings);
    for (const { volume, directory } of drafts) await publish(definition.id, volume, directory);
  } finally {
    for (const { directory } of drafts) removeTree(directory);
  }
}

function makeOwn(name: string): void {
  fs.mkdirSync(paths.volume(name), { recursive: true, mode: 0o700 });
  fs.mkdirSync(volumeData(name));
  // mkdir(2) heeds the umask.
  fs.chmodSync(volumeData(name), 0o755);
  recordEvent(volumeEvent('create', name));
  faultPoint('volume.made');
}

/** A place to get a volume ready that is missing, or empty and to be filled. */
function draftOf({ name, copy, make }: Volume): string | undefined {
  const existing = readVolume(name);
  const record = newRecord(name, make ?? {});
  if (existing === undefined) checkVolumeOptions(name, record.options);
  else {
    refuseOther(existing, record);
    if (!copy || !takesCopies({ name, make }) || !isEmpty(volumeData(name))) return undefined;
  }
  const directory = workplace(name);
  faultPoint('volume.drafted');
  return directory;
}

/** Only what minirun itself keeps is filled: not a directory of the user's, nor a tmpfs. */
function takesCopies({ name, make }: Pick<Volume, 'name' | 'make'>): boolean {
  const { options } = readVolume(name) ?? newRecord(name, make ?? {});
  return Object.keys(options).length === 0;
}

function isEmpty(directory: string): boolean {
  return fs.existsSync(directory) && fs.readdirSync(directory).length === 0;
}

/** Puts a volume in its place, or what it is filled with in the place of its empty directory. */
async function publish(container: string, { name, copy, make }: Volume, directory: string): Promise<void> {
  if (readVolume(name) === undefined && publishVolume(directory, newRecord(name, make ?? {}))) return;
  // There is one now: made before, or by another container that uses it for the first time as well.
  if (!copy || !fs.existsSync(path.join(directory, '_data'))) return;
  await withLock(() => {
    // What is mounted in a running container would stay the old, empty one. Whoever has begun to start one has filled it.
    if (!takesCopies({ name }) || !isEmpty(volumeData(name)) || isMountedBySomebody(name, container)) return;
    fs.renameSync(path.join(directory, '_data'), volumeData(name));
  });
  faultPoint('volume.published');
}

/** Copies what a container's image has at these places. An init opens them, so that no link in the image leads out of it. */
async function fillAll({ id, rootfs, layers }: Definition, fillings: readonly Filling[]): Promise<void> {
  const files = containerFiles(id);
  const root = rootfs ?? files.rootfs;
  // An overlay that cannot be written takes two directories at least.
  const lower = layers.length === 1 ? [files.upper, ...layers] : layers;
  for (const folder of rootfs === undefined ? [files.upper, root] : [])
    fs.mkdirSync(folder, { recursive: true, mode: 0o755 });
  const helper = launch(['unshare', '--mount', '--', ownBinary, 'init'], initEnvironment);
  try {
    helper.send({
      type: 'open',
      root,
      overlay: rootfs === undefined ? { lower } : undefined,
      directories: fillings.map(({ destination }) => destination),
    } satisfies Open);
    const answer = (await helper.receive()) as Opened | Failure | undefined;
    if (answer?.type === 'failed')
      throw new MinirunError(answer.what, answer.why, answer.remedy, { code: answer.code });
    if (answer === undefined) throw new MinirunError('cannot read the image', helper.stderr().trim() || 'init ended');
    for (const [index, fd] of answer.fds.entries()) {
      if (fd !== null) await fill(fillings[index] as Filling, `/proc/${helper.pid}/fd/${fd}`);
      faultPoint('volume.filled');
    }
  } finally {
    helper.release();
  }
}

/** Copies everything in a directory, and its own owner, mode and attributes. */
async function fill({ destination, directory }: Filling, source: string): Promise<void> {
  const { exitCode, stderr } = await runDirectly('cp', ['-a', '--', `${source}/.`, directory]);
  if (exitCode === 0) return;
  throw new MinirunError(
    `cannot copy what the image has at ${destination} into its volume`,
    stderr.trim().split('\n')[0]?.replace(/^cp: /, '') ?? `cp ended with ${exitCode}`,
    'Free some space on the disk of the state directory, or mount something else there',
  );
}
