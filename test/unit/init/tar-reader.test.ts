import { afterEach, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type Entry, TarReader } from '../../../src/init/tar-reader.ts';
import { padded, paxRecords, type RawEntry, tar } from '../../support/tar-writer.ts';

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-tar-'));
afterEach(() => {
  for (const name of fs.readdirSync(directory)) fs.rmSync(path.join(directory, name));
});

/** The entries of an archive, and whether it had its end mark. */
function read(archive: Buffer | RawEntry[]): { entries: Entry[]; ended: boolean } {
  const file = path.join(directory, 'archive');
  fs.writeFileSync(file, Array.isArray(archive) ? tar(archive) : archive);
  const fd = fs.openSync(file, 'r');
  try {
    const reader = new TarReader(fd);
    const entries: Entry[] = [];
    for (let entry = reader.next(); entry !== undefined; entry = reader.next()) entries.push(entry);
    return { entries, ended: reader.ended };
  } finally {
    fs.closeSync(fd);
  }
}

const one = (entry: RawEntry): Entry => read([entry]).entries[0] as Entry;

/** Makes a header one of GNU tar. */
const gnu = (more: (header: Buffer) => void) => (header: Buffer) => {
  header.write('ustar  \0', 257, 'latin1');
  more(header);
};

describe('the header', () => {
  test('has its fields', () => {
    const entry = { path: 'a/b', mode: 0o104755, uid: 7, gid: 8, mtime: 9, content: 'xyz' };
    const common = { linkpath: '', seconds: 9, nanoseconds: 0, major: 0, minor: 0, xattrs: undefined };
    expect(one(entry)).toEqual({ type: 'file', path: 'a/b', mode: 0o4755, uid: 7, gid: 8, size: 3, ...common });
  });

  test('has a type, and only files have data', () => {
    const types = {
      '0': 'file',
      '\0': 'file',
      '7': 'file',
      '1': 'link',
      '2': 'symlink',
      '3': 'character',
      '4': 'block',
    };
    for (const [type, name] of Object.entries({ ...types, '5': 'directory', '6': 'fifo', D: 'directory' }))
      expect(one({ path: 'a', type }).type as string).toBe(name);
    // Some writers give the size of what is linked, without its data.
    for (const type of ['1', '2', '5', '6'])
      expect(read([{ path: 'a', type, size: 1000 }, { path: 'b' }]).entries.map(({ path: name }) => name)).toEqual([
        'a',
        'b',
      ]);
    expect(read([{ path: 'a', type: 'D', content: 'Yfile\0' }, { path: 'b' }]).entries).toHaveLength(2);
  });

  test('a slash at the end made a directory before POSIX did', () => {
    expect(one({ path: 'a/', type: '\0' }).type).toBe('directory');
    expect(one({ path: 'x', pax: [['path', 'a/']] }).type).toBe('directory');
  });

  test('the name of two fields, in POSIX and star', () => {
    const prefix = (header: Buffer) => void header.write('prefix/dir', 345);
    expect(one({ path: 'name', patch: prefix }).path).toBe('prefix/dir/name');
    const star = (header: Buffer) => {
      header.write('p'.repeat(131), 345);
      header.write('00000000000 00000000000 ', 476);
      header.write('tar\0', 508);
    };
    expect(one({ path: 'name', patch: star }).path).toBe(`${'p'.repeat(131)}/name`);
    expect(one({ path: 'n'.repeat(100) }).path).toBe('n'.repeat(100));
  });

  test('no prefix in the GNU format, where times are, but that of an old Go', () => {
    const times = gnu((header) => void header.write('00000000001\x0000000000002\0', 345, 'latin1'));
    expect(one({ path: 'name', patch: times }).path).toBe('name');
    const prefix = gnu((header) => void header.write('usr/share', 345));
    expect(one({ path: 'name', patch: prefix }).path).toBe('usr/share/name');
  });

  test('device numbers of both formats', () => {
    const device = { path: 'a', type: '4', major: 259, minor: 70_000 };
    for (const patch of [undefined, gnu(() => {})])
      expect(one({ ...device, patch })).toMatchObject({ major: 259, minor: 70_000 });
  });

  test('binary numbers, below zero too', () => {
    const binary = (at: number, length: number, value: bigint) => (header: Buffer) => {
      for (let index = 0; index < length; index++)
        header[at + length - 1 - index] = Number((value >> BigInt(8 * index)) & 0xffn);
      header[at] = (header[at] as number) | 0x80;
    };
    expect(one({ path: 'a', patch: binary(108, 8, 0x7fff_ffffn) }).uid).toBe(0x7fff_ffff);
    for (const time of [-1n, -86_400n, 2n ** 40n, -(2n ** 40n)])
      expect(one({ path: 'a', patch: binary(136, 12, time) }).seconds).toBe(Number(time));
    expect(() => one({ path: 'a', patch: binary(136, 12, 2n ** 60n) })).toThrow('time of an entry is no number');
  });

  test('a checksum of signed characters will do', () => {
    const archive = tar([{ path: Buffer.from([0xff, 0xfe]) }]);
    // Two bytes of 255 and 254 count as -1 and -2.
    const sum = Number.parseInt(archive.toString('latin1', 148, 154), 8) - 512;
    archive.write(sum.toString(8).padStart(6, '0'), 148);
    expect(read(archive).entries[0]?.path).toBe('\xff\xfe');
  });
});

