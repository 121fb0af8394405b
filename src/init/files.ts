import { dlopen, FFIType, ptr } from 'bun:ffi';
import { errno, libraryName, SyscallError } from './libc.ts';

/**
 * System calls about files whose names are bytes. A *byte string* is a JavaScript string each character of which is one
 * byte (latin1). They are apart from libc.ts because a container that starts does not need them, and because two things
 * differ: no name is decoded, and nothing is allocated, which node:fs does for every call.
 */

const { i32, i64_fast: i64, u64_fast: u64, ptr: pointer } = FFIType;

const { symbols: libc } = dlopen(libraryName(), {
  syscall: { args: [i64, i64, i64, i64, i64, i64, i64], returns: i64 },
  openat: { args: [i32, pointer, i32, i32], returns: i32 },
  close: { args: [i32], returns: i32 },
  read: { args: [i32, pointer, u64], returns: i64 },
  write: { args: [i32, pointer, u64], returns: i64 },
  pwrite: { args: [i32, pointer, u64, i64], returns: i64 },
  ftruncate: { args: [i32, i64], returns: i32 },
  fcntl: { args: [i32, i32, i64], returns: i32 },
  fchown: { args: [i32, i32, i32], returns: i32 },
  fchmod: { args: [i32, i32], returns: i32 },
  chmod: { args: [pointer, i32], returns: i32 },
  lchown: { args: [pointer, i32, i32], returns: i32 },
  futimens: { args: [i32, pointer], returns: i32 },
  utimensat: { args: [i32, pointer, pointer, i32], returns: i32 },
  mkdir: { args: [pointer, i32], returns: i32 },
  rmdir: { args: [pointer], returns: i32 },
  chdir: { args: [pointer], returns: i32 },
  unlink: { args: [pointer], returns: i32 },
  link: { args: [pointer, pointer], returns: i32 },
  symlink: { args: [pointer, pointer], returns: i32 },
  mknod: { args: [pointer, i32, u64], returns: i32 },
  readlink: { args: [pointer, pointer, u64], returns: i64 },
  lsetxattr: { args: [pointer, pointer, pointer, u64, i32], returns: i32 },
  lgetxattr: { args: [pointer, pointer, pointer, u64], returns: i64 },
  llistxattr: { args: [pointer, pointer, u64], returns: i64 },
});

/** System calls that old C libraries do not wrap. */
const numbers = { x64: { statx: 332, getdents64: 217 }, arm64: { statx: 291, getdents64: 61 } }[
  process.arch as 'x64' | 'arm64'
];

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const O_WRONLY = 1;
const O_CREAT = 0o100;
const O_EXCL = 0o200;
const O_NOCTTY = 0o400;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
/** Two flags that differ: asm/fcntl.h of each architecture. */
const O_DIRECTORY = process.arch === 'arm64' ? 0o40000 : 0o200000;
const O_NOFOLLOW = process.arch === 'arm64' ? 0o100000 : 0o400000;

/** PATH_MAX: what the kernel takes, with the zero byte at the end. */
const longestName = 4096;
const first = Buffer.alloc(longestName);
const second = Buffer.alloc(longestName);
const firstName = ptr(first);
const secondName = ptr(second);
const times = new Int32Array(8);
const timesAddress = ptr(times);

/** Where a buffer lies, for `readInto` and the like. It must be kept and never grow. */
export function addressOf(buffer: Buffer): number {
  return ptr(buffer);
}

function put(name: string, into: Buffer = first): void {
  const { length } = name;
  if (length >= longestName) throw new SyscallError('name', 36);
  into.write(name, 'latin1');
  into[length] = 0;
}

function check(result: number, call: string): number {
  if (result < 0) throw new SyscallError(call, errno());
  return result;
}

/** struct timespec[2], of which both are the same time. */
function putTime(seconds: number, nanoseconds: number): void {
  times[0] = times[4] = seconds;
  times[1] = times[5] = Math.floor(seconds / 2 ** 32);
  times[2] = times[6] = nanoseconds;
}

/** Makes a new regular file. */
export function create(name: string, mode: number): number {
  put(name);
  return check(libc.openat(AT_FDCWD, firstName, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode), 'open');
}

/** Opens something to read it, without following a link, waiting for a writer or taking over a terminal. */
export function openToRead(name: string, { directory = false, follow = false } = {}): number {
  put(name);
  const flags = O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (directory ? O_DIRECTORY : 0) | (follow ? 0 : O_NOFOLLOW);
  return check(libc.openat(AT_FDCWD, firstName, flags, 0), 'open');
}

export function close(fd: number): void {
  libc.close(fd);
}

