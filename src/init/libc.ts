import { dlopen, FFIType, ptr, read } from 'bun:ffi';
import fs from 'node:fs';
import os from 'node:os';

const { i32, i64_fast: i64, u64_fast: u64, ptr: pointer } = FFIType;

/** musl's libc has another name; both have every symbol used here. */
export function libraryName(): string {
  const musl = `/lib/ld-musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`;
  return fs.existsSync(musl) && !fs.existsSync('/etc/debian_version') ? musl : 'libc.so.6';
}

const { symbols: libc } = dlopen(libraryName(), {
  __errno_location: { args: [], returns: pointer },
  syscall: { args: [i64, i64, i64, i64, i64, i64, i64], returns: i64 },
  mount: { args: [pointer, pointer, pointer, u64, pointer], returns: i32 },
  umount2: { args: [pointer, i32], returns: i32 },
  setns: { args: [i32, i32], returns: i32 },
  unshare: { args: [i32], returns: i32 },
  chroot: { args: [pointer], returns: i32 },
  sethostname: { args: [pointer, u64], returns: i32 },
  prctl: { args: [i32, u64, u64, u64, u64], returns: i32 },
  setrlimit: { args: [i32, pointer], returns: i32 },
  signal: { args: [i32, i64], returns: i64 },
  pthread_sigmask: { args: [i32, pointer, pointer], returns: i32 },
  sigemptyset: { args: [pointer], returns: i32 },
  ioctl: { args: [i32, u64, pointer], returns: i32 },
  pipe2: { args: [pointer, i32], returns: i32 },
  dup2: { args: [i32, i32], returns: i32 },
  setsid: { args: [], returns: i32 },
  umask: { args: [i32], returns: i32 },
  mkdirat: { args: [i32, pointer, i32], returns: i32 },
  symlinkat: { args: [pointer, i32, pointer], returns: i32 },
  mknodat: { args: [i32, pointer, i32, u64], returns: i32 },
  execve: { args: [pointer, pointer, pointer], returns: i32 },
});

/** System calls that libc does not wrap, or wraps for all threads where only this one is meant. */
const numbers = {
  x64: {
    pivot_root: 155,
    openat2: 437,
    close_range: 436,
    capget: 125,
    capset: 126,
    seccomp: 317,
    keyctl: 250,
    setgroups: 116,
    setresuid: 117,
    setresgid: 119,
    getcwd: 79,
    open_tree: 428,
    move_mount: 429,
    fsopen: 430,
    fsconfig: 431,
    fsmount: 432,
    mount_setattr: 442,
    fcntl: 72,
    flock: 73,
  },
  arm64: {
    pivot_root: 41,
    openat2: 437,
    close_range: 436,
    capget: 90,
    capset: 91,
    seccomp: 277,
    keyctl: 219,
    setgroups: 159,
    setresuid: 147,
    setresgid: 149,
    getcwd: 17,
    open_tree: 428,
    move_mount: 429,
    fsopen: 430,
    fsconfig: 431,
    fsmount: 432,
    mount_setattr: 442,
    fcntl: 25,
    flock: 32,
  },
}[process.arch as 'x64' | 'arm64'];

/** A system call that failed. */
export class SyscallError extends Error {
  constructor(
    readonly call: string,
    readonly errno: number,
    readonly subject?: string,
  ) {
    super(`${call}${subject === undefined ? '' : ` ${subject}`}: ${describe(errno)}`);
  }

  /** The symbolic name: `ENOENT`. */
  get code(): string {
    return codeOf(this.errno);
  }

  /** The plain words: `no such file or directory`. */
  get reason(): string {
    return describe(this.errno);
  }
}

function codeOf(errno: number): string {
  for (const [name, value] of Object.entries(os.constants.errno)) if (value === errno) return name;
  return `errno ${errno}`;
}

