import fs from 'node:fs';
import path from 'node:path';
import type { OciDevice, OciMount } from '../container/oci.ts';
import { isPropagated, mountHolding, propagationProblem } from '../container/propagation.ts';
import { makeDevice } from './devices.ts';
import { InitError } from './failure.ts';
import {
  copyMount,
  MOUNT_ATTR,
  MS,
  mkdirAt,
  mknodAt,
  mount,
  newMount,
  nullDevice,
  O_PATH,
  openInRoot,
  openPlainly,
  placeMount,
  SyscallError,
  setMountAttributes,
  symlinkAt,
} from './libc.ts';
import { inUserNamespace } from './userns.ts';

/** mount(8) options that are flags; everything else is data for the filesystem. */
const flagOptions: Record<string, number> = {
  ro: MS.RDONLY,
  nosuid: MS.NOSUID,
  nodev: MS.NODEV,
  noexec: MS.NOEXEC,
  noatime: MS.NOATIME,
  nodiratime: MS.NODIRATIME,
  relatime: MS.RELATIME,
  strictatime: MS.STRICTATIME,
  bind: MS.BIND,
  rbind: MS.BIND | MS.REC,
};
const propagationOptions: Record<string, number> = {
  private: MS.PRIVATE,
  rprivate: MS.PRIVATE | MS.REC,
  slave: MS.SLAVE,
  rslave: MS.SLAVE | MS.REC,
  shared: MS.SHARED,
  rshared: MS.SHARED | MS.REC,
};
const noOptions = new Set(['rw', 'suid', 'dev', 'exec', 'defaults']);

/** The flags and the data that a list of mount(8) options stands for. */
export function parseOptions(options: readonly string[]): { flags: number; propagation: number; data: string } {
  let flags = 0;
  let propagation = 0;
  const data: string[] = [];
  for (const option of options) {
    if (Object.hasOwn(flagOptions, option)) flags |= flagOptions[option] as number;
    else if (Object.hasOwn(propagationOptions, option)) propagation = propagationOptions[option] as number;
    else if (!noOptions.has(option)) data.push(option);
  }
  return { flags, propagation, data: data.join(',') };
}

/** The same for a mount that is made in pieces: flags of a mount, those of it and all below it, and the rest. */
function mountAttributes(options: readonly string[]): {
  set: number;
  clear: number;
  setBelow: number;
  rest: string[];
} {
  const result = { set: 0, clear: 0, setBelow: 0, rest: [] as string[] };
  for (const option of options) {
    // The runtime spec's names: `rro` is `ro` for all that is mounted below as well.
    const isBelow = option.startsWith('r') && Object.hasOwn(attributes, option.slice(1));
    const name = isBelow ? option.slice(1) : option;
    if (Object.hasOwn(attributes, name)) {
      const bits = attributes[name] as number;
      if ((bits & MOUNT_ATTR.ATIME) !== 0 || name === 'relatime') result.clear |= MOUNT_ATTR.ATIME;
      if (isBelow) result.setBelow |= bits;
      else result.set |= bits;
    } else if (!noOptions.has(option) && !Object.hasOwn(propagationOptions, option) && !/^r?bind$/.test(option)) {
      result.rest.push(option);
    }
  }
  return result;
}

const attributes: Record<string, number> = {
  ro: MOUNT_ATTR.RDONLY,
  nosuid: MOUNT_ATTR.NOSUID,
  nodev: MOUNT_ATTR.NODEV,
  noexec: MOUNT_ATTR.NOEXEC,
  noatime: MOUNT_ATTR.NOATIME,
  relatime: 0,
  strictatime: MOUNT_ATTR.STRICTATIME,
};

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFMT = 0o170000;

/** Where the kernel's own file systems are, which what comes later must not look for by name. */
const systemPlaces = new Set(['/proc', '/dev', '/dev/pts', '/sys']);

/**
 * A root filesystem being built; every path below it is resolved with it as the root.
 *
 * Others may change it meanwhile: a `--rootfs` can be in use by another container, and a volume always can. So a mount is
 * made somewhere out of reach, with all of its flags, and then put on a place that is held open; nothing is looked up a
 * second time. And what is mounted on /proc, /dev and /sys is kept open, so that what is to be covered or set in them is
 * covered or set there, and not in what somebody has put in their place (CVE-2025-31133, 52565, 52881).
 */
