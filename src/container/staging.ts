import { dlopen, FFIType, ptr, read } from 'bun:ffi';
import os from 'node:os';
import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { withoutIdmap } from '../host/fault.ts';
import type { OciDevice, OciMount } from './oci.ts';
import type { IdRange } from './protocol.ts';

/**
 * What root in a user namespace cannot do for itself: mounts of files of the host that show other owners than they have
 * (idmapped mounts), an overlay of them, and device nodes. minirun makes them in a mount namespace that nobody else sees and
 * that belongs to the host's user namespace. The container's mount namespace is a copy of it, and because that belongs to a
 * lesser user namespace, the kernel locks what is copied: no capability in there makes a read-only mount writable or lets
 * devices of an image work (mount_namespaces(7)).
 *
 * For this a thread enters that mount namespace and leaves it again, all in one go. The third file that is not for Node, after
 * those of init and the terminal.
 */
const { i32, i64_fast: i64, u64_fast: u64, ptr: pointer } = FFIType;
const musl = `/lib/ld-musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`;
const { symbols: libc } = dlopen(fs.existsSync('/etc/alpine-release') && fs.existsSync(musl) ? musl : 'libc.so.6', {
  __errno_location: { args: [], returns: pointer },
  syscall: { args: [i64, i64, i64, i64, i64, i64], returns: i64 },
  mount: { args: [pointer, pointer, pointer, u64, pointer], returns: i32 },
  umount2: { args: [pointer, i32], returns: i32 },
  setns: { args: [i32, i32], returns: i32 },
  unshare: { args: [i32], returns: i32 },
  chroot: { args: [pointer], returns: i32 },
  chdir: { args: [pointer], returns: i32 },
  fchdir: { args: [i32], returns: i32 },
  mknodat: { args: [i32, pointer, i32, u64], returns: i32 },
  setfsuid: { args: [i32], returns: i32 },
  setfsgid: { args: [i32], returns: i32 },
});

/** The same numbers on every architecture. */
const numbers = { open_tree: 428, move_mount: 429, openat2: 437, mount_setattr: 442 };
/** These not. */
const capabilityCalls = { x64: { get: 125, set: 126 }, arm64: { get: 90, set: 91 } }[process.arch as 'x64' | 'arm64'];

const CLONE_NEWNS = 0x20000;
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const O_CLOEXEC = 0o2000000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MNT_DETACH = 2;
const MS_REC = 1 << 14;
const MS_SLAVE = 1 << 19;
/** Of mount(2); the first four are those of mount_setattr(2), too. */
const flags: Record<string, number> = { ro: 1, nosuid: 2, nodev: 4, noexec: 8, strictatime: 1 << 24 };
const MOUNT_ATTR_IDMAP = 0x100000;

class CallError extends Error {
  constructor(
    call: string,
    readonly code: string,
  ) {
    super(`${call}: ${code}`);
  }
}