describe('extensions', () => {
  test('long names of GNU tar', () => {
    const long = 'long/'.repeat(50);
    const { entries } = read([
      { path: '././@LongLink', type: 'K', content: `${long}target\0` },
      { path: '././@LongLink', type: 'L', content: `${long}name\0` },
      { path: 'short', type: '2', linkpath: 'short' },
      { path: 'next' },
    ]);
    expect(entries.map(({ path: name, linkpath }) => [name, linkpath])).toEqual([
      [`${long}name`, `${long}target`],
      ['next', ''],
    ]);
  });

  test('PAX records go before the header, bytes as they are', () => {
    const name = Buffer.from('a\xff=\nb', 'latin1');
    const entry = one({
      path: 'x',
      type: '2',
      pax: [
        ['path', name],
        ['linkpath', 'target'],
        ['uid', '2000000000'],
        ['gid', '5'],
        ['mtime', '1.5'],
        ['SCHILY.xattr.user.a%3Db%25', Buffer.from([0, 10, 255, 61])],
        ['LIBARCHIVE.xattr.user.c%20d', Buffer.from([1, 2, 3]).toString('base64').replace(/=+$/, '')],
        ['comment', 'anything'],
      ],
    });
    expect(entry).toMatchObject({ path: name.toString('latin1'), linkpath: 'target', uid: 2_000_000_000, gid: 5 });
    expect(entry).toMatchObject({ seconds: 1, nanoseconds: 500_000_000 });
    expect([...(entry.xattrs ?? [])]).toEqual([
      ['user.a=b%', Buffer.from([0, 10, 255, 61])],
      ['user.c d', Buffer.from([1, 2, 3])],
    ]);
  });

  test('times to the nanosecond, also before 1970', () => {
    const time = (mtime: string) => {
      const { seconds, nanoseconds } = one({ path: 'a', pax: [['mtime', mtime]] });
      return [seconds, nanoseconds];
    };
    expect(time('1234567890.123456789')).toEqual([1_234_567_890, 123_456_789]);
    expect(time('5.0000000019')).toEqual([5, 1]);
    expect(time('5.')).toEqual([5, 0]);
    expect(time('-1.25')).toEqual([-2, 750_000_000]);
    expect(time('-7')).toEqual([-7, 0]);
    expect(time('0.5')).toEqual([0, 500_000_000]);
  });

  test('global records hold until an own one, and an empty one takes them back', () => {
    const { entries } = read([
      {
        path: 'pax',
        type: 'g',
        content: paxRecords([
          ['uid', '33'],
          ['mtime', '1234567890'],
        ]),
      },
      { path: 'a', uid: 1 },
      { path: 'b', uid: 1, pax: [['uid', '44']] },
      { path: 'c', uid: 1, pax: [['uid', '']] },
      { path: 'd', uid: 1 },
    ]);
    expect(entries.map(({ uid }) => uid)).toEqual([33, 44, 1, 33]);
    expect(entries[0]?.seconds).toBe(1_234_567_890);
  });

  test('names of volumes are about no file', () => {
    const { entries } = read([
      { path: 'label', type: 'V' },
      { path: 'a' },
      { path: 'acl', type: 'A', content: 'x' },
      { path: 'b' },
    ]);
    expect(entries.map(({ path: name }) => name)).toEqual(['a', 'b']);
  });
});