export class Rootfs {
  readonly fd: number;
  /** By place. */
  private readonly held = new Map<string, number>();

  /** @param detached copies of sources of binds, made beforehand, by the bind's destination */
  constructor(
    readonly directory: string,
    private readonly detached: ReadonlyMap<string, number> = new Map(),
  ) {
    this.fd = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  }

  /** Where to look a path up: in the innermost mount that is held, or in the root. */
  private baseOf(file: string): { base: number; rest: string } {
    for (let end = file.length; end > 0; end = file.lastIndexOf('/', end - 1)) {
      const base = this.held.get(file.slice(0, end));
      if (base !== undefined) return { base, rest: file.slice(end) || '.' };
    }
    return { base: this.fd, rest: file };
  }

  private open(file: string, flags?: number): number {
    const { base, rest } = this.baseOf(file);
    return openInRoot(base, rest, flags);
  }

  /** A name, in this process only, of the directory that is mounted at one of the system's places. */
  nameOf(place: string): string {
    return `/proc/self/fd/${this.held.get(place) ?? this.open(place)}`;
  }

  /**
   * Opens `destination`, creating it and its parents where missing, as the kernel resolves it *inside* the root
   * (CVE-2023-27561, CVE-2024-45310). The caller closes the descriptor.
   */
  private openTarget(destination: string, kind: 'directory' | 'file'): number {
    try {
      return this.open(destination);
    } catch (error) {
      if ((error as SyscallError).code !== 'ENOENT') throw error;
    }
    const names = destination.split('/').filter((name) => name !== '' && name !== '.');
    for (let depth = 1; depth <= names.length; depth++) {
      const last = depth === names.length;
      const parent = this.open(`/${names.slice(0, depth - 1).join('/')}`);
      try {
        const name = names[depth - 1] as string;
        if (last && kind === 'file') mknodAt(parent, name, S_IFREG | 0o644);
        else mkdirAt(parent, name, 0o755);
      } catch (error) {
        if ((error as SyscallError).code !== 'EEXIST') throw error;
      } finally {
        fs.closeSync(parent);
      }
    }
    return this.open(destination);
  }

  /** Makes a directory and its parents where they are missing, as root's. What cannot be made is missed by who wants it. */
  makeDirectory(directory: string): void {
    const mask = process.umask(0o022);
    try {
      fs.closeSync(this.openTarget(directory, 'directory'));
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
    } finally {
      process.umask(mask);
    }
  }

  /** Mounts one entry of the spec. */
  mount(entry: OciMount): void {
    if (entry.type === 'cgroup') {
      this.mountCgroups(entry);
      return;
    }
    const { destination } = entry;
    const made = entry.type === 'bind' ? this.copyOfSource(entry) : newFilesystem(entry);
    let target: number | undefined;
    try {
      target = this.openTarget(destination, fs.fstatSync(made).isDirectory() ? 'directory' : 'file');
      this.refuseLinkedSystemPath(destination);
      placeMount(made, target, destination);
    } catch (error) {
      if (error instanceof InitError) throw error;
      throw new InitError(`cannot mount ${destination}`, reasonOf(error));
    } finally {
      if (target !== undefined) fs.closeSync(target);
    }
    if (systemPlaces.has(destination)) this.held.set(destination, made);
    else fs.closeSync(made);
  }

  /** The source of a bind as a mount of its own, nowhere yet, with all flags and its propagation. */
  private copyOfSource(entry: OciMount): number {
    const copy = this.detached.get(entry.destination) ?? copySource(entry);
    try {
      const { set, clear, setBelow } = mountAttributes(entry.options);
      if (setBelow !== 0) setMountAttributes(copy, { set: setBelow, recursive: true }, entry.destination);
      if (set !== 0 || clear !== 0) setMountAttributes(copy, { set, clear }, entry.destination);
      // Whatever is not to be anything else is private already: this mount namespace is.
      const { propagation } = parseOptions(entry.options);
      const recursive = (propagation & MS.REC) !== 0;
      if ((propagation & (MS.SLAVE | MS.SHARED)) !== 0)
        setMountAttributes(copy, { propagation: propagation & ~MS.REC, recursive }, entry.destination);
      return copy;
    } catch (error) {
      throw new InitError(`cannot mount ${entry.destination}`, reasonOf(error));
    }
  }