/** read(2) to an address. @returns 0 at the end */
export function readInto(fd: number, address: number, length: number): number {
  for (;;) {
    const count = Number(libc.read(fd, address, length));
    if (count >= 0) return count;
    const error = new SyscallError('read', errno());
    if (error.code !== 'EINTR') throw error;
  }
}

/** Writes all bytes from an address on; at an offset when there is one. */
export function writeFrom(fd: number, address: number, length: number, offset?: number): void {
  for (let done = 0; done < length; ) {
    const from = (address + done) as never;
    const count = Number(
      offset === undefined ? libc.write(fd, from, length - done) : libc.pwrite(fd, from, length - done, offset + done),
    );
    if (count < 0) {
      const error = new SyscallError('write', errno());
      if (error.code !== 'EINTR') throw error;
    } else done += count;
  }
}

export function truncate(fd: number, size: number): void {
  check(libc.ftruncate(fd, size), 'ftruncate');
}

/** Lets a pipe hold up to 1 MiB, which any user may have: fewer turns between who writes and who reads. */
export function widenPipe(fd: number): void {
  const F_SETPIPE_SZ = 1031;
  // A user with many pipes gets no more (pipe-user-pages-soft): then it stays as it is.
  libc.fcntl(fd, F_SETPIPE_SZ, 1 << 20);
}

export function setModeOf(fd: number, mode: number): void {
  check(libc.fchmod(fd, mode), 'fchmod');
}

/** Follows a symbolic link. */
export function setMode(name: string, mode: number): void {
  put(name);
  check(libc.chmod(firstName, mode), 'chmod');
}

export function setOwnerOf(fd: number, uid: number, gid: number): void {
  check(libc.fchown(fd, uid, gid), 'fchown');
}

export function setOwner(name: string, uid: number, gid: number): void {
  put(name);
  check(libc.lchown(firstName, uid, gid), 'chown');
}

export function setTimeOf(fd: number, seconds: number, nanoseconds: number): void {
  putTime(seconds, nanoseconds);
  check(libc.futimens(fd, timesAddress), 'utimens');
}

export function setTime(name: string, seconds: number, nanoseconds: number): void {
  put(name);
  putTime(seconds, nanoseconds);
  check(libc.utimensat(AT_FDCWD, firstName, timesAddress, AT_SYMLINK_NOFOLLOW), 'utimens');
}

export function makeDirectory(name: string, mode: number): void {
  put(name);
  check(libc.mkdir(firstName, mode), 'mkdir');
}

export function unlink(name: string): void {
  put(name);
  check(libc.unlink(firstName), 'unlink');
}

/** Links what is called `target`, also when that is a symbolic link. */
export function link(target: string, name: string): void {
  put(target);
  put(name, second);
  check(libc.link(firstName, secondName), 'link');
}

export function symlink(target: string, name: string): void {
  put(target);
  put(name, second);
  check(libc.symlink(firstName, secondName), 'symlink');
}

/** mknod(2); `mode` holds the file type too. */
export function makeNode(name: string, mode: number, major: number, minor: number): void {
  put(name);
  // The kernel's new_encode_dev: 12 bits of major and 20 of minor number.
  if (!(major >= 0 && major <= 0xfff && minor >= 0 && minor <= 0xfffff)) throw new SyscallError('mknod', 22);
  const device = (minor & 0xff) + major * 0x100 + (minor >>> 8) * 0x100000;
  check(libc.mknod(firstName, mode, device), 'mknod');
}

export function readLink(name: string): string {
  put(name);
  const length = check(Number(libc.readlink(firstName, secondName, longestName)), 'readlink');
  return second.toString('latin1', 0, length);
}

/** Sets an extended attribute, not following a symbolic link. */
export function setXattr(name: string, key: string, value: Buffer): void {
  put(name);
  put(key, second);
  const data = value.length === 0 ? second : value;
  check(libc.lsetxattr(firstName, secondName, ptr(data), value.length, 0), 'setxattr');
}

/** XATTR_SIZE_MAX and XATTR_LIST_MAX. */
const largestXattr = 65536;
let xattrBuffer: Buffer | undefined;

/** The names of the extended attributes of what does not follow a symbolic link; none where there cannot be any. */
export function listXattrs(name: string): string[] {
  xattrBuffer ??= Buffer.alloc(largestXattr);
  put(name);
  const length = Number(libc.llistxattr(firstName, ptr(xattrBuffer), largestXattr));
  if (length < 0) {
    const error = new SyscallError('listxattr', errno());
    if (error.code === 'ENOTSUP' || error.code === 'EOPNOTSUPP') return [];
    throw error;
  }
  return length === 0 ? [] : xattrBuffer.toString('latin1', 0, length - 1).split('\0');
}