function check(result: number, call: string): number {
  if (result >= 0) return result;
  const errno = read.i32(libc.__errno_location() as never, 0);
  const code = Object.entries(os.constants.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
  throw new CallError(call, code);
}

function cstring(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

function mount(source: string, target: string, type: string, flag: number, data: string): void {
  check(libc.mount(cstring(source), cstring(target), cstring(type), flag, cstring(data)), `mount ${type}`);
}

/** A copy of what is mounted at a place, or at a file or directory, without a place of its own: open_tree(2), Linux 5.2. */
function cloneMount(source: string, recursive: boolean): number {
  const how = OPEN_TREE_CLONE | O_CLOEXEC | (recursive ? AT_RECURSIVE : 0);
  const name = cstring(source);
  return check(Number(libc.syscall(numbers.open_tree, AT_FDCWD, ptr(name), how, 0, 0)), `open_tree ${source}`);
}

/** The same of an open file or directory. */
function cloneOpened(fd: number, recursive: boolean): number {
  const how = OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  const empty = cstring('');
  return check(Number(libc.syscall(numbers.open_tree, fd, ptr(empty), how, 0, 0)), 'open_tree');
}

/** Opens the source of a bind; a part of it (`subpath`) with it as the root of every link, as containers may write there. */
function openSource({ source, subpath }: OciMount): number {
  const O_PATH = 0o10000000;
  const whole = fs.openSync(source, O_PATH);
  if (subpath === undefined) return whole;
  try {
    const inRootWithoutMagicLinks = 0x12;
    const how = new BigUint64Array([BigInt(O_PATH | O_CLOEXEC), 0n, BigInt(inRootWithoutMagicLinks)]);
    const name = cstring(subpath);
    for (let attempt = 1; ; attempt++) {
      try {
        return check(Number(libc.syscall(numbers.openat2, whole, ptr(name), ptr(how), 24, 0)), `open ${subpath}`);
      } catch (error) {
        // Something was renamed or mounted somewhere while a `..` was followed. As openInRoot() of init, which may not be
        // imported here.
        if ((error as CallError).code !== 'EAGAIN' || attempt === 1000) throw error;
      }
    }
  } finally {
    fs.closeSync(whole);
  }
}

/** Changes a mount, and with `recursive` those below it: mount_setattr(2), Linux 5.12. */
function setAttributes(fd: number, set: number, recursive = false, userNamespace = 0): void {
  const attributes = new BigUint64Array([BigInt(set), 0n, 0n, BigInt(userNamespace)]);
  const empty = cstring('');
  const how = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  check(Number(libc.syscall(numbers.mount_setattr, fd, ptr(empty), how, ptr(attributes), 32)), 'mount_setattr');
}

/** Gives a mount a place: move_mount(2). */
function attach(fd: number, target: string): void {
  const [from, to] = [cstring(''), cstring(target)];
  const how = MOVE_MOUNT_F_EMPTY_PATH;
  check(Number(libc.syscall(numbers.move_mount, fd, ptr(from), AT_FDCWD, ptr(to), how)), `move_mount ${target}`);
}

function detach(target: string): void {
  check(libc.umount2(cstring(target), MNT_DETACH), `umount ${target}`);
}

/** What is to be made for a container. */
export interface StagingRequest {
  /** The user namespace, a path. */
  userns: string;
  ids: IdRange;
  /** A directory: what is made appears in it, for who is in that mount namespace. */
  place: string;
  /** The program that the container's init is. */
  binary: string;
  /** Layers, topmost first, and the directory with `upper` and `work`; or a root filesystem as it is. */
  root: { lower: readonly string[]; directory: string; mapped: boolean } | { path: string };
  mounts: readonly OciMount[];
  /** Sources whose files belong to the container's ids already. */
  given: readonly string[];
  devices: readonly OciDevice[];
}

/** What was made, as init finds it from `place` as its working directory. */
export interface Staged {
  /** The root filesystem. */
  root: string;
  /** Those of the request, each with a source that can be mounted inside the user namespace. */
  mounts: OciMount[];
  /** Sources whose files keep the owners they have on the host. */
  foreign: string[];
  /** Keep it: the mount namespace, and `place` as it is there. */
  held: { namespace: number; place: number };
}

/**
 * Makes the mounts. Nothing else of this process may run meanwhile, so this is synchronous.
 *
 * @throws MinirunError when something cannot be mounted
 */
export function stage(request: StagingRequest): Staged {
  const back = enterNewMounts();
  try {
    const made = build(request);
    const held = {
      namespace: fs.openSync('/proc/thread-self/ns/mnt', 'r'),
      place: fs.openSync(request.place, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY),
    };
    return { ...made, held };
  } finally {
    back();
  }
}

/**
 * Enters a new mount namespace, with this thread alone. What is mounted on the host meanwhile appears in it, and nothing of it
 * on the host.
 *
 * @returns what leads back
 */
function enterNewMounts(): () => void {
  const directory = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY;
  const open = [fs.openSync('/proc/thread-self/ns/mnt', 'r'), fs.openSync('/', directory), fs.openSync('.', directory)];
  const [own, root, working] = open as [number, number, number];
  const back = () => {
    const isBack =
      libc.setns(own, CLONE_NEWNS) === 0 &&
      libc.fchdir(root) === 0 &&
      libc.chroot(cstring('.')) === 0 &&
      libc.fchdir(working) === 0;
    // Whatever this process did next would happen elsewhere.
    if (!isBack) process.abort();
    for (const fd of open) fs.closeSync(fd);
  };
  check(libc.unshare(CLONE_NEWNS), 'unshare');
  try {
    mount('', '/', '', MS_REC | MS_SLAVE, '');
  } catch (error) {
    back();
    throw error;
  }
  return back;
}

function build({ userns, ids, place, binary, root, mounts, given, devices }: StagingRequest): Omit<Staged, 'held'> {
  const userNamespace = fs.openSync(userns, 'r');
  const foreign: string[] = [];
  // Whatever that of the user is: the container has to be able to go there.
  const mask = process.umask(0o022);
  try {
    mount('staging', place, 'tmpfs', 0b1110, 'mode=0755');
    check(libc.chdir(cstring(place)), 'chdir');
    fs.writeFileSync(`${place}/minirun`, '');
    const program = cloneMount(binary, false);
    setAttributes(program, 0b0111);
    attach(program, 'minirun');
    fs.closeSync(program);
    for (const name of ['rootfs', 'mounts']) fs.mkdirSync(`${place}/${name}`);
    if ('path' in root) stageDirectory(root.path, userNamespace);
    else stageOverlay(root, place, ids, userNamespace);
    const staged = mounts.map((entry, index) => {
      if (entry.type === 'bind') return stageBind(entry, index, place, userNamespace, given, foreign);
      if (entry.type !== 'tmpfs' || entry.destination !== '/dev') return entry;
      stageDevices(entry, devices, place, ids);
      return { ...entry, type: 'bind', source: 'dev', options: ['rbind'] };
    });
    return { root: 'rootfs', mounts: staged, foreign };
  } finally {
    process.umask(mask);
    fs.closeSync(userNamespace);
  }
}

/** Lets the files of a mount show the owners that the container has. @returns false where that cannot be */
function mapOwners(fd: number, userNamespace: number, recursive: boolean): boolean {
  if (withoutIdmap) return false;
  try {
    setAttributes(fd, MOUNT_ATTR_IDMAP, recursive, userNamespace);
    return true;
  } catch (error) {
    if (error instanceof CallError && ['EINVAL', 'EPERM', 'ENOSYS', 'EOPNOTSUPP'].includes(error.code)) return false;
    throw error;
  }
}

function stageDirectory(directory: string, userNamespace: number): void {
  const fd = cloneMount(directory, true);
  try {
    if (!mapOwners(fd, userNamespace, true)) throw new CannotMap(directory);
    setAttributes(fd, flags.nodev as number);
    attach(fd, 'rootfs');
  } finally {
    fs.closeSync(fd);
  }
}

/** A root filesystem cannot be shown with other owners. */
export class CannotMap extends MinirunError {
  constructor(directory: string) {
    super(
      `cannot show ${directory} to a user namespace`,
      'its file system or this kernel has no idmapped mounts',
      'Give --userns=host, or copy it to ext4, xfs or btrfs',
      { code: 125 },
    );
  }
}

function stageOverlayAsItIs(lower: readonly string[], directory: string, place: string): void {
  for (const [name, target] of [...lower.map((layer, index) => [String(index), layer]), ['own', directory]])
    fs.symlinkSync(target as string, `${place}/${name}`);
  const options = `lowerdir=${lower.map((_, index) => index).join(':')},upperdir=own/upper,workdir=own/work`;
  mount('overlay', 'rootfs', 'overlay', flags.nodev as number, options);
}

/** An overlay of idmapped mounts (Linux 5.19): what the container writes has the owners on disk that it has in the image. */
function stageOverlay(
  { lower, directory, mapped }: { lower: readonly string[]; directory: string; mapped: boolean },
  place: string,
  ids: IdRange,
  userNamespace: number,
): void {
  // Short names: those of up to 500 layers must fit in the page of options that mount(2) takes.
  if (!mapped) {
    // All of it belongs to the container's ids already.
    stageOverlayAsItIs(lower, directory, place);
    return;
  }
  const layers = lower.map((layer, index): [string, string] => [String(index), layer]);
  const all: [string, string][] = [...layers, ['own', directory]];
  for (const [name, source] of all) {
    fs.mkdirSync(`${place}/${name}`);
    const fd = cloneMount(source, false);
    try {
      if (!mapOwners(fd, userNamespace, false)) throw new CannotMap(source);
      attach(fd, name);
    } finally {
      fs.closeSync(fd);
    }
  }
  const options = `lowerdir=${layers.map(([name]) => name).join(':')},upperdir=own/upper,workdir=own/work`;
  try {
    asContainerRoot(ids, () => mount('overlay', 'rootfs', 'overlay', flags.nodev as number, options));
  } catch (error) {
    // Before Linux 5.19 not of such mounts.
    if (error instanceof CallError && error.code === 'EINVAL') throw new CannotMap(directory);
    throw error;
  }
  for (const [name] of all) {
    detach(name);
    fs.rmdirSync(`${place}/${name}`);
  }
}

/**
 * overlayfs makes files of its own as whoever mounted it, and on a mount that maps owners nobody can make any who is not
 * among the mapped. The capabilities that go with another id (capabilities(7)) are taken back.
 */
function asContainerRoot(ids: IdRange, work: () => void): void {
  const header = new Uint32Array([0x20080522, 0]);
  const sets = new Uint32Array(6);
  check(Number(libc.syscall(capabilityCalls.get, ptr(header), ptr(sets), 0, 0, 0)), 'capget');
  libc.setfsgid(ids.gid);
  libc.setfsuid(ids.uid);
  try {
    check(Number(libc.syscall(capabilityCalls.set, ptr(header), ptr(sets), 0, 0, 0)), 'capset');
    work();
  } finally {
    libc.setfsuid(0);
    libc.setfsgid(0);
  }
}

const isPropagation = (option: string) => /^r?(private|slave|shared|unbindable)$/.test(option);

/** A mount of something of the host, with its flags, under a name that init can reach. */
function stageBind(
  entry: OciMount,
  index: number,
  place: string,
  userNamespace: number,
  given: readonly string[],
  foreign: string[],
): OciMount {
  const recursive = entry.options.includes('rbind');
  const target = `mounts/${index}`;
  let source: number;
  try {
    source = openSource(entry);
  } catch {
    const { subpath } = entry;
    throw new MinirunError(
      `cannot mount ${entry.destination}`,
      `the source ${subpath === undefined ? entry.source : `${subpath} in the volume`} does not exist`,
      subpath === undefined ? `Create it first: mkdir -p ${entry.source}` : 'Create it in the volume first',
      { code: 125 },
    );
  }
  if (fs.fstatSync(source).isDirectory()) fs.mkdirSync(`${place}/${target}`);
  else fs.writeFileSync(`${place}/${target}`, '');
  const fd = cloneOpened(source, recursive);
  fs.closeSync(source);
  try {
    const isMapped =
      given.includes(entry.source) ||
      mapOwners(fd, userNamespace, recursive) ||
      (recursive && mapOwners(fd, userNamespace, false));
    if (!isMapped) foreign.push(entry.source);
    const set = entry.options.reduce((sum, option) => sum | ((flags[option] ?? 0) & 0b1111), 0);
    if (set !== 0) setAttributes(fd, set);
    // The runtime spec's names: `rro` is `ro` for all that is mounted below as well.
    const below = entry.options.reduce(
      (sum, option) => sum | ((flags[option.startsWith('r') ? option.slice(1) : ''] ?? 0) & 0b1111),
      0,
    );
    if (below !== 0) setAttributes(fd, below, true);
    attach(fd, target);
  } finally {
    fs.closeSync(fd);
  }
  const { subpath: _found, ...rest } = entry;
  return { ...rest, source: target, options: ['rbind', ...entry.options.filter(isPropagation)] };
}

/** /dev: device nodes in a file system that root of the host has mounted, which is what makes them work. */
function stageDevices({ options }: OciMount, devices: readonly OciDevice[], place: string, ids: IdRange): void {
  const dev = `${place}/dev`;
  fs.mkdirSync(dev);
  const data = options.filter((option) => flags[option] === undefined);
  const flag = options.reduce((sum, option) => sum | (flags[option] ?? 0), 0);
  mount('tmpfs', dev, 'tmpfs', flag, [...data, `uid=${ids.uid}`, `gid=${ids.gid}`].join(','));
  for (const { path, type, major, minor, fileMode, uid = 0, gid = 0 } of devices) {
    const node = `${place}${path}`;
    const first = fs.mkdirSync(node.slice(0, node.lastIndexOf('/')), { recursive: true, mode: 0o755 });
    if (first !== undefined) fs.chownSync(first, ids.uid, ids.gid);
    const device = ((major & 0xfff) << 8) | (minor & 0xff) | ((minor & 0xfff00) << 12);
    const kind = type === 'c' ? 0o020000 : 0o060000;
    check(libc.mknodat(AT_FDCWD, cstring(node), kind | fileMode, device), `mknod ${path}`);
    // mknod(2) heeds the umask of whoever runs minirun.
    fs.chmodSync(node, fileMode);
    // As without: the ids are those of the container.
    fs.chownSync(node, uid < ids.size ? ids.uid + uid : ids.uid, gid < ids.size ? ids.gid + gid : ids.gid);
  }
  for (const [name, target] of deviceLinks) {
    fs.symlinkSync(target, `${dev}/${name}`);
    fs.lchownSync(`${dev}/${name}`, ids.uid, ids.gid);
  }
}

const deviceLinks = [
  ['ptmx', 'pts/ptmx'],
  ['fd', '/proc/self/fd'],
  ['stdin', '/proc/self/fd/0'],
  ['stdout', '/proc/self/fd/1'],
  ['stderr', '/proc/self/fd/2'],
] as const;