const words: Record<string, string> = {
  EPERM: 'operation not permitted',
  ENOENT: 'no such file or directory',
  EACCES: 'permission denied',
  EEXIST: 'file exists',
  ENOTDIR: 'not a directory',
  EISDIR: 'is a directory',
  EINVAL: 'invalid argument',
  ENODEV: 'no such device',
  ENOSYS: 'this kernel lacks it',
  ENOEXEC: 'exec format error',
  ELOOP: 'too many levels of symbolic links',
  EROFS: 'read-only file system',
  ENOSPC: 'no space left on device',
  EDQUOT: 'disk quota exceeded',
  EFBIG: 'file too large',
  EIO: 'input/output error',
  EMLINK: 'too many links',
  ENAMETOOLONG: 'file name too long',
  ENOTEMPTY: 'directory not empty',
  ENOTSUP: 'not supported by this file system',
  EOVERFLOW: 'value too large',
  EXDEV: 'cross-device link',
  ETXTBSY: 'text file busy',
  E2BIG: 'argument list too long',
  EAGAIN: 'resource temporarily unavailable',
  EBUSY: 'device or resource busy',
};

function describe(errno: number): string {
  const code = codeOf(errno);
  return words[code] ?? code;
}

export function errno(): number {
  // biome-ignore lint: the pointer is never null
  return read.i32(libc.__errno_location() as never, 0);
}

function check(result: number, call: string, subject?: string): number {
  if (result === -1) throw new SyscallError(call, errno(), subject);
  return result;
}

