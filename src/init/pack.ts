import fs from 'node:fs';
import { Header } from 'tar/header';
import type { EntryTypeName } from 'tar/types';
import type { Go, IdRange, Pack } from '../container/protocol.ts';
import { receive, send } from './channel.ts';
import { failure, InitError } from './failure.ts';
import * as files from './files.ts';
import * as libc from './libc.ts';
import { mountOverlay } from './overlay.ts';
import { startTime } from './process.ts';
import { outOfNamespace } from './shift.ts';
import { quote } from './tar-reader.ts';
import { reasonOf } from './unpack.ts';
import { overlayAttributes } from './userns.ts';

/** What reading other people's files and overlayfs's own attributes takes: DAC_OVERRIDE, SYS_ADMIN. */
export const packerCapabilities = (1n << 1n) | (1n << 21n);

/** File types of stat(2). */
const S_IFMT = 0o170000;
const kinds = {
  fifo: 0o010000,
  character: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  link: 0o120000,
};

/** Writes a directory as the archive of a layer, and ends this process. It becomes the root, read-only. */
export function pack(request: Pack): never {
  try {
    libc.prctl(libc.PR.SET_PDEATHSIG, 9);
    const pipe = libc.pipe();
    files.widenPipe(pipe.write);
    enter(request);
    send({ type: 'reading', fd: pipe.read, name: '.', directory: true });
    receive<Go>();
    files.close(pipe.read);
    const packer = new Packer(pipe.write, { layer: true, owners: request.owners });
    packer.add('/', '.', files.stat('/'));
    packer.end();
    send({ type: 'packed' });
    process.exit(0);
  } catch (error) {
    const known = error instanceof InitError ? error : new InitError('cannot pack the layer', reasonOf(error));
    send(failure(known));
    process.exit(125);
  }
}

function enter({ directory, overlay, process: running }: Pack): void {
  const { BIND, REMOUNT, NODEV, NOSUID, NOEXEC, RDONLY } = libc.MS;
  const flags = NODEV | NOSUID | NOEXEC | RDONLY;
  const place = running === undefined ? directory : enterMounts(running);
  if (overlay !== undefined) mountOverlay(place, overlay, flags);
  else {
    libc.mount(running === undefined ? place : '/', place, '', BIND, '');
    libc.mount('', place, '', BIND | REMOUNT | flags, '');
  }
  process.chdir(place);
  libc.pivotRootHere();
  libc.setCapabilities(packerCapabilities, packerCapabilities, 0n);
}

const CLONE_NEWNS = 0x20000;

/**
 * Enters a copy of the mounts of a process, as its pid may be another's by now.
 *
 * @returns a directory in it that its root can be mounted on: mounting is what leaves out the mounts below
 */
function enterMounts({ pid, start }: { pid: number; start: number }): string {
  const ended = () => new InitError('cannot read the container', 'it has just ended', 'Try again');
  // Threads share root and working directory, and a process that shares them may not enter a mount namespace.
  libc.unshare(libc.CLONE_FS);
  let namespace: number;
  try {
    namespace = fs.openSync(`/proc/${pid}/ns/mnt`, 'r');
    if (startTime(pid) !== start) throw ended();
  } catch {
    throw ended();
  }
  libc.enterNamespace(`/proc/self/fd/${namespace}`);
  fs.closeSync(namespace);
  libc.unshare(CLONE_NEWNS);
  libc.mount('', '/', '', libc.MS.REC | libc.MS.PRIVATE, '');
  return '/proc';
}

const block = 512;
/** What a running container sees but has not got: statfs(2). Docker's copies have these directories, empty. */
const kernelFilesystems = new Set([0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x1cd1, 0x19800202]);
const tmpfs = 0x01021994;

/**
 * Writes files as a tar archive. Names are byte strings. What vanishes or becomes something else meanwhile is left out.
 *
 * The archive of a layer has what an image needs and nothing that differs from one time to the next: attributes, whole
 * seconds as docker's, overlayfs's whiteouts as `.wh.NAME`, and all in order of the names.
 */
export class Packer {
  private readonly out = Buffer.alloc(1 << 20);
  private readonly address = files.addressOf(this.out);
  private used = 0;
  /** The first name of each file that has several. */
  private readonly linked = new Map<string, string>();
  private readonly layer: boolean;
  private readonly owners: IdRange | undefined;

