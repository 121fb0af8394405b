import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { everything, Workshop } from '../support/oci-images.ts';
import { type Registry, startRegistry } from '../support/registries.ts';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { compareTrees, readTree, type Tree } from '../support/tree.ts';
import {
  createWorld,
  expectNoLeak,
  type Result,
  type RunOptions,
  type Snapshot,
  type World,
} from '../support/world.ts';

const tools = missingTool('docker-registry', 'buildah', 'podman', 'skopeo', 'umoci', 'setcap', 'setfattr', 'zstd');

describe.skipIf(skipOrFail(missingWorld() ?? tools))('archives of images', () => {
  const name = 'example.org/everything:1';
  let world: World;
  let workshop: Workshop;
  let registry: Registry;
  /** The image as minirun must have it, and as programs in Go do: see `everythingOf`. */
  let wanted: Tree;
  let others: Tree;
  let before: Snapshot;
  let roots = 0;
  let root: string;

  beforeAll(async () => {
    world = await createWorld();
    workshop = await Workshop.open(world);
    registry = await startRegistry(world, { port: 5000 });
    await workshop.build('everything', everything, { config: '--cmd /bin/sh --env COLOUR=blue' });
    await workshop.build('small', [everything[0] ?? '', 'echo small >size']);
    await workshop.push('everything', `${registry.host}/everything:1`);
    await workshop.sh(`buildah tag everything ${name}; buildah tag small example.org/small:1`);
    wanted = await workshop.everythingOf(`docker://${registry.host}/everything:1`);
    others = await workshop.unpacked(`docker://${registry.host}/everything:1`);
    before = await world.snapshot();
  });
  beforeEach(() => {
    root = path.join(world.directory, `root-${roots++}`);
  });
  afterAll(async () => {
    await expectNoLeak(before, world);
    await world.destroy();
  });

  const run = async (args: readonly string[], options?: RunOptions): Promise<Result> =>
    world.run(args, { env: { MINIRUN_ROOT: root }, timeout: 60_000, ...options });
  /** Standard output; fails unless it exits with 0. */
  const output = async (args: readonly string[], options?: RunOptions): Promise<string> => {
    const { code, stdout, stderr } = await run(args, options);
    expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
    return stdout;
  };
  const seen = async (image: string): Promise<Tree> => {
    const id = (
      await output(['run', '-d', '--network', 'none', '--pull', 'never', image, '/bin/sleep', '1000'])
    ).trim();
    const pid = (await output(['inspect', '--format', '{{.State.Pid}}', id])).trim();
    const tree = await readTree(world.host, `/proc/${pid}/root`);
    await output(['rm', '-f', id]);
    return tree;
  };
  const file = (base: string): string => path.join(world.directory, base);
  const expectLoaded = async (): Promise<void> => {
    expect(compareTrees(wanted, await seen(name))).toEqual([]);
    expect(await output(['run', '--rm', '--network', 'none', name, 'sh', '-c', 'echo $COLOUR'])).toBe('blue\n');
  };
  const ids = async (): Promise<string[]> => [
    ...new Set((await output(['images', '-q', '--no-trunc'])).split('\n').filter(Boolean)),
  ];

  describe('load', () => {
    const writers: [string, string, string][] = [
      [
        'docker save, as skopeo writes it',
        'docker.tar',
        `skopeo copy -q containers-storage:${name} docker-archive:docker.tar:${name}`,
      ],
      ['podman save', 'podman.tar', `podman save -q --format docker-archive -o podman.tar ${name}`],
      [
        'podman save --format oci-archive',
        'podman-oci.tar',
        `podman save -q --format oci-archive -o podman-oci.tar ${name}`,
      ],
      ['an OCI archive of skopeo', 'oci.tar', `skopeo copy -q containers-storage:${name} oci-archive:oci.tar:${name}`],
      ['an OCI layout in a directory', 'layout', `skopeo copy -q containers-storage:${name} oci:layout:${name}`],
      [
        'docker save, compressed by gzip',
        'docker.tar.gz',
        `skopeo copy -q containers-storage:${name} docker-archive:d1.tar:${name}; gzip -c d1.tar >docker.tar.gz`,
      ],
      [
        'docker save, compressed by zstd',
        'docker.tar.zst',
        `skopeo copy -q containers-storage:${name} docker-archive:d2.tar:${name}; zstd -q d2.tar -o docker.tar.zst`,
      ],
      [
        'an OCI archive with ./ before its names',
        'dotted.tar',
        `skopeo copy -q containers-storage:${name} oci:dotted:${name}; tar -C dotted -cf dotted.tar .`,
      ],
    ];
    for (const [title, archive, script] of writers) {
      test(title, async () => {
        await workshop.sh(`cd ${world.directory}; ${script}`);
        expect(await output(['load', '-i', file(archive)])).toBe(`Loaded image: ${name}\n`);
        await expectLoaded();
      });
    }

    test('docker save of docker 25 and later: an OCI layout with a manifest.json beside it', async () => {
      const directory = file('docker25');
      await workshop.sh(
        `cd ${world.directory}; skopeo copy -q --dest-decompress containers-storage:${name} dir:plain; skopeo copy -q --preserve-digests dir:plain oci:docker25:1`,
      );
      const read = <T>(digest: string): T =>
        JSON.parse(fs.readFileSync(path.join(directory, 'blobs', digest.replace(':', '/')), 'utf8')) as T;
      const index = JSON.parse(fs.readFileSync(path.join(directory, 'index.json'), 'utf8')) as {
        manifests: { digest: string; annotations: Record<string, string> }[];
      };
      const descriptor = index.manifests[0] ?? { digest: '', annotations: {} };
      descriptor.annotations = { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': '1' };
      fs.writeFileSync(path.join(directory, 'index.json'), JSON.stringify(index));
      const manifest = read<{ config: { digest: string }; layers: { digest: string }[] }>(descriptor.digest);
      const place = ({ digest }: { digest: string }) => `blobs/${digest.replace(':', '/')}`;
      fs.writeFileSync(
        path.join(directory, 'manifest.json'),
        JSON.stringify([{ Config: place(manifest.config), RepoTags: [name], Layers: manifest.layers.map(place) }]),
      );
      await workshop.sh(`cd ${directory}; tar -cf ../docker25.tar blobs index.json manifest.json oci-layout`);
      expect(await output(['load', '-i', file('docker25.tar')])).toBe(`Loaded image: ${name}\n`);
      await expectLoaded();
    });

    test('several images of one archive, from standard input', async () => {
      await workshop.sh(`cd ${world.directory}; podman save -q -m -o several.tar ${name} example.org/small:1`);
      const input = fs.readFileSync(file('several.tar'));
      expect((await output(['load'], { input })).split('\n').toSorted()).toEqual([
        '',
        'Loaded image: example.org/everything:1',
        'Loaded image: example.org/small:1',
      ]);
      await expectLoaded();
      expect(await output(['run', '--rm', '--network', 'none', 'example.org/small:1', 'cat', 'size'])).toBe('small\n');
    });

    test('-q prints nothing but the names; without a name the id', async () => {
      await workshop.sh(
        `cd ${world.directory}; skopeo copy -q containers-storage:localhost/small oci-archive:nameless.tar`,
      );
      const printed = await output(['load', '-q', '-i', file('nameless.tar')]);
      const [id = ''] = await ids();
      expect(printed).toBe(`Loaded image ID: ${id}\n`);
      expect(await output(['run', '--rm', '--network', 'none', id, 'cat', 'size'])).toBe('small\n');
    });

    for (const [title, content] of [
      ['is empty', Buffer.alloc(0)],
      ['is no archive', Buffer.from('hello')],
      ['is an archive of something else', undefined],
    ] as const) {
      test(`what ${title}: one line, nothing kept`, async () => {
        const archive = file('wrong.tar');
        if (content === undefined) await world.sh('echo x >x; tar -cf wrong.tar x');
        else fs.writeFileSync(archive, content);
        const { code, stdout, stderr } = await run(['load', '-i', archive]);
        expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
        expect(stderr).toMatch(/^minirun: cannot load .*wrong\.tar.*\n$/);
        expect(await ids()).toEqual([]);
      });
    }

    test('cut short, and with one byte changed: refused, nothing kept', async () => {
      await workshop.sh(
        `cd ${world.directory}; rm -f whole.tar; skopeo copy -q containers-storage:${name} oci-archive:whole.tar:${name}`,
      );
      const whole = fs.readFileSync(file('whole.tar'));
      fs.writeFileSync(file('cut.tar'), whole.subarray(0, Math.floor(whole.length * 0.6)));
      const flipped = Buffer.from(whole);
      const middle = Math.floor(whole.length / 2);
      flipped[middle] = (flipped[middle] ?? 0) ^ 1;
      fs.writeFileSync(file('flipped.tar'), flipped);
      for (const archive of ['cut.tar', 'flipped.tar']) {
        const { code, stderr } = await run(['load', '-i', file(archive)]);
        expect(code).toBe(1);
        expect(stderr).toMatch(/^minirun: .*\n$/);
        expect(await ids()).toEqual([]);
      }
    });
  });

  describe('save', () => {
    const saved = async (...flags: string[]): Promise<string> => {
      await output(['pull', '-q', `${registry.host}/everything:1`]);
      await output(['tag', `${registry.host}/everything:1`, name]);
      const archive = file(`saved-${roots}.tar`);
      await output(['save', ...flags, '-o', archive, name]);
      return archive;
    };

    test('skopeo and umoci make the same tree of it', async () => {
      const archive = await saved();
      const { Name, Digest } = JSON.parse(await workshop.sh(`skopeo inspect oci-archive:${archive}`)) as Record<
        string,
        string
      >;
      expect({ Name, Digest }).toMatchObject({ Digest: expect.stringMatching(/^sha256:/) });
      expect(compareTrees(others, await workshop.unpacked(`oci-archive:${archive}`))).toEqual([]);
      // docker load reads this part.
      expect(compareTrees(others, await workshop.unpacked(`docker-archive:${archive}`))).toEqual([]);
    });

    test('podman loads it, with its name', async () => {
      const archive = await saved();
      const storage = `--root ${world.directory}/podman-${roots} --runroot ${world.directory}/podman-run-${roots}`;
      const printed = await workshop.sh(`podman ${storage} load -q -i ${archive}`);
      expect(printed).toContain(name);
      const mounted = (await workshop.sh(`podman ${storage} image mount ${name}`)).trim();
      expect(compareTrees(others, await readTree(world.host, mounted))).toEqual([]);
      await workshop.sh(`podman ${storage} image unmount ${name}`);
    });

    test('load takes it back: the same image', async () => {
      const archive = await saved();
      const before = await ids();
      root = `${root}-again`;
      expect(await output(['load', '-i', archive])).toBe(`Loaded image: ${name}\n`);
      expect(await ids()).toEqual(before);
      await expectLoaded();
    });

    test('to standard output; several images share their layers', async () => {
      await workshop.push('small', `${registry.host}/small:1`);
      for (const image of ['everything', 'small']) await output(['pull', '-q', `${registry.host}/${image}:1`]);
      const args = ['save', `${registry.host}/everything:1`, `${registry.host}/small:1`];
      const { code, stdoutBytes } = await run(args);
      expect(code).toBe(0);
      fs.writeFileSync(file('both.tar'), stdoutBytes);
      root = `${root}-again`;
      await output(['load', '-i', file('both.tar')]);
      expect(await ids()).toHaveLength(2);
      expect(await output(['run', '--rm', '--network', 'none', `${registry.host}/small:1`, 'cat', 'size'])).toBe(
        'small\n',
      );
    });

    test('what is not here, and a terminal: refused, no file', async () => {
      const { code, stderr } = await run(['save', '-o', file('no.tar'), 'no/such']);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^minirun: .*no\/such.*\n$/);
      expect(fs.existsSync(file('no.tar'))).toBe(false);
      await output(['pull', '-q', `${registry.host}/everything:1`]);
      const session = await world.spawn(['save', `${registry.host}/everything:1`], {
        tty: true,
        env: { MINIRUN_ROOT: root },
      });
      const { code: ofTerminal, stdout } = await session.exit;
      expect(ofTerminal).toBe(1);
      expect(stdout).toMatch(/^minirun: .*terminal.*-o.*\r\n$/);
    });
  });

  describe('push', () => {
    test('skopeo pulls the same tree and the same manifest; again it uploads nothing', async () => {
      await output(['pull', '-q', `${registry.host}/everything:1`]);
      const reference = `${registry.host}/pushed:2`;
      await output(['tag', `${registry.host}/everything:1`, reference]);
      registry.forget();
      await output(['push', '-q', reference]);
      expect(compareTrees(others, await workshop.unpacked(`docker://${reference}`))).toEqual([]);
      const raw = (image: string): Promise<string> => workshop.sh(`skopeo inspect --raw docker://${image}`);
      expect(await raw(reference)).toBe(await raw(`${registry.host}/everything:1`));
      registry.forget();
      await output(['push', '-q', reference]);
      expect(registry.requests().filter(({ method }) => method === 'POST' || method === 'PATCH')).toEqual([]);
    });

    test('to another repository of the registry it came from: the layers are mounted, not sent', async () => {
      await output(['pull', '-q', `${registry.host}/everything:1`]);
      const reference = `${registry.host}/mounted/there:1`;
      await output(['tag', `${registry.host}/everything:1`, reference]);
      registry.forget();
      await output(['push', reference]);
      const requests = registry.requests().map(({ method, uri }) => `${method} ${decodeURIComponent(uri)}`);
      const raw = await workshop.sh(`skopeo inspect --raw docker://${reference}`);
      const { layers } = JSON.parse(raw) as { layers: { digest: string }[] };
      for (const { digest } of layers) {
        const about = requests.filter((line) => line.includes(digest));
        expect(about.filter((line) => /^(PUT|PATCH)/.test(line))).toEqual([]);
        expect(about.filter((line) => line.startsWith('POST'))).toEqual([
          expect.stringMatching(/^POST \/v2\/mounted\/there\/blobs\/uploads\/\?.*from=everything/),
        ]);
      }
      expect(compareTrees(others, await workshop.unpacked(`docker://${reference}`))).toEqual([]);
    });

    test('a loaded image, and one that was imported', async () => {
      await workshop.sh(
        `cd ${world.directory}; rm -f p.tar; skopeo copy -q containers-storage:${name} docker-archive:p.tar:${registry.host}/loaded:1`,
      );
      await output(['load', '-q', '-i', file('p.tar')]);
      await output(['push', '-q', `${registry.host}/loaded:1`]);
      expect(compareTrees(others, await workshop.unpacked(`docker://${registry.host}/loaded:1`))).toEqual([]);
      await world.sh(
        'mkdir -p imported; echo hi >imported/file; chmod 4711 imported/file; tar -C imported -cf imported.tar .',
      );
      await output(['import', file('imported.tar'), `${registry.host}/imported:1`]);
      await output(['push', '-q', `${registry.host}/imported:1`]);
      expect((await workshop.unpacked(`docker://${registry.host}/imported:1`)).get('/file')).toMatchObject({
        mode: '4711',
        size: 3,
      });
    });

    test('what is not here', async () => {
      const { code, stderr } = await run(['push', `${registry.host}/no/such:1`]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^minirun: .*no\/such.*\n$/);
    });
  });
});
