import path from 'node:path';
import type { Go, Unpack, Unpacked } from '../container/protocol.ts';
import { receive, send } from './channel.ts';
import { failure, InitError } from './failure.ts';
import * as files from './files.ts';
import * as libc from './libc.ts';
import { type Entry, quote, TarReader } from './tar-reader.ts';
import { hasId, inUserNamespace, overlayAttributes } from './userns.ts';

/** What making other people's files takes: CHOWN DAC_OVERRIDE FOWNER FSETID MKNOD SETFCAP. */
export const helperCapabilities = [0, 1, 3, 4, 27, 31].reduce((set, number) => set | (1n << BigInt(number)), 0n);
/** For attributes called `trusted.`; only raised to set one. */
const SYS_ADMIN = 1n << 21n;

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFCHR = 0o020000;
const nodeTypes = { fifo: 0o010000, character: S_IFCHR, block: 0o060000 };
/** setuid, setgid, sticky: not among what open(2) and mkdir(2) are sure to set. */
const specialBits = 0o7000;

/** How unpacking differs between layers and copies. */
interface Options {
  /** `.wh.NAME` hides NAME of the layers below (image-spec, layer.md); otherwise it is a name like any other. */
  whiteouts?: boolean;
  limits?: Unpack['limits'];
  /** A file system that has no attributes is no error. */
  losesXattrs?: boolean;
  /** May change what an entry says before it is made, or leave it out. */
  admit?: (entry: Entry) => boolean;
}

/**
 * Unpacks a tar archive into a directory, and ends this process. The archive comes through a pipe of this process,
 * whose descriptor is told first.
 *
 * The archive is hostile. It is unpacked in a mount namespace of its own in which the directory is the root and nothing
 * else is mounted any more: whatever a name, a symbolic link or a hard link points to, the kernel finds it inside or not
 * at all. Everything is synchronous, which is faster here, and leaves nothing between a look and an act.
 */
export function unpack({ directory, whiteouts, limits }: Unpack): never {
  try {
    // A copy that outlived minirun would write into what the next minirun clears away.
    libc.prctl(libc.PR.SET_PDEATHSIG, 9);
    const pipe = libc.pipe();
    files.widenPipe(pipe.write);
    send({ type: 'receiving', fd: pipe.write });
    enter(directory);
    receive<Go>();
    files.close(pipe.write);
    send(unpackHere(pipe.read, { whiteouts, limits }));
    process.exit(0);
  } catch (error) {
    const known = error instanceof InitError ? error : new InitError('cannot unpack the archive', reasonOf(error));
    send(failure(known));
    process.exit(125);
  }
}

function enter(directory: string): void {
  libc.mount(directory, directory, '', libc.MS.BIND, '');
  // An archive may hold devices, but nobody may open them here.
  const { BIND, REMOUNT, NODEV, NOSUID, NOEXEC } = libc.MS;
  libc.mount('', directory, '', BIND | REMOUNT | NODEV | NOSUID | NOEXEC, '');
  process.chdir(directory);
  libc.pivotRootHere();
  libc.setUmask(0);
  libc.setCapabilities(helperCapabilities, helperCapabilities | SYS_ADMIN, 0n);
}

/** Unpacks the archive that comes from a descriptor below the root directory of this process. */
export function unpackHere(fd: number, { whiteouts = false, limits, losesXattrs = false, admit }: Options): Unpacked {
  const reader = new TarReader(fd);
  const tree = new Tree(reader, whiteouts, limits ?? {}, losesXattrs);
  for (let entry = reader.next(); entry !== undefined; entry = reader.next()) {
    if (admit === undefined || admit(entry)) tree.add(entry);
  }
  reader.drain();
  tree.finish();
  return { type: 'unpacked', bytes: tree.bytes, entries: tree.entries, ended: reader.ended, opaque: tree.isOpaque };
}

/** The tree that an archive describes, made entry by entry below the root directory of this process. */
class Tree {
  /** Of all regular files so far, holes included. */
  bytes = 0;
  entries = 0;
  /** The root hides all of lower layers. overlayfs heeds its own mark in any directory but that one. */
  isOpaque = false;
  /** Making something in a directory changes its time, so those are set at the end. */
  private readonly directoryTimes = new Map<string, { seconds: number; nanoseconds: number }>();
  /**
   * Whether what is made gets the mode and the group that it is made with. A directory with setgid or a default ACL
   * gives its own; a tree that was there before may have such.
   */
  private isPlain: boolean;