describe('files with holes', () => {
  const records = (...pairs: [string, string][]): [string, string][] =>
    pairs.map(([key, value]) => [`GNU.sparse.${key}`, value]);

  test('in three versions of PAX', () => {
    const wanted = { path: 'real', size: 5000, sparse: [1000, 3, 4000, 2] };
    const zero = records(
      ['size', '5000'],
      ['numblocks', '2'],
      ['offset', '1000'],
      ['numbytes', '3'],
      ['offset', '4000'],
      ['numbytes', '2'],
    );
    expect(one({ path: 'real', content: 'abcde', pax: zero })).toMatchObject(wanted);
    const first = records(['size', '5000'], ['name', 'real'], ['map', '1000,3,4000,2']);
    expect(one({ path: 'x', content: 'abcde', pax: first })).toMatchObject(wanted);
    const second = records(['major', '1'], ['minor', '0'], ['name', 'real'], ['realsize', '5000']);
    const content = Buffer.concat([padded('2\n1000\n3\n4000\n2\n'), Buffer.from('abcde')]);
    expect(one({ path: 'x', content, pax: second })).toMatchObject(wanted);
  });

  test('in the old GNU format, with a block of more parts', () => {
    const parts = Array.from({ length: 10 }, (_, index) => [index * 100, 1] as const);
    const field = (value: number) => `${value.toString(8).padStart(11, '0')}\0`;
    const map = (list: typeof parts) => list.map(([offset, length]) => field(offset) + field(length)).join('');
    const patch = gnu((header) => {
      header.fill(0, 345);
      header.write(map(parts.slice(0, 4)), 386, 'latin1');
      header[482] = 1;
      header.write(field(1000), 483, 'latin1');
    });
    const archive = tar([{ path: 'a', type: 'S', size: 10, patch }], { end: false });
    const more = padded(map(parts.slice(4)));
    const rest = tar([{ path: 'b' }]);
    const { entries } = read(Buffer.concat([archive, more, padded('0123456789'), rest]));
    expect(entries[0]).toMatchObject({ type: 'file', size: 1000, sparse: parts.flat() });
    expect(entries[1]?.path).toBe('b');
  });
});

describe('the end', () => {
  test('is two blocks of zeros, whatever follows', () => {
    expect(read(Buffer.alloc(1024))).toEqual({ entries: [], ended: true });
    expect(read(Buffer.concat([tar([{ path: 'a' }]), Buffer.from('anything')])).ended).toBe(true);
    expect(read(tar([{ path: 'a' }], { end: false })).ended).toBe(false);
    expect(read(Buffer.alloc(0)).ended).toBe(false);
  });

  test('one block will do at the very end only', () => {
    const entry = tar([{ path: 'a' }], { end: false });
    expect(read(Buffer.concat([entry, Buffer.alloc(512)])).ended).toBe(true);
    expect(() => read(Buffer.concat([entry, Buffer.alloc(512), entry]))).toThrow('entries follow a block of zeros');
  });

  test('cut off is an error', () => {
    const archive = tar([{ path: 'a', content: 'x'.repeat(1500), pax: [['comment', 'x']] }]);
    for (const length of [100, 511, 512, 1000, 1024, 1535, 1536, 2000, 3000])
      expect(() => read(archive.subarray(0, length))).toThrow(/cut off/);
  });

  test('large data and odd pieces do not confuse it', () => {
    const sizes = [0, 1, 511, 512, 513, (1 << 20) - 1, 1 << 20, (1 << 20) + 700, 3_000_001];
    const { entries } = read(sizes.map((size, index) => ({ path: `f${index}`, content: Buffer.alloc(size, 'x') })));
    expect(entries.map(({ size }) => size)).toEqual(sizes);
  });
});
