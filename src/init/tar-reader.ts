import { InitError } from './failure.ts';
import { readInto, addressOf } from './files.ts';

/** What an entry stands for. */
export type EntryType = 'file' | 'directory' | 'symlink' | 'link' | 'fifo' | 'character' | 'block';

/**
 * One entry of an archive. Names are bytes, not text: each character of `path` and `linkpath` is one byte (latin1), so
 * that a name in any encoding gets through as it is.
 */
export interface Entry {
  type: EntryType;
  path: string;
  /** Target of a symbolic or hard link, else empty. */
  linkpath: string;
  /** Permission bits with setuid, setgid and sticky. */
  mode: number;
  uid: number;
  gid: number;
  /** Bytes that the file will have; with holes more than the archive holds of it. */
  size: number;
  /** Modification time: whole seconds since 1970, rounded down, and nanoseconds. */
  seconds: number;
  nanoseconds: number;
  major: number;
  minor: number;
  xattrs?: Map<string, Buffer>;
  /** The parts of a file with holes that are no hole: offset and length by turns. Absent for any other file. */
  sparse?: number[];
}

/** What extension records say of the next entry, or (`g`) of all that follow. */
interface Extended {
  path?: string;
  linkpath?: string;
  size?: number;
  uid?: number;
  gid?: number;
  mtime?: { seconds: number; nanoseconds: number };
  xattrs?: Map<string, Buffer>;
  sparse?: SparseRecords;
}

/** The records of GNU tar's formats 0.0, 0.1 and 1.0 for files with holes. */
interface SparseRecords {
  version?: { major: number; minor: number };
  name?: string;
  realsize?: number;
  map: number[];
}

const block = 512;
/** Extension records, also GNU's long names: Go's archive/tar, hence docker, allows the same (maxSpecialFileSize). */
const largestExtension = 1 << 20;
/** Parts of one file between holes. That many take 4 GiB of data on any usual disk. */
const mostParts = 1 << 20;
/** 32 bits, but all ones: that is -1, by which chown(2) is told to leave an id as it is. */
const largestId = 0xfffffffe;

const types: Record<string, EntryType> = {
  '\0': 'file',
  '0': 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
  // Contiguous files: no system makes a difference any more.
  '7': 'file',
  // GNU tar's incremental dumps: the data lists names and is of no use here.
  D: 'directory',
  S: 'file',
};

/**
 * Reads a tar archive from a file descriptor, synchronously and byte by byte exact: v7, ustar, star, GNU and PAX.
 *
 * After `next` the data of a regular file is taken by `fill` and `skip`; what is not taken the next `next` skips.
 * It reads in Go's manner where writers differ, because docker does. See docs/adr/0007.
 */
export class TarReader {
  /** Whether the archive had its end mark: two blocks of zeros. */
  ended = false;
  /** Offset of the next byte in the buffer. */
  start = 0;
  /** Archive data. Where it lies is a multiple of 8 from the archive's begin, which `checksumOf` relies on. */
  private readonly buffer = Buffer.alloc(largestExtension + 2 * block);
  private readonly words = new Uint32Array(this.buffer.buffer, this.buffer.byteOffset, this.buffer.length >>> 2);
  readonly address = addressOf(this.buffer);
  private end = 0;
  /** Offset in the archive of `end`. */
  private position = 0;
  /** Data of the current entry that has not been taken. */
  private left = 0;
  /** What fills the last block of its data. */
  private padding = 0;
  private isTar = false;
  private global: Extended = {};

  constructor(private readonly fd: number) {}

  /** The next entry; undefined after the last. @throws InitError when the archive is damaged */
  next(): Entry | undefined {
    let extended: Extended = {};
    let isExtended = false;
    for (;;) {
      this.skipData();
      if (!this.need(block)) {
        if (isExtended || this.end > this.start) throw cutOff();
        return undefined;
      }
      const at = this.start;
      const sum = checksumOf(this.words, at);
      if (sum === 0) {
        this.readEnd();
        if (isExtended) throw damaged('it ends after an extension of no entry');
        return undefined;
      }
      this.verify(at, sum);
      const flag = String.fromCharCode(this.buffer[at + 156] as number);
      switch (flag) {
        case 'x':
        case 'X':
          extended = { ...extended, ...this.readRecords() };
          isExtended = true;
          continue;
        case 'g':
          this.global = withRecords(this.global, this.readRecords());
          continue;
        case 'L':
          extended.path = this.readLongName();
          isExtended = true;
          continue;
        case 'K':
          extended.linkpath = this.readLongName();
          isExtended = true;
          continue;
        case 'V':
        case 'A':
          // Names of volumes and access control lists of Solaris are about no file.
          this.startData(this.sizeAt(at));
          this.start += block;
          extended = {};
          isExtended = false;
          continue;
        default:
          return this.readEntry(at, flag, isExtended ? withRecords(this.global, extended) : this.global);
      }
    }
  }