  constructor(
    private readonly reader: TarReader,
    private readonly whiteouts: boolean,
    private readonly limits: NonNullable<Unpack['limits']>,
    private readonly losesXattrs: boolean,
  ) {
    this.isPlain = whiteouts && (files.stat('/').mode & specialBits) === 0 && !hasDefaultAcl();
  }

  /** Makes what an entry describes. */
  add(entry: Entry): void {
    try {
      this.count(entry);
      const place = placeOf(entry.path);
      if (!this.whiteouts || !entry.path.includes('.wh.') || !this.hide(place)) this.make(place, entry);
    } catch (error) {
      throw explain(entry, codeOf(error) === 'EINVAL' && !hasOwners(entry) ? withoutOwners(entry) : error);
    }
  }

  /** Sets what could not be set while the archive was read. */
  finish(): void {
    for (const [place, { seconds, nanoseconds }] of this.directoryTimes) {
      try {
        files.setTime(place, seconds, nanoseconds);
      } catch (error) {
        // A link on its way has been replaced since.
        if (!['ENOENT', 'ENOTDIR', 'ELOOP'].includes(codeOf(error))) throw explain({ path: place }, error);
      }
    }
  }

  private count({ size }: Entry): void {
    this.entries++;
    this.bytes += size;
    const { entries = Number.POSITIVE_INFINITY, bytes = Number.POSITIVE_INFINITY } = this.limits;
    if (this.entries > entries) throw overLimit(`it has more than ${entries} entries`, 'layer-entries');
    // Holes count too: whoever copies the file later may well fill them.
    if (this.bytes > bytes) throw overLimit(`its files have more than ${bytes} bytes`, 'layer-size');
  }

  /** Does what a whiteout says. @returns false when the name is none */
  private hide(place: string): boolean {
    // Notes of aufs, which docker had first: about no file.
    if (/\/\.wh\.\.wh\.(?!\.opq$)/.test(place)) return true;
    const slash = place.lastIndexOf('/');
    const name = place.slice(slash + 1);
    if (!name.startsWith('.wh.')) return false;
    const directory = slash === 0 ? '/' : place.slice(0, slash);
    if (name === '.wh..wh..opq') {
      if (directory === '/') this.isOpaque = true;
      else this.ensureDirectory(directory);
      // The dot follows a symbolic link, and fails when there is no directory.
      setOpaque(`${directory}/.`);
      return true;
    }
    const hidden = name.slice(4);
    if (hidden === '' || hidden === '.' || hidden === '..') {
      throw new InitError(`refusing ${quote(place.slice(1))}`, 'it hides no file', 'Do not use this archive');
    }
    const target = `${place.slice(0, slash + 1)}${hidden}`;
    this.withParents(target, () => {
      try {
        // overlayfs's whiteout: Documentation/filesystems/overlayfs.rst.
        files.makeNode(target, S_IFCHR, 0, 0);
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error;
        // It hides what lower layers have, never what this one has, whichever comes first in the archive.
        if (isDirectory(files.stat(target).mode)) setOpaque(target);
      }
    });
    return true;
  }

  private make(place: string, entry: Entry): void {
    if (place === '/' && entry.type !== 'directory')
      throw new InitError(`refusing ${quote(entry.path)}`, 'the root can only be a directory');
    switch (entry.type) {
      case 'file':
        this.makeFile(place, entry);
        break;
      case 'directory':
        this.makeDirectory(place, entry);
        break;
      case 'symlink':
        this.replacing(place, () => files.symlink(entry.linkpath, place));
        this.setOwner(place, entry);
        this.setXattrs(place, entry);
        files.setTime(place, entry.seconds, entry.nanoseconds);
        break;
      case 'link':
        this.makeLink(place, placeOf(entry.linkpath), entry);
        break;
      default: {
        const mode = nodeTypes[entry.type] | entry.mode;
        // No device can be made in a user namespace, and none could be opened in a container: as docker, go without.
        if (inUserNamespace && entry.type !== 'fifo') return;
        this.replacing(place, () => files.makeNode(place, mode, entry.major, entry.minor));
        this.setOwner(place, entry);
        this.setMode(place, entry);
        this.setXattrs(place, entry);
        files.setTime(place, entry.seconds, entry.nanoseconds);
      }
    }
  }

