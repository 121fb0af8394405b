import fs from 'node:fs';
import path from 'node:path';
import { Header } from 'tar/header';
import { Parser } from 'tar/parse';
import type { ReadEntry } from 'tar/read-entry';
import type { Unpack, Unpacked } from '../container/protocol.ts';
import { send } from './channel.ts';
import { failure, InitError } from './failure.ts';
import * as libc from './libc.ts';

const AT_FDCWD = -100;
const fileTypes = { FIFO: 0o010000, CharacterDevice: 0o020000, BlockDevice: 0o060000 };
/** What making other people's files takes: CHOWN DAC_OVERRIDE FOWNER FSETID MKNOD SETFCAP. */
export const helperCapabilities = [0, 1, 3, 4, 27, 31].reduce((set, number) => set | (1n << BigInt(number)), 0n);

/**
 * Unpacks the tar archive on standard input into a directory, and ends this process.
 *
 * The archive is hostile. It is unpacked in a mount namespace of its own in which the directory is the root and nothing
 * else is mounted any more: whatever a name, a symbolic link or a hard link points to, the kernel finds it inside or not
 * at all. Everything is synchronous, which is faster here, and leaves nothing between a look and an act.
 */
export function unpack({ directory }: Unpack): never {
  try {
    // A copy that outlived minirun would write into what the next minirun clears away.
    libc.prctl(libc.PR.SET_PDEATHSIG, 9);
    enter(directory);
    send(unpackHere());
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
  libc.setCapabilities(helperCapabilities, helperCapabilities, 0n);
}

/**
 * Unpacks the archive on standard input below the root directory of this process.
 *
 * @param admit may change what an entry says before it is made, or leave it out
 */
export function unpackHere(admit: (entry: ReadEntry) => boolean = () => true): Unpacked {
  readGnuDevices();
  const tree = new Tree();
  let failed: Error | undefined;
  let isTar = false;
  let ended = false;
  const attempt = (act: () => void) => {
    try {
      // After the first error the rest of the archive is only read to its end.
      if (failed === undefined) act();
    } catch (error) {
      failed = error as Error;
    }
  };
  const parser = new Parser({
    onwarn: (code, message) => {
      // An archive of nothing is one, too: node-tar recognizes them by their entries only.
      const isEmpty = ended && !isTar && /Unrecognized archive format/.test(String(message));
      if (code !== 'TAR_ENTRY_INFO' && !isEmpty)
        failed ??= new InitError('cannot unpack the archive', describeDamage(code, String(message), isTar));
    },
    onReadEntry: (entry) => {
      isTar = true;
      attempt(() => {
        if (admit(entry)) tree.add(entry, attempt);
      });
      // Takes an entry to its end of which nobody reads the data.
      entry.resume();
    },
  });
  parser.on('nullBlock', () => {
    ended = true;
  });
  parser.on('ignoredEntry', (entry: ReadEntry) => attempt(() => refuseUnknown(entry)));
  for (;;) {
    const chunk = Buffer.allocUnsafe(1 << 18);
    const length = fs.readSync(0, chunk);
    if (length === 0) break;
    parser.write(chunk.subarray(0, length));
    if (failed !== undefined) throw failed;
  }
  parser.end();
  if (failed !== undefined) throw failed;
  tree.finish();
  return { type: 'unpacked', bytes: tree.bytes, ended };
}

/** Has node-tar read device numbers from GNU tar's headers too, where they lie in the same place as in POSIX's. */
function readGnuDevices(): void {
  // oxlint-disable-next-line typescript/unbound-method -- it is called with its `this` below
  const decode = Header.prototype.decode;
  Header.prototype.decode = function decodeWithDevices(block, offset, ...extended) {
    decode.call(this, block, offset, ...extended);
    if (block.toString('latin1', offset + 257, offset + 265) !== 'ustar  \0') return;
    this.devmaj = numberAt(block, offset + 329);
    this.devmin = numberAt(block, offset + 337);
  };
}

/** A number field of 8 bytes: octal digits, or binary when its first bit is set. */
function numberAt(block: Buffer, offset: number): number {
  if (((block[offset] ?? 0) & 0x80) !== 0) return block.readUInt32BE(offset + 4);
  return Number.parseInt(block.toString('latin1', offset, offset + 8), 8) || 0;
}

function describeDamage(code: string, message: string, isTar: boolean): string {
  if (!isTar) return 'it is no tar archive';
  return code === 'TAR_BAD_ARCHIVE' ? `it is damaged or cut off: ${message}` : `it is damaged: ${message}`;
}

function refuseUnknown(entry: ReadEntry): void {
  // Names of volumes and access control lists of Solaris are about no file.
  if (entry.type === 'TapeVolumeHeader' || entry.type === 'SolarisACL') return;
  throw new InitError(`cannot unpack ${quote(entry.path)}`, `entries of type ${entry.type} are not supported`);
}

/** The tree that an archive describes, made entry by entry below the root directory of this process. */
class Tree {
  /** Of all regular files so far. */
  bytes = 0;
  /** Directories that are there, so that parents need not be asked for again and again. */
  private readonly known = new Set<string>(['/']);
  /** Making something in a directory changes its time, so those are set at the end. */
  private readonly directoryTimes = new Map<string, Date>();

  /** Makes what an entry describes. The data of a regular file follows, through `attempt`. */
  add(entry: ReadEntry, attempt: (act: () => void) => void): void {
    const place = placeOf(entry.path);
    try {
      this.make(place, entry, attempt);
    } catch (error) {
      throw explain(entry.path, error);
    }
  }

  /** Sets what could not be set while the archive was read. */
  finish(): void {
    for (const [place, time] of this.directoryTimes) fs.utimesSync(place, time, time);
  }

  private make(place: string, entry: ReadEntry, attempt: (act: () => void) => void): void {
    const isDirectory = entry.type === 'Directory' || entry.type === 'GNUDumpDir';
    if (place === '/' && !isDirectory)
      throw new InitError(`refusing ${quote(entry.path)}`, 'the root can only be a directory');
    if (place !== '/') this.makeParents(path.posix.dirname(place));
    switch (entry.type) {
      case 'Directory':
      case 'GNUDumpDir':
        this.makeDirectory(place, entry);
        break;
      case 'SymbolicLink': {
        const target = String(entry.linkpath);
        this.replacing(place, () => fs.symlinkSync(target, place));
        setOwner(place, entry);
        if (entry.mtime !== undefined) fs.lutimesSync(place, entry.mtime, entry.mtime);
        break;
      }
      case 'Link': {
        const target = placeOf(String(entry.linkpath));
        this.replacing(place, () => fs.linkSync(target, place));
        break;
      }
      case 'FIFO':
      case 'CharacterDevice':
      case 'BlockDevice': {
        const mode = fileTypes[entry.type] | (entry.mode ?? 0o644);
        const { devmaj, devmin } = entry.header;
        this.replacing(place, () => libc.mknodAt(AT_FDCWD, place, mode, devmaj, devmin));
        setOwner(place, entry);
        setMode(place, entry, 0o644);
        if (entry.mtime !== undefined) fs.utimesSync(place, entry.mtime, entry.mtime);
        break;
      }
      default:
        this.makeFile(place, entry, attempt);
    }
  }

  private makeDirectory(place: string, entry: ReadEntry): void {
    if (!this.known.has(place)) {
      this.replacing(place, () => fs.mkdirSync(place, { mode: 0o700 }), true);
      this.known.add(place);
    }
    setOwner(place, entry);
    setMode(place, entry, 0o755);
    if (entry.mtime !== undefined) this.directoryTimes.set(place, entry.mtime);
  }

  private makeFile(place: string, entry: ReadEntry, attempt: (act: () => void) => void): void {
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants;
    let fd = -1;
    this.replacing(place, () => {
      fd = fs.openSync(place, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    });
    const withReason = (act: () => void) =>
      attempt(() => {
        try {
          act();
        } catch (error) {
          throw explain(entry.path, error);
        }
      });
    entry.on('data', (chunk: Buffer) => withReason(() => writeAll(fd, chunk)));
    entry.on('end', () => {
      withReason(() => {
        this.bytes += entry.size;
        // The owner before the mode: a change of owner takes setuid and setgid away: chown(2).
        fs.fchownSync(fd, idOf(entry.uid), idOf(entry.gid));
        fs.fchmodSync(fd, entry.mode ?? 0o644);
        if (entry.mtime !== undefined) fs.futimesSync(fd, entry.mtime, entry.mtime);
      });
      fs.closeSync(fd);
    });
  }

  /** Makes the directories above a place that the archive has not named. */
  private makeParents(directory: string): void {
    if (this.known.has(directory)) return;
    fs.mkdirSync(directory, { recursive: true, mode: 0o755 });
    this.known.add(directory);
  }

  /** Makes something, in the place of what an earlier entry may have made there. */
  private replacing(place: string, create: () => void, isDirectory = false): void {
    try {
      create();
      return;
    } catch (error) {
      if ((error as { code?: string }).code !== 'EEXIST') throw error;
    }
    const isThere = fs.lstatSync(place).isDirectory();
    if (isThere && isDirectory) return;
    // It may have been a directory, or a symbolic link through which one was reached.
    this.known.clear();
    this.known.add('/');
    if (isThere) {
      for (const known of this.directoryTimes.keys()) {
        if (known === place || known.startsWith(`${place}/`)) this.directoryTimes.delete(known);
      }
      fs.rmSync(place, { recursive: true });
    } else {
      fs.unlinkSync(place);
    }
    create();
  }
}

/** Where a name of the archive lies, from the root on. `..` cannot lead out of it anyway; one that tries is no mistake. */
function placeOf(name: string): string {
  const clean = path.posix.normalize(name).replace(/\/+$/, '');
  if (clean === '..' || clean.startsWith('../')) {
    throw new InitError(`refusing ${quote(name)}`, 'the name leads out of the archive', 'Do not use this archive');
  }
  if (clean === '' || clean === '.') return '/';
  return clean.startsWith('/') ? clean : `/${clean}`;
}

/** Numeric ids only: the names in an archive are those of another machine. */
function idOf(id: number | undefined): number {
  return id === undefined || !Number.isInteger(id) || id < 0 ? 0 : id;
}

function setOwner(place: string, entry: ReadEntry): void {
  fs.lchownSync(place, idOf(entry.uid), idOf(entry.gid));
}

function setMode(place: string, entry: ReadEntry, fallback: number): void {
  fs.chmodSync(place, entry.mode ?? fallback);
}

export function writeAll(fd: number, chunk: Buffer): void {
  for (let written = 0; written < chunk.length; ) written += fs.writeSync(fd, chunk, written);
}

function explain(name: string, error: unknown): InitError {
  if (error instanceof InitError) return error;
  const isFull = ['ENOSPC', 'EDQUOT'].includes((error as { code?: string }).code ?? '');
  const remedy = isFull ? 'Free some space on the disk of the state directory' : undefined;
  return new InitError(`cannot unpack ${quote(name)}`, reasonOf(error), remedy);
}

/** The plain words of a failed system call: Node puts a code before them and the arguments after them. */
export function reasonOf(error: unknown): string {
  if (error instanceof libc.SyscallError) return error.reason;
  const message = error instanceof Error ? error.message : String(error);
  return /^[A-Z0-9]+: (.*?)(?:, \w+(?: '.*)?)?$/s.exec(message)?.[1] ?? message;
}

function quote(name: string): string {
  return JSON.stringify(name);
}