/** An extended attribute; undefined when there is none of that name. */
export function getXattr(name: string, key: string): Buffer | undefined {
  xattrBuffer ??= Buffer.alloc(largestXattr);
  put(name);
  put(key, second);
  const length = Number(libc.lgetxattr(firstName, secondName, ptr(xattrBuffer), largestXattr));
  if (length >= 0) return Buffer.from(xattrBuffer.subarray(0, length));
  const error = new SyscallError('getxattr', errno());
  if (['ENODATA', 'ENOTSUP', 'EOPNOTSUPP'].includes(error.code)) return undefined;
  throw error;
}

/** What statx(2) tells. */
export interface Stat {
  /** With the file type. */
  mode: number;
  uid: number;
  gid: number;
  links: number;
  size: number;
  seconds: number;
  nanoseconds: number;
  /** Of a device. */
  major: number;
  minor: number;
  /** What two names of one file have in common: file system and inode. */
  identity: string;
  /** The file system, as `major:minor`. */
  filesystem: string;
}

// On memory of its own: that of a small Buffer.alloc moves when something makes a DataView of it, as its readers do once
// they are compiled, and the kernel would go on writing to where it was.
const statBuffer = Buffer.from(new ArrayBuffer(256));
const statAddress = ptr(statBuffer);
/** STATX_BASIC_STATS */
const basicStats = 0x7ff;

/** About what a name stands for. */
export function stat(name: string, { follow = false } = {}): Stat {
  put(name);
  const flags = follow ? 0 : AT_SYMLINK_NOFOLLOW;
  return statx(AT_FDCWD, firstName, flags);
}

/** About an open file. */
export function statOf(fd: number): Stat {
  put('');
  return statx(fd, firstName, AT_EMPTY_PATH);
}

function statx(fd: number, name: number, flags: number): Stat {
  check(Number(libc.syscall(numbers.statx, fd, name, flags, basicStats, statAddress, 0)), 'stat');
  const seconds = statBuffer.readInt32LE(116) * 2 ** 32 + statBuffer.readUInt32LE(112);
  const filesystem = `${statBuffer.readUInt32LE(136)}:${statBuffer.readUInt32LE(140)}`;
  return {
    links: statBuffer.readUInt32LE(16),
    uid: statBuffer.readUInt32LE(20),
    gid: statBuffer.readUInt32LE(24),
    mode: statBuffer.readUInt16LE(28),
    size: statBuffer.readUInt32LE(44) * 2 ** 32 + statBuffer.readUInt32LE(40),
    seconds,
    nanoseconds: statBuffer.readUInt32LE(120),
    major: statBuffer.readUInt32LE(128),
    minor: statBuffer.readUInt32LE(132),
    identity: `${filesystem}:${statBuffer.readBigUInt64LE(32)}`,
    filesystem,
  };
}

const entryBuffer = Buffer.alloc(65536);

/** The names in an open directory, in order of their bytes, without `.` and `..`. */
export function list(fd: number): string[] {
  const names: string[] = [];
  for (;;) {
    const address = ptr(entryBuffer);
    const length = check(
      Number(libc.syscall(numbers.getdents64, fd, address, entryBuffer.length, 0, 0, 0)),
      'getdents',
    );
    if (length === 0) break;
    for (let at = 0; at < length; at += entryBuffer.readUInt16LE(at + 16)) {
      // struct linux_dirent64: inode 8, offset 8, length 2, type 1, name.
      const name = entryBuffer.toString('latin1', at + 19, entryBuffer.indexOf(0, at + 19));
      if (name !== '.' && name !== '..') names.push(name);
    }
  }
  return names.toSorted((a, b) => (a < b ? -1 : 1));
}

/**
 * Removes a directory with all that is in it, never what a symbolic link points to. A tree may be deeper than a name can
 * say and than the stack is, so this goes from one directory to the next. It changes the working directory.
 */
export function removeDirectory(parent: string, name: string): void {
  changeDirectory(parent);
  const way = [{ name, children: enterAndList(name) }];
  for (let here = way.at(-1); here !== undefined; here = way.at(-1)) {
    const child = here.children.pop();
    if (child === undefined) {
      way.pop();
      changeDirectory('..');
      put(here.name);
      check(libc.rmdir(firstName), 'rmdir');
    } else if (!unlinked(child)) {
      way.push({ name: child, children: enterAndList(child) });
    }
  }
}

function enterAndList(name: string): string[] {
  changeDirectory(name);
  const fd = openToRead('.', { directory: true });
  try {
    return list(fd);
  } finally {
    close(fd);
  }
}

function changeDirectory(name: string): void {
  put(name);
  check(libc.chdir(firstName), 'chdir');
}

/** @returns false when it is a directory */
function unlinked(name: string): boolean {
  try {
    unlink(name);
    return true;
  } catch (error) {
    if (error instanceof SyscallError && error.code === 'EISDIR') return false;
    throw error;
  }
}