  private makeFile(place: string, entry: Entry): void {
    const { mode, uid, gid, seconds, nanoseconds } = entry;
    let fd = -1;
    this.replacing(place, () => {
      fd = files.create(place, mode & 0o777);
    });
    this.writeData(fd, entry);
    // The owner before the mode before the attributes: a change of owner takes setuid, setgid and capabilities away.
    if (uid !== 0 || gid !== 0 || !this.isPlain) files.setOwnerOf(fd, uid, gid);
    if ((mode & specialBits) !== 0 || !this.isPlain) files.setModeOf(fd, mode);
    this.setXattrs(place, entry);
    files.setTimeOf(fd, seconds, nanoseconds);
    files.close(fd);
  }

  private writeData(fd: number, { size, sparse }: Entry): void {
    if (sparse === undefined) {
      this.copy(fd, size);
      return;
    }
    files.truncate(fd, size);
    for (let index = 0; index < sparse.length; index += 2) {
      this.copy(fd, sparse[index + 1] as number, sparse[index]);
    }
  }

  private copy(fd: number, length: number, offset?: number): void {
    const { reader } = this;
    for (let done = 0; done < length; ) {
      const count = reader.fill(length - done);
      const at = offset === undefined ? undefined : offset + done;
      files.writeFrom(fd, reader.address + reader.start, count, at);
      reader.skip(count);
      done += count;
    }
  }

  private makeDirectory(place: string, entry: Entry): void {
    if (place !== '/') this.replacing(place, () => files.makeDirectory(place, entry.mode & 0o777), true);
    this.setOwner(place, entry);
    files.setMode(place, entry.mode);
    if ((entry.mode & specialBits) !== 0) this.isPlain = false;
    this.setXattrs(place, entry);
    this.directoryTimes.set(place, { seconds: entry.seconds, nanoseconds: entry.nanoseconds });
  }

  private makeLink(place: string, target: string, entry: Entry): void {
    const refuse = (why: string) => new InitError(`cannot unpack ${quote(entry.path)}`, why);
    if (target === place) throw refuse('it is a hard link to itself');
    let mode: number;
    try {
      ({ mode } = files.stat(target));
    } catch (error) {
      throw refuse(`${reasonOf(error)}: it is a hard link to ${quote(entry.linkpath)}`);
    }
    if (isDirectory(mode)) throw refuse(`it is a hard link to the directory ${quote(entry.linkpath)}`);
    this.replacing(place, () => files.link(target, place));
  }

  private setOwner(place: string, { uid, gid }: Entry): void {
    if (uid !== 0 || gid !== 0 || !this.isPlain) files.setOwner(place, uid, gid);
  }

  private setMode(place: string, { mode }: Entry): void {
    if ((mode & specialBits) !== 0 || !this.isPlain) files.setMode(place, mode);
  }

  private setXattrs(place: string, { xattrs, type }: Entry): void {
    if (xattrs === undefined) return;
    for (const [key, value] of xattrs) {
      if (!isAllowed(key)) continue;
      if (key === 'system.posix_acl_default') this.isPlain = false;
      try {
        if (key.startsWith('trusted.')) asAdmin(() => files.setXattr(place, key, value));
        else files.setXattr(place, key, value);
      } catch (error) {
        const code = codeOf(error);
        const isLost = this.losesXattrs && (code === 'ENOTSUP' || code === 'EOPNOTSUPP');
        if (!isLost && !isHarmless(key, type, code)) throw error;
      }
    }
  }

  /** Makes something, in the place of what an earlier entry may have made there, and the directories above it. */
  private replacing(place: string, create: () => void, makesDirectory = false): void {
    this.withParents(place, () => {
      try {
        create();
        return;
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error;
      }
      const { mode, major, minor } = files.stat(place);
      if (isDirectory(mode)) {
        if (makesDirectory) return;
        for (const known of this.directoryTimes.keys()) {
          if (known === place || known.startsWith(`${place}/`)) this.directoryTimes.delete(known);
        }
        files.removeDirectory(path.posix.dirname(place), path.posix.basename(place));
      } else {
        files.unlink(place);
      }
      create();
      // A directory whose name this layer hides in those below shows nothing of theirs.
      if (makesDirectory && this.isWhiteout(mode, major, minor)) setOpaque(place);
    });
  }

  private isWhiteout(mode: number, major: number, minor: number): boolean {
    return this.whiteouts && (mode & S_IFMT) === S_IFCHR && major === 0 && minor === 0;
  }

  /** Runs what makes something, and if a directory above it is missing makes that first. */
  private withParents(place: string, create: () => void): void {
    try {
      create();
    } catch (error) {
      // Not a directory: it may be a whiteout, which the archive has put below a name and then the name to use.
      if (!['ENOENT', 'ENOTDIR'].includes(codeOf(error))) throw error;
      const parent = path.posix.dirname(place);
      if (parent === '/' || !this.ensureDirectory(parent)) throw error;
      create();
    }
  }

