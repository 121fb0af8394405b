import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { faultPoint, killPoint } from '../host/fault.ts';
import { isAlive, selfRef } from '../host/process.ts';
import { randomHex } from '../host/random.ts';
import { removeTree } from '../host/remove-tree.ts';
import { type Event, recordEvent } from '../state/events.ts';
import { peekFile, readFile } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { kinds } from '../state/migrations.ts';
import { paths } from '../state/paths.ts';
import type { Definition } from './definition.ts';
import { volumeShape } from './files.ts';
import { tmpfsOptions } from './mount-options.ts';
import { type Container, listContainers } from './store.ts';

/**
 * What a volume is: `volumes/NAME/volume.json`. Volumes that belong to a container have such a file only when another has
 * got them too, by `--volumes-from`: their container's definition names them.
 */
export interface VolumeRecord {
  schema: 1;
  name: string;
  /** RFC 3339. */
  created: string;
  labels: Record<string, string>;
  /** Of the driver, docker's `local`: `type`, `device`, `o`. */
  options: Record<string, string>;
  /** It was given no name of its own: `prune` takes it. */
  anonymous: boolean;
  /** Another container than the one it was made with has it, or had. */
  shared?: true;
}

/** Where what is in a volume lies, unless its options say otherwise. */
export const volumeData = (name: string) => path.join(paths.volume(name), '_data');
const recordFile = (directory: string) => path.join(directory, 'volume.json');

/** 64 hexadecimal digits: docker's form for what has no name of its own. */
export const anonymousName = (): string => randomHex(32);