function cstring(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

function syscall(name: keyof typeof numbers, subject: string | undefined, ...args: number[]): number {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = args;
  return check(Number(libc.syscall(numbers[name], a, b, c, d, e, f)), name, subject);
}

/** mount(2) flags. */
export const MS = {
  RDONLY: 1,
  NOSUID: 2,
  NODEV: 4,
  NOEXEC: 8,
  REMOUNT: 32,
  NOATIME: 1024,
  NODIRATIME: 2048,
  BIND: 4096,
  MOVE: 8192,
  REC: 16384,
  UNBINDABLE: 1 << 17,
  PRIVATE: 1 << 18,
  SLAVE: 1 << 19,
  SHARED: 1 << 20,
  RELATIME: 1 << 21,
  STRICTATIME: 1 << 24,
} as const;

export function mount(source: string, target: string, type: string, flags: number, data: string, label = target): void {
  const result = libc.mount(cstring(source), cstring(target), cstring(type), flags, cstring(data));
  check(result, 'mount', label);
}

/** Flags of a mount for `fsmount` and `setMountAttributes`: mount_setattr(2). */
export const MOUNT_ATTR = {
  RDONLY: 0x1,
  NOSUID: 0x2,
  NODEV: 0x4,
  NOEXEC: 0x8,
  /** The bits in which the kernel keeps how access times are noted; 0 is relatime. */
  ATIME: 0x70,
  NOATIME: 0x10,
  STRICTATIME: 0x20,
} as const;

const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const noName = cstring('');
/** Strings of the call that is being made: whoever has only their addresses does not keep them. */
let strings: readonly Buffer[] = [];

function addressesOf(...texts: string[]): number[] {
  strings = texts.map(cstring);
  return strings.map((string) => ptr(string));
}

/** A copy, mounted nowhere yet, of the mount that an open file lies in, from that file on: open_tree(2). */
export function copyMount(fd: number, recursive: boolean): number {
  const OPEN_TREE_CLONE = 1;
  const flags = OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  return syscall('open_tree', undefined, fd, ptr(noName), flags);
}

/** Mounts what `copyMount` or `newMount` has made on an open place, wherever that is by now: move_mount(2). */
export function placeMount(mount: number, place: number, label: string): void {
  const bothAreDescriptors = 0x04 | 0x40;
  syscall('move_mount', label, mount, ptr(noName), place, ptr(noName), bothAreDescriptors);
}

/** Sets and clears flags of a mount, and of all below it with `recursive`: mount_setattr(2). */
export function setMountAttributes(
  mount: number,
  { set = 0, clear = 0, propagation = 0, recursive = false }: MountAttributes,
  label?: string,
): void {
  const attributes = new BigUint64Array([BigInt(set), BigInt(clear), BigInt(propagation), 0n]);
  const flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  syscall('mount_setattr', label, mount, ptr(noName), flags, ptr(attributes), attributes.byteLength);
}

export interface MountAttributes {
  /** Of MOUNT_ATTR. */
  set?: number;
  clear?: number;
  /** MS.PRIVATE, MS.SLAVE or MS.SHARED. */
  propagation?: number;
  recursive?: boolean;
}

/**
 * A new file system, mounted nowhere yet: fsopen(2), fsconfig(2), fsmount(2).
 *
 * @param options `key` or `key=value`, the file system's own
 */
export function newMount(type: string, source: string, options: readonly string[], attributes: number): number {
  const FSCONFIG = { SET_FLAG: 0, SET_STRING: 1, CMD_CREATE: 6 };
  const context = syscall('fsopen', type, ...addressesOf(type), 1);
  try {
    for (const option of [`source=${source}`, ...options]) {
      const at = option.indexOf('=');
      if (at < 0) syscall('fsconfig', option, context, FSCONFIG.SET_FLAG, ...addressesOf(option), 0, 0);
      else {
        const pair = addressesOf(option.slice(0, at), option.slice(at + 1));
        syscall('fsconfig', option, context, FSCONFIG.SET_STRING, ...pair, 0);
      }
    }
    syscall('fsconfig', type, context, FSCONFIG.CMD_CREATE, 0, 0, 0);
    return syscall('fsmount', type, context, 1, attributes);
  } finally {
    fs.closeSync(context);
  }
}

/** Whether the working directory has a name below the root of this process: getcwd(2) writes `(unreachable)` before others. */
export function isInsideRoot(): boolean {
  const name = Buffer.from(new ArrayBuffer(4096));
  try {
    syscall('getcwd', undefined, ptr(name), name.length);
  } catch {
    return false;
  }
  return name.toString('latin1', 0, 1) === '/';
}

/** Detaches a mount and all below it (MNT_DETACH). */
export function unmountLazily(target: string): void {
  check(libc.umount2(cstring(target), 2), 'umount', target);
}

/** Makes the current directory the root; the old root is stacked below it and is then detached: pivot_root(2). */
export function pivotRootHere(): void {
  const dot = cstring('.');
  syscall('pivot_root', undefined, ptr(dot), ptr(dot));
  unmountLazily('.');
  process.chdir('/');
}

export function chroot(directory: string): void {
  check(libc.chroot(cstring(directory)), 'chroot', directory);
  process.chdir('/');
}

export const CLONE_FS = 0x200;
export const CLONE_NEWCGROUP = 0x02000000;

/** Enters the namespace that `file` stands for. */
export function enterNamespace(file: string): void {
  const fd = fs.openSync(file, 'r');
  try {
    check(libc.setns(fd, 0), 'setns', file);
  } finally {
    fs.closeSync(fd);
  }
}

export function unshare(flags: number): void {
  check(libc.unshare(flags), 'unshare');
}

export function setHostname(name: string): void {
  const text = Buffer.from(name);
  check(libc.sethostname(text.length === 0 ? cstring('') : text, text.length), 'sethostname', name);
}

/** prctl(2) operations. */
export const PR = {
  SET_PDEATHSIG: 1,
  SET_DUMPABLE: 4,
  SET_KEEPCAPS: 8,
  CAPBSET_READ: 23,
  CAPBSET_DROP: 24,
  SET_NO_NEW_PRIVS: 38,
  CAP_AMBIENT: 47,
};

export function prctl(operation: number, argument: number, third = 0): void {
  check(libc.prctl(operation, argument, third, 0, 0), 'prctl', String(operation));
}

const resources = [
  'CPU',
  'FSIZE',
  'DATA',
  'STACK',
  'CORE',
  'RSS',
  'NPROC',
  'NOFILE',
  'MEMLOCK',
  'AS',
  'LOCKS',
  'SIGPENDING',
  'MSGQUEUE',
  'NICE',
  'RTPRIO',
  'RTTIME',
];

/** Sets a limit; -1 is unlimited. `type` is `RLIMIT_NOFILE` and so on. */
export function setRlimit(type: string, soft: number, hard: number): void {
  const limits = new BigInt64Array([BigInt(soft), BigInt(hard)]);
  check(libc.setrlimit(resources.indexOf(type.replace('RLIMIT_', '')), ptr(limits)), 'setrlimit', type);
}

/** Puts every signal back to its default and unblocks all: Bun ignores SIGPIPE and SIGXFSZ, and both outlive execve. */
export function resetSignals(): void {
  for (let signal = 1; signal <= 64; signal++) libc.signal(signal, 0);
  const set = Buffer.alloc(128);
  libc.sigemptyset(set);
  libc.pthread_sigmask(2, set, null);
}

export function pipe(): { read: number; write: number } {
  const fds = new Int32Array(2);
  check(libc.pipe2(ptr(fds), fs.constants.O_RDONLY | 0o2000000), 'pipe2');
  return { read: fds[0] as number, write: fds[1] as number };
}

/** dup2(2); the new descriptor survives execve. */
export function duplicate(from: number, to: number): void {
  check(libc.dup2(from, to), 'dup2');
}

const ioctls = {
  TIOCSCTTY: 0x540e,
  TIOCSWINSZ: 0x5414,
  TIOCSPTLCK: 0x40045431,
  TIOCGPTN: 0x80045430,
  TIOCGPTPEER: 0x5441,
};

/**
 * Makes a terminal in the devpts instance of `ptmx`. Its other end is asked for by the first and not by a name: whatever
 * somebody has put in the place of /dev/pts/N, or of ptmx, is not taken for a terminal (CVE-2025-52565).
 */
export function openTerminal(ptmx: string): { master: number; slave: number; number: number } {
  const flags = fs.constants.O_RDWR | fs.constants.O_NOCTTY;
  const master = fs.openSync(ptmx, flags);
  const value = new Int32Array([0]);
  check(libc.ioctl(master, ioctls.TIOCSPTLCK, ptr(value)), 'ioctl', 'TIOCSPTLCK');
  check(libc.ioctl(master, ioctls.TIOCGPTN, ptr(value)), 'ioctl', 'TIOCGPTN');
  const slave = check(libc.ioctl(master, ioctls.TIOCGPTPEER, flags | O_CLOEXEC), 'ioctl', 'TIOCGPTPEER');
  return { master, slave, number: value[0] as number };
}

export function setWindowSize(fd: number, rows: number, columns: number): void {
  check(libc.ioctl(fd, ioctls.TIOCSWINSZ, ptr(new Uint16Array([rows, columns, 0, 0]))), 'ioctl', 'TIOCSWINSZ');
}

/** Starts a session whose controlling terminal is `fd`. */
export function takeControllingTerminal(fd: number): void {
  check(libc.ioctl(fd, ioctls.TIOCSCTTY, null), 'ioctl', 'TIOCSCTTY');
}

/** setsid(2); a process that leads a session already is fine as it is. */
export function startSession(): void {
  libc.setsid();
}

export function setUmask(mask: number): void {
  libc.umask(mask);
}

export const O_PATH = 0o10000000;
/** Major 1, minor 3: Documentation/admin-guide/devices.txt. */
export const nullDevice = (1 << 8) | 3;
const O_CLOEXEC = 0o2000000;
const RESOLVE_IN_ROOT = 0x10;
const RESOLVE_NO_MAGICLINKS = 0x02;
/** With four processes that do nothing but rename, 14 were the most that a path with 50 `..` took. */
const openAttempts = 1000;

/**
 * Opens `file` below the directory `root` with `root` as the root of every symbolic link and `..`: openat2(2).
 * With no flags it opens the place itself (O_PATH), whatever it is.
 *
 * After a `..` the kernel says EAGAIN when anybody on the machine has renamed or mounted anything meanwhile, and leaves it to
 * the caller how often to try again.
 */
export function openInRoot(root: number, file: string, flags = O_PATH, resolve = RESOLVE_IN_ROOT): number {
  const how = new BigUint64Array([BigInt(flags | O_CLOEXEC), 0n, BigInt(resolve | RESOLVE_NO_MAGICLINKS)]);
  const name = cstring(file);
  for (let attempt = 1; ; attempt++) {
    try {
      return syscall('openat2', file, root, ptr(name), ptr(how), 24);
    } catch (error) {
      if ((error as SyscallError).code !== 'EAGAIN' || attempt === openAttempts) throw error;
    }
  }
}

/** Opens `file` below a directory, where no symbolic link and no further mount may be on the way to it. */
export function openPlainly(directory: number, file: string, flags: number): number {
  const beneathWithoutLinksAndMounts = 0x08 | 0x04 | 0x01;
  return openInRoot(directory, file, flags, beneathWithoutLinksAndMounts);
}

export function mkdirAt(directory: number, name: string, mode: number): void {
  check(libc.mkdirat(directory, cstring(name), mode), 'mkdir', name);
}

export function symlinkAt(target: string, directory: number, name: string): void {
  check(libc.symlinkat(cstring(target), directory, cstring(name)), 'symlink', name);
}

/** mknodat(2); `mode` holds the file type too. */
export function mknodAt(directory: number, name: string, mode: number, major = 0, minor = 0): void {
  // makedev(3): glibc's split of the numbers over 64 bits; both are small here.
  const device = ((major & 0xfff) << 8) | (minor & 0xff) | ((minor & 0xfff00) << 12);
  check(libc.mknodat(directory, cstring(name), mode, device), 'mknod', name);
}

/** Marks every file descriptor from `first` on as closed by execve; before Linux 5.11 one by one. */
export function closeOnExecFrom(first: number): void {
  syscall('close_range', undefined, first, 0xffffffff, 4);
}

/** Lets a descriptor survive execve: F_SETFD without FD_CLOEXEC. */
export function keepOnExec(fd: number): void {
  syscall('fcntl', undefined, fd, 2, 0);
}

/**
 * Locks an open file, which lasts until its last descriptor is closed: flock(2). Changes a lock that is held already.
 *
 * @returns false when somebody else has it, which without `wait` is not waited for
 */
export function flock(fd: number, kind: 'shared' | 'alone', { wait = true } = {}): boolean {
  for (;;) {
    try {
      syscall('flock', undefined, fd, (kind === 'shared' ? 1 : 2) | (wait ? 0 : 4));
      return true;
    } catch (error) {
      const { code } = error as SyscallError;
      if (code === 'EAGAIN') return false;
      if (code !== 'EINTR') throw error;
    }
  }
}

/** Gives this thread a fresh session keyring, so that the container does not see the host's: keyctl(2). */
export function joinNewSessionKeyring(): void {
  try {
    syscall('keyctl', undefined, 1, 0);
  } catch (error) {
    // A kernel without keyrings has nothing to hide.
    if ((error as SyscallError).code !== 'ENOSYS') throw error;
  }
}

/** Sets ids of this thread only: execve keeps those of the thread that calls it and ends the others. */
export function setIds(uid: number, gid: number, groups: number[]): void {
  const list = Uint32Array.from(groups.length === 0 ? [0] : groups);
  syscall('setgroups', undefined, groups.length, ptr(list));
  syscall('setresgid', undefined, gid, gid, gid);
  syscall('setresuid', undefined, uid, uid, uid);
}

/** Whether this kernel has a capability of that number. */
export function isCapability(number: number): boolean {
  return libc.prctl(PR.CAPBSET_READ, number, 0, 0, 0) >= 0;
}

/** The capabilities that this thread holds, bit N being capability N: none can be given that are not among them. */
export function permittedCapabilities(): bigint {
  const header = new Uint32Array([0x20080522, 0]);
  // struct __user_cap_data_struct[2]: effective, permitted, inheritable.
  const data = new Uint32Array(6);
  syscall('capget', undefined, ptr(header), ptr(data));
  return BigInt(data[1] as number) | (BigInt(data[4] as number) << 32n);
}

/** Sets the thread's capability sets, bit N being capability N: capset(2), version 3. */
export function setCapabilities(effective: bigint, permitted: bigint, inheritable: bigint): void {
  const header = new Uint32Array([0x20080522, 0]);
  const low = (set: bigint) => Number(set & 0xffffffffn);
  const high = (set: bigint) => Number(set >> 32n);
  const data = new Uint32Array([
    low(effective),
    low(permitted),
    low(inheritable),
    high(effective),
    high(permitted),
    high(inheritable),
  ]);
  syscall('capset', undefined, ptr(header), ptr(data));
}

/** Installs a seccomp filter, an array of struct sock_filter: seccomp(2). */
export function loadSeccomp(program: Uint8Array, flags: number): void {
  const header = new BigUint64Array([BigInt(program.byteLength / 8), BigInt(ptr(program))]);
  syscall('seccomp', undefined, 1, flags, ptr(header));
}

/** execve(2): does not return. @throws SyscallError when the kernel refuses */
export function execve(file: string, args: string[], env: string[]): never {
  const strings: Buffer[] = [];
  const vector = (list: string[]) => {
    const pointers = list.map((text) => {
      const string = cstring(text);
      strings.push(string);
      return BigInt(ptr(string));
    });
    return new BigUint64Array([...pointers, 0n]);
  };
  const argv = vector(args);
  const envp = vector(env);
  libc.execve(cstring(file), ptr(argv), ptr(envp));
  throw new SyscallError('execve', errno(), file);
}
