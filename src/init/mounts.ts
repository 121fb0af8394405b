import fs from 'node:fs';
import path from 'node:path';
import type { OciDevice, OciMount } from '../container/oci.ts';
import { makeDevice } from './devices.ts';
import { InitError } from './failure.ts';
import { MS, mkdirAt, mknodAt, mount, nullDevice, openInRoot, SyscallError, symlinkAt } from './libc.ts';
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

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFMT = 0o170000;

/** A root filesystem being built; every path below it is resolved with it as the root. */
export class Rootfs {
  readonly fd: number;

  constructor(readonly directory: string) {
    this.fd = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  }

  /**
   * Opens `destination`, creating it and its parents where missing, as the kernel resolves it *inside* the root
   * (CVE-2023-27561, CVE-2024-45310). The caller closes the descriptor.
   */
  private openTarget(destination: string, kind: 'directory' | 'file'): number {
    try {
      return openInRoot(this.fd, destination);
    } catch (error) {
      if ((error as SyscallError).code !== 'ENOENT') throw error;
    }
    const names = destination.split('/').filter((name) => name !== '' && name !== '.');
    for (let depth = 1; depth <= names.length; depth++) {
      const last = depth === names.length;
      const parent = openInRoot(this.fd, `/${names.slice(0, depth - 1).join('/')}`);
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
    return openInRoot(this.fd, destination);
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

  /** Mounts one entry of the spec. Its place is held open, so nothing can be swapped under it. */
  mount(entry: OciMount): void {
    if (entry.type === 'cgroup') {
      this.mountCgroups(entry);
      return;
    }
    const { flags, propagation, data } = parseOptions(entry.options);
    const bind = (flags & MS.BIND) !== 0;
    let kind: 'directory' | 'file' = 'directory';
    if (bind) kind = sourceKind(entry);
    const target = this.openTarget(entry.destination, kind);
    const place = `/proc/self/fd/${target}`;
    try {
      this.refuseLinkedSystemPath(entry.destination);
      mount(
        entry.source,
        place,
        bind ? '' : entry.type,
        bind ? flags & (MS.BIND | MS.REC) : flags,
        data,
        entry.destination,
      );
    } catch (error) {
      if (error instanceof InitError) throw error;
      throw new InitError(`cannot mount ${entry.destination}`, reasonOf(error));
    } finally {
      fs.closeSync(target);
    }
    // A bind mount takes its flags only from a second call, and a changed propagation from a third.
    const rest = bind ? flags & ~(MS.BIND | MS.REC) : 0;
    if (rest === 0 && propagation === 0) return;
    const mounted = openInRoot(this.fd, entry.destination);
    try {
      const place2 = `/proc/self/fd/${mounted}`;
      if (rest !== 0)
        mount('', place2, '', MS.BIND | MS.REMOUNT | rest | lockedFlags(entry.source), '', entry.destination);
      if (propagation !== 0) mount('', place2, '', propagation, '', entry.destination);
    } finally {
      fs.closeSync(mounted);
    }
  }

  /** An image whose /proc, /sys or /dev is a link would have the mount land elsewhere (CVE-2019-19921). */
  private refuseLinkedSystemPath(destination: string): void {
    const top = `/${destination.split('/')[1] ?? ''}`;
    if (top !== '/proc' && top !== '/sys' && top !== '/dev') return;
    if (fs.lstatSync(path.join(this.directory, top)).isSymbolicLink()) {
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
    const target = openInRoot(this.fd, destination);
    mount('', `/proc/self/fd/${target}`, '', MS.BIND | MS.REMOUNT | MS.RDONLY | flags, '', destination);
    fs.closeSync(target);
  }

  /** Device nodes and links of /dev, which is a fresh tmpfs now. */
  populateDev(devices: readonly OciDevice[]): void {
    for (const device of devices) {
      const names = device.path.split('/').filter(Boolean);
      const parent = this.openTarget(`/${names.slice(0, -1).join('/')}`, 'directory');
      makeDevice(parent, names.at(-1) as string, device);
      fs.closeSync(parent);
    }
    const dev = openInRoot(this.fd, '/dev');
    symlinkAt('pts/ptmx', dev, 'ptmx');
    symlinkAt('/proc/self/fd', dev, 'fd');
    symlinkAt('/proc/self/fd/0', dev, 'stdin');
    symlinkAt('/proc/self/fd/1', dev, 'stdout');
    symlinkAt('/proc/self/fd/2', dev, 'stderr');
    fs.closeSync(dev);
  }

  /** Binds the container's terminal on /dev/console. */
  mountConsole(terminal: string): void {
    const target = this.openTarget('/dev/console', 'file');
    mount(`${this.directory}${terminal}`, `/proc/self/fd/${target}`, '', MS.BIND, '', '/dev/console');
    fs.closeSync(target);
  }

  /** Hides a file behind /dev/null and a directory behind an empty read-only tmpfs. Missing paths are fine. */
  mask(masked: string): void {
    const target = this.openExisting(masked);
    if (target === undefined) return;
    const isDirectory = (fs.fstatSync(target).mode & S_IFMT) === S_IFDIR;
    const place = `/proc/self/fd/${target}`;
    if (!isDirectory) mount(`/proc/self/fd/${this.ownNull()}`, place, '', MS.BIND, '', masked);
    else if (this.empty !== undefined) mount(`/proc/self/fd/${this.empty}`, place, '', MS.BIND, '', masked);
    else {
      mount('tmpfs', place, 'tmpfs', MS.RDONLY, 'size=0k', masked);
      this.empty = openInRoot(this.fd, masked);
    }
    fs.closeSync(target);
  }

  /** The first directory that was hidden, empty and read-only: a file system of its own for each would take longer. */
  private empty: number | undefined;

  private null_: number | undefined;

  /** The container's /dev/null, which init has just made, checked to be that device (CVE-2025-31133). */
  private ownNull(): number {
    if (this.null_ === undefined) {
      this.null_ = openInRoot(this.fd, '/dev/null');
      const stat = fs.fstatSync(this.null_);
      if (!stat.isCharacterDevice() || stat.rdev !== nullDevice)
        throw new InitError("the container's /dev/null is not the null device");
    }
    return this.null_;
  }

  /** Makes a path read-only by a bind mount on itself. Missing paths are fine. */
  makeReadonly(directory: string): void {
    const target = this.openExisting(directory);
    if (target === undefined) return;
    const place = `/proc/self/fd/${target}`;
    mount(place, place, '', MS.BIND | MS.REC, '', directory);
    fs.closeSync(target);
    const mounted = openInRoot(this.fd, directory);
    mount(
      '',
      `/proc/self/fd/${mounted}`,
      '',
      MS.BIND | MS.REMOUNT | MS.RDONLY | MS.NOSUID | MS.NODEV | MS.NOEXEC,
      '',
      directory,
    );
    fs.closeSync(mounted);
  }

  private openExisting(file: string): number | undefined {
    try {
      return openInRoot(this.fd, file);
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes((error as SyscallError).code)) return undefined;
      throw error;
    }
  }
}

function reasonOf(error: unknown): string {
  return error instanceof SyscallError ? error.reason : String(error);
}

function sourceKind(entry: OciMount): 'directory' | 'file' {
  let stat: fs.Stats;
  try {
    stat = fs.statSync(entry.source);
  } catch {
    throw new InitError(
      `cannot mount ${entry.destination}`,
      `the source ${entry.source} does not exist`,
      `Create it first: mkdir -p ${entry.source}`,
    );
  }
  return stat.isDirectory() ? 'directory' : 'file';
}

interface MountPoint {
  place: string;
  options: string[];
}

function mountPoints(): MountPoint[] {
  return fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .trim()
    .split('\n')
    .map((line) => {
      const fields = line.split(' ');
      // proc_pid_mountinfo(5): space, tab, newline and backslash come as octal escapes.
      const place = (fields[4] as string).replace(/\\(\d{3})/g, (_, code: string) =>
        String.fromCharCode(Number.parseInt(code, 8)),
      );
      return { place, options: (fields[5] as string).split(',') };
    });
}

/** The mount that holds `file`: the last of those whose place is the longest prefix. */
function mountOf(file: string): MountPoint {
  let best: MountPoint = { place: '/', options: [] };
  for (const point of mountPoints()) {
    const prefix = point.place === '/' ? '/' : `${point.place}/`;
    if ((file === point.place || file.startsWith(prefix)) && point.place.length >= best.place.length) best = point;
  }
  return best;
}

/** Flags that the mount of a bind's source has and that a remount must keep. */
function lockedFlags(source: string): number {
  const { options } = mountOf(fs.realpathSync(source));
  // Only the mount's owner may make it writable: mount_namespaces(7), restrictions on mount namespaces.
  return parseOptions(options.filter((option) => inUserNamespace || option !== 'ro')).flags & ~MS.BIND;
}

/** Flags that a directory's own bind mount cannot lose: in a user namespace those of the mount it lies on. */
export function keptFlags(directory: string): number {
  return inUserNamespace ? lockedFlags(directory) : 0;
}

/**
 * Makes the mount that holds minirun's own binary read-only, in this mount namespace only. The container can then
 * not write to the host's binary through /proc/N/exe, not even by `#!/proc/self/exe` (CVE-2019-5736).
 */
export function protectOwnBinary(): void {
  const own = mountOf(fs.realpathSync('/proc/self/exe'));
  mount('', own.place, '', MS.BIND | MS.REMOUNT | MS.RDONLY | parseOptions(own.options).flags, '', own.place);
}