  /** An image whose /proc, /sys or /dev is a link would have the mount land elsewhere (CVE-2019-19921). */
  private refuseLinkedSystemPath(destination: string): void {
    const top = `/${destination.split('/')[1] ?? ''}`;
    if (top !== '/proc' && top !== '/sys' && top !== '/dev') return;
    const isLink = fs.lstatSync(path.join(this.directory, top), { throwIfNoEntry: false })?.isSymbolicLink();
    if (isLink) {
      throw new InitError(
        `refusing this image`,
        `its ${top} is a symbolic link`,
        'Use an image whose system directories are real',
      );
    }
  }

  /** The cgroup hierarchies of the host as the new cgroup namespace shows them: one for v2, one per controller for v1. */
  private mountCgroups(entry: OciMount): void {
    const { flags } = parseOptions(entry.options);
    const own = fs.readFileSync('/proc/self/cgroup', 'utf8').trim().split('\n');
    const hierarchies = own.map((line) => line.split(':')[1] ?? '').filter((controllers) => controllers !== '');
    const target = this.openTarget(entry.destination, 'directory');
    const place = `/proc/self/fd/${target}`;
    try {
      if (hierarchies.length === 0) {
        mount('cgroup', place, 'cgroup2', flags, '', entry.destination);
        return;
      }
      mount('cgroup', place, 'tmpfs', flags & ~MS.RDONLY, 'mode=755', entry.destination);
    } finally {
      fs.closeSync(target);
    }
    for (const controllers of hierarchies) {
      const name = controllers.replace('name=', '');
      const directory = this.openTarget(`${entry.destination}/${name}`, 'directory');
      try {
        mount('cgroup', `/proc/self/fd/${directory}`, 'cgroup', flags, controllers, `${entry.destination}/${name}`);
      } finally {
        fs.closeSync(directory);
      }
    }
    this.remountReadonly(entry.destination, flags);
  }

  private remountReadonly(destination: string, flags: number): void {
    const target = this.open(destination);
    mount('', `/proc/self/fd/${target}`, '', MS.BIND | MS.REMOUNT | MS.RDONLY | flags, '', destination);
    fs.closeSync(target);
  }

  /** Device nodes and links of /dev, which is a fresh tmpfs now. */
  populateDev(devices: readonly OciDevice[]): void {
    // mknod(2) heeds it, and everybody may write to /dev/null.
    const mask = process.umask(0);
    for (const device of devices) this.makeDevice(device);
    process.umask(mask);
    const dev = this.open('/dev');
    symlinkAt('pts/ptmx', dev, 'ptmx');
    symlinkAt('/proc/self/fd', dev, 'fd');
    symlinkAt('/proc/self/fd/0', dev, 'stdin');
    symlinkAt('/proc/self/fd/1', dev, 'stdout');
    symlinkAt('/proc/self/fd/2', dev, 'stderr');
    fs.closeSync(dev);
  }

  private makeDevice(device: OciDevice): void {
    const names = device.path.split('/').filter(Boolean);
    const parent = this.openTarget(`/${names.slice(0, -1).join('/')}`, 'directory');
    try {
      const numbers = device.hostPath === undefined ? {} : current(device.hostPath);
      makeDevice(parent, names.at(-1) as string, { ...device, ...numbers });
    } finally {
      fs.closeSync(parent);
    }
  }

  /** Binds the container's terminal on /dev/console: the open terminal itself, not what has its name (CVE-2025-52565). */
  mountConsole(terminal: number): void {
    const target = this.openTarget('/dev/console', 'file');
    this.cover(target, terminal, '/dev/console');
    fs.closeSync(target);
  }

