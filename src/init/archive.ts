import fs from 'node:fs';
import path from 'node:path';
import { Header } from 'tar/header';
import { Pax } from 'tar/pax';
import type { ReadEntry } from 'tar/read-entry';
import type { EntryTypeName } from 'tar/types';
import type { Archive, ArchiveRoot, Go, ReadFiles, WriteFiles } from '../container/protocol.ts';
import { receive, send } from './channel.ts';
import { failure, InitError } from './failure.ts';
import * as libc from './libc.ts';
import { Rootfs } from './mounts.ts';
import { mountOverlay } from './overlay.ts';
import { helperCapabilities, reasonOf, unpackHere, writeAll } from './unpack.ts';

/**
 * One side of `minirun cp`: reads files as a tar archive, or makes those of one, and ends this process.
 *
 * The container may be running and hostile (CVE-2018-15664). So this process enters its root first, and only then looks
 * at any path: whatever is swapped for a symbolic link meanwhile, the kernel finds its target inside or not at all.
 * Nothing is loaded from that root (CVE-2019-14271), and all work is synchronous.
 */
export function archive({ root, where, action }: Archive): never {
  try {
    libc.prctl(libc.PR.SET_PDEATHSIG, 9);
    enter(root, action.type === 'write');
    if (action.type === 'read') read(action, where);
    else write(action, where);
    process.exit(0);
  } catch (error) {
    // The other side has ended and says why.
    if ((error as { code?: string }).code !== 'EPIPE') send(failure(asCopyError(error)));
    process.exit(125);
  }
}

function asCopyError(error: unknown): InitError {
  if (!(error instanceof InitError)) return new InitError('cannot copy', reasonOf(error), undefined, 1);
  return new InitError(error.what.replace(/^cannot unpack/, 'cannot copy'), error.why, error.remedy, 1);
}

function enter(root: ArchiveRoot, writable: boolean): void {
  switch (root.kind) {
    case 'host':
      return;
    case 'process':
      enterProcess(root.pid, root.start);
      return;
    case 'rootfs':
      enterRootfs(root, writable);
  }
}