  /** How many bytes of the entry's data lie at `start`, at most `limit`; reads more when there are none. */
  fill(limit: number): number {
    if (this.start === this.end && !this.readMore()) throw cutOff();
    return Math.min(limit, this.end - this.start, this.left);
  }

  /** Takes bytes of the entry's data. */
  skip(length: number): void {
    this.start += length;
    this.left -= length;
  }

  /** Reads what follows the end mark, so that whoever writes it is not cut off. */
  drain(): void {
    do this.start = this.end;
    while (this.readMore());
  }

  private readEntry(at: number, flag: string, extended: Extended): Entry {
    const { buffer } = this;
    const magic = buffer.toString('latin1', at + 257, at + 265);
    const isGnu = magic === 'ustar  \0';
    const isUstar = magic.startsWith('ustar\0');
    const path = extended.path ?? this.nameAt(at, isUstar, isGnu);
    const fail = (why: string) => new InitError(`cannot unpack ${quote(path)}`, why);
    let type = types[flag];
    if (type === undefined) throw fail(`entries of type ${quote(flag)} are not supported`);
    // Before POSIX a directory was a file with a slash at its end.
    if (type === 'file' && flag !== 'S' && path.endsWith('/')) type = 'directory';
    if (path === '') throw fail('it has no name');
    const linkpath = extended.linkpath ?? stringAt(buffer, at + 157, 100);
    if (path.includes('\0') || linkpath.includes('\0')) throw fail('its name has a zero byte');
    const isDevice = type === 'character' || type === 'block';
    const hasDevice = isDevice && (isGnu || isUstar);
    const size = extended.size ?? this.sizeAt(at);
    const mtime = extended.mtime;
    const entry: Entry = {
      type,
      path,
      linkpath,
      mode: this.numberAt(at + 100, 8, 'mode') & 0o7777,
      uid: extended.uid ?? this.idAt(at + 108, 'owner'),
      gid: extended.gid ?? this.idAt(at + 116, 'group'),
      size: 0,
      seconds: mtime === undefined ? this.numberAt(at + 136, 12, 'time') : mtime.seconds,
      nanoseconds: mtime === undefined ? 0 : mtime.nanoseconds,
      major: hasDevice ? this.numberAt(at + 329, 8, 'device number') : 0,
      minor: hasDevice ? this.numberAt(at + 337, 8, 'device number') : 0,
      xattrs: extended.xattrs,
    };
    if (!(entry.uid >= 0 && entry.uid <= largestId)) throw fail(`its owner ${entry.uid} is no user id`);
    if (!(entry.gid >= 0 && entry.gid <= largestId)) throw fail(`its group ${entry.gid} is no group id`);
    this.start += block;
    // Whatever the others say of their size, no data follows them: some writers give that of the linked file.
    this.startData(type === 'file' || flag === 'D' ? size : 0);
    if (type === 'file') {
      entry.size = size;
      if (flag === 'S') this.readOldSparse(entry, at, fail);
      else if (extended.sparse !== undefined) this.readSparse(entry, extended.sparse, fail);
    }
    return entry;
  }

  /** The name of the header, put together from its two fields. */
  private nameAt(at: number, isUstar: boolean, isGnu: boolean): string {
    const { buffer } = this;
    const name = stringAt(buffer, at, 100);
    if (buffer[at + 345] === 0) return name;
    if (isUstar) {
      const isStar = buffer.toString('latin1', at + 508, at + 512) === 'tar\0';
      const prefix = stringAt(buffer, at + 345, isStar ? 131 : 155);
      return prefix === '' ? name : `${prefix}/${name}`;
    }
    // Docker images made with Go before 1.8 have a prefix where GNU's format has times (golang/go issue 12594).
    if (isGnu && !(isNumber(buffer, at + 345, 12) && isNumber(buffer, at + 357, 12))) {
      const prefix = stringAt(buffer, at + 345, 155);
      if (/^[\0-\x7f]+$/.test(prefix)) return `${prefix}/${name}`;
    }
    return name;
  }

  private sizeAt(at: number): number {
    return checkSize(this.numberAt(at + 124, 12, 'size'));
  }

  private idAt(at: number, what: string): number {
    return this.numberAt(at, 8, what);
  }