  /** Puts a copy of an open file or directory on a place. */
  private cover(target: number, by: number, label: string): void {
    const copy = copyMount(by, false);
    try {
      placeMount(copy, target, label);
    } finally {
      fs.closeSync(copy);
    }
  }

  /** Hides a file behind /dev/null and a directory behind an empty read-only tmpfs. Missing paths are fine. */
  mask(masked: string): void {
    const target = this.openExisting(masked);
    if (target === undefined) return;
    const isDirectory = (fs.fstatSync(target).mode & S_IFMT) === S_IFDIR;
    if (isDirectory) this.empty(target, masked);
    else this.cover(target, this.ownNull(), masked);
    fs.closeSync(target);
  }

  private nothing: number | undefined;

  /** Puts an empty file system on a directory, each time the same. Of a mount without a place Linux makes copies only since 6.15. */
  private empty(target: number, label: string): void {
    if (this.nothing !== undefined) return this.cover(target, this.nothing, label);
    const made = newMount('tmpfs', 'tmpfs', ['size=0k'], MOUNT_ATTR.RDONLY);
    placeMount(made, target, label);
    this.nothing = made;
  }

  private null_: number | undefined;

  /** The container's /dev/null, which init has just made, checked to be that device (CVE-2025-31133). */
  private ownNull(): number {
    if (this.null_ === undefined) {
      const found = this.openExisting('/dev/null');
      const stat = found === undefined ? undefined : fs.fstatSync(found);
      if (stat?.isCharacterDevice() !== true || stat.rdev !== nullDevice)
        throw new InitError("the container's /dev/null is not the null device");
      this.null_ = found as number;
    }
    return this.null_;
  }

  /** Makes a path read-only by a bind mount on itself. Missing paths are fine. */
  makeReadonly(directory: string): void {
    const target = this.openExisting(directory);
    if (target === undefined) return;
    const copy = copyMount(target, true);
    const { RDONLY, NOSUID, NODEV, NOEXEC } = MOUNT_ATTR;
    setMountAttributes(copy, { set: RDONLY | NOSUID | NODEV | NOEXEC }, directory);
    placeMount(copy, target, directory);
    fs.closeSync(copy);
    fs.closeSync(target);
  }

  /** Makes the whole root read-only; what is mounted on it stays as it is. */
  makeRootReadonly(): void {
    setMountAttributes(this.fd, { set: MOUNT_ATTR.RDONLY }, '/');
  }

  /**
   * Writes to a file of /proc, with neither a link nor another mount on the way to it: what stands there is proc's own
   * file or nothing (CVE-2025-52881).
   */
  writeProc(file: string, value: string): void {
    const proc = this.held.get('/proc') ?? this.open('/proc');
    if (fs.statfsSync(`/proc/self/fd/${proc}`).type !== procMagic)
      throw new InitError('/proc of the container is not proc');
    const fd = openPlainly(proc, file, fs.constants.O_WRONLY);
    try {
      fs.writeSync(fd, value);
    } finally {
      fs.closeSync(fd);
    }
  }

  /** Makes the root the working directory, and keeps nothing open. */
  enter(): void {
    process.chdir(`/proc/self/fd/${this.fd}`);
    for (const fd of [this.fd, ...this.held.values(), this.null_, this.nothing]) if (fd !== undefined) fs.closeSync(fd);
  }

  private openExisting(file: string): number | undefined {
    try {
      return this.open(file);
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes((error as SyscallError).code)) return undefined;
      throw error;
    }
  }
}

function reasonOf(error: unknown): string {
  return error instanceof SyscallError ? error.reason : String(error);
}

/** proc, as statfs(2) tells it. */
const procMagic = 0x9fa0;

/** The source of a bind, as it is now: what follows is about the file that has been opened here, whatever its name becomes. */
function copySource(entry: OciMount): number {
  const source = openSource(entry);
  try {
    return copyMount(source, entry.options.includes('rbind'));
  } catch (error) {
    throw new InitError(`cannot mount ${entry.source} on ${entry.destination}`, reasonOf(error));
  } finally {
    fs.closeSync(source);
  }
}