/** Enters the root of a process. The directory is held open before the check that the process is still that one. */
function enterProcess(pid: number, start: number): void {
  const ended = () => new InitError('cannot copy', 'the container has just ended', 'Try again');
  let fd: number;
  try {
    fd = fs.openSync(`/proc/${pid}/root`, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  } catch {
    throw ended();
  }
  if (startTime(pid) !== start) throw ended();
  libc.chroot(`/proc/self/fd/${fd}`);
  fs.closeSync(fd);
}

/** Field 22 of proc_pid_stat(5); the name before it may hold anything but ends with the last parenthesis. */
function startTime(pid: number): number {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
}

/** Mounts the root filesystem of a container that is at rest, with its volumes, and enters it. */
function enterRootfs(
  { directory, overlay, mounts, readonly }: ArchiveRoot & { kind: 'rootfs' },
  writable: boolean,
): void {
  const { BIND, REC, REMOUNT, NODEV, RDONLY } = libc.MS;
  const flags = readonly || !writable ? RDONLY : 0;
  if (overlay === undefined) {
    libc.mount(directory, directory, '', BIND | REC, '');
    libc.mount('', directory, '', BIND | REMOUNT | NODEV | flags, '');
  } else {
    mountOverlay(directory, overlay, flags);
  }
  const rootfs = new Rootfs(directory);
  for (const entry of mounts) {
    // A volume whose source has gone must not keep everything else from being copied.
    if (!fs.existsSync(entry.source)) continue;
    try {
      rootfs.mount(entry);
    } catch (error) {
      // Without a mount point, which cannot be made here, it holds nothing that this copy could be about.
      if (flags === 0) throw error;
    }
  }
  fs.closeSync(rootfs.fd);
  libc.chroot(directory);
}

/** Makes the archive's reader known and writes it, once the reader has opened its end. */
function read({ path: source, followLink }: ReadFiles, where: string): void {
  libc.setCapabilities(helperCapabilities, helperCapabilities, 0n);
  const top = findSource(source, followLink, where);
  // A pipe of this process: unlike a socket for standard output it certainly blocks when it is full.
  const pipe = libc.pipe();
  send({ type: 'reading', fd: pipe.read, name: top.name, directory: top.stat.isDirectory() });
  receive<Go>();
  fs.closeSync(pipe.read);
  const packer = new Packer(pipe.write);
  packer.add(top.place, top.name, top.stat, followLink);
  packer.end();
  fs.closeSync(pipe.write);
  send({ type: 'packed' });
}

interface Top {
  /** Where it is, so that links are followed where they are to be. */
  place: string;
  /** What it is called in the archive: `.` when only what is in it is meant. */
  name: string;
  stat: fs.Stats;
}

/** @throws InitError when there is no such file */
function findSource(source: string, followLink: boolean, where: string): Top {
  const asserted = /\/\.?$/.test(source);
  const bare = source.replace(/(\/\.?)+$/, '');
  let stat: fs.Stats | undefined;
  try {
    stat = followLink || asserted ? fs.statSync(source) : fs.lstatSync(source);
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOTDIR' && lstatIfThere(bare) !== undefined)
      throw notDirectory(source, where);
    throw unreachable(error, 'file', source, where);
  }
  if (asserted && !stat.isDirectory()) throw notDirectory(source, where);
  if (bare === '' || source.endsWith('/.')) return { place: `${bare}/`, name: '.', stat };
  if (/(^|\/)\.\.$/.test(bare)) {
    process.chdir(source);
    const real = process.cwd();
    return { place: real, name: path.posix.basename(real) || '.', stat };
  }
  return {
    place: asserted || (followLink && stat.isDirectory()) ? `${bare}/` : bare,
    name: path.posix.basename(bare),
    stat,
  };
}

function notDirectory(name: string, where: string): InitError {
  return new InitError(`not a directory ${where}: ${name}`, 'a name that ends with a slash stands for one');
}

function unreachable(error: unknown, kind: 'file' | 'directory', name: string, where: string): InitError {
  const code = (error as { code?: string }).code ?? '';
  if (code === 'ENOENT' || code === 'ENOTDIR') return new InitError(`no such ${kind} ${where}: ${name}`);
  return new InitError(`cannot open ${name} ${where}`, reasonOf(error));
}

function lstatIfThere(place: string): fs.Stats | undefined {
  try {
    return fs.lstatSync(place);
  } catch {
    return undefined;
  }
}

const block = 512;
/** What a running container sees but has not got: statfs(2). Docker's copies have these directories, empty. */
const kernelFilesystems = new Set([0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x1cd1, 0x19800202]);
const tmpfs = 0x01021994;

/** Writes files as a tar archive. What vanishes or becomes something else meanwhile is left out. */
class Packer {
  private readonly chunk = Buffer.allocUnsafe(1 << 18);
  /** The first name of each file that has several. */
  private readonly linked = new Map<string, string>();

  constructor(private readonly fd: number) {}

  /** Adds a file, or a directory with all that is in it. */
  add(place: string, name: string, stat: fs.Stats, followLink = false): void {
    if (stat.isDirectory()) this.addDirectory(place, name, stat);
    else if (stat.isFile()) this.addFile(place, name, followLink);
    else if (stat.isSymbolicLink()) this.addLink(place, name, stat);
    else if (stat.isFIFO()) this.header('FIFO', name, stat);
    else if (stat.isCharacterDevice()) this.header('CharacterDevice', name, stat);
    else if (stat.isBlockDevice()) this.header('BlockDevice', name, stat);
    // A socket means nothing without the process that listens on it.
  }

  end(): void {
    writeAll(this.fd, Buffer.alloc(2 * block));
  }

  private addDirectory(place: string, name: string, stat: fs.Stats): void {
    this.header('Directory', `${name}/`, stat);
    let children: string[];
    try {
      children = fs.readdirSync(place);
    } catch (error) {
      if (isGone(error)) return;
      throw new InitError(`cannot read ${place}`, reasonOf(error));
    }
    for (const child of children) {
      const inside = `${place.replace(/\/+$/, '')}/${child}`;
      const found = lstatIfThere(inside);
      if (found === undefined) {
        if (!child.includes('\ufffd')) continue;
        throw new InitError(`cannot copy ${JSON.stringify(inside)}`, 'its name is not valid UTF-8', 'Rename it first');
      }
      if (found.isDirectory() && found.dev !== stat.dev && isKernels(inside))
        this.header('Directory', `${name}/${child}/`, found);
      else this.add(inside, `${name}/${child}`, found);
    }
  }

  private addFile(place: string, name: string, followLink: boolean): void {
    // It may have become a FIFO or a link since: do not wait for a writer, nor follow.
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = fs.constants;
    let fd: number;
    try {
      fd = fs.openSync(place, O_RDONLY | (followLink ? 0 : O_NOFOLLOW) | O_NONBLOCK | O_NOCTTY);
    } catch (error) {
      if (isGone(error)) return;
      throw new InitError(`cannot read ${place}`, reasonOf(error));
    }
    try {
      this.addOpenFile(fd, name);
    } finally {
      fs.closeSync(fd);
    }
  }

  /** Adds an open file if it is a regular one. */
  private addOpenFile(fd: number, name: string): void {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) return;
    if (stat.nlink > 1) {
      // Exact: overlayfs uses all 64 bits of an inode's number.
      const { dev, ino } = fs.fstatSync(fd, { bigint: true });
      const first = this.linked.get(`${dev}:${ino}`);
      if (first !== undefined) {
        this.header('Link', name, stat, first);
        return;
      }
      this.linked.set(`${dev}:${ino}`, name);
    }
    this.header('File', name, stat);
    this.data(fd, stat.size);
  }

  /** Exactly as many bytes as the header has promised: a file that has shrunk is filled up with zeros, as tar does. */
  private data(fd: number, size: number): void {
    let left = size;
    while (left > 0) {
      const length = fs.readSync(fd, this.chunk, 0, Math.min(left, this.chunk.length), null);
      if (length === 0) break;
      writeAll(this.fd, this.chunk.subarray(0, length));
      left -= length;
    }
    for (const zeros = Buffer.alloc(1 << 16); left > 0; left -= Math.min(left, zeros.length)) {
      writeAll(this.fd, zeros.subarray(0, Math.min(left, zeros.length)));
    }
    writeAll(this.fd, Buffer.alloc((block - (size % block)) % block));
  }

  private addLink(place: string, name: string, stat: fs.Stats): void {
    let target: string;
    try {
      target = fs.readlinkSync(place);
    } catch {
      return;
    }
    this.header('SymbolicLink', name, stat, target);
  }

  private header(type: EntryTypeName, name: string, stat: fs.Stats, linkpath = ''): void {
    const isDevice = type === 'CharacterDevice' || type === 'BlockDevice';
    const fields = {
      path: name,
      mode: stat.mode & 0o7777,
      uid: stat.uid,
      gid: stat.gid,
      size: type === 'File' ? stat.size : 0,
      mtime: stat.mtime,
      linkpath,
    };
    const header = new Header({
      ...fields,
      type,
      devmaj: isDevice ? (stat.rdev >>> 8) & 0xfff : 0,
      devmin: isDevice ? (stat.rdev & 0xff) | ((stat.rdev >>> 12) & 0xfff00) : 0,
    });
    const needsMore = header.encode() || stat.mtime.getMilliseconds() !== 0;
    if (needsMore)
      writeAll(this.fd, new Pax({ ...fields, ...(linkpath === '' ? { linkpath: undefined } : {}) }).encode());
    writeAll(this.fd, header.block as Buffer);
  }
}

