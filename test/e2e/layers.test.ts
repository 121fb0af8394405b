import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { archiveOf } from '../support/oci-layout.ts';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { tar } from '../support/tar-writer.ts';
import { compareTrees, readTree, type Tree } from '../support/tree.ts';
import { createWorld, minirun, type World } from '../support/world.ts';

/** A tree with one of everything that an archive can hold. */
const makeTree = `
  umask 022; mkdir "$1"; cd "$1"
  mkdir -p usr/bin usr/share/deep/er empty etc tmp
  echo plain >usr/bin/plain; : >empty-file; head -c 3000000 /dev/zero | tr '\\0' x >large
  head -c 512 /dev/zero | tr '\\0' y >block
  ln usr/bin/plain etc/hard; ln usr/bin/plain usr/share/deep/another
  ln -s /usr/bin/plain absolute; ln -s ../nowhere dangling; ln -s "$(printf 'long/%.0s' $(seq 40))" long-target
  ln absolute hard-to-link
  mkfifo -m 640 fifo; mknod null c 1 3; mknod -m 600 loop b 7 300
  cp usr/bin/plain su; chmod 4755 su; cp usr/bin/plain sg; chmod 2755 sg; chmod 1777 tmp; chmod 0000 etc/hard
  mkdir -m 2750 setgid; chown 7:8 setgid; echo x >setgid/inside
  cp usr/bin/plain owned; chown 12345:54321 owned; chown -h 1:2 dangling; chown 2000000000:2100000 empty-file; chown 3:4 fifo
  chown 5:6 su; chmod 4755 su
  cp usr/bin/plain capable; chown 9 capable; setcap cap_net_raw,cap_net_admin=ep capable
  setfattr -n user.text -v hello usr/bin/plain; setfattr -n user.binary -v 0x00ff0a3d80 large
  setfattr -n user.on.directory -v x usr/share; setfattr -n user.empty large; setfattr -n trusted.mine -v x etc
  long=$(printf 'n%.0s' $(seq 200)); mkdir -p $long/$long; echo x >$long/$long/$long
  hundred=$(printf 'h%.0s' $(seq 100)); echo x >$hundred; mkdir "$(printf 'p%.0s' $(seq 99))"; echo x >"$(printf 'p%.0s' $(seq 99))/x"
  printf x >"$(printf 'invalid\\377\\376')"; ln -s "$(printf 'target\\377')" "$(printf 'link\\200')"; echo x >ünïcödé; echo x >'new
line'; echo x >' space = % '
  truncate -s 20M holes; for at in 0 1 3 5 7 9 11 13 15 17 19; do printf "part$at" | dd of=holes bs=1M seek=$at conv=notrunc status=none; done
  truncate -s 1M all-hole; printf end | dd of=all-hole-but-end bs=1M seek=3 status=none; truncate -s 12345678 tail-hole; printf x | dd of=tail-hole conv=notrunc status=none
  find . -print0 | while IFS= read -r -d '' f; do touch -h -d "@1500000000.123456789" "$f"; done
  touch -d @-86399 usr/bin/plain; touch -h -d @4000000000.000000001 absolute; touch -d @1234567890.987654321 usr/share/deep empty .
`;

const reason = missingWorld() ?? missingTool('tar', 'setfattr', 'setcap', 'getfattr');

