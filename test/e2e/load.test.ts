import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { archiveOf, type LayoutImage, layoutOf, type TarEntry, tarOf } from '../support/oci-layout.ts';
import { startRegistry } from '../support/registries.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, type Result, type World } from '../support/world.ts';

const digestOf = (data: string | Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`;
const hexOf = (data: string | Buffer) => digestOf(data).slice('sha256:'.length);
const machine = process.arch === 'x64' ? 'amd64' : 'arm64';

/** A layer of one file. */
const layerOf = (name: string) => tarOf([{ path: name, content: `${name}\n`, mtime: 1_000_000_000 }]);
const one: LayoutImage = { layers: [layerOf('one')], name: 'localhost/one:1' };
const two: LayoutImage = {
  layers: [layerOf('one'), layerOf('two')],
  config: { Cmd: ['two'] },
  name: 'localhost/two:1',
};

const entriesOf = (files: ReadonlyMap<string, Buffer>): TarEntry[] =>
  [...files].map(([name, content]) => ({ path: name, content }));

/** An archive as docker save makes it, and what can be changed about it. */
function dockerArchive(
  layers: readonly Buffer[],
  { tags = ['one:1'], names = layers.map((_, at) => `${at}/layer.tar`), os = 'linux' } = {},
): { config: string; list: unknown; entries: TarEntry[] } {
  const config = JSON.stringify({
    architecture: machine,
    os,
    config: {},
    rootfs: { type: 'layers', diff_ids: layers.map(digestOf) },
  });
  const list = [{ Config: `${hexOf(config)}.json`, RepoTags: tags, Layers: names }];
  const entries: TarEntry[] = [
    ...layers.map((content, at) => ({ path: names[at] as string, content })),
    { path: `${hexOf(config)}.json`, content: config },
    { path: 'manifest.json', content: JSON.stringify(list) },
  ];
  return { config, list, entries };
}

/** Replaces or (undefined) removes files of a layout. */
function changed(images: readonly LayoutImage[], change: (files: Map<string, Buffer>) => void): Buffer {
  const files = layoutOf(images);
  change(files);
  return tarOf(entriesOf(files));
}

/** The name of a blob that has a text in it. */
const blobNamed = (files: Map<string, Buffer>, holds: string): string =>
  [...files].find(([name, content]) => name.startsWith('blobs/') && content.toString('latin1').includes(holds))?.[0] ??
  'none';
const gzipMagic = '\x1f\x8b';

/** Puts an index above what `index.json` lists. */
function nested(images: readonly LayoutImage[], platforms: readonly (object | undefined)[] = []): Map<string, Buffer> {
  const files = layoutOf(images);
  const { manifests } = JSON.parse(String(files.get('index.json'))) as { manifests: object[] };
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  const inner = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType,
      manifests: manifests.map((each, at) => ({ ...each, annotations: undefined, platform: platforms[at] })),
    }),
  );
  files.set(`blobs/sha256/${hexOf(inner)}`, inner);
  const annotations = { 'io.containerd.image.name': 'docker.io/library/nested:latest' };
  const entry = { mediaType, digest: digestOf(inner), size: inner.length, annotations };
  files.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: [entry] })));
  return files;
}

/** Archives that are refused: what the one line must say. */
const refused: [title: string, archive: () => Buffer | string, says: RegExp][] = [
  ['nothing', () => '', /no tar archive/],
  ['text', () => 'hello\n'.repeat(1000), /no tar archive/],
  ['compressed twice', () => gzipSync(gzipSync(archiveOf([one]))), /compressed twice/],
  ['a root filesystem', () => tarOf([{ path: './etc/passwd', content: 'x' }]), /root filesystem.*minirun import/],
  ['a tar archive of something', () => tarOf([{ path: 'file', content: 'x' }]), /neither an index\.json/],
  ['one of before manifest.json', () => tarOf([{ path: 'repositories', content: '{}' }]), /too old/],
  ['one that is cut off', () => archiveOf([one]).subarray(0, 1700), /cut off/],
  ['one that is cut off between files', () => archiveOf([one]).subarray(0, 1024), /cut off/],
  ['compressed data that is cut off', () => gzipSync(archiveOf([one])).subarray(0, -20), /cut off/],
  ['damaged headers', () => Buffer.concat([archiveOf([one]).subarray(0, 1024), Buffer.alloc(2048, 'x')]), /damaged/],
  [
    'a blob with another digest',
    () => changed([one], (files) => files.set(blobNamed(files, '"rootfs"'), Buffer.from('{}'))),
    /blob sha256:[0-9a-f]{64} has 2 bytes/,
  ],
  [
    'a blob with one flipped byte',
    () =>
      changed([one], (files) => {
        const name = blobNamed(files, gzipMagic);
        const blob = Buffer.from(files.get(name) as Buffer);
        blob[blob.length - 12] = (blob[blob.length - 12] ?? 0) ^ 1;
        files.set(name, blob);
      }),
    /blob sha256:[0-9a-f]{64} is damaged/,
  ],
  [
    'a layer that is missing',
    () => changed([one], (files) => files.delete(blobNamed(files, gzipMagic))),
    /the blob sha256:[0-9a-f]{64} is missing/,
  ],
  [
    'a manifest that is missing',
    () => changed([one], (files) => files.delete(blobNamed(files, '"layers":[{'))),
    /the blob sha256:[0-9a-f]{64} is missing/,
  ],
  [
    'a digest that is a path',
    () =>
      changed([one], (files) => {
        const text = String(files.get('index.json')).replace(/sha256:[0-9a-f]{64}/, '../../../../etc/passwd');
        files.set('index.json', Buffer.from(text));
      }),
    /is no digest/,
  ],
  [
    'an index.json that is not JSON',
    () => changed([one], (files) => files.set('index.json', Buffer.from('{'))),
    /not JSON/,
  ],
  [
    'an index.json that is too large',
    () => changed([one], (files) => files.set('index.json', Buffer.alloc(5 << 20, ' '))),
    /larger than 4 MiB/,
  ],
  ['an index of nothing', () => archiveOf([]), /lists no image/],
  [
    'indexes within indexes',
    () => {
      let files = nested([one]);
      for (let depth = 0; depth < 8; depth++) {
        const { manifests } = JSON.parse(String(files.get('index.json'))) as { manifests: object[] };
        const inner = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests }));
        files = new Map([...files, [`blobs/sha256/${hexOf(inner)}`, inner]]);
        const mediaType = 'application/vnd.oci.image.index.v1+json';
        const entry = { mediaType, digest: digestOf(inner), size: inner.length };
        files.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [entry] })));
      }
      return tarOf(entriesOf(files));
    },
    /nested more than 5 times/,
  ],
  [
    'only other platforms',
    () => tarOf(entriesOf(nested([one], [{ os: 'linux', architecture: 's390x' }]))),
    /no image for linux\/\w+, only for linux\/s390x.*--platform/,
  ],
  ['an image for another system', () => tarOf(dockerArchive([layerOf('a')], { os: 'windows' }).entries), /"windows"/],
  [
    'a layer that is another one than the config says',
    () => tarOf([...dockerArchive([layerOf('a')]).entries, { path: '0/layer.tar', content: layerOf('b') }]),
    /not the one that the image config names/,
  ],
  [
    "docker's list without the layer",
    () => tarOf(dockerArchive([layerOf('a')]).entries.slice(1)),
    /the layer "0\/layer\.tar" is missing/,
  ],
  [
    "docker's list without the config",
    () => tarOf(dockerArchive([layerOf('a')]).entries.toSpliced(1, 1)),
    /the config "[0-9a-f]{64}\.json" is missing/,
  ],
  [
    'layers that are links in a circle',
    () =>
      tarOf([
        ...dockerArchive([layerOf('a')]).entries.slice(1),
        { path: '0/layer.tar', type: 'SymbolicLink', linkpath: '../1/layer.tar' },
        { path: '1/layer.tar', type: 'SymbolicLink', linkpath: '../0/layer.tar' },
      ]),
    /lead in circles/,
  ],
  [
    'a layer that is a link to a file of the host',
    () =>
      tarOf([
        ...dockerArchive([layerOf('a')]).entries.slice(1),
        { path: '0/layer.tar', type: 'SymbolicLink', linkpath: '/etc/passwd' },
      ]),
    /is missing/,
  ],
  [
    'a config that is a file of the host',
    () => tarOf([{ path: 'manifest.json', content: '[{"Config":"../../../../../../etc/passwd","Layers":[]}]' }]),
    /the config "[./]+etc\/passwd" is missing/,
  ],
  [
    'a list that is not as docker makes it',
    () => tarOf([{ path: 'manifest.json', content: '[{"Config":{"a":1},"Layers":7}]' }]),
    /not as docker makes it/,
  ],
  [
    'more layers than the config tells of',
    () => {
      const { config, entries } = dockerArchive([layerOf('a')]);
      const list = [{ Config: `${hexOf(config)}.json`, Layers: ['0/layer.tar', '0/layer.tar'] }];
      return tarOf([...entries, { path: 'manifest.json', content: JSON.stringify(list) }]);
    },
    /has 2 layers, but its config tells of 1/,
  ],
  [
    'a name that moves the cursor',
    () => tarOf(dockerArchive([layerOf('a')], { tags: ['\x1b[2J'] }).entries),
    /the name "\\u001b\[2J", which is none/,
  ],
  [
    'a layer that climbs out',
    () => tarOf(dockerArchive([tarOf([{ path: '../../escaped', content: 'x' }])]).entries),
    /escaped/,
  ],
];

describe.skipIf(skipOrFail(missingWorld()))('load, save and push', () => {
  let world: World;
  let work: string;

  beforeAll(async () => {
    world = await createWorld();
    work = path.join(world.directory, 'work');
    fs.mkdirSync(work);
  });
  afterAll(() => world.destroy());
  afterEach(async () => {
    await world.sh('for id in $(minirun images -q | sort -u); do minirun rmi -f $id >/dev/null; done');
  });

  const file = (name: string, content: Buffer | string): string => {
    const place = path.join(work, name);
    fs.writeFileSync(place, content);
    return place;
  };
  const ok = async (...args: string[]): Promise<string> => {
    const result = await world.run(args);
    expect(result).toMatchObject({ code: 0 });
    return result.stdout;
  };
  const load = async (content: Buffer | string, ...args: string[]): Promise<Result> =>
    world.run(['load', '-q', '-i', file('archive', content), ...args]);
  const names = async () => (await ok('images', '--format', '{{.Repository}}:{{.Tag}}')).trim().split('\n').toSorted();
  /** What of an archive is in the store: everything but the index, which is always there. */
  const stored = () =>
    fs
      .readdirSync(path.join(world.root, 'images'), { recursive: true, encoding: 'utf8' })
      .filter((name) => /^\.|\/[0-9a-f]{64}(\.json)?$/.test(name))
      .toSorted();
  /** A directory of its own, whose content tells what a command has left there. */
  const place = (name: string): string => {
    const directory = path.join(work, name);
    fs.mkdirSync(directory);
    return directory;
  };
  /** Every file of the layers, with what it is. */
  const trees = async () =>
    world.sh(
      `cd ${world.root}/images/layers; find . -mindepth 2 -printf '%P %y %m %U %G %s %T@ %n %l\\n' | sort; cat $(find . -type f | sort)`,
    );

  const makeImages = async () => {
    await world.sh(`mkdir -p rootfs/bin rootfs/sub; cp "$(command -v busybox.static || command -v busybox)" rootfs/bin/busybox
      ln -sf busybox rootfs/bin/sh; echo hard >rootfs/a; ln -f rootfs/a rootfs/sub/b; chown 7:8 rootfs/a; chmod 4755 rootfs/a
      touch -h -d @1000000000 rootfs/a rootfs/bin/sh rootfs/sub; tar -C rootfs -cz . | minirun import -c 'CMD ["sh"]' - tool:1
      tar -C rootfs -c bin | minirun import - host.example/team/plain`);
  };

  test('what is saved and loaded again is the same image', async () => {
    await makeImages();
    const ids = await ok('images', '-q', '--no-trunc');
    const before = await trees();
    for (const format of ['oci-archive', 'docker-archive', 'oci-dir']) {
      const saved = path.join(work, `saved.${format}`);
      await ok('save', '--format', format, '-o', saved, 'tool:1', 'host.example/team/plain');
      await ok('rmi', 'tool:1', 'host.example/team/plain');
      expect(stored()).toEqual([]);
      const loaded = await ok('load', '-i', saved);
      expect(loaded).toBe('Loaded image: tool:1\nLoaded image: host.example/team/plain:latest\n');
      expect((await ok('images', '-q', '--no-trunc')).split('\n').toSorted()).toEqual(ids.split('\n').toSorted());
      expect(await trees()).toBe(before);
      if (format === 'oci-archive') {
        // Byte for byte, also what was compressed.
        await ok('save', '-o', `${saved}.2`, 'tool:1', 'host.example/team/plain');
        expect(fs.readFileSync(`${saved}.2`).equals(fs.readFileSync(saved))).toBe(true);
      }
    }
    expect(await ok('run', '--rm', 'tool:1', 'sh', '-c', 'echo runs')).toBe('runs\n');
  });

  test('through a pipe, compressed in every way', async () => {
    await makeImages();
    for (const filter of ['cat', 'gzip', 'zstd -q', 'xz -0', 'bzip2']) {
      const printed = await world.sh(
        `minirun save tool:1 | ${filter} >saved; minirun rmi tool:1 >/dev/null; cat saved | minirun load -q`,
      );
      expect(printed).toBe('Loaded image: tool:1\n');
    }
  });

  test('by id an image is saved without a name; all names of one image are kept', async () => {
    await load(archiveOf([one]));
    const id = (await ok('images', '-q', '--no-trunc')).trim();
    await ok('save', '-o', path.join(work, 'by-id.tar'), id);
    await ok('tag', id, 'further:7');
    await ok('save', '-o', path.join(work, 'both.tar'), 'further:7', 'localhost/one:1');
    await ok('rmi', '-f', id);
    expect(await ok('load', '-i', path.join(work, 'by-id.tar'))).toBe(`Loaded image ID: ${id}\n`);
    expect(await ok('load', '-i', path.join(work, 'both.tar'))).toBe(
      'Loaded image: further:7\nLoaded image: localhost/one:1\n',
    );
  });

  test('a directory, and a manifest that stays what it was', async () => {
    const directory = place('layout');
    const files = layoutOf([one, two]);
    for (const [name, content] of files) {
      fs.mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
      fs.writeFileSync(path.join(directory, name), content);
    }
    expect(await ok('load', '-i', directory)).toBe('Loaded image: localhost/one:1\nLoaded image: localhost/two:1\n');
    const saved = path.join(work, 'again');
    await ok('save', '--format', 'oci-dir', '-o', saved, 'localhost/one:1', 'localhost/two:1');
    for (const [name, content] of files) {
      if (name.startsWith('blobs/')) expect(fs.readFileSync(path.join(saved, name)).equals(content)).toBe(true);
    }
    const again = await world.run(['save', '--format', 'oci-dir', '-o', saved, 'localhost/one:1']);
    expect(again).toMatchObject({ code: 1, stderr: expect.stringMatching(/it is there already/) });
  });

  test('the image of the platform, past attestations', async () => {
    const foreign = { layers: [layerOf('foreign')], architecture: 's390x' };
    const archive = tarOf(
      entriesOf(
        nested(
          [{ layers: [layerOf('unknown')] }, foreign, one],
          [
            { os: 'unknown', architecture: 'unknown' },
            { os: 'linux', architecture: 's390x' },
            { os: 'linux', architecture: machine },
          ],
        ),
      ),
    );
    const architecture = () => ok('inspect', '--format', '{{.Architecture}}', 'nested');
    expect((await load(archive)).stdout).toBe('Loaded image: nested:latest\n');
    expect(await architecture()).toBe(`${machine}\n`);
    expect(await load(archive, '--platform', 'linux/s390x')).toMatchObject({ code: 0 });
    expect(await architecture()).toBe('s390x\n');
    const none = await load(archive, '--platform', 'linux/riscv64');
    expect(none).toMatchObject({ code: 1, stderr: expect.stringMatching(/no image for linux\/riscv64/) });
  });

  test("docker's archives: links to a layer, names in both lists, layers in bzip2", async () => {
    const layer = layerOf('a');
    const linked = dockerArchive([layer, layerOf('b'), layer], {
      names: ['0/layer.tar', '1/layer.tar', '2/layer.tar'],
    });
    const entries = linked.entries.toSpliced(2, 1, {
      path: '2/layer.tar',
      type: 'SymbolicLink',
      linkpath: '../0/layer.tar',
    });
    expect((await load(tarOf(entries))).stdout).toBe('Loaded image: one:1\n');

    const files = layoutOf([{ ...one, name: 'latest' }]);
    const config = blobNamed(files, '"rootfs"');
    const list = [{ Config: config, RepoTags: ['both:1', 'both:2'], Layers: [blobNamed(files, gzipMagic)] }];
    files.set('manifest.json', Buffer.from(JSON.stringify(list)));
    expect((await load(tarOf(entriesOf(files)))).stdout).toBe('Loaded image: both:1\nLoaded image: both:2\n');

    fs.writeFileSync(path.join(work, 'c.tar'), layerOf('c'));
    await world.sh(`bzip2 -kf ${work}/c.tar`);
    const packed = dockerArchive([layerOf('c')], { tags: ['bzip2:1'] });
    const squeezed = packed.entries.with(0, { path: '0/layer.tar', content: fs.readFileSync(`${work}/c.tar.bz2`) });
    expect((await load(tarOf(squeezed))).stdout).toBe('Loaded image: bzip2:1\n');
    await ok('save', '-o', path.join(work, 'bzip2.tar'), 'bzip2:1');
    await ok('rmi', 'bzip2:1');
    await ok('load', '-i', path.join(work, 'bzip2.tar'));
  });

  test('names that nobody looks for are not followed, and of two files the last counts', async () => {
    const outside = path.join(work, 'outside');
    const { entries } = dockerArchive([layerOf('a')]);
    const archive = tarOf([
      { path: 'manifest.json', content: '[{"Config":"wrong","Layers":[]}]' },
      { path: outside, content: 'x' },
      { path: '../../../../../../outside', content: 'x' },
      { path: '0', type: 'SymbolicLink', linkpath: work },
      { path: 'device', type: 'BlockDevice', devmaj: 8, devmin: 0 },
      ...entries,
    ]);
    expect((await load(archive)).stdout).toBe('Loaded image: one:1\n');
    expect(fs.existsSync(outside) || fs.existsSync(path.join(work, 'layer.tar'))).toBe(false);
  });

  for (const [title, archive, says] of refused) {
    test(`refused: ${title}`, async () => {
      await load(archiveOf([{ layers: [layerOf('another')], name: 'localhost/another:1' }]));
      const before = stored();
      const result = await load(archive());
      expect(result).toMatchObject({ code: 1, stdout: '' });
      expect(result.stderr).toMatch(says);
      expect(result.stderr.trim().split('\n').length).toBe(1);
      expect(stored()).toEqual(before);
    });
  }

  test('what is not there, and a terminal', async () => {
    const missing = await world.run(['load', '-i', path.join(work, 'missing')]);
    expect(missing).toMatchObject({ code: 1, stderr: expect.stringMatching(/there is no such file/) });
    const none = await world.run(['save', 'nobody']);
    expect(none).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/not on this machine/) });
    await load(archiveOf([one]));
    const onTerminal = await world.run(['save', 'localhost/one:1'], { tty: true });
    expect(onTerminal.code).toBe(1);
    expect(onTerminal.stdout).toMatch(/refusing to write an archive to a terminal/);
    const from = await world.run(['load'], { tty: true });
    expect(from.stdout).toMatch(/it is a terminal/);
  });

  test('a file is written whole or not at all', async () => {
    await load(archiveOf([one, two]));
    const directory = place('whole');
    const output = path.join(directory, 'output');
    fs.writeFileSync(output, 'before');
    // The stored layer is damaged, which shows only at its end.
    const blobs = path.join(world.root, 'images/blobs/sha256');
    const blob = path.join(
      blobs,
      fs.readdirSync(blobs).find((hex) => fs.readFileSync(path.join(blobs, hex))[0] === 0x1f) ?? '',
    );
    const content = fs.readFileSync(blob);
    fs.writeFileSync(blob, Buffer.from(content.map((byte, at) => (at === content.length - 1 ? byte ^ 1 : byte))));
    for (const format of ['oci-archive', 'docker-archive']) {
      const result = await world.run(['save', '--format', format, '-o', output, 'localhost/one:1', 'localhost/two:1']);
      expect(result).toMatchObject({ code: 1, stderr: expect.stringMatching(/is damaged/) });
      expect(fs.readdirSync(directory)).toEqual(['output']);
      expect(fs.readFileSync(output, 'utf8')).toBe('before');
    }
    fs.writeFileSync(blob, content);
    await world.sh(`mkdir small; mount -t tmpfs -o size=8k t small`);
    const full = await world.run(['save', '-o', 'small/output', 'localhost/one:1', 'localhost/two:1']);
    expect(full).toMatchObject({ code: 1, stderr: expect.stringMatching(/no space left/) });
    expect(await world.sh('ls -A small; umount small')).toBe('');
    fs.symlinkSync('output', path.join(directory, 'link'));
    await ok('save', '-o', path.join(directory, 'link'), 'localhost/one:1');
    expect(fs.readdirSync(directory).toSorted()).toEqual(['link', 'output']);
    expect(fs.readlinkSync(path.join(directory, 'link'))).toBe('output');
    await ok('load', '-i', output);
  });

  /** Waits for what another process does. */
  const until = async (holds: () => boolean): Promise<void> => {
    for (const end = Date.now() + 10_000; !holds(); await Bun.sleep(5))
      if (Date.now() > end) throw new Error('it does not come');
  };

  test('Ctrl-C in the middle leaves nothing', async () => {
    await load(archiveOf([one]));
    const before = stored();
    const loading = await world.spawn(['load']);
    loading.write(archiveOf([two]).subarray(0, 3000));
    await until(() =>
      fs
        .readdirSync(path.join(world.root, 'images'), { recursive: true, encoding: 'utf8' })
        .some((name) => /^\.staging-.*\/archived-/.test(name)),
    );
    loading.kill('SIGINT');
    expect(await loading.exit).toMatchObject({ code: 130 });
    expect(stored()).toEqual(before);

    // A FIFO holds less than this layer, so that minirun waits for its reader.
    await world.sh('head -c 1000000 /dev/urandom >random; tar -c random | minirun import - big; mkfifo fifo');
    const kept = stored();
    const reader = fs.openSync(path.join(world.directory, 'fifo'), fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    const saving = await world.spawn(['save', '-o', 'fifo', 'big']);
    const first = Buffer.alloc(1);
    await until(() => {
      try {
        return fs.readSync(reader, first) === 1;
      } catch {
        return false;
      }
    });
    saving.kill('SIGTERM');
    expect(await saving.exit).toMatchObject({ code: 143 });
    fs.closeSync(reader);
    expect(stored()).toEqual(kept);
  });

  test('push sends what the registry lacks, takes over what another repository has, and compresses', async () => {
    const registry = await startRegistry(world, { port: 5071 });
    const name = (rest: string) => `${registry.host}/${rest}`;
    await load(
      archiveOf([
        { ...two, name: name('first:1') },
        { layers: [layerOf('plain')], gzip: false, name: name('plain:1') },
      ]),
    );
    const pushed = await world.run(['push', name('first:1')]);
    expect(pushed.stdout).toMatch(/^1: digest: sha256:[0-9a-f]{64} size: \d+\n$/);
    expect(pushed.stderr.match(/: Pushed/g)?.length).toBe(2);
    const digest = /sha256:[0-9a-f]{64}/.exec(pushed.stdout)?.[0] ?? '';
    // The manifest is the one that it came with.
    const index = JSON.parse(String(layoutOf([two]).get('index.json'))) as { manifests: { digest: string }[] };
    expect(digest).toBe(index.manifests[0]?.digest ?? 'none');
    expect(await ok('images', '--digests', '--format', '{{.Digest}}', name('first'))).toBe(`${digest}\n`);

    registry.forget();
    const again = await world.run(['push', name('first:1')]);
    expect(again.stdout).toBe(pushed.stdout);
    expect(again.stderr.match(/: Already exists/g)?.length).toBe(2);
    expect(registry.requests().filter(({ method }) => method === 'POST')).toEqual([]);

    await ok('tag', name('first:1'), name('second/name:2'));
    const mounted = await world.run(['push', name('second/name:2')]);
    expect(mounted.stderr.match(/: Mounted from first/g)?.length).toBe(2);

    expect(await ok('push', '-q', name('plain:1'))).toBe(`${name('plain:1')}\n`);
    const id = await ok('images', '-q', '--no-trunc', name('plain'));
    await ok('rmi', '-f', id.trim());
    await ok('pull', '-q', name('plain:1'));
    expect(await ok('images', '-q', '--no-trunc', name('plain'))).toBe(id);
    await ok('save', '--format', 'oci-dir', '-o', path.join(work, 'pushed'), name('plain:1'));
    const blobs = path.join(work, 'pushed/blobs/sha256');
    expect(fs.readdirSync(blobs).some((hex) => fs.readFileSync(path.join(blobs, hex))[0] === 0x1f)).toBe(true);

    const unknown = await world.run(['push', name('nobody:1')]);
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringMatching(/no image on this machine.*minirun tag/) });
    expect(await names()).toContain(name('second/name:2'));
  });
});
