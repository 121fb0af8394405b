import fs from 'node:fs';
import path from 'node:path';
import type { Archive, ArchiveRoot, Go, IdRange, ReadFiles, WriteFiles } from '../container/protocol.ts';
import { receive, send } from './channel.ts';
import { failure, InitError } from './failure.ts';
import * as files from './files.ts';
import * as libc from './libc.ts';
import { keptFlags, Rootfs } from './mounts.ts';
import { mountOverlay } from './overlay.ts';
import { isDirectory, isPortable, Packer } from './pack.ts';
import { startTime } from './process.ts';
import { type Entry, quote } from './tar-reader.ts';
import { helperCapabilities, reasonOf, unpackHere } from './unpack.ts';

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
    const owners = root.kind === 'rootfs' ? root.owners : undefined;
    if (action.type === 'read') read(action, where, owners);
    else write(action, where, owners);
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

/** Mounts the root filesystem of a container that is at rest, with its volumes, and enters it. */
function enterRootfs(
  { directory, overlay, mounts, readonly }: ArchiveRoot & { kind: 'rootfs' },
  writable: boolean,
): void {
  const { BIND, REC, REMOUNT, NODEV, RDONLY } = libc.MS;
  const flags = readonly || !writable ? RDONLY : 0;
  if (overlay === undefined) {
    libc.mount(directory, directory, '', BIND | REC, '');
    libc.mount('', directory, '', BIND | REMOUNT | NODEV | flags | keptFlags(directory), '');
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
function read({ path: source, followLink }: ReadFiles, where: string, owners?: IdRange): void {
  libc.setCapabilities(helperCapabilities, helperCapabilities, 0n);
  const top = findSource(source, followLink, where);
  // A pipe of this process: unlike a socket for standard output it certainly blocks when it is full.
  const pipe = libc.pipe();
  send({ type: 'reading', fd: pipe.read, name: top.name, directory: isDirectory(top.stat) });
  receive<Go>();
  fs.closeSync(pipe.read);
  const packer = new Packer(pipe.write, { layer: false, owners });
  packer.add(bytesOf(top.place), bytesOf(top.name), top.stat, followLink);
  packer.end();
  fs.closeSync(pipe.write);
  send({ type: 'packed' });
}

interface Top {
  /** Where it is, so that links are followed where they are to be. */
  place: string;
  /** What it is called in the archive: `.` when only what is in it is meant. */
  name: string;
  stat: files.Stat;
}

/** @throws InitError when there is no such file */
function findSource(source: string, followLink: boolean, where: string): Top {
  const asserted = /\/\.?$/.test(source);
  const bare = source.replace(/(\/\.?)+$/, '');
  let stat: files.Stat;
  try {
    stat = files.stat(bytesOf(source), { follow: followLink || asserted });
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOTDIR' && lstatIfThere(bare) !== undefined)
      throw notDirectory(source, where);
    throw unreachable(error, 'file', source, where);
  }
  if (asserted && !isDirectory(stat)) throw notDirectory(source, where);
  if (bare === '' || source.endsWith('/.')) return { place: `${bare}/`, name: '.', stat };
  if (/(^|\/)\.\.$/.test(bare)) {
    process.chdir(source);
    const real = process.cwd();
    return { place: real, name: path.posix.basename(real) || '.', stat };
  }
  return {
    place: asserted || (followLink && isDirectory(stat)) ? `${bare}/` : bare,
    name: path.posix.basename(bare),
    stat,
  };
}

/** The bytes of a name that came as text, one to a character. */
function bytesOf(text: string): string {
  return Buffer.from(text).toString('latin1');
}

function notDirectory(name: string, where: string): InitError {
  return new InitError(`not a directory ${where}: ${name}`, 'a name that ends with a slash stands for one');
}

function unreachable(error: unknown, kind: 'file' | 'directory', name: string, where: string): InitError {
  const code = (error as { code?: string }).code ?? '';
  if (code === 'ENOENT' || code === 'ENOTDIR') return new InitError(`no such ${kind} ${where}: ${name}`);
  return new InitError(`cannot open ${name} ${where}`, reasonOf(error));
}

function lstatIfThere(place: string | Buffer): fs.Stats | undefined {
  try {
    return fs.lstatSync(place);
  } catch {
    return undefined;
  }
}

/** Makes what the archive on standard input holds at its place, below which this process shuts itself in first. */
function write({ path: destination, source, owner, careful }: WriteFiles, where: string, owners?: IdRange): void {
  const top = enterDestination(destination, source, where);
  libc.chroot('.');
  libc.setUmask(0);
  libc.setCapabilities(helperCapabilities, helperCapabilities, 0n);
  // An archive of the user's own begins at its root, one of ours with the name of what is copied.
  const strip = source === undefined || source.name === '.' ? 0 : 1;
  const placeOf = (name: string) => {
    const parts = path.posix.normalize(`/${name}`).split('/').filter(Boolean);
    return path.posix.join('/', bytesOf(top), ...parts.slice(strip));
  };
  const admit = (entry: Entry) => {
    entry.path = placeOf(entry.path);
    if (entry.type === 'link') entry.linkpath = placeOf(entry.linkpath);
    // The others say something about another machine, or would give rights here.
    for (const key of entry.xattrs?.keys() ?? []) if (!isPortable(key)) entry.xattrs?.delete(key);
    if (owner !== undefined) giveTo(owner, entry);
    if (careful) defuse(entry);
    if (owners !== undefined && entry.uid < owners.size && entry.gid < owners.size) {
      entry.uid += owners.uid;
      entry.gid += owners.gid;
    }
    return isWelcome(entry);
  };
  send(unpackHere(0, { admit, losesXattrs: true }));
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
function isWelcome(entry: Entry): boolean {
  const isDirectory = entry.type === 'directory';
  if (entry.path === '/' && isDirectory) return false;
  const there = lstatIfThere(Buffer.from(entry.path, 'latin1'));
  if (there === undefined || there.isDirectory() === isDirectory) return true;
  const what = there.isDirectory()
    ? 'a directory is there, and a file cannot replace it'
    : 'a file is there, and a directory cannot replace it';
  throw new InitError(`cannot copy ${quote(entry.path)}`, what, 'Remove it first');
}

/** Changes the owner; as for chown(2), a program that would now run as somebody else loses its setuid and setgid bits and its capabilities. */
function giveTo({ uid, gid }: { uid: number; gid: number }, entry: Entry): void {
  if ((entry.uid !== uid || entry.gid !== gid) && entry.type !== 'directory') {
    entry.mode &= 0o1777;
    entry.xattrs?.delete('security.capability');
  }
  entry.uid = uid;
  entry.gid = gid;
}

/** What comes from a container gets root as its owner here: it must not become a way to be root, or to the disks. */
function defuse(entry: Entry): void {
  if (entry.type === 'character' || entry.type === 'block') {
    throw new InitError(`refusing to copy ${quote(entry.path)}`, 'it is a device', 'Give -a to copy devices too');
  }
  entry.mode &= 0o1777;
  entry.xattrs?.delete('security.capability');
}