  private numberAt(at: number, length: number, what: string): number {
    const value = parseNumber(this.buffer, at, length);
    if (value === undefined) throw damaged(`the ${what} of an entry is no number`);
    return value;
  }

  private startData(size: number): void {
    this.left = size;
    this.padding = (block - (size % block)) % block;
  }

  private skipData(): void {
    let left = this.left + this.padding;
    this.left = 0;
    this.padding = 0;
    while (left > 0) {
      if (this.start === this.end && !this.readMore()) throw cutOff();
      const length = Math.min(left, this.end - this.start);
      this.start += length;
      left -= length;
    }
  }

  private verify(at: number, sum: number): void {
    const { buffer } = this;
    const stored = parseNumber(buffer, at + 148, 8);
    let field = 0;
    for (let index = at + 148; index < at + 156; index++) field += buffer[index] as number;
    // The sum is taken as if its own field were spaces.
    if (stored !== sum - field + 8 * 32 && stored !== signedChecksum(buffer, at)) {
      if (!this.isTar) throw new InitError('cannot unpack the archive', 'it is no tar archive');
      throw damaged('the checksum of a header is wrong');
    }
    this.isTar = true;
  }

  private readEnd(): void {
    this.start += block;
    if (!this.need(block)) {
      // One block alone, at the very end: some writers are content with that.
      if (this.end > this.start) throw cutOff();
    } else if (checksumOf(this.words, this.start) !== 0) {
      throw damaged('entries follow a block of zeros');
    }
    this.ended = true;
  }

  /** Has `length` bytes lie together at `start`. @returns false when the archive ends before */
  private need(length: number): boolean {
    while (this.end - this.start < length) if (!this.readMore()) return false;
    return true;
  }

  /** @returns false at the end of the archive */
  private readMore(): boolean {
    const { buffer } = this;
    // What is kept goes to the front, but stays as it was aligned.
    const target = (this.position - (this.end - this.start)) % 8;
    if (this.start !== target) {
      if (this.end > this.start) buffer.copyWithin(target, this.start, this.end);
      this.end = target + this.end - this.start;
      this.start = target;
    }
    const length = readInto(this.fd, this.address + this.end, buffer.length - this.end);
    this.end += length;
    this.position += length;
    return length > 0;
  }

  /** The data of an extension entry, lying at `start`, which is then behind it. @returns its length */
  private takeExtension(): { from: number; to: number } {
    const size = this.sizeAt(this.start);
    if (size > largestExtension) throw damaged(`an extension header has ${size} bytes, which is more than 1 MiB`);
    this.start += block;
    this.startData(size);
    if (!this.need(size)) throw cutOff();
    const from = this.start;
    this.skip(size);
    return { from, to: from + size };
  }

  private readLongName(): string {
    const { from, to } = this.takeExtension();
    return stringAt(this.buffer, from, to - from);
  }

  /** PAX records: `LENGTH KEY=VALUE\n`, the length in decimal and of all of it. */
  private readRecords(): Extended {
    const { from, to } = this.takeExtension();
    const { buffer } = this;
    const found: Extended = {};
    for (let at = from; at < to; ) {
      let digits = at;
      let length = 0;
      for (; digits < to && digits < at + 8; digits++) {
        const digit = (buffer[digits] as number) - 48;
        if (digit < 0 || digit > 9) break;
        length = length * 10 + digit;
      }
      const end = at + length;
      const equals = buffer.indexOf(61, digits);
      if (digits === at || buffer[digits] !== 32 || end > to || equals < 0 || equals >= end || buffer[end - 1] !== 10)
        throw damaged('an extension header is no list of records');
      const key = buffer.toString('latin1', digits + 1, equals);
      if (key === '' || key.includes('\0')) throw damaged('an extension header has a record without a name');
      takeRecord(found, key, buffer, equals + 1, end - 1);
      at = end;
    }
    return found;
  }

  /** GNU tar's oldest format: the map of the parts is in the header and in blocks after it. */
  private readOldSparse(entry: Entry, at: number, fail: (why: string) => InitError): void {
    const map: number[] = [];
    const take = (offset: number, count: number) => {
      for (let index = 0; index < count; index++, offset += 24) {
        if (this.buffer[offset] === 0) return;
        map.push(this.numberAt(offset, 12, 'map of holes'), this.numberAt(offset + 12, 12, 'map of holes'));
      }
    };
    take(at + 386, 4);
    const realsize = checkSize(this.numberAt(at + 483, 12, 'size'));
    let isMore = this.buffer[at + 482] !== 0;
    while (isMore) {
      if (!this.need(block)) throw cutOff();
      take(this.start, 21);
      isMore = this.buffer[this.start + 504] !== 0;
      this.start += block;
      if (map.length > 2 * mostParts) throw fail('it has more holes than any file');
    }
    this.setSparse(entry, map, realsize, fail);
  }

