/**
 * Writes tar archives byte for byte as told. Real tar programs, and node-tar, refuse to write most of what an attacker
 * would.
 */

/** Text stands for its UTF-8 bytes. */
type Bytes = string | Buffer;

export interface RawEntry {
  path: Bytes;
  /** The type flag; `0`, a regular file, unless said. */
  type?: string;
  content?: Bytes;
  linkpath?: Bytes;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  major?: number;
  minor?: number;
  /** What the header says; the length of the content unless said. */
  size?: number | string;
  /** PAX records that go before it. */
  pax?: [key: string, value: Bytes][];
  /** Changes the header before its checksum is computed. */
  patch?: (header: Buffer) => void;
}

/** An archive of entries, with its end mark. */
export function tar(entries: readonly RawEntry[], { end = true } = {}): Buffer {
  return Buffer.concat([...entries.flatMap(blocksOf), end ? Buffer.alloc(1024) : Buffer.alloc(0)]);
}

/** PAX records as text: `LENGTH KEY=VALUE\n`. */
export function paxRecords(records: readonly [key: string, value: Bytes][]): Buffer {
  return Buffer.concat(
    records.map(([key, value]) => {
      const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value as Buffer), Buffer.from('\n')]);
      let length = rest.length;
      while (length !== rest.length + String(length).length) length = rest.length + String(length).length;
      return Buffer.concat([Buffer.from(String(length)), rest]);
    }),
  );
}

/** Content in whole blocks. */
export function padded(content: Bytes): Buffer {
  const bytes = Buffer.from(content as Buffer);
  return Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}

function blocksOf(entry: RawEntry): Buffer[] {
  const content = Buffer.from((entry.content ?? '') as Buffer);
  const before = entry.pax === undefined ? [] : blocksOf({ path: 'pax', type: 'x', content: paxRecords(entry.pax) });
  return [...before, headerOf(entry, content.length), padded(content)];
}

function headerOf(entry: RawEntry, length: number): Buffer {
  const header = Buffer.alloc(512);
  const put = (at: number, value: Bytes, room: number) => Buffer.from(value as Buffer).copy(header, at, 0, room);
  const octal = (at: number, value: number, digits: number) => put(at, value.toString(8).padStart(digits, '0'), digits);
  put(0, entry.path, 100);
  octal(100, entry.mode ?? 0o644, 7);
  octal(108, entry.uid ?? 0, 7);
  octal(116, entry.gid ?? 0, 7);
  if (typeof entry.size === 'string') put(124, entry.size, 12);
  else octal(124, entry.size ?? length, 11);
  octal(136, entry.mtime ?? 0, 11);
  put(156, entry.type ?? '0', 1);
  put(157, entry.linkpath ?? '', 100);
  put(257, 'ustar\x0000', 8);
  octal(329, entry.major ?? 0, 7);
  octal(337, entry.minor ?? 0, 7);
  entry.patch?.(header);
  put(148, '        ', 8);
  octal(
    148,
    header.reduce((sum, byte) => sum + byte, 0),
    6,
  );
  header[154] = 0;
  return header;
}