  constructor(
    private readonly fd: number,
    { layer, owners }: { layer: boolean; owners?: IdRange },
  ) {
    this.layer = layer;
    this.owners = owners;
  }

  /** Adds a file, or a directory with all that is in it. */
  add(place: string, name: string, stat: files.Stat, followLink = false): void {
    const kind = stat.mode & S_IFMT;
    if (kind === kinds.directory) this.addDirectory(place, name, stat);
    else if (kind === kinds.file) this.addFile(place, name, followLink);
    else if (this.layer && this.addedBefore(name, stat)) return;
    else if (kind === kinds.link) this.addLink(place, name, stat);
    else if (kind === kinds.fifo) this.header('FIFO', name, stat, place);
    else if (kind === kinds.character) this.header('CharacterDevice', name, stat, place);
    else if (kind === kinds.block) this.header('BlockDevice', name, stat, place);
    // A socket means nothing without the process that listens on it.
  }

  /** Writes the end mark, and all that is left. */
  end(): void {
    this.put(Buffer.alloc(2 * block));
    this.flush();
  }

  private addDirectory(place: string, name: string, stat: files.Stat): void {
    this.header('Directory', `${name}/`, stat, place);
    const children = listIfThere(place);
    const inside = place.replace(/\/+$/, '');
    const prefix = this.layer && name === '.' ? '' : `${name}/`;
    const found: { child: string; about: files.Stat }[] = [];
    for (const child of children) {
      const about = statIfThere(`${inside}/${child}`);
      if (about !== undefined) found.push({ child, about });
    }
    if (this.layer) this.addWhiteouts(place, prefix, stat, found);
    for (const { child, about } of found) {
      if (this.layer && isWhiteout(about)) continue;
      const path = `${inside}/${child}`;
      if (!this.layer && isDirectory(about) && about.filesystem !== stat.filesystem && isKernels(path))
        this.header('Directory', `${prefix}${child}/`, about, path);
      else this.add(path, `${prefix}${child}`, about);
    }
  }

  /** image-spec, layer.md: before their siblings. */
  private addWhiteouts(
    place: string,
    prefix: string,
    directory: files.Stat,
    children: { child: string; about: files.Stat }[],
  ): void {
    const empty = { mode: 0, uid: 0, gid: 0, size: 0, seconds: directory.seconds };
    if (isOpaque(place)) this.header('File', `${prefix}.wh..wh..opq`, { ...directory, ...empty });
    for (const { child, about } of children) {
      if (child.startsWith('.wh.'))
        throw new InitError(
          `cannot pack ${quote(prefix + child)}`,
          'in a layer a name that begins with .wh. stands for a file that is deleted',
          'Rename it',
        );
      if (isWhiteout(about)) this.header('File', `${prefix}.wh.${child}`, { ...about, ...empty });
    }
  }

  private addFile(place: string, name: string, followLink: boolean): void {
    let fd: number;
    try {
      // It may have become a FIFO or a link since: do not wait for a writer, nor follow.
      fd = files.openToRead(place, { follow: followLink });
    } catch (error) {
      if (isGone(error)) return;
      throw new InitError(`cannot read ${quote(place)}`, reasonOf(error));
    }
    try {
      const stat = files.statOf(fd);
      if ((stat.mode & S_IFMT) !== kinds.file || this.addedBefore(name, stat)) return;
      this.header('File', name, stat, place);
      this.data(fd, stat.size);
    } finally {
      files.close(fd);
    }
  }

  /** Adds a further name of a file that is in the archive. @returns false when it is not */
  private addedBefore(name: string, stat: files.Stat): boolean {
    if (stat.links < 2) return false;
    const before = this.linked.get(stat.identity);
    if (before === undefined) this.linked.set(stat.identity, name);
    else this.header('Link', name, stat, undefined, before);
    return before !== undefined;
  }

  /** Exactly as many bytes as the header has promised: a file that has shrunk is filled up with zeros, as tar does. */
  private data(fd: number, size: number): void {
    let left = size;
    while (left > 0) {
      if (this.used === this.out.length) this.flush();
      const count = files.readInto(fd, this.address + this.used, Math.min(left, this.out.length - this.used));
      if (count === 0) break;
      this.used += count;
      left -= count;
    }
    this.zeros(left + ((block - (size % block)) % block));
  }