  private readSparse(entry: Entry, records: SparseRecords, fail: (why: string) => InitError): void {
    const { version, name, realsize, map } = records;
    if (version !== undefined && version.major > 1) throw fail('its format for files with holes is not known');
    if (name !== undefined && name !== '') entry.path = name;
    if (entry.path.includes('\0')) throw fail('its name has a zero byte');
    if (realsize === undefined) throw fail('its size with holes is missing');
    this.setSparse(entry, version?.major === 1 ? this.readMap(fail) : map, realsize, fail);
  }

  /** The map of format 1.0 is at the begin of the data: decimal numbers, one a line, in whole blocks. */
  private readMap(fail: (why: string) => InitError): number[] {
    const numbers: number[] = [];
    let count: number | undefined;
    let value = 0;
    let digits = 0;
    while (count === undefined || numbers.length < 2 * count) {
      if (this.left < block) throw fail('its map of holes is damaged');
      if (!this.need(block)) throw cutOff();
      for (let at = this.start; at < this.start + block; at++) {
        const byte = this.buffer[at] as number;
        if (byte >= 48 && byte <= 57 && digits < 16) {
          value = value * 10 + byte - 48;
          digits++;
          continue;
        }
        if (byte !== 10 || digits === 0) throw fail('its map of holes is damaged');
        if (count === undefined) count = value;
        else numbers.push(value);
        value = 0;
        digits = 0;
        if (count > mostParts) throw fail('it has more holes than any file');
        if (numbers.length === 2 * count) break;
      }
      this.skip(block);
    }
    return numbers;
  }

  private setSparse(entry: Entry, map: number[], realsize: number, fail: (why: string) => InitError): void {
    let reached = 0;
    let sum = 0;
    for (let index = 0; index < map.length; index += 2) {
      const offset = map[index] as number;
      const length = map[index + 1] as number;
      if (offset < reached || length < 0 || offset + length > realsize) throw fail('its map of holes is damaged');
      reached = offset + length;
      sum += length;
    }
    if (map.length % 2 !== 0 || sum !== this.left) throw fail('its map of holes does not fit its data');
    entry.size = realsize;
    entry.sparse = map;
  }
}

/** Keeps what matters of one record. An empty value takes back what an earlier record of that name has said. */
function takeRecord(into: Extended, key: string, buffer: Buffer, from: number, to: number): void {
  const text = () => buffer.toString('latin1', from, to);
  const isEmpty = from === to;
  const decimal = () => {
    const value = text();
    if (!/^-?\d{1,16}$/.test(value)) throw damaged(`the extension ${quote(key)} is no number`);
    return Number(value);
  };
  switch (key) {
    case 'path':
    case 'linkpath':
      into[key] = isEmpty ? undefined : text();
      return;
    case 'size':
      into.size = isEmpty ? undefined : checkSize(decimal());
      return;
    case 'uid':
    case 'gid':
      into[key] = isEmpty ? undefined : decimal();
      return;
    case 'mtime':
      into.mtime = isEmpty ? undefined : parseTime(text());
      return;
  }
  if (key.startsWith('SCHILY.xattr.')) {
    // GNU tar's names cannot have what ends a key, nor what it writes instead.
    const name = key.slice(13).replace(/%(3D|25)/g, (code) => (code === '%3D' ? '=' : '%'));
    (into.xattrs ??= new Map()).set(name, Buffer.from(buffer.subarray(from, to)));
  } else if (key.startsWith('LIBARCHIVE.xattr.')) {
    const name = key
      .slice(17)
      .replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
    (into.xattrs ??= new Map()).set(name, Buffer.from(text(), 'base64'));
  } else if (key.startsWith('GNU.sparse.')) {
    takeSparseRecord((into.sparse ??= { map: [] }), key.slice(11), text(), decimal);
  }
}

function takeSparseRecord(into: SparseRecords, key: string, text: string, decimal: () => number): void {
  switch (key) {
    case 'major':
    case 'minor':
      into.version = { major: 0, minor: 0, ...into.version, [key]: decimal() };
      break;
    case 'name':
      into.name = text;
      break;
    case 'size':
    case 'realsize':
      into.realsize = checkSize(decimal());
      break;
    case 'offset':
    case 'numbytes':
      // Version 0.0 has a pair of records for each part.
      if (into.map.length % 2 !== (key === 'offset' ? 0 : 1)) throw damaged('a map of holes is out of order');
      into.map.push(decimal());
      break;
    case 'map':
      if (text !== '' && !/^\d{1,16}(?:,\d{1,16})*$/.test(text)) throw damaged('a map of holes is no list of numbers');
      into.map = text === '' ? [] : text.split(',').map(Number);
  }
}

