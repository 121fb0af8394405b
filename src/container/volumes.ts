import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { faultPoint } from '../host/fault.ts';
import { launch, ownBinary } from '../host/launch.ts';
import { runDirectly } from '../host/tool.ts';
import { removeTree } from '../host/remove-tree.ts';
import { type Event, recordEvent } from '../state/events.ts';
import { paths } from '../state/paths.ts';
import { initEnvironment } from './argv.ts';
import type { Definition, Volume } from './definition.ts';
import type { Failure, Open, Opened } from './protocol.ts';
import { containerFiles, listContainers } from './store.ts';

/**
 * Anonymous volumes: `volumes/NAME/_data`. A container's definition names them before they are made, and stays until they
 * are removed, so that one cut short is found by the container. One that no container names was kept on purpose, by `rm`
 * without `-v`.
 */
export const volumeData = (name: string) => path.join(paths.volume(name), '_data');

/** Makes the volumes of a container that is being created and copies into them what its image has at their places. */
export async function makeVolumes({ id, rootfs, layers, volumes = [] }: Definition): Promise<void> {
  if (volumes.length === 0) return;
  for (const { name } of volumes) {
    fs.mkdirSync(paths.volume(name), { recursive: true, mode: 0o700 });
    fs.mkdirSync(volumeData(name));
    // mkdir(2) heeds the umask.
    fs.chmodSync(volumeData(name), 0o755);
    recordEvent(volumeEvent('create', name));
    faultPoint('volume.made');
  }
  const filled = volumes.filter(({ copy }) => copy);
  if (filled.length === 0) return;
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
      directories: filled.map(({ destination }) => destination),
    } satisfies Open);
    const answer = (await helper.receive()) as Opened | Failure | undefined;
    if (answer?.type === 'failed')
      throw new MinirunError(answer.what, answer.why, answer.remedy, { code: answer.code });
    if (answer === undefined) throw new MinirunError('cannot read the image', helper.stderr().trim() || 'init ended');
    for (const [index, fd] of answer.fds.entries()) {
      if (fd !== null) await fill(filled[index] as Volume, `/proc/${helper.pid}/fd/${fd}`);
      faultPoint('volume.filled');
    }
  } finally {
    helper.release();
  }
}

/** Copies everything in a directory, and its own owner, mode and attributes. */
async function fill({ name, destination }: Volume, source: string): Promise<void> {
  const { exitCode, stderr } = await runDirectly('cp', ['-a', '--', `${source}/.`, volumeData(name)]);
  if (exitCode === 0) return;
  throw new MinirunError(
    `cannot copy what the image has at ${destination} into its volume`,
    stderr.trim().split('\n')[0]?.replace(/^cp: /, '') ?? `cp ended with ${exitCode}`,
    'Free some space on the disk of the state directory, or mount something else there',
  );
}

/** A volume, as it is on the disk. */
export interface VolumeListing {
  name: string;
  /** What is mounted. */
  directory: string;
  /** RFC 3339. */
  created: string;
  /** The container that has it. */
  container?: { id: string; name: string; destination: string };
}

/** Every volume, in no order. */
export function listVolumes(): VolumeListing[] {
  // Volumes first: whatever is there already has a container that names it, unless it was kept.
  const names = fs.readdirSync(paths.volumes()).filter((entry) => !entry.endsWith('.removing'));
  const users = new Map(
    listContainers().flatMap(({ definition: { id, name, volumes = [] } }) =>
      volumes.map((volume) => [volume.name, { id, name, destination: volume.destination }] as const),
    ),
  );
  return names.flatMap((name) => {
    const stat = fs.statSync(paths.volume(name), { throwIfNoEntry: false });
    if (stat === undefined) return [];
    return [{ name, directory: volumeData(name), created: stat.mtime.toISOString(), container: users.get(name) }];
  });
}

/**
 * Removes a volume that no container has.
 *
 * @throws MinirunError when a container has it, or when there is no such volume
 */
export function removeVolume(name: string): void {
  const found = listVolumes().find((volume) => volume.name === name);
  if (found === undefined) throw new MinirunError(`no volume "${name}"`, 'none has that name');
  if (found.container !== undefined) {
    throw new MinirunError(
      `cannot remove volume "${name}"`,
      `container ${found.container.name} has it`,
      `Remove both: minirun rm -f -v ${found.container.name}`,
    );
  }
  // Out of sight in one move: no volume is ever half there.
  const trash = `${paths.volume(name)}.removing`;
  fs.renameSync(paths.volume(name), trash);
  faultPoint('volume.moved');
  removeTree(trash);
  recordEvent(volumeEvent('destroy', name));
}

/** Docker's event of a volume. */
function volumeEvent(action: 'create' | 'destroy', name: string): Event {
  return { type: 'volume', action, id: name, attributes: { driver: 'local' } };
}

/** Removes the volumes of a container that is at rest and about to be deleted. */
export function removeVolumesOf({ volumes = [] }: Definition): void {
  for (const { name } of volumes) {
    const isThere = fs.existsSync(paths.volume(name));
    removeTree(paths.volume(name));
    if (isThere) recordEvent(volumeEvent('destroy', name));
    faultPoint('volume.removed');
  }
}

/** Goes on with removals that were cut short. */
export function sweepVolumes(): void {
  for (const entry of fs.readdirSync(paths.volumes()))
    if (entry.endsWith('.removing')) removeTree(path.join(paths.volumes(), entry));
}
