import fs from 'node:fs';
import path from 'node:path';
import { streamEnd } from './logger.ts';
import type { Stamp } from './log-stamp.ts';

/** A line of a stream's log. */
export interface LogLine {
  /** Empty in a plain log, which has none; so it comes before every other line. */
  stamp: Stamp;
  /** Without the stamp; with the newline, if the container wrote one. */
  text: Buffer;
}

const newline = 0x0a;
/** `@`, 24 digits and a space. */
const stampLength = 26;
const end = Buffer.from(streamEnd);
const empty: Buffer = Buffer.alloc(0);
const emptyEndLength = stampLength + end.length + 1;
const blockSize = 65536;

/** A place in a log. The file is known by its inode: rotation changes its name. */
interface Position {
  inode: bigint;
  offset: number;
}

/** The log of one stream: a directory in s6-log's form, or one plain file. */
export class StreamLog {
  constructor(
    readonly place: string,
    readonly stamped: boolean,
  ) {}

  /** Its files, the oldest first. While s6-log rotates, `current` is called `previous` for a moment. */
  files(): string[] {
    if (!this.stamped) return fs.existsSync(this.place) ? [this.place] : [];
    let entries: string[];
    try {
      entries = fs.readdirSync(this.place);
    } catch {
      return [];
    }
    const rotated = entries.filter((entry) => /^@[0-9a-f]{24}\.[su]$/.test(entry)).toSorted();
    const live = ['previous', 'current'].filter((entry) => entries.includes(entry));
    return [...rotated, ...live].map((entry) => path.join(this.place, entry));
  }
}

/** Reads a stream's log forwards, line by line, through rotations; what is appended meanwhile is seen too. */
export class LogReader {
  private fd: number | undefined;
  private inode = 0n;
  private offset = 0;
  /** Bytes that were read and not yet returned: the parts of a line that is not complete, and what follows it. */
  private parts: Buffer[] = [];
  private rest = empty;
  private next: LogLine | undefined;
  /** There was nothing more at the last look. */
  private exhausted = false;
  private ended = false;

  /**
   * @param start where to begin; at the oldest file when left out
   * @param since rotated files that ended before this are not even opened
   */
  constructor(
    private readonly log: StreamLog,
    start?: Position,
    since: Stamp = '',
  ) {
    const files = log.files();
    const wanted = start && files.find((file) => inodeOf(file) === start.inode);
    const file = wanted ?? files.find((each) => !isBefore(each, since));
    if (file !== undefined) this.open(file, wanted === undefined ? 0 : (start?.offset ?? 0));
  }

  /** The next line without taking it; undefined from the first time that there is no complete one until `refresh`. */
  peek(): LogLine | undefined {
    while (this.next === undefined && !this.exhausted) {
      const line = this.readLine();
      if (line === undefined) this.exhausted = true;
      else this.next = parseLine(line, this.log.stamped);
    }
    return this.next;
  }

  take(): void {
    this.next = undefined;
  }

  /** Looks again for lines that came after the last one. */
  refresh(): void {
    this.exhausted = false;
  }

  /** From now on an incomplete last line counts as a line: its writer is gone. */
  finish(): void {
    this.ended = true;
  }

  close(): void {
    if (this.fd !== undefined) fs.closeSync(this.fd);
    this.fd = undefined;
  }

  private open(file: string, offset: number): void {
    try {
      const fd = fs.openSync(file, 'r');
      this.close();
      this.fd = fd;
      this.inode = inodeOfOpen(fd);
      this.offset = offset;
    } catch {
      // Rotated away between the listing and now: the next look finds it under its new name.
    }
  }

  /** One line with its newline. */
  private readLine(): Buffer | undefined {
    for (;;) {
      const at = this.rest.indexOf(newline);
      if (at >= 0) {
        const line = joined(this.parts, this.rest.subarray(0, at + 1));
        this.rest = this.rest.subarray(at + 1);
        this.parts = [];
        return line;
      }
      if (this.rest.length > 0) this.parts.push(this.rest);
      this.rest = empty;
      const block = this.read();
      if (typeof block === 'object') {
        this.rest = block;
        continue;
      }
      // A line without an end goes on in no other file.
      if (block === 'next file' && this.parts.length === 0) continue;
      if (this.parts.length === 0 || (block === 'end' && !this.ended)) return undefined;
      const line = joined(this.parts, empty);
      this.parts = [];
      return line;
    }
  }

  /** The next bytes; or that this file has none any more and the next is open; or that there are no more for now. */
  private read(): Buffer | 'next file' | 'end' {
    if (this.fd === undefined) {
      const first = this.log.files()[0];
      if (first !== undefined) this.open(first, 0);
      if (this.fd === undefined) return 'end';
    }
    const bytes = this.readBlock(this.fd);
    if (bytes !== undefined) return bytes;
    const successor = this.successor(this.fd);
    if (successor === undefined) return 'end';
    // What was appended between the last look and the rotation.
    const late = this.readBlock(this.fd);
    if (late !== undefined) return late;
    this.open(successor, 0);
    return 'next file';
  }

  private readBlock(fd: number): Buffer | undefined {
    const block = Buffer.allocUnsafe(blockSize);
    const size = fs.readSync(fd, block, 0, blockSize, this.offset);
    this.offset += size;
    return size === 0 ? undefined : block.subarray(0, size);
  }