function withRecords(base: Extended, over: Extended): Extended {
  if (base.xattrs === undefined) return { ...base, ...over };
  return { ...base, ...over, xattrs: new Map([...base.xattrs, ...(over.xattrs ?? [])]) };
}

/** `-1.25` is 1.25 seconds before 1970, that is second -2 and 750 million nanoseconds. */
function parseTime(text: string): { seconds: number; nanoseconds: number } {
  const match = /^(-?)(\d{1,16})(?:\.(\d*))?$/.exec(text);
  if (match === null) throw damaged('the time of an entry is no number');
  const [, sign, whole, fraction = ''] = match;
  const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, '0'));
  const seconds = Number(whole);
  if (sign === '') return { seconds, nanoseconds };
  return nanoseconds === 0
    ? { seconds: -seconds, nanoseconds }
    : { seconds: -seconds - 1, nanoseconds: 1e9 - nanoseconds };
}

function checkSize(size: number): number {
  if (!(size >= 0 && size <= Number.MAX_SAFE_INTEGER)) throw damaged(`an entry has a size of ${size} bytes`);
  return size;
}

/** The text of a field: to its first zero byte, or to its end. */
function stringAt(buffer: Buffer, at: number, length: number): string {
  const zero = buffer.indexOf(0, at);
  return buffer.toString('latin1', at, zero < 0 || zero > at + length ? at + length : zero);
}

function isNumber(buffer: Buffer, at: number, length: number): boolean {
  return buffer[at] === 0 || parseNumber(buffer, at, length) !== undefined;
}

/** A number field: octal digits between spaces and zero bytes, or, with its first bit set, two's complement. */
function parseNumber(buffer: Buffer, at: number, length: number): number | undefined {
  const first = buffer[at] as number;
  if ((first & 0x80) !== 0) return parseBinary(buffer, at, length);
  let from = at;
  let to = at + length;
  while (from < to && (buffer[from] === 32 || buffer[from] === 0)) from++;
  while (to > from && (buffer[to - 1] === 32 || buffer[to - 1] === 0)) to--;
  let value = 0;
  for (let index = from; index < to; index++) {
    const byte = buffer[index] as number;
    // Whatever follows a zero byte is what the field held before.
    if (byte === 0) break;
    if (byte < 48 || byte > 55) return undefined;
    value = value * 8 + byte - 48;
  }
  return value;
}

function parseBinary(buffer: Buffer, at: number, length: number): number | undefined {
  const isNegative = ((buffer[at] as number) & 0x40) !== 0;
  let value = isNegative ? -1 : 0;
  for (let index = at; index < at + length; index++) {
    let byte = buffer[index] as number;
    if (index === at) byte = isNegative ? byte | 0x80 : byte & 0x7f;
    value = index === at && isNegative ? byte - 256 : value * 256 + byte;
  }
  return Number.isSafeInteger(value) ? value : undefined;
}

/** The sum of all bytes of a block, four at a time: two lanes of 16 bits hold 256 bytes each without overflow. */
function checksumOf(words: Uint32Array, at: number): number {
  let lanes = 0;
  const end = (at + block) >>> 2;
  for (let index = at >>> 2; index < end; index++) {
    const word = words[index] as number;
    lanes += (word & 0xff00ff) + ((word >>> 8) & 0xff00ff);
  }
  return (lanes & 0xffff) + (lanes >>> 16);
}

/** What writers with signed characters have computed. */
function signedChecksum(buffer: Buffer, at: number): number {
  let sum = 8 * 32;
  for (let index = 0; index < block; index++) {
    if (index < 148 || index >= 156) sum += buffer.readInt8(at + index);
  }
  return sum;
}

function cutOff(): InitError {
  return new InitError('cannot unpack the archive', 'it is damaged or cut off: the data of an entry is missing');
}

function damaged(why: string): InitError {
  return new InitError('cannot unpack the archive', `it is damaged: ${why}`);
}

/** A name of bytes for a message on one line: as text if it is valid UTF-8. */
export function quote(bytes: string): string {
  if (bytes.length > 200) return `${quote(bytes.slice(0, 100))}…`;
  return JSON.stringify(Buffer.from(bytes, 'latin1').toString());
}