  private addLink(place: string, name: string, stat: files.Stat): void {
    let target: string;
    try {
      target = files.readLink(place);
    } catch {
      return;
    }
    this.header('SymbolicLink', name, stat, place, target);
  }

  /** @param place where its attributes are; absent when it has none of its own */
  private header(type: EntryTypeName, path: string, stat: files.Stat, place?: string, linkpath = ''): void {
    const isDevice = type === 'CharacterDevice' || type === 'BlockDevice';
    const size = type === 'File' ? stat.size : 0;
    const { uid, gid } = this.owners === undefined ? stat : unshifted(stat, this.owners);
    // What a header and a Date are sure to hold; any other time is in a record.
    const seconds = Math.min(Math.max(stat.seconds, 0), 8 ** 11 - 1);
    const header = new Header({
      path: fallback(path),
      linkpath: fallback(linkpath),
      type,
      mode: stat.mode & 0o7777,
      uid,
      gid,
      size,
      mtime: new Date(seconds * 1000),
      devmaj: isDevice ? stat.major : 0,
      devmin: isDevice ? stat.minor : 0,
    });
    const isTooMuch = header.encode();
    const records: Buffer[] = [];
    const record = (key: string, value: string | Buffer) => records.push(paxRecord(key, value));
    // Bytes that are no UTF-8 as well, as GNU tar and Go: readers warn of `hdrcharset`, by which POSIX would announce them.
    if (fallback(path) !== path) record('path', path);
    if (fallback(linkpath) !== linkpath) record('linkpath', linkpath);
    if (isTooMuch) {
      record('size', String(size));
      record('uid', String(uid));
      record('gid', String(gid));
    }
    const hasFraction = !this.layer && stat.nanoseconds !== 0;
    if (seconds !== stat.seconds || hasFraction) record('mtime', hasFraction ? timeText(stat) : String(stat.seconds));
    if (place !== undefined)
      records.push(...(this.layer ? attributes(place, path, this.owners !== undefined) : portableAttributes(place)));
    if (records.length > 0) this.extension(Buffer.concat(records), header.mtime as Date);
    this.put(header.block as Buffer);
  }

  private extension(records: Buffer, mtime: Date): void {
    const fields = { path: 'PaxHeaders/entry', mode: 0o644, uid: 0, gid: 0, size: records.length, mtime };
    const header = new Header({ ...fields, type: 'ExtendedHeader' });
    header.encode();
    this.put(header.block as Buffer);
    this.put(records);
    this.zeros((block - (records.length % block)) % block);
  }

  private put(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.used === this.out.length) this.flush();
      const count = bytes.copy(this.out, this.used, at);
      this.used += count;
      at += count;
    }
  }

  private zeros(count: number): void {
    for (let left = count; left > 0; ) {
      if (this.used === this.out.length) this.flush();
      const length = Math.min(left, this.out.length - this.used);
      this.out.fill(0, this.used, this.used + length);
      this.used += length;
      left -= length;
    }
  }

  private flush(): void {
    files.writeFrom(this.fd, this.address, this.used);
    this.used = 0;
  }
}

/** The extended attributes that an image keeps, as records. @throws InitError when the content is not there at all */
function attributes(place: string, path: string, given: boolean): Buffer[] {
  const records: Buffer[] = [];
  for (const key of unlessGone(() => files.listXattrs(place), []).toSorted((a, b) => (a < b ? -1 : 1))) {
    if (key === `${overlayAttributes}redirect` || key === `${overlayAttributes}metacopy`) {
      throw new InitError(
        `cannot pack ${quote(path)}`,
        `overlayfs has only noted where its content is (${key.slice(overlayAttributes.length)})`,
        'Mount overlays with redirect_dir=off and metacopy=off',
      );
    }
    // Those are overlayfs's notes about this machine, and the label is this machine's as well.
    if (key.startsWith(overlayAttributes) || key === 'security.selinux') continue;
    const stored = unlessGone(() => files.getXattr(place, key), undefined);
    const value = given && stored !== undefined && key === 'security.capability' ? outOfNamespace(stored) : stored;
    if (value !== undefined) records.push(xattrRecord(key, value));
  }
  return records;
}