function isGone(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes((error as { code?: string }).code ?? '');
}

/** Whether a mount point shows the kernel's or minirun's own files rather than the container's. */
function isKernels(place: string): boolean {
  try {
    const { type } = fs.statfsSync(place);
    return kernelFilesystems.has(type) || (place === '/dev' && type === tmpfs);
  } catch {
    return true;
  }
}

/** Makes what the archive on standard input holds at its place, below which this process shuts itself in first. */
function write({ path: destination, source, owner, careful }: WriteFiles, where: string): void {
  const top = enterDestination(destination, source, where);
  libc.chroot('.');
  libc.setUmask(0);
  libc.setCapabilities(helperCapabilities, helperCapabilities, 0n);
  // An archive of the user's own begins at its root, one of ours with the name of what is copied.
  const strip = source === undefined || source.name === '.' ? 0 : 1;
  const placeOf = (name: string) => {
    const parts = path.posix.normalize(`/${name}`).split('/').filter(Boolean);
    return path.posix.join('/', top, ...parts.slice(strip));
  };
  const answer = unpackHere((entry) => {
    entry.path = placeOf(entry.path);
    if (entry.type === 'Link') entry.linkpath = placeOf(String(entry.linkpath));
    if (owner !== undefined) giveTo(owner, entry);
    if (careful) defuse(entry);
    return admit(entry);
  });
  send(answer);
}