/** What is known of a volume; undefined when there is none of that name. */
export function readVolume(name: string): VolumeRecord | undefined {
  const stat = fs.statSync(paths.volume(name), { throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  return (
    readFile(kinds.volume, volumeShape, recordFile(paths.volume(name))) ?? {
      schema: 1,
      name,
      created: stat.mtime.toISOString(),
      labels: {},
      options: {},
      // A volume whose file has been lost is kept, unless it never had a name of its own.
      anonymous: /^[0-9a-f]{64}$/.test(name),
    }
  );
}

/** What is mounted where a container has a volume: a directory, and options of the mount. */
export function volumeSource({ name, options }: Pick<VolumeRecord, 'name' | 'options'>): {
  directory: string;
  options: string[];
} {
  const { o = '', device = '' } = options;
  const given = o.split(',');
  if (!given.some((option) => option === 'bind' || option === 'rbind'))
    return { directory: volumeData(name), options: [] };
  const modes: Record<string, string> = { ro: 'rro', noexec: 'rnoexec', nosuid: 'rnosuid' };
  return { directory: device, options: given.flatMap((option) => modes[option] ?? []) };
}

/** The options of a volume that is a tmpfs of its own; undefined for others. */
export function tmpfsOf({
  name,
  options: { type, o = '' },
}: Pick<VolumeRecord, 'name' | 'options'>): string[] | undefined {
  return type === 'tmpfs' ? tmpfsOptions('volume', name, o.split(',').filter(Boolean)) : undefined;
}

/**
 * Refuses options that minirun cannot do. Docker's local driver hands all of them to mount(2).
 *
 * @throws MinirunError with a reason
 */
export function checkVolumeOptions(name: string, options: Readonly<Record<string, string>>): void {
  const refuse = (why: string, remedy: string) =>
    new MinirunError(`cannot make volume "${name}"`, why, remedy, { code: 125 });
  const unknown = Object.keys(options).find((key) => !['type', 'device', 'o'].includes(key));
  if (unknown !== undefined) throw refuse(`there is no option "${unknown}"`, 'Options are type, device and o');
  const { type = '', device = '', o = '' } = options;
  const given = o.split(',').filter(Boolean);
  if (type === 'tmpfs') {
    tmpfsOf({ name, options: { type, o } });
    return;
  }
  const isBind = given.includes('bind') || given.includes('rbind');
  if (type === '' && device === '' && o === '') return;
  if (!['', 'none', 'bind'].includes(type) || !isBind)
    throw refuse(
      `minirun mounts no ${type === '' || type === 'none' ? 'devices' : type} for a volume, only tmpfs and directories`,
      'Mount it on this machine, and give that directory: -o type=none -o o=bind -o device=DIRECTORY',
    );
  const other = given.find((option) => !['bind', 'rbind', 'rw', 'ro', 'nodev', 'noexec', 'nosuid'].includes(option));
  if (other !== undefined)
    throw refuse(`a directory takes no option "${other}"`, 'Options are bind, ro, noexec and nosuid');
  if (!path.isAbsolute(device) || fs.statSync(device, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw refuse(`device=${device} is no directory of this machine`, 'Make it first, and give its path from / on');
}

/** Somewhere to make a volume, or to get it ready, before others see it. */
export function workplace(name: string): string {
  const { pid, start } = selfRef();
  const directory = path.join(paths.volumes(), `.new-${pid}-${start}-${randomHex(3)}-${name}`);
  fs.mkdirSync(directory, { mode: 0o700 });
  try {
    const data = path.join(directory, '_data');
    fs.mkdirSync(data);
    // mkdir(2) heeds the umask.
    fs.chmodSync(data, 0o755);
  } catch (error) {
    removeTree(directory);
    throw error;
  }
  return directory;
}

/** Puts a volume that is ready in its place. @returns false when there is one of that name already */
export function publishVolume(directory: string, record: VolumeRecord): boolean {
  writeJson(recordFile(directory), record);
  faultPoint('volume.written');
  try {
    fs.renameSync(directory, paths.volume(record.name));
  } catch (error) {
    if (!['ENOTEMPTY', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    return false;
  }
  recordEvent(volumeEvent('create', record.name));
  // It is there: nothing of this can fail any more.
  killPoint('volume.published');
  return true;
}

/** A volume on paper. */
export function newRecord(
  name: string,
  { labels = {}, options = {}, anonymous = false }: Partial<Pick<VolumeRecord, 'labels' | 'options' | 'anonymous'>>,
): VolumeRecord {
  return { schema: 1, name, created: new Date().toISOString(), labels, options, anonymous };
}

/**
 * Makes a volume. One that is there already is fine if it is the same.
 *
 * @throws MinirunError when there is one of that name with other options
 */
export function createVolume(record: VolumeRecord): void {
  checkVolumeOptions(record.name, record.options);
  const existing = readVolume(record.name);
  if (existing !== undefined) {
    refuseOther(existing, record);
    return;
  }
  const making = workplace(record.name);
  try {
    if (!publishVolume(making, record)) refuseOther(readVolume(record.name), record);
  } finally {
    removeTree(making);
  }
}

/** Whoever asks for options gets them or an error. */
export function refuseOther(existing: VolumeRecord | undefined, { name, options }: VolumeRecord): void {
  const text = ({ type, device, o }: Record<string, string>) => JSON.stringify([type, device, o]);
  if (existing === undefined || Object.keys(options).length === 0 || text(existing.options) === text(options)) return;
  throw new MinirunError(
    `cannot make volume "${name}"`,
    'there is one of that name with other options',
    `See minirun volume inspect ${name}, or choose another name`,
    { code: 125 },
  );
}

/** A volume, as it is on the disk, and the containers that have it, running or not. */
export interface VolumeListing extends VolumeRecord {
  /** What is mounted. */
  directory: string;
  containers: { id: string; name: string }[];
}

/** Every volume, by name. */
export function listVolumes(): VolumeListing[] {
  // Volumes first: whatever is there already has a container that names it, unless it was kept.
  const names = fs.readdirSync(paths.volumes()).filter((entry) => !entry.startsWith('.') && !isOldTrash(entry));
  const users = usersOf(listContainers());
  return names.toSorted().flatMap((name) => {
    const record = readVolume(name);
    if (record === undefined) return [];
    return [{ ...record, directory: volumeSource(record).directory, containers: users.get(name) ?? [] }];
  });
}

/** @throws MinirunError when there is no such volume */
export function requireVolume(name: string): VolumeListing {
  const found = listVolumes().find((volume) => volume.name === name);
  if (found !== undefined) return found;
  throw new MinirunError(`no volume "${name}"`, 'none has that name', 'See minirun volume ls for those there are');
}

/** The containers that have each volume. */
function usersOf(containers: readonly Container[]): Map<string, { id: string; name: string }[]> {
  const users = new Map<string, { id: string; name: string }[]>();
  for (const { definition } of containers) {
    for (const { name } of definition.volumes ?? []) {
      const list = users.get(name) ?? [];
      if (!list.some(({ id }) => id === definition.id)) list.push({ id: definition.id, name: definition.name });
      users.set(name, list);
    }
  }
  return users;
}

/**
 * Removes a volume that no container has.
 *
 * @throws MinirunError when a container has it, running or not, or when there is no such volume
 */
export async function removeVolume(name: string): Promise<void> {
  // Containers are looked for in a critical section: see `makeVolumes` for the other side.
  const trash = await withLock(() => {
    const { containers } = requireVolume(name);
    if (containers.length > 0) {
      const names = containers.map((each) => each.name);
      throw new MinirunError(
        `cannot remove volume "${name}"`,
        `${names.length === 1 ? `container ${names[0]} has` : `containers ${names.join(', ')} have`} it`,
        `Remove ${names.length === 1 ? 'that' : 'those'} first: minirun rm -f ${names.join(' ')}`,
      );
    }
    return hide(name);
  });
  faultPoint('volume.moved');
  if (trash === undefined) return;
  removeTree(trash);
  recordEvent(volumeEvent('destroy', name));
}

/** Docker's event of a volume. */
export function volumeEvent(action: 'create' | 'destroy', name: string): Event {
  return { type: 'volume', action, id: name, attributes: { driver: 'local' } };
}

let serial = 0;

/** Takes a volume out of sight in one move: none is ever half there. @returns where it is now */
function hide(name: string): string | undefined {
  const { pid, start } = selfRef();
  const trash = path.join(paths.volumes(), `.removing-${pid}-${start}-${serial++}-${name}`);
  try {
    fs.renameSync(paths.volume(name), trash);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  return trash;
}

/**
 * Removes the volumes that belong to a container that is at rest and about to be deleted: those without a name of their
 * own, as far as no other container has them.
 */
export function removeVolumesOf({ id, volumes = [] }: Definition): void {
  for (const { name, named } of volumes) {
    if (named === true || isSharedWithOthers(name, id)) continue;
    const trash = hide(name);
    if (trash === undefined) continue;
    // A container may have got it in between; it says so before it looks whether the volume is still there.
    if (peekFile(kinds.volume, volumeShape, recordFile(trash))?.shared === true && hasOtherUser(name, id)) {
      fs.renameSync(trash, paths.volume(name));
      continue;
    }
    removeTree(trash);
    recordEvent(volumeEvent('destroy', name));
    faultPoint('volume.removed');
  }
}

function isSharedWithOthers(name: string, id: string): boolean {
  return peekFile(kinds.volume, volumeShape, recordFile(paths.volume(name)))?.shared === true && hasOtherUser(name, id);
}

/** Whether another container has it that is not being removed as well. */
function hasOtherUser(name: string, id: string): boolean {
  return listContainers().some(
    ({ definition, state }) =>
      definition.id !== id &&
      definition.volumes?.some((volume) => volume.name === name) === true &&
      !(state.status === 'stopping' && state.unborn),
  );
}

/** Notes that a volume is not its first container's alone. @throws MinirunError when it has just been removed */
export function shareVolume(name: string): void {
  const record = readVolume(name);
  try {
    if (record?.anonymous === true && record.shared !== true)
      writeJson(recordFile(paths.volume(name)), { ...record, shared: true } satisfies VolumeRecord);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  faultPoint('volume.shared');
  if (record !== undefined && fs.existsSync(volumeData(name))) return;
  throw new MinirunError(`cannot use volume "${name}"`, 'it has just been removed by another process', 'Try again', {
    code: 125,
  });
}

/**
 * Whether a container may have a volume mounted, now and in a moment. One that is being created has nothing mounted yet, and
 * one that is being taken down is done with it.
 */
export function isMountedBySomebody(name: string, own: string): boolean {
  return listContainers().some(
    ({ definition, state }) =>
      definition.id !== own &&
      !['creating', 'created', 'stopping', 'exited'].includes(state.status) &&
      definition.volumes?.some((volume) => volume.name === name) === true,
  );
}

/** Of an older minirun. */
const isOldTrash = (entry: string) => /^[0-9a-f]{64}\.removing$/.test(entry);

/**
 * Removes what killed processes have left half made, and goes on with removals that were cut short.
 *
 * @param entries of the directory of volumes
 */
export function sweepVolumes(entries: readonly string[]): void {
  for (const entry of entries) {
    const [, pid, start] = /^\.(?:new|removing)-(\d+)-(\d+)-/.exec(entry) ?? [];
    const isLeft = pid !== undefined && !isAlive({ pid: Number(pid), start: Number(start) });
    if (isLeft || isOldTrash(entry)) removeTree(path.join(paths.volumes(), entry));
  }
}