/** Whether an attribute means the same anywhere: notes of users, and the capabilities of a program. */
export function isPortable(key: string): boolean {
  return key.startsWith('user.') || key === 'security.capability';
}

/** The attributes that a copy keeps, as records. What vanishes meanwhile has none. */
function portableAttributes(place: string): Buffer[] {
  const keys = unlessGone(() => files.listXattrs(place), []).filter(isPortable);
  return keys.flatMap((key) => {
    const value = unlessGone(() => files.getXattr(place, key), undefined);
    return value === undefined ? [] : [xattrRecord(key, value)];
  });
}

/** As GNU tar: an equals sign would end the name. */
function xattrRecord(key: string, value: Buffer): Buffer {
  const name = key.replace(/[%=]/g, (character) => (character === '=' ? '%3D' : '%25'));
  return paxRecord(`SCHILY.xattr.${name}`, value);
}

/** Whom a file belongs to inside the container. */
function unshifted({ uid, gid }: files.Stat, owners: IdRange): { uid: number; gid: number } {
  const back = (id: number, first: number) => (id >= first && id < first + owners.size ? id - first : id);
  return { uid: back(uid, owners.uid), gid: back(gid, owners.gid) };
}

/** `LENGTH KEY=VALUE\n`, where the length counts its own digits too. */
function paxRecord(key: string, value: string | Buffer): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value;
  const rest = key.length + bytes.length + 3;
  let length = rest + 1;
  while (rest + String(length).length !== length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, 'latin1'), bytes, Buffer.from('\n')]);
}

function timeText({ seconds, nanoseconds }: files.Stat): string {
  const isBefore = seconds < 0;
  const whole = isBefore ? -seconds - 1 : seconds;
  const fraction = String(isBefore ? 1e9 - nanoseconds : nanoseconds).padStart(9, '0');
  return `${isBefore ? '-' : ''}${whole}.${fraction.replace(/0+$/, '')}`;
}

/**
 * What the header itself has for a name, and a reader without extensions gets. Never more than its first field: in
 * putting a name of 100 bytes into two, node-tar adds a `./`.
 */
function fallback(bytes: string): string {
  return bytes.replace(/[\x80-\xff]/g, '_').slice(0, 99);
}

export function isDirectory({ mode }: files.Stat): boolean {
  return (mode & S_IFMT) === kinds.directory;
}

export function isWhiteout({ mode, major, minor }: files.Stat): boolean {
  return (mode & S_IFMT) === kinds.character && major === 0 && minor === 0;
}

export function listIfThere(place: string): string[] {
  let fd: number;
  try {
    fd = files.openToRead(place, { directory: true, follow: place.endsWith('/') });
  } catch (error) {
    if (isGone(error)) return [];
    throw new InitError(`cannot read ${quote(place)}`, reasonOf(error));
  }
  try {
    // One that has been deleted can be open and not be read: getdents(2).
    return unlessGone(() => files.list(fd), []);
  } finally {
    files.close(fd);
  }
}

export function statIfThere(place: string): files.Stat | undefined {
  try {
    return files.stat(place);
  } catch (error) {
    if (isGone(error)) return undefined;
    throw new InitError(`cannot read ${quote(place)}`, reasonOf(error));
  }
}

/** Whether what lies below a directory of an upper layer does not show through. */
export function isOpaque(directory: string): boolean {
  const value = unlessGone(() => files.getXattr(directory, `${overlayAttributes}opaque`), undefined);
  return value?.toString() === 'y';
}

/** What a container that runs may delete at any moment counts as if it had not been there. */
function unlessGone<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch (error) {
    if (isGone(error)) return otherwise;
    throw error;
  }
}

function isGone(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes((error as { code?: string }).code ?? '');
}

/** Whether a mount point shows the kernel's or minirun's own files rather than the container's. */
function isKernels(place: string): boolean {
  try {
    const { type } = fs.statfsSync(Buffer.from(place, 'latin1'));
    return kernelFilesystems.has(type) || (place === '/dev' && type === tmpfs);
  } catch {
    return true;
  }
}