/**
 * Makes the directory that the copy goes to the working directory: docker's rules for what is there and what is not.
 *
 * @returns the place of what is copied, from there: empty when it goes to the directory itself
 */
function enterDestination(destination: string, source: WriteFiles['source'], where: string): string {
  const bare = destination.replace(/(\/\.?)+$/, '') || '/';
  const asserted = bare !== destination;
  let stat: fs.Stats | undefined;
  try {
    stat = fs.statSync(bare);
  } catch (error) {
    if ((error as { code?: string }).code !== 'ENOENT') throw unreachable(error, 'directory', destination, where);
  }
  if (stat?.isDirectory()) {
    process.chdir(bare);
    return source === undefined || source.name === '.' ? '' : source.name;
  }
  if (stat === undefined && (source === undefined || (asserted && !source.directory))) {
    throw new InitError(`no such directory ${where}: ${destination}`);
  }
  if (stat !== undefined && (source === undefined || asserted))
    throw new InitError(`not a directory ${where}: ${bare}`);
  if (stat !== undefined && source?.directory) {
    throw new InitError(
      `cannot copy a directory to ${bare}`,
      `that is a file ${where}`,
      'Name a directory, or one that is to be made',
    );
  }
  return enterParent(bare, where);
}

/** Makes the directory of a name the working directory, and follows the name where it is a link: to what it links. */
function enterParent(name: string, where: string): string {
  let rest = name;
  for (let links = 0; links < 40; links++) {
    const parent = path.posix.dirname(rest);
    try {
      process.chdir(parent);
    } catch (error) {
      throw unreachable(error, 'directory', parent, where);
    }
    const last = path.posix.basename(rest);
    try {
      rest = fs.readlinkSync(last);
    } catch {
      return last;
    }
  }
  throw new InitError(`cannot open ${name} ${where}`, 'too many levels of symbolic links');
}

/** A directory never takes the place of something else, nor the other way round; and what is there keeps its mode. */
function admit(entry: ReadEntry): boolean {
  const isDirectory = entry.type === 'Directory' || entry.type === 'GNUDumpDir';
  if (entry.path === '/' && isDirectory) return false;
  const there = lstatIfThere(entry.path);
  if (there === undefined || there.isDirectory() === isDirectory) return true;
  const what = there.isDirectory()
    ? 'a directory is there, and a file cannot replace it'
    : 'a file is there, and a directory cannot replace it';
  throw new InitError(`cannot copy ${JSON.stringify(entry.path)}`, what, 'Remove it first');
}

/** Changes the owner; as for chown(2), a program that would now run as somebody else loses its setuid and setgid bits. */
function giveTo({ uid, gid }: { uid: number; gid: number }, entry: ReadEntry): void {
  if (entry.mode !== undefined && (entry.uid !== uid || entry.gid !== gid) && !entry.type.includes('Dir'))
    entry.mode &= 0o1777;
  entry.uid = uid;
  entry.gid = gid;
}

/** What comes from a container gets root as its owner here: it must not become a way to be root, or to the disks. */
function defuse(entry: ReadEntry): void {
  if (entry.type === 'CharacterDevice' || entry.type === 'BlockDevice') {
    throw new InitError(
      `refusing to copy ${JSON.stringify(entry.path)}`,
      'it is a device',
      'Give -a to copy devices too',
    );
  }
  if (entry.mode !== undefined) entry.mode &= 0o1777;
}