describe.skipIf(skipOrFail(reason))('layers', () => {
  let world: World;
  let source: string;
  let wanted: Tree;

  beforeAll(async () => {
    world = await createWorld();
    source = path.join(world.directory, 'source');
    await world.host
      .run(['bash', '-ec', makeTree, 'make', source])
      .then((result) => expect(result).toMatchObject({ code: 0, stderr: '' }));
    wanted = await readTree(world.host, source);
    expect(wanted.size).toBeGreaterThan(40);
  });
  afterAll(() => world.destroy());

  /** Imports an archive. @returns the directory of its layer */
  async function importLayer(input: Buffer): Promise<string> {
    const result = await world.run(['import', '-'], { input, timeout: 60_000 });
    expect(result).toMatchObject({ code: 0, stderr: '' });
    const images = path.join(world.root, 'images');
    const id = result.stdout.trim().replace('sha256:', '');
    const { rootfs } = JSON.parse(fs.readFileSync(path.join(images, 'configs', `${id}.json`), 'utf8')) as {
      rootfs: { diff_ids: string[] };
    };
    return path.join(images, 'layers', String(rootfs.diff_ids[0]).replace('sha256:', ''));
  }

  async function archive(...options: string[]): Promise<Buffer> {
    const command = ['tar', '-C', source, '--numeric-owner', ...options, '-c', '.'];
    const result = await world.host.run(command, { timeout: 60_000 });
    expect(result).toMatchObject({ code: 0, stderr: '' });
    return result.stdoutBytes;
  }

  /** What differs from the source; names are compared with all their properties. */
  const differences = async (layer: string) => compareTrees(wanted, await readTree(world.host, layer), /^$/);
  const times = (tree: Tree) => [...tree.values()].map(({ name, mtime }) => [name, mtime]);
  const blocks = (layer: string) =>
    ['holes', 'all-hole', 'all-hole-but-end', 'tail-hole'].map(
      (name) => fs.statSync(path.join(layer, name)).blocks <= 2048,
    );

  const posix = ['--format=posix', '--xattrs', '--xattrs-include=*'];

  test.each(['0.0', '0.1', '1.0'])('of GNU tar, POSIX format, holes as in version %s', async (version) => {
    const layer = await importLayer(await archive(...posix, '-S', `--sparse-version=${version}`));
    expect(await differences(layer)).toEqual([]);
    expect(times(await readTree(world.host, layer))).toEqual(times(wanted));
    expect(blocks(layer)).toEqual([true, true, true, true]);
  });

  test('of GNU tar, GNU format, with holes', async () => {
    const layer = await importLayer(await archive('--format=gnu', '-S'));
    const found = await differences(layer);
    // That format has no attributes.
    expect(found.filter((line) => !line.includes(': xattrs is none'))).toEqual([]);
    expect(blocks(layer)).toEqual([true, true, true, true]);
  });

  test('compressed, in one and in several parts', async () => {
    const whole = await archive(...posix);
    const plain = await importLayer(whole);
    expect(await differences(plain)).toEqual([]);
    const parts = [whole.subarray(0, 100_000), whole.subarray(100_000)];
    for (const compressed of [
      gzipSync(whole),
      zstdCompressSync(whole),
      Buffer.concat(parts.map((part) => gzipSync(part))),
      Buffer.concat(parts.map((part) => zstdCompressSync(part))),
    ]) {
      // The layer is known by the digest of what is compressed.
      expect(await importLayer(compressed)).toBe(plain);
    }
    expect(path.basename(plain)).toBe(createHash('sha256').update(whole).digest('hex'));
  });

  test('that hide all below them', async () => {
    const layers = [
      tar([{ path: 'etc/', type: '5', mode: 0o755 }, { path: 'etc/old' }, { path: 'gone' }]),
      tar([{ path: '.wh..wh..opq' }, { path: 'etc/', type: '5', mode: 0o755 }, { path: 'etc/new' }]),
      tar([{ path: 'top' }]),
    ];
    const image = archiveOf([{ layers, name: 'hiding:1', config: { Cmd: ['/top'] } }]);
    expect(await world.run(['load'], { input: image })).toMatchObject({ code: 0 });
    // The lowest of the three is not even mounted, and the script says so too.
    expect(await world.sh('minirun run --explain hiding:1')).toMatch(/lowerdir=[^:,]+:[^:,]+,upperdir/);
    expect(await world.run(['create', '--name', 'hiding', 'hiding:1'])).toMatchObject({ code: 0 });
    const copy = await world.run(['cp', 'hiding:/.', '-']);
    const { stdout } = await world.host.run(['tar', '-tf', '-'], { input: copy.stdoutBytes });
    expect(stdout.split('\n').filter((name) => /old|new|gone|top/.test(name))).toEqual(['./etc/new', './top']);
  });

  describe('packed by minirun', () => {
    /** Asks minirun's helper for the archive of a directory, as `save` and `commit` do. */
    async function pack(directory: string): Promise<Buffer> {
      const child = spawn('unshare', ['--mount', '--', minirun, 'init'], {
        stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
        env: { MINIRUN_INIT: '1', PATH: process.env.PATH },
      });
      const socket = child.stdio[3] as Duplex;
      const messages: string[] = [];
      let wake = () => {};
      socket.on('data', (chunk: Buffer) => {
        messages.push(...chunk.toString().trim().split('\n'));
        wake();
      });
      const next = async () => {
        while (messages.length === 0) await new Promise<void>((resolve) => void (wake = resolve));
        return JSON.parse(messages.shift() as string) as { type: string; fd: number; what?: string; why?: string };
      };
      socket.write(`${JSON.stringify({ type: 'pack', directory })}\n`);
      const first = await next();
      expect(first.type).toBe('reading');
      const fd = fs.openSync(`/proc/${child.pid}/fd/${first.fd}`, 'r');
      socket.write(`${JSON.stringify({ type: 'go' })}\n`);
      const chunks: Buffer[] = [];
      for await (const chunk of fs.createReadStream('', { fd })) chunks.push(chunk as Buffer);
      const last = await next();
      if (last.type !== 'packed') throw new Error(`${last.what}: ${last.why}`);
      return Buffer.concat(chunks);
    }

    test('and unpacked again it is the same tree; packed again the same bytes', async () => {
      const packed = await pack(source);
      const layer = await importLayer(packed);
      expect(await differences(layer)).toEqual([]);
      expect((await pack(layer)).equals(packed)).toBe(true);
      expect((await pack(source)).equals(packed)).toBe(true);
    });

    test('and read by GNU tar it is the same tree', async () => {
      const target = path.join(world.directory, 'by-tar');
      fs.mkdirSync(target);
      const command = ['tar', '-C', target, '--numeric-owner', '--xattrs', '--xattrs-include=*', '-xpf', '-'];
      const result = await world.host.run(command, { input: await pack(source) });
      expect(result.code).toBe(0);
      expect(compareTrees(wanted, await readTree(world.host, target), /^$/)).toEqual([]);
    });

    test('the upper directory of an overlay: whiteouts, opaque directories, copied files', async () => {
      const at = path.join(world.directory, 'overlay');
      await world.sh(`
        mkdir -p ${at}/lower/directory ${at}/lower/again ${at}/upper ${at}/work ${at}/merged; cd ${at}
        for name in a b c directory/x directory/y again/z; do echo $name >lower/$name; done
        mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
        rm merged/a merged/b; rm -r merged/again; mkdir merged/again; echo new >merged/again/new; rm merged/directory/x
        chmod 700 merged/c; ln merged/c merged/also; echo x >merged/.hidden
      `);
      const packed = await pack(`${at}/upper`);
      const { stdout } = await world.host.run(['tar', '-tf', '-'], { input: packed });
      expect(stdout.split('\n').slice(0, -1)).toEqual([
        './',
        '.wh.a',
        '.wh.b',
        '.hidden',
        'again/',
        'again/.wh..wh..opq',
        'again/new',
        'also',
        'c',
        'directory/',
        'directory/.wh.x',
      ]);
      // The same again as a layer of another overlay.
      const layer = await importLayer(gunzipSync(gzipSync(packed)));
      await world.sh(`mkdir ${at}/second; mount -t overlay overlay -o lowerdir=${layer}:${at}/lower ${at}/second`);
      const [one, other] = [await readTree(world.host, `${at}/merged`), await readTree(world.host, `${at}/second`)];
      expect(compareTrees(one, other, /^$/)).toEqual([]);
      expect([...one.keys()]).toContain('/again/new');
    });

    test('what is not in the directory is refused, and what means something else', async () => {
      const directory = path.join(world.directory, 'refused');
      await world.sh(`mkdir -p ${directory}/sub; setfattr -n trusted.overlay.redirect -v /elsewhere ${directory}/sub`);
      expect(await pack(directory).catch((error: Error) => error.message)).toMatch(/"sub\/".*redirect/);
      await world.sh(
        `setfattr -x trusted.overlay.redirect ${directory}/sub; touch ${directory}/sub/file; setfattr -n trusted.overlay.metacopy ${directory}/sub/file`,
      );
      expect(await pack(directory).catch((error: Error) => error.message)).toMatch(/"sub\/file".*metacopy/);
      await world.sh(`setfattr -x trusted.overlay.metacopy ${directory}/sub/file; touch ${directory}/.wh.file`);
      expect(await pack(directory).catch((error: Error) => error.message)).toContain('".wh.file"');
    });
  });
});