  /** The file after the one that is open; undefined while that is the last. */
  private successor(fd: number): string | undefined {
    if (!this.log.stamped) return undefined;
    // A file that is being renamed may be missed in a listing, so it is looked for again.
    for (let tries = 0; tries < 100; tries++) {
      const files = this.log.files();
      const at = files.findIndex((file) => inodeOf(file) === this.inode);
      if (at >= 0) return files[at + 1];
      // Deleted to keep the log small: it was the oldest.
      if (fs.fstatSync(fd).nlink === 0) return files[0];
    }
    return undefined;
  }
}

function joined(parts: readonly Buffer[], last: Buffer): Buffer {
  return parts.length === 0 ? last : Buffer.concat([...parts, last]);
}

function inodeOf(file: string): bigint | undefined {
  return fs.statSync(file, { bigint: true, throwIfNoEntry: false })?.ino;
}

function inodeOfOpen(fd: number): bigint {
  return fs.fstatSync(fd, { bigint: true }).ino;
}

/** Whether a rotated file, which is named after its end, ended before that. */
function isBefore(file: string, stamp: Stamp): boolean {
  const name = path.basename(file);
  return name.startsWith('@') && name.slice(1, 25) < stamp;
}

/** Takes stamp and end mark off a line; undefined for one that was only an end mark. */
function parseLine(line: Buffer, stamped: boolean): LogLine | undefined {
  if (!stamped) return { stamp: '', text: line };
  // The rest of a line whose logger was killed while it wrote.
  if (line.length < stampLength) return undefined;
  const stamp = line.toString('latin1', 1, 25);
  const text = line.subarray(stampLength);
  const body = text.at(-1) === newline ? text.subarray(0, -1) : text;
  if (body.length < end.length || !body.subarray(-end.length).equals(end)) return { stamp, text };
  return body.length === end.length ? undefined : { stamp, text: body.subarray(0, -end.length) };
}

/** Finds the beginnings of lines from the end of a stream's log backwards. Lines that are only end marks do not count. */
export class BackwardReader {
  private readonly files: string[];
  private fd: number | undefined;
  private inode = 0n;
  /** Of the open file in `files`. */
  private index: number;
  /** The byte behind the line that is looked for next. */
  private lineEnd = 0;
  /** Bytes from `blockStart` on, of the open file. */
  private block: Buffer = Buffer.alloc(0);
  private blockStart = 0;
  private next: (Position & { stamp: Stamp }) | undefined;
  private previous: Position | undefined;
  private readonly end: Position | undefined;

  constructor(private readonly log: StreamLog) {
    this.files = log.files();
    this.index = this.files.length;
    const last = this.files.at(-1);
    const stat = last && fs.statSync(last, { bigint: true, throwIfNoEntry: false });
    this.end = stat ? { inode: stat.ino, offset: Number(stat.size) } : undefined;
  }

  /** Stamp of the line before the last taken one; undefined when there is none. */
  peek(): Stamp | undefined {
    while (this.next === undefined) {
      const found = this.lineBefore();
      if (found === undefined) return undefined;
      if (!found.isEmptyEnd) this.next = found;
    }
    return this.next.stamp;
  }

  take(): void {
    this.previous = this.next;
    this.next = undefined;
  }

  /** Where the line that was taken last begins; the end of the log when none was; undefined when there is no log. */
  position(): Position | undefined {
    return this.previous ?? this.end;
  }

  close(): void {
    if (this.fd !== undefined) fs.closeSync(this.fd);
    this.fd = undefined;
  }

  private lineBefore(): (Position & { stamp: Stamp; isEmptyEnd: boolean }) | undefined {
    while (this.fd === undefined || this.lineEnd === 0) {
      this.close();
      this.index -= 1;
      const file = this.files[this.index];
      if (file === undefined) return undefined;
      this.openAtEnd(file);
    }
    // The newline at the very end belongs to the line.
    const offset = this.newlineBefore(this.lineEnd - 1) + 1;
    const length = this.lineEnd - offset;
    this.lineEnd = offset;
    if (!this.log.stamped) return { inode: this.inode, offset, stamp: '', isEmptyEnd: false };
    const head = Buffer.alloc(Math.min(length, emptyEndLength));
    fs.readSync(this.fd, head, 0, head.length, offset);
    const isEmptyEnd = length === emptyEndLength && head.subarray(stampLength, -1).equals(end);
    return { inode: this.inode, offset, stamp: head.toString('latin1', 1, 25), isEmptyEnd };
  }

  private openAtEnd(file: string): void {
    try {
      this.fd = fs.openSync(file, 'r');
    } catch {
      // The oldest was deleted meanwhile.
      return;
    }
    this.inode = inodeOfOpen(this.fd);
    this.lineEnd = fs.fstatSync(this.fd).size;
    this.block = Buffer.alloc(0);
    this.blockStart = this.lineEnd;
  }

  /** Offset of the last newline before `offset`; -1 when there is none. */
  private newlineBefore(offset: number): number {
    let before = offset;
    for (;;) {
      if (before > this.blockStart) {
        const found = this.block.lastIndexOf(newline, before - this.blockStart - 1);
        if (found >= 0) return this.blockStart + found;
      }
      if (this.blockStart === 0) return -1;
      before = Math.min(before, this.blockStart);
      const start = Math.max(0, this.blockStart - blockSize);
      const block = Buffer.alloc(this.blockStart - start);
      fs.readSync(this.fd as number, block, 0, block.length, start);
      this.block = block;
      this.blockStart = start;
    }
  }
}
