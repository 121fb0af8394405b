import fs from 'node:fs';

/** What of a program or library says which other files it needs: elf(5). Only 64-bit, little-endian. */
export interface Elf {
  /** e_machine: 62 for x86-64, 183 for aarch64. */
  machine: number;
  /** The program that loads it and its libraries (PT_INTERP); absent in a library and in a static program. */
  interpreter?: string;
  /** Names of libraries (DT_NEEDED), or paths. */
  needed: string[];
  /** Where to look for them first (DT_RUNPATH, or DT_RPATH); may begin with $ORIGIN. */
  runPath: string[];
}

const largestTable = 1 << 20;
const segment = { load: 1, dynamic: 2, interpreter: 3 };
const tag = { end: 0, needed: 1, strings: 5, rpath: 15, runpath: 29 };

interface Segment {
  type: number;
  offset: number;
  address: number;
  size: number;
}

/** Reads the header of a file. @returns undefined when it is no such file, or a damaged one */
export function readElf(file: string): Elf | undefined {
  const fd = fs.openSync(file, 'r');
  try {
    const header = read(fd, 0, 64);
    const is64Bit = header?.[4] === 2;
    const isLittleEndian = header?.[5] === 1;
    if (header?.toString('latin1', 0, 4) !== '\x7fELF' || !is64Bit || !isLittleEndian) return undefined;
    const segments = readSegments(fd, header);
    if (segments === undefined) return undefined;
    const at = segments.find(({ type }) => type === segment.interpreter);
    const interpreter = at && text(read(fd, at.offset, at.size), 0);
    const names = readDynamic(fd, segments);
    if (names === undefined || (at !== undefined && interpreter === undefined)) return undefined;
    return { machine: header.readUInt16LE(18), ...(interpreter === undefined ? {} : { interpreter }), ...names };
  } finally {
    fs.closeSync(fd);
  }
}

/** Whether a file is a program that needs no interpreter, which is what loads libraries. */
export function isStatic(file: string): boolean {
  const elf = readElf(file);
  return elf !== undefined && elf.interpreter === undefined;
}

function readSegments(fd: number, header: Buffer): Segment[] | undefined {
  const entrySize = header.readUInt16LE(54);
  const count = header.readUInt16LE(56);
  const table = read(fd, Number(header.readBigUInt64LE(32)), count * entrySize);
  if (table === undefined || (count > 0 && entrySize < 56)) return undefined;
  return Array.from({ length: count }, (_, index) => {
    const start = index * entrySize;
    return {
      type: table.readUInt32LE(start),
      offset: Number(table.readBigUInt64LE(start + 8)),
      address: Number(table.readBigUInt64LE(start + 16)),
      size: Number(table.readBigUInt64LE(start + 32)),
    };
  });
}

/** The names in the dynamic section, of which a static program has none. */
function readDynamic(fd: number, segments: readonly Segment[]): Pick<Elf, 'needed' | 'runPath'> | undefined {
  const at = segments.find(({ type }) => type === segment.dynamic);
  if (at === undefined) return { needed: [], runPath: [] };
  const table = read(fd, at.offset, at.size);
  if (table === undefined) return undefined;
  const values = new Map<number, number[]>();
  for (let start = 0; start + 16 <= table.length; start += 16) {
    const key = Number(table.readBigInt64LE(start));
    if (key === tag.end) break;
    values.set(key, [...(values.get(key) ?? []), Number(table.readBigUInt64LE(start + 8))]);
  }
  const [address] = values.get(tag.strings) ?? [];
  const home = segments.find(
    (each) => each.type === segment.load && address !== undefined && inside(each, address) !== undefined,
  );
  if (address === undefined || home === undefined)
    return values.has(tag.needed) ? undefined : { needed: [], runPath: [] };
  const place = home.offset + (address - home.address);
  const strings = readUpTo(fd, place, Math.min(home.offset + home.size - place, largestTable));
  const all = (key: number) => (values.get(key) ?? []).map((offset) => text(strings, offset));
  const needed = all(tag.needed);
  // DT_RPATH counts only without DT_RUNPATH: ld.so(8).
  const runPath = all(values.has(tag.runpath) ? tag.runpath : tag.rpath);
  if ([...needed, ...runPath].includes(undefined)) return undefined;
  return {
    needed: needed as string[],
    runPath: (runPath as string[]).flatMap((list) => list.split(':')).filter(Boolean),
  };
}

function inside({ address, size }: Segment, place: number): number | undefined {
  return place >= address && place < address + size ? place - address : undefined;
}

/** The string that ends with a zero byte. */
function text(buffer: Buffer | undefined, start: number): string | undefined {
  const end = buffer?.indexOf(0, start) ?? -1;
  return end < 0 || start >= (buffer?.length ?? 0) ? undefined : buffer?.toString('utf8', start, end);
}

/** So many bytes, or undefined when the file does not have them. */
function read(fd: number, position: number, length: number): Buffer | undefined {
  if (length > largestTable) return undefined;
  const buffer = readUpTo(fd, position, length);
  return buffer.length < length ? undefined : buffer;
}

function readUpTo(fd: number, position: number, length: number): Buffer {
  if (!Number.isSafeInteger(position) || position < 0 || length < 0) return Buffer.alloc(0);
  const buffer = Buffer.alloc(length);
  return buffer.subarray(0, fs.readSync(fd, buffer, 0, length, position));
}
