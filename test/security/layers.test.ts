import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { padded, paxRecords, type RawEntry, tar } from '../support/tar-writer.ts';
import { createWorld, type World } from '../support/world.ts';

// Layers byte for byte as an attacker would write them. Each is refused with one line, or what it makes stays inside of
// the layer's directory. After each one everything else in the file system of the test is as it was.

const clean = { mode: 0o755, mtime: 1 };
const reason = missingWorld() ?? missingTool('getfattr');

describe.skipIf(skipOrFail(reason))('hostile layers', () => {
  let world: World;
  /** A directory of the host that nothing may change. */
  let canary: string;

  beforeAll(async () => {
    world = await createWorld();
    canary = path.join(world.directory, 'canary');
    fs.mkdirSync(path.join(canary, 'directory'), { recursive: true });
    for (const name of ['file', 'directory/file']) fs.writeFileSync(path.join(canary, name), 'secret');
    fs.symlinkSync('file', path.join(canary, 'link'));
    // The first import makes what every later one finds.
    expect((await world.run(['import', '-', 'first'], { input: tar([]) })).code).toBe(0);
  });
  afterAll(() => world.destroy());

  const images = () => path.join(world.root, 'images');

  /** What is beside the layers: all names around them, and what stat tells of the canary. */
  function surroundings(): unknown[] {
    const around = ['/', '/etc', world.directory, world.root, images()].flatMap((directory) =>
      fs.readdirSync(directory).filter((name) => name !== 'state.lock'),
    );
    const inCanary = ['.', 'link', 'file', 'directory', 'directory/file'].map((name) => {
      const file = path.join(canary, name);
      const { mode, uid, gid, nlink, size, mtimeMs, ctimeMs } = fs.lstatSync(file);
      return { name, mode, uid, gid, nlink, size, mtimeMs, ctimeMs };
    });
    return [...around, ...inCanary, ...fs.readdirSync(canary), ...fs.readdirSync(path.join(canary, 'directory'))];
  }

  interface Imported {
    /** Its directory, when it was taken. */
    layer: string;
    /** What minirun said, when it was refused. */
    error: string;
  }

  async function importLayer(archive: Buffer | RawEntry[], config = ''): Promise<Imported> {
    const before = surroundings();
    const input = Array.isArray(archive) ? tar(archive) : archive;
    const file = path.join(world.directory, 'config.yaml');
    if (config !== '') fs.writeFileSync(file, config);
    const env = config === '' ? {} : { MINIRUN_CONFIG: file };
    const result = await world.run(['import', '-'], { input, env, timeout: 60_000 });
    fs.rmSync(file, { force: true });
    expect(surroundings()).toEqual(before);
    expect(fs.readdirSync(images()).filter((name) => name.startsWith('.'))).toEqual([]);
    if (result.code !== 0) {
      expect([result.code, result.stdout]).toEqual([1, '']);
      expect(result.stderr).toMatch(/^minirun: [^\n]*\n$/);
      expect(result.stderr.length).toBeLessThan(600);
      expect(result.stderr).not.toMatch(/internal error|undefined|NaN/);
      return { layer: '', error: result.stderr };
    }
    const config2 = JSON.parse(
      fs.readFileSync(path.join(images(), 'configs', `${result.stdout.trim().replace('sha256:', '')}.json`), 'utf8'),
    ) as { rootfs: { diff_ids: string[] } };
    return {
      layer: path.join(images(), 'layers', String(config2.rootfs.diff_ids[0]).replace('sha256:', '')),
      error: '',
    };
  }

  async function refused(archive: Buffer | RawEntry[], message: string | RegExp, config?: string): Promise<void> {
    const { error } = await importLayer(archive, config);
    if (typeof message === 'string') expect(error).toContain(message);
    else expect(error).toMatch(message);
  }

  async function taken(archive: Buffer | RawEntry[]): Promise<string> {
    const { layer, error } = await importLayer(archive);
    expect(error).toBe('');
    return layer;
  }

  const xattr = async (file: string, name: string): Promise<string> =>
    (await world.host.run(['getfattr', '-h', '-n', name, '--only-values', file])).stdout;
  const xattrNames = async (file: string): Promise<string[]> =>
    [...(await world.sh(`getfattr -h -d -m - --absolute-names "${file}"`)).matchAll(/^([a-z]+\.[^=\n]+)=/gm)].map(
      (match) => String(match[1]),
    );
  const isWhiteout = (file: string) => {
    const stat = fs.lstatSync(file);
    return stat.isCharacterDevice() && stat.rdev === 0;
  };

  describe('ways out', () => {
    test('an entry below a symbolic link', async () => {
      for (const target of [canary, `../../../../../../../..${canary}`]) {
        await refused(
          [{ path: 'link', type: '2', linkpath: target }, { path: 'link/new' }],
          'cannot unpack "link/new"',
        );
      }
    });

    test('a chain of symbolic links', async () => {
      const up = '../'.repeat(20);
      const layer = await taken([
        { path: 'a', type: '2', linkpath: '.' },
        { path: 'a/b', type: '2', linkpath: `a/${up}` },
        { path: 'a/b/c', type: '2', linkpath: `/a/b/${up}` },
        { path: 'c/top', content: 'x' },
      ]);
      expect(fs.readFileSync(path.join(layer, 'top'), 'utf8')).toBe('x');
    });

    test('a hard link to a file of the host, straight and through a link', async () => {
      await refused([{ path: 'hard', type: '1', linkpath: `${canary}/file` }], 'hard link to');
      await refused(
        [
          { path: 'link', type: '2', linkpath: canary },
          { path: 'hard', type: '1', linkpath: 'link/file' },
        ],
        'no such file',
      );
    });

    test('a hard link to a symbolic link is that link, and a file in its place is a file', async () => {
      const layer = await taken([
        { path: 'link', type: '2', linkpath: `${canary}/file` },
        { path: 'hard', type: '1', linkpath: 'link' },
        { path: 'link', content: 'changed' },
      ]);
      expect(fs.readlinkSync(path.join(layer, 'hard'))).toBe(`${canary}/file`);
      expect(fs.readFileSync(path.join(layer, 'link'), 'utf8')).toBe('changed');
    });

    test('absolute names, and those with ..', async () => {
      const layer = await taken([{ path: `/${canary}/file`, content: 'changed' }]);
      expect(fs.readFileSync(path.join(layer, canary, 'file'), 'utf8')).toBe('changed');
      for (const name of ['..', '../new', 'a/../../new', './../new', '../', 'a/b/../../..'])
        await refused([{ path: name, content: 'x' }], 'leads out of the archive');
      await refused([{ path: 'hard', type: '1', linkpath: `../../canary/file` }], 'leads out of the archive');
      await refused([{ path: 'x', pax: [['path', '../../new']] }], 'leads out of the archive');
    });

    test('the root as anything but a directory', async () => {
      for (const name of ['.', './', '/', '/.', 'a/..', './.']) {
        for (const type of ['2', '1', '6', '3']) {
          await refused([{ path: name, type, linkpath: canary }, { path: 'new' }], 'the root can only be a directory');
        }
      }
      await refused([{ path: '.', content: 'x' }], 'the root can only be a directory');
    });

    test('a whiteout of .., or of nothing', async () => {
      for (const name of ['.wh...', '.wh..', '.wh.', 'a/.wh...'])
        await refused([{ path: 'a/b', content: 'x' }, { path: name }], 'hides no file');
      await refused([{ path: '../.wh.file' }], 'leads out of the archive');
      await refused([{ path: 'link', type: '2', linkpath: canary }, { path: 'link/.wh.file' }], 'no such file');
      await refused([{ path: 'link', type: '2', linkpath: canary }, { path: 'link/.wh..wh..opq' }], 'no such file');
    });

    test('something below what is no directory', async () => {
      for (const entry of [{ type: '0' }, { type: '6' }, { type: '3', major: 1, minor: 5 }]) {
        await refused(
          [
            { path: 'a', ...entry },
            { path: 'a/b', content: 'x' },
          ],
          /"a\/b": not a directory/,
        );
      }
    });

    test('a layer that tells overlayfs where to look', async () => {
      const layer = await taken([
        {
          path: 'directory/',
          type: '5',
          mode: 0o755,
          pax: [
            ['SCHILY.xattr.trusted.overlay.redirect', '/etc'],
            ['SCHILY.xattr.user.overlay.redirect', '/etc'],
            ['SCHILY.xattr.trusted.overlay.metacopy', ''],
            ['SCHILY.xattr.trusted.overlay.opaque', 'y'],
            ['SCHILY.xattr.security.selinux', 'system_u:object_r:shadow_t:s0'],
            ['SCHILY.xattr.user.mine', 'kept'],
          ],
        },
      ]);
      expect(await xattrNames(path.join(layer, 'directory'))).toEqual(['user.mine']);
    });
  });

  describe('devices and rights', () => {
    test('the disk of the host cannot be opened', async () => {
      const { rdev } = fs.statSync(fs.realpathSync('/dev/null'));
      const layer = await taken([
        { path: 'null', type: '3', major: rdev >> 8, minor: rdev & 0xff, mode: 0o666 },
        { path: 'disk', type: '4', major: 7, minor: 0, mode: 0o666 },
        { path: 'null', content: 'a file now' },
        { path: 'loop', type: '2', linkpath: 'disk' },
      ]);
      expect(fs.readFileSync(path.join(layer, 'null'), 'utf8')).toBe('a file now');
      expect(fs.lstatSync(path.join(layer, 'disk')).isBlockDevice()).toBe(true);
      // No host user gets near it, and no container may open it.
      expect(fs.statSync(world.root).mode & 0o777).toBe(0o700);
    });

    test('a device number that no kernel has', async () => {
      await refused([{ path: 'a', type: '3', major: 0o777777, minor: 1 }], 'invalid argument');
    });

    test('ids that are none', async () => {
      const binary = (at: number, value: number) => (header: Buffer) => {
        header.fill(0, at, at + 8);
        header[at] = 0x80;
        header.writeUIntBE(value, at + 2, 6);
      };
      for (const id of [2 ** 32 - 1, 2 ** 32, 2 ** 40]) {
        await refused([{ path: 'a', patch: binary(108, id) }], `owner ${id} is no user id`);
        await refused([{ path: 'a', patch: binary(116, id) }], `group ${id} is no group id`);
        await refused([{ path: 'a', pax: [['uid', String(id)]] }], 'no user id');
      }
      await refused([{ path: 'a', pax: [['gid', '-1']] }], 'no group id');
      const layer = await taken([{ path: 'a', patch: binary(108, 2 ** 32 - 2) }]);
      expect(fs.statSync(path.join(layer, 'a')).uid).toBe(2 ** 32 - 2);
    });

    test('setuid and file capabilities are kept', async () => {
      // VFS_CAP_REVISION_2, effective, CAP_NET_RAW: linux/capability.h
      const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
      const layer = await taken([
        { path: 'su', mode: 0o6755, uid: 5, gid: 6, content: 'x' },
        { path: 'ping', mode: 0o755, uid: 5, content: 'x', pax: [['SCHILY.xattr.security.capability', capability]] },
        { path: 'sticky/', type: '5', mode: 0o3777, gid: 7 },
        { path: 'sticky/in', mode: 0o644 },
        { path: 'sticky/below/', type: '5', mode: 0o755 },
      ]);
      const { mode, uid, gid } = fs.statSync(path.join(layer, 'su'));
      expect([mode & 0o7777, uid, gid]).toEqual([0o6755, 5, 6]);
      expect(await world.sh(`getfattr -n security.capability -e hex --absolute-names "${layer}/ping"`)).toContain(
        `0x${capability.toString('hex')}`,
      );
      // What is made in a directory with setgid would get its group.
      expect(fs.statSync(path.join(layer, 'sticky')).mode & 0o7777).toBe(0o3777);
      for (const name of ['in', 'below']) expect(fs.statSync(path.join(layer, 'sticky', name)).gid).toBe(0);
      expect(fs.statSync(path.join(layer, 'sticky/below')).mode & 0o7777).toBe(0o755);
    });
  });

  describe('bombs', () => {
    const limits = (text: string) => `limits:\n  ${text}\n`;

    test('1 GB in 1 MB, with a limit', async () => {
      const size = 1 << 30;
      const header = tar([{ path: 'big', size }], { end: false });
      const chunk = gzipSync(Buffer.alloc(1 << 24));
      // Members of gzip follow each other: the megabyte is the same 64 times over.
      const bomb = Buffer.concat([
        gzipSync(header),
        ...Array.from({ length: 64 }, () => chunk),
        gzipSync(Buffer.alloc(1024)),
      ]);
      expect(bomb.length).toBeLessThan(1.2 * 2 ** 20);
      await refused(bomb, /more than 104857600 bytes.*limits\.layer-size/, limits('layer-size: 100m'));
      await refused(
        [
          { path: 'a', content: 'x'.repeat(2000) },
          { path: 'b', content: 'x' },
        ],
        'limit',
        limits('layer-size: 2000'),
      );
    });

    test('many entries, with a limit', async () => {
      const many = tar(Array.from({ length: 501 }, (_, index) => ({ path: `f${index}` })));
      await refused(gzipSync(many), /more than 500 entries.*limits\.layer-entries/, limits('layer-entries: 500'));
      const { error } = await importLayer(gzipSync(many), limits('layer-entries: 501'));
      expect(error).toBe('');
    });

    test('a sparse file of a petabyte', async () => {
      const petabyte = 2 ** 50;
      const sparse: RawEntry = {
        path: 'x',
        content: '',
        pax: [
          ['GNU.sparse.major', '1'],
          ['GNU.sparse.minor', '0'],
          ['GNU.sparse.name', 'huge'],
          ['GNU.sparse.realsize', String(petabyte)],
        ],
      };
      await refused(
        [{ ...sparse, content: padded('0\n') }],
        'more than 1099511627776 bytes',
        limits('layer-size: 1024g'),
      );
      const old = (header: Buffer) => {
        header.fill(0, 345);
        header.write('ustar  \0', 257, 'latin1');
        header[483] = 0x80;
        // 4 × 256⁶ is 2⁵⁰.
        header[488] = 4;
      };
      // Without a limit it takes no space, or the file system knows none so large.
      for (const archive of [[{ ...sparse, content: padded('0\n') }], [{ path: 'huge', type: 'S', patch: old }]]) {
        const { layer, error } = await importLayer(archive);
        if (error === '') expect(fs.statSync(path.join(layer, 'huge')).blocks).toBe(0);
        else expect(error).toContain('file too large');
      }
    });

    test('a list of extensions without end', async () => {
      const records = paxRecords([['comment', 'x'.repeat(2 << 20)]]);
      await refused([{ path: 'pax', type: 'x', content: records }, { path: 'a' }], 'more than 1 MiB');
      await refused([{ path: 'long', type: 'L', size: '77777777777' }], 'more than 1 MiB');
      await refused([{ path: 'pax', type: 'g', content: records }, { path: 'a' }], 'more than 1 MiB');
    });

    test('ten thousand levels', async () => {
      const deep = (levels: number, leaf: string) =>
        ({ path: 'x', pax: [['path', `${'d/'.repeat(levels)}${leaf}`]] }) as RawEntry;
      await refused([deep(10_000, 'leaf')], 'file name too long');
      const layer = await taken([deep(2000, 'leaf')]);
      expect(fs.existsSync(path.join(layer, 'd/'.repeat(100)))).toBe(true);
      // Through links one gets deeper than a name can say. It must be possible to remove that again, and in time.
      const half = 'd/'.repeat(1800);
      const deepest = await taken([
        deep(1800, 'e/f'),
        {
          path: 'x',
          type: '2',
          pax: [
            ['path', 'short'],
            ['linkpath', half],
          ],
        },
        { path: 'x', pax: [['path', `short/${half}g`]] },
        { path: 'd', content: 'instead' },
      ]);
      expect(fs.readFileSync(path.join(deepest, 'd'), 'utf8')).toBe('instead');
    });

    test('names that are too long', async () => {
      await refused([{ path: 'x', pax: [['path', 'n'.repeat(256)]] }], 'file name too long');
      await refused([{ path: 'x', pax: [['path', `${'n'.repeat(255)}/`.repeat(20)]] }], 'file name too long');
      await refused([{ path: 'l', type: '2', pax: [['linkpath', 'n'.repeat(5000)]] }], 'file name too long');
      const layer = await taken([{ path: 'x', pax: [['path', 'n'.repeat(255)]] }]);
      expect(fs.readdirSync(layer)).toEqual(['n'.repeat(255)]);
    });
  });

  describe('names', () => {
    test('bytes of any kind get through as they are', async () => {
      const names = ['new\nline', 'tab\t', 'quote"\'\\', ' ', 'ünï', '\x1b[31m'].map((name) => Buffer.from(name));
      names.push(Buffer.from('invalid\xff\xfeutf8', 'latin1'), Buffer.from('\x80', 'latin1'));
      const links = names.map((name) => Buffer.concat([Buffer.from('link'), name]));
      const layer = await taken([
        ...names.map((name) => ({ path: name, content: name })),
        ...links.map((link, index) => ({ path: link, type: '2', linkpath: names[index] as Buffer })),
        { path: 'pax', content: 'pax', pax: [['path', Buffer.from('pax\xff', 'latin1')]] },
      ]);
      const found = fs.readdirSync(layer, { encoding: 'buffer' }) as unknown as Buffer[];
      const wanted = [...names, ...links, Buffer.from('pax\xff', 'latin1')];
      const hex = (list: Buffer[]) => list.map((name) => name.toString('hex')).toSorted();
      expect(hex(found)).toEqual(hex(wanted));
      for (const [index, link] of links.entries()) {
        const place = Buffer.concat([Buffer.from(`${layer}/`), link]);
        expect(fs.readFileSync(place).equals(names[index] as Buffer)).toBe(true);
      }
    });

    test('an error shows them on one line', async () => {
      await refused([{ path: '../new\nline\x1b[31m' }], '\\nline\\u001b[31m');
    });

    test('a zero byte in a PAX name', async () => {
      await refused([{ path: 'x', pax: [['path', 'a\0b']] }], 'zero byte');
      await refused([{ path: 'x', type: '2', pax: [['linkpath', 'a\0b']] }], 'zero byte');
      await refused(
        [
          {
            path: 'x',
            content: padded('0\n'),
            pax: [
              ['GNU.sparse.major', '1'],
              ['GNU.sparse.name', 'a\0b'],
              ['GNU.sparse.realsize', '0'],
            ],
          },
        ],
        'zero byte',
      );
    });

    test('a link to itself, to a directory, to nothing', async () => {
      await refused([{ path: 'a', type: '1', linkpath: 'a' }], 'hard link to itself');
      await refused(
        [
          { path: 'a', content: 'x' },
          { path: 'a', type: '1', linkpath: './a' },
        ],
        'hard link to itself',
      );
      await refused(
        [
          { path: 'd/', type: '5', ...clean },
          { path: 'a', type: '1', linkpath: 'd' },
        ],
        'to the directory "d"',
      );
      await refused([{ path: 'a', type: '1', linkpath: 'nothing' }], 'hard link to "nothing"');
      await refused([{ path: 'a' }, { path: 'b', type: '1', linkpath: '' }], 'to the directory');
    });
  });

  describe('damage', () => {
    const whole = tar([{ path: 'a', content: 'x'.repeat(2000) }]);
    const patched = (at: number, text: string) =>
      tar([{ path: 'a', content: 'x'.repeat(600), patch: (header) => void header.write(text, at, 'latin1') }]);

    test('sizes and numbers that are none', async () => {
      const negative = (header: Buffer) => void header.fill(0xff, 124, 136);
      await refused([{ path: 'a', patch: negative }], /size of -1 bytes/);
      const vast = (header: Buffer) => void header.fill(0xff, 125, 136);
      await refused(
        [
          {
            path: 'a',
            patch: (header) => {
              header[124] = 0x80;
              vast(header);
            },
          },
        ],
        'the size of an entry is no number',
      );
      for (const at of [100, 108, 116, 124, 136]) await refused(patched(at, '12x'), 'is no number');
      for (const [key, value] of [
        ['size', '-1'],
        ['size', '9007199254740993'],
        ['size', '1e3'],
        ['mtime', 'now'],
        ['uid', '0x1'],
      ] as const)
        await refused([{ path: 'a', pax: [[key, value]] }], 'damaged');
    });

    test('a PAX size that is not that of the data', async () => {
      await refused([{ path: 'a', content: 'x'.repeat(600), pax: [['size', '100']] }, { path: 'b' }], 'checksum');
      await refused([{ path: 'a', content: 'x', pax: [['size', '100000']] }, { path: 'b' }], 'cut off');
      const smuggled = tar([{ path: 'hidden' }], { end: false });
      const layer = await taken([{ path: 'a', size: 0, content: smuggled, pax: [['size', String(smuggled.length)]] }]);
      expect(fs.readdirSync(layer)).toEqual(['a']);
    });

    test('records that are none', async () => {
      for (const content of [
        'x',
        '99 a=b\n',
        '5 a=b',
        '0 a=b\n',
        '6 =b\n\n',
        '10 path=a\0\n',
        '3 =\n',
        '-6 a=b\n',
        '7 a\0=b\n',
      ])
        await refused([{ path: 'pax', type: 'x', content }, { path: 'a' }], 'damaged');
    });

    test('a map of holes that does not fit', async () => {
      const sparse = (map: string, size = '1000') =>
        [
          {
            path: 'a',
            content: padded(`${map}`),
            pax: [
              ['GNU.sparse.major', '1'],
              ['GNU.sparse.minor', '0'],
              ['GNU.sparse.realsize', size],
            ],
          },
        ] as RawEntry[];
      for (const map of ['1\n0\n2000\n', '1\n900\n200\n', '2\n512\n1\n0\n1\n', 'x', '-1\n', '1\n0\n', ''])
        await refused(sparse(map), 'map of holes');
      await refused(sparse('9999999999\n'), 'more holes than any file');
      await refused(
        [
          {
            path: 'a',
            content: 'xx',
            pax: [
              ['GNU.sparse.map', '0,1,0,1'],
              ['GNU.sparse.size', '5'],
            ],
          },
        ],
        'map of holes',
      );
    });

    test('bytes that are no archive', async () => {
      await refused(Buffer.from('nothing of the kind'), 'cut off');
      await refused(Buffer.alloc(4096, 'x'), 'no tar archive');
      await refused(
        Buffer.concat([whole.subarray(0, 3072 - 512), Buffer.alloc(512, 'x'), Buffer.alloc(1024)]),
        'checksum',
      );
      await refused(Buffer.concat([whole.subarray(0, -512), whole]), 'entries follow');
      await refused([{ path: 'a', type: 'M', content: 'x' }], 'entries of type "M" are not supported');
    });

    test('compressed data that is damaged, cut off, or followed by something else', async () => {
      const { zstdCompressSync } = await import('node:zlib');
      const random = tar([
        {
          path: 'a',
          content: Buffer.from(
            Array.from({ length: 20 }, (_, n) => createHash('sha512').update(`${n}`).digest('latin1')).join(''),
            'latin1',
          ),
        },
      ]);
      for (const [name, compress] of [
        ['gzip', gzipSync],
        ['zstd', zstdCompressSync],
      ] as const) {
        const data = compress(random);
        for (const length of [data.length - 1, data.length - 9, data.length >> 1, 20])
          await refused(data.subarray(0, length), /cut off|damaged/);
        await refused(Buffer.concat([data, Buffer.from('garbage')]), new RegExp(`${name} data is (damaged|followed)`));
        await taken(Buffer.concat([compress(random.subarray(0, 700)), compress(random.subarray(700))]));
      }
      await taken(Buffer.concat([gzipSync(random), Buffer.alloc(70_000)]));
      await refused(Buffer.concat([gzipSync(random), Buffer.alloc(70_000), Buffer.from('garbage')]), 'followed by');
      const flipped = gzipSync(random);
      flipped[flipped.length >> 1] = (flipped[flipped.length >> 1] as number) ^ 1;
      await refused(flipped, /gzip data is damaged|damaged/);
    });
  });

  describe('whiteouts hide what is below, never what is beside', () => {
    const opaque = async (layer: string, name: string) => xattr(path.join(layer, name), 'trusted.overlay.opaque');

    test('of a name that the layer has not', async () => {
      const layer = await taken([{ path: 'd/.wh.gone' }, { path: '.wh.ünï' }]);
      expect(isWhiteout(path.join(layer, 'd/gone'))).toBe(true);
      expect(isWhiteout(path.join(layer, 'ünï'))).toBe(true);
      expect(fs.readdirSync(path.join(layer, 'd'))).toEqual(['gone']);
    });

    test('of a file that the layer has, before and after it', async () => {
      for (const entries of [
        [{ path: 'a', content: 'x' }, { path: '.wh.a' }],
        [{ path: '.wh.a' }, { path: 'a', content: 'x' }],
      ]) {
        const layer = await taken(entries);
        expect(fs.readFileSync(path.join(layer, 'a'), 'utf8')).toBe('x');
      }
    });

    test('of a directory that the layer has, before and after it', async () => {
      const directory = { path: 'a/', type: '5', mode: 0o750, mtime: 5 };
      const file = { path: 'a/b', content: 'x' };
      const hide = { path: '.wh.a' };
      for (const entries of [
        [directory, file, hide],
        [hide, directory, file],
        [directory, hide, file],
        [hide, file],
        [file, hide],
        [hide, file, directory],
      ]) {
        const layer = await taken(entries);
        expect(fs.readdirSync(path.join(layer, 'a'))).toEqual(['b']);
        expect(await opaque(layer, 'a')).toBe('y');
        if (!entries.includes(directory)) continue;
        const { mode, mtimeMs } = fs.statSync(path.join(layer, 'a'));
        expect([mode & 0o777, mtimeMs]).toEqual([0o750, 5000]);
      }
    });

    test('of all that is below a directory', async () => {
      for (const entries of [
        [{ path: 'a/.wh..wh..opq' }, { path: 'a/b' }],
        [{ path: 'a/', type: '5', mode: 0o755 }, { path: 'a/b' }, { path: 'a/.wh..wh..opq' }],
      ]) {
        const layer = await taken(entries);
        expect(await opaque(layer, 'a')).toBe('y');
        expect(fs.readdirSync(path.join(layer, 'a'))).toEqual(['b']);
      }
      expect(await opaque(await taken([{ path: '.wh..wh..opq' }]), '.')).toBe('y');
      await refused([{ path: 'a', content: 'x' }, { path: 'a/.wh..wh..opq' }], 'not a directory');
    });

    test('what aufs has left is left out', async () => {
      const layer = await taken([
        { path: '.wh..wh.aufs' },
        { path: '.wh..wh.plnk/', type: '5', mode: 0o700 },
        { path: '.wh..wh.plnk/1.2', content: 'x' },
        { path: 'a' },
      ]);
      expect(fs.readdirSync(layer)).toEqual(['a']);
    });
  });
});