function openSource({ source, destination, subpath }: OciMount): number {
  const missing = (what: string) =>
    new InitError(
      `cannot mount ${destination}`,
      `the source ${what} does not exist`,
      subpath === undefined ? `Create it first: mkdir -p ${source}` : 'Create it in the volume first',
    );
  let whole: number;
  try {
    whole = fs.openSync(source, O_PATH);
  } catch {
    throw missing(source);
  }
  if (subpath === undefined) return whole;
  // Containers write to the volume, now too: no link in it leads out of it (CVE-2017-1002101 in Kubernetes).
  try {
    return openInRoot(whole, subpath);
  } catch (error) {
    throw (error as SyscallError).code === 'ENOENT'
      ? missing(`${subpath} in the volume`)
      : new InitError(`cannot mount ${destination}`, `${subpath} in the volume: ${reasonOf(error)}`);
  } finally {
    fs.closeSync(whole);
  }
}

/**
 * Copies the sources of binds that are to hear of mounts of the host, or to tell it of theirs, and then makes this mount
 * namespace private. Those copies alone stay in touch with the host's mounts: `unshare` must have left them as they are.
 */
export function detachShared(mounts: readonly OciMount[]): Map<string, number> {
  const copies = new Map<string, number>();
  for (const entry of mounts.filter(isPropagated)) {
    if (entry.subpath === undefined) requirePropagation(entry);
    copies.set(entry.destination, copySource(entry));
  }
  if (copies.size > 0) mount('', '/', '', MS.REC | MS.PRIVATE, '');
  return copies;
}

function requirePropagation({ source, destination, options }: OciMount): void {
  const problem = propagationProblem(fs.realpathSync(source), options, fs.readFileSync('/proc/self/mountinfo', 'utf8'));
  if (problem !== undefined) throw new InitError(`cannot mount ${destination}`, problem.why, problem.remedy);
}

/** What a device of the host is now: one that was unplugged and plugged in again may have other numbers. */
function current(hostPath: string): Pick<OciDevice, 'type' | 'major' | 'minor'> {
  const stat = fs.statSync(hostPath, { throwIfNoEntry: false });
  const type = stat?.isCharacterDevice() ? 'c' : stat?.isBlockDevice() ? 'b' : undefined;
  if (stat === undefined || type === undefined)
    throw new InitError(`cannot use device ${hostPath}`, 'this machine has none of that name any more');
  // makedev(3): minor numbers have bits on both sides of the major one's.
  return { type, major: (stat.rdev >> 8) & 0xfff, minor: (stat.rdev & 0xff) | ((stat.rdev >> 12) & 0xfff00) };
}

function newFilesystem({ type, source, destination, options }: OciMount): number {
  const { set, setBelow, rest } = mountAttributes(options);
  try {
    return newMount(type, source, rest, set | setBelow);
  } catch (error) {
    const { code, subject, reason } = error as SyscallError;
    if (code === undefined) throw error;
    throw new InitError(
      `cannot mount ${destination}`,
      code === 'EINVAL' && rest.includes(subject ?? '') ? `${type} does not take the option ${subject}` : reason,
    );
  }
}

/** Flags that a directory's own bind mount cannot lose: in a user namespace those of the mount it lies on. */
export function keptFlags(directory: string): number {
  if (!inUserNamespace) return 0;
  // Only the mount's owner may make it writable: mount_namespaces(7), restrictions on mount namespaces.
  const { options } = mountHolding(fs.realpathSync(directory), fs.readFileSync('/proc/self/mountinfo', 'utf8'));
  return parseOptions(options).flags & ~MS.BIND;
}

/**
 * Makes the mount that holds minirun's own binary read-only, in this mount namespace only. The container can then
 * not write to the host's binary through /proc/N/exe, not even by `#!/proc/self/exe` (CVE-2019-5736).
 */
export function protectOwnBinary(): void {
  const own = mountHolding(fs.realpathSync('/proc/self/exe'), fs.readFileSync('/proc/self/mountinfo', 'utf8'));
  mount('', own.place, '', MS.BIND | MS.REMOUNT | MS.RDONLY | parseOptions(own.options).flags, '', own.place);
}