  /** Makes a directory that the archive has not named, and those above it. @returns false when all were there */
  private ensureDirectory(place: string): boolean {
    let made = false;
    for (let end = place.indexOf('/', 1); ; end = place.indexOf('/', end + 1)) {
      const part = end < 0 ? place : place.slice(0, end);
      try {
        files.makeDirectory(part, 0o755);
        made = true;
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error;
        const { mode, major, minor } = files.stat(part);
        if (this.isWhiteout(mode, major, minor)) {
          files.unlink(part);
          files.makeDirectory(part, 0o755);
          setOpaque(part);
          made = true;
        }
      }
      if (end < 0) return made;
    }
  }
}

function isDirectory(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

function hasDefaultAcl(): boolean {
  return files.getXattr('/', 'system.posix_acl_default') !== undefined;
}

/** Which attributes an archive may set. */
function isAllowed(key: string): boolean {
  // A layer must not tell overlayfs to look elsewhere (redirect, metacopy).
  if (key.startsWith('trusted.overlay.') || key.startsWith('user.overlay.')) return false;
  // Labels and signatures (SELinux, IMA, EVM) are for this machine to give.
  return !key.startsWith('security.') || key === 'security.capability';
}

/** Whether an attribute that cannot be set is no loss: as for docker, all but what programs need to work. */
function isHarmless(key: string, type: Entry['type'], code: string): boolean {
  if (key === 'security.capability') return false;
  if (code === 'ENOTSUP' || code === 'EOPNOTSUPP') return true;
  if (code === 'EPERM' && key.startsWith('trusted.') && inUserNamespace) return true;
  // Only files and directories can have them: xattr(7).
  return code === 'EPERM' && key.startsWith('user.') && type !== 'file' && type !== 'directory';
}

function setOpaque(directory: string): void {
  asAdmin(() => files.setXattr(directory, `${overlayAttributes}opaque`, Buffer.from('y')));
}

function asAdmin(act: () => void): void {
  libc.setCapabilities(helperCapabilities | SYS_ADMIN, helperCapabilities | SYS_ADMIN, 0n);
  try {
    act();
  } finally {
    libc.setCapabilities(helperCapabilities, helperCapabilities | SYS_ADMIN, 0n);
  }
}

/** Where a name of the archive lies, from the root on. `..` cannot lead out of it anyway; one that tries is no mistake. */
function placeOf(name: string): string {
  let clean = name.replace(/^(?:\.?\/)+|\/+$/g, '');
  if (/(?:^|\/)\.{0,2}(?:\/|$)/.test(clean)) clean = path.posix.normalize(name).replace(/\/+$/, '');
  if (clean === '..' || clean.startsWith('../')) {
    throw new InitError(`refusing ${quote(name)}`, 'the name leads out of the archive', 'Do not use this archive');
  }
  if (clean === '' || clean === '.') return '/';
  return clean.startsWith('/') ? clean : `/${clean}`;
}

function hasOwners({ uid, gid }: Entry): boolean {
  return hasId('uid', uid) && hasId('gid', gid);
}

function withoutOwners({ path: name, uid, gid }: Entry): InitError {
  return new InitError(
    `cannot unpack ${quote(name)}`,
    `it belongs to ${uid}:${gid}, and this user namespace has no such id`,
    'Give the user more ids in /etc/subuid and /etc/subgid, or run minirun as root',
  );
}

function overLimit(why: string, setting: string): InitError {
  return new InitError(
    'cannot unpack the archive',
    `${why}, which is the limit`,
    `Set limits.${setting} in /etc/minirun/config.yaml to allow more`,
  );
}

function explain({ path: name }: Pick<Entry, 'path'>, error: unknown): InitError {
  if (error instanceof InitError) return error;
  const isFull = ['ENOSPC', 'EDQUOT'].includes(codeOf(error));
  const remedy = isFull ? 'Free some space on the disk of the state directory' : undefined;
  return new InitError(`cannot unpack ${quote(name)}`, reasonOf(error), remedy);
}

function codeOf(error: unknown): string {
  return (error as { code?: string }).code ?? '';
}

/** The plain words of a failed system call: Node puts a code before them and the arguments after them. */
export function reasonOf(error: unknown): string {
  if (error instanceof libc.SyscallError) return error.reason;
  const message = error instanceof Error ? error.message : String(error);
  return /^[A-Z0-9]+: (.*?)(?:, \w+(?: '.*)?)?$/s.exec(message)?.[1] ?? message;
}
