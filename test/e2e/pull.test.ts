import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { everything, type LayerKind, type ManifestKind, Workshop } from '../support/oci-images.ts';
import { type Registry, startRegistry } from '../support/registries.ts';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { compareTrees, readTree, type Tree } from '../support/tree.ts';
import { createWorld, expectNoLeak, type Result, type Snapshot, type World } from '../support/world.ts';

const tools = missingTool('docker-registry', 'buildah', 'skopeo', 'umoci', 'setcap', 'setfattr');

/** The architecture of this machine, as images name it, and one that it is not. */
const here = process.arch === 'arm64' ? 'arm64' : 'amd64';
const elsewhere = here === 'arm64' ? 'amd64' : 'arm64';

describe.skipIf(skipOrFail(missingWorld() ?? tools))('pull', () => {
  let world: World;
  let workshop: Workshop;
  let registry: Registry;
  let before: Snapshot;
  let roots = 0;
  /** A state directory in which nothing is yet. */
  let root: string;

  beforeAll(async () => {
    world = await createWorld();
    workshop = await Workshop.open(world);
    registry = await startRegistry(world, { port: 5000 });
    await workshop.build('everything', everything, { config: '--cmd /bin/sh --env COLOUR=blue' });
    await workshop.push('everything', `${registry.host}/everything:1`);
    before = await world.snapshot();
  });
  beforeEach(() => {
    root = path.join(world.directory, `root-${roots++}`);
    registry.forget();
  });
  afterAll(async () => {
    await expectNoLeak(before, world);
    await world.destroy();
  });

  const run = async (args: readonly string[]): Promise<Result> =>
    world.run(args, { env: { MINIRUN_ROOT: root }, timeout: 60_000 });
  /** Standard output; fails unless it exits with 0. */
  const output = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(args);
    expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
    return stdout;
  };
  /** The tree that a container of an image sees. */
  const seen = async (image: string): Promise<Tree> => {
    const id = (await output('run', '-d', '--network', 'none', image, '/bin/sleep', '1000')).trim();
    const pid = (await output('inspect', '--format', '{{.State.Pid}}', id)).trim();
    const tree = await readTree(world.host, `/proc/${pid}/root`);
    await output('rm', '-f', id);
    return tree;
  };
  const digestOf = async (reference: string): Promise<string> =>
    (await workshop.sh(`skopeo inspect --raw docker://${reference} | sha256sum`)).replace(/^(\w+).*\n/, 'sha256:$1');
  const requestsOf = (): string[] => registry.requests().map(({ method, uri }) => `${method} ${uri}`);

  describe('the same tree as umoci unpacks', () => {
    const variants: [ManifestKind, LayerKind][] = [
      ['oci', 'gzip'],
      ['oci', 'zstd'],
      ['oci', 'plain'],
      ['docker', 'gzip'],
      ['docker', 'plain'],
    ];
    for (const [kind, layers] of variants) {
      test(`${kind} manifest, ${layers} layers`, async () => {
        const reference = `${registry.host}/${kind}/${layers}:1`;
        await workshop.push('everything', reference, kind, layers);
        const raw = await workshop.sh(`skopeo inspect --raw docker://${reference}`);
        const manifest = JSON.parse(raw) as { mediaType: string; layers: { mediaType: string }[] };
        expect(manifest.mediaType).toContain(kind);
        expect(manifest.layers).toHaveLength(everything.length);
        const suffix = { gzip: /gzip$/, zstd: /\+zstd$/, plain: /tar$/ }[layers];
        for (const { mediaType } of manifest.layers) expect(mediaType).toMatch(suffix);

        await output('pull', '-q', reference);
        // umoci 0.4.7 knows no zstd: there it unpacks the same layers as they are with gzip.
        const same = layers === 'zstd' ? `${registry.host}/everything:1` : reference;
        const wanted = await workshop.everythingOf(`docker://${same}`);
        expect(wanted.size).toBeGreaterThan(200);
        expect(compareTrees(wanted, await seen(reference))).toEqual([]);
      });
    }

    test('umoci and containers-storage agree about it, and everything is in it', async () => {
      const wanted = await workshop.unpacked(`docker://${registry.host}/everything:1`);
      expect(compareTrees(wanted, await workshop.mounted('everything'))).toEqual([]);
      // What a tool of this machine could leave out without a word.
      expect(wanted.get('/xattrs/ping')?.xattrs).toEqual({ 'security.capability': expect.any(String) });
      expect(wanted.get('/xattrs/binary')?.xattrs).toEqual({ 'user.binary': '00ff0a3d00' });
      expect(wanted.get('/modes/4755')).toMatchObject({ mode: '4755', uid: 1000 });
      expect(wanted.get('/special/large')).toMatchObject({ type: 'character device', device: '1000:500000' });
      expect(wanted.get('/links/two/fifo')).toMatchObject({ type: 'fifo', links: '/links/fifo' });
      expect(wanted.get('/usr/lib')?.mtime).toBe('400000000000000000');
      expect(wanted.has('/names/bytes\\xff\\xfe')).toBe(true);
      for (const name of ['/gone/deep', '/stays/drop', '/opaque/old', '/usr/lib/5/5', '/links/three-1']) {
        expect(wanted.has(name)).toBe(false);
      }
    });

    test('it runs with the image’s command and environment', async () => {
      const { code, stdout } = await run([
        'run',
        '--rm',
        '--network',
        'none',
        `${registry.host}/everything:1`,
        'sh',
        '-c',
        'echo $COLOUR',
      ]);
      expect({ code, stdout }).toEqual({ code: 0, stdout: 'blue\n' });
    });
  });

  describe('an index', () => {
    const platforms = ['linux/arm/v7', `linux/${elsewhere}`, `linux/${here}`];
    for (const kind of ['oci', 'docker'] as const) {
      test(`${kind}: this machine's platform, and another by --platform`, async () => {
        const reference = `${registry.host}/index-${kind}:1`;
        await workshop.pushIndex(reference, platforms, kind);
        expect(await output('run', '--rm', '--network', 'none', reference)).toBe(`linux/${here}\n`);
        registry.forget();
        await output('pull', reference);
        expect(requestsOf().filter((line) => !line.endsWith(' /v2/'))).toEqual([`HEAD /v2/index-${kind}/manifests/1`]);
        for (const platform of platforms) {
          await output('pull', '--platform', platform, reference);
          // The program in it is this machine's, so that it runs.
          expect(await output('run', '--rm', '--network', 'none', '--pull', 'never', reference)).toBe(`${platform}\n`);
        }
      });
    }

    test('a platform that it does not have', async () => {
      const reference = `${registry.host}/index-few:1`;
      await workshop.pushIndex(reference, [`linux/${elsewhere}`]);
      const { code, stderr } = await run(['pull', reference]);
      expect(code).toBe(1);
      expect(stderr).toMatch(new RegExp(`linux/${here}`));
      expect(stderr).toMatch(new RegExp(`linux/${elsewhere}`));
      expect(stderr).not.toContain('unknown');
      expect(await output('images', '-q')).toBe('');
    });
  });

  describe('by digest', () => {
    test('an image, and it alone', async () => {
      const digest = await digestOf(`${registry.host}/everything:1`);
      const reference = `${registry.host}/everything@${digest}`;
      expect(await output('pull', '-q', reference)).toBe(`${reference}\n`);
      expect(await output('images', '--digests', '--format', '{{.Repository}} {{.Tag}} {{.Digest}}')).toBe(
        `${registry.host}/everything <none> ${digest}\n`,
      );
      registry.forget();
      await output('pull', '-q', reference);
      expect(requestsOf()).toEqual([]);
      expect(await output('run', '--rm', '--network', 'none', reference, 'cat', '/again/file')).toBe('back\n');
    });

    test('of an index picks the platform', async () => {
      await workshop.pushIndex(`${registry.host}/by-digest:1`, ['linux/arm/v7', `linux/${here}`]);
      const reference = `${registry.host}/by-digest@${await digestOf(`${registry.host}/by-digest:1`)}`;
      expect(await output('run', '--rm', '--network', 'none', reference)).toBe(`linux/${here}\n`);
    });

    test('that the registry does not have', async () => {
      const { code, stderr } = await run(['pull', `${registry.host}/everything@sha256:${'0'.repeat(64)}`]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^minirun: cannot .*\n$/);
      expect(await output('images', '-q')).toBe('');
    });
  });

  describe('twice', () => {
    test('one request, nothing fetched, and it says so', async () => {
      const reference = `${registry.host}/everything:1`;
      const digest = await digestOf(reference);
      const first = await run(['pull', reference]);
      expect(first.stdout).toBe(`${reference}\n`);
      expect(first.stderr).toContain(`Digest: ${digest}\nStatus: Downloaded newer image for ${reference}\n`);
      registry.forget();
      const second = await run(['pull', reference]);
      expect(second.stdout).toBe(`${reference}\n`);
      expect(second.stderr).toContain(`Digest: ${digest}\nStatus: Image is up to date for ${reference}\n`);
      expect(requestsOf()).toEqual(['HEAD /v2/everything/manifests/1']);
    });

    test('a tag that was moved: the new image, its new layer only; the old one keeps its id', async () => {
      const reference = `${registry.host}/moving:1`;
      await workshop.build('moving-1', ['echo one >number'], { from: 'everything' });
      await workshop.build('moving-2', ['echo two >number'], { from: 'everything' });
      await workshop.push('moving-1', reference);
      await output('pull', '-q', reference);
      const old = (await output('images', '-q', '--no-trunc')).trim();
      await workshop.push('moving-2', reference);
      registry.forget();
      expect((await run(['pull', reference])).stderr).toContain('Status: Downloaded newer image');
      // Its config and the layer that is new.
      expect(registry.blobFetches().size).toBe(2);
      expect(await output('run', '--rm', '--network', 'none', reference, 'cat', 'number')).toBe('two\n');
      expect(await output('run', '--rm', '--network', 'none', old, 'cat', 'number')).toBe('one\n');
    });

    test('the same image by another name shares all', async () => {
      await workshop.push('everything', `${registry.host}/other:1`);
      await output('pull', '-q', `${registry.host}/everything:1`);
      registry.forget();
      await output('pull', '-q', `${registry.host}/other:1`);
      expect([...registry.blobFetches().keys()]).toEqual([]);
      expect(new Set((await output('images', '-q')).trim().split('\n')).size).toBe(1);
    });
  });

  describe('run', () => {
    const reference = 'localhost:5000/everything:1';
    const args = ['run', '--rm', '--network', 'none'];

    test('pulls what is missing, and says that on stderr', async () => {
      const { code, stdout, stderr } = await run([...args, reference, 'cat', '/again/file']);
      expect({ code, stdout }).toEqual({ code: 0, stdout: 'back\n' });
      expect(stderr).toContain(`Unable to find image '${reference}' locally\n`);
      expect(stderr).toContain(`Status: Downloaded newer image for ${reference}\n`);
      registry.forget();
      expect(await run([...args, reference, 'true'])).toMatchObject({ code: 0, stdout: '', stderr: '' });
      expect(requestsOf()).toEqual([]);
    });

    test('-q keeps it silent', async () => {
      expect(await run([...args, '-q', reference, 'true'])).toMatchObject({ code: 0, stdout: '', stderr: '' });
    });

    test('--pull never does not ask, --pull always does', async () => {
      const never = await run([...args, '--pull', 'never', reference, 'true']);
      expect(never.code).toBe(125);
      expect(never.stderr).toContain('everything');
      expect(requestsOf()).toEqual([]);
      expect((await run([...args, '--pull', 'always', reference, 'true'])).code).toBe(0);
      registry.forget();
      expect((await run([...args, '--pull', 'always', reference, 'true'])).code).toBe(0);
      expect(requestsOf()).toEqual(['HEAD /v2/everything/manifests/1']);
    });

    test('what no registry has: 125, one line, nothing kept', async () => {
      const { code, stdout, stderr } = await run([...args, `${registry.host}/no/such:1`, 'true']);
      expect({ code, stdout }).toEqual({ code: 125, stdout: '' });
      expect(stderr).toMatch(
        /^(minirun: )?Unable to find image .*\n(.*: Pulling from .*\n)?minirun: cannot .*no\/such:1.*\n$/,
      );
      expect(await output('ps', '-aq')).toBe('');
    });
  });

  describe('at once', () => {
    const shared = ['1', '2', '3'].map((name) => `head -c 8000000 /dev/urandom >shared-${name}`);

    beforeAll(async () => {
      await workshop.build('shared', [everything[0] ?? '', ...shared]);
      for (let number = 0; number < 8; number++) {
        await workshop.build(`own-${number}`, [`echo ${number} >own; echo ${number} >shared-own`], { from: 'shared' });
        await workshop.push(`own-${number}`, `${registry.host}/own-${number}:1`);
      }
    });

    test('8 pulls of images that share layers: each layer is fetched once', async () => {
      const numbers = [0, 1, 2, 3, 4, 5, 6, 7];
      const results = await Promise.all(
        numbers.map((number) => run(['pull', '-q', `${registry.host}/own-${number}:1`])),
      );
      for (const { code, stderr } of results) expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      const counts = registry.blobFetches();
      // 4 shared layers, and a config and a layer of each.
      expect(counts.size).toBe(4 + 2 * 8);
      expect([...counts.values()].filter((count) => count !== 1)).toEqual([]);
      for (const number of [0, 7]) {
        const wanted = await workshop.mounted(`own-${number}`);
        expect(compareTrees(wanted, await seen(`${registry.host}/own-${number}:1`))).toEqual([]);
      }
      for (const number of numbers) {
        expect(await output('run', '--rm', '--network', 'none', `${registry.host}/own-${number}:1`, 'cat', 'own')).toBe(
          `${number}\n`,
        );
      }
    });

    test('4 pulls of one image share the work', async () => {
      const reference = `${registry.host}/own-0:1`;
      const results = await Promise.all([0, 1, 2, 3].map(() => run(['pull', '-q', reference])));
      for (const { code, stdout, stderr } of results)
        expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: `${reference}\n`, stderr: '' });
      const manifest = JSON.parse(await workshop.sh(`skopeo inspect --raw docker://${reference}`)) as {
        layers: { digest: string }[];
      };
      const counts = registry.blobFetches();
      expect(manifest.layers.map(({ digest }) => counts.get(digest))).toEqual(manifest.layers.map(() => 1));
    });
  });

  describe('what is printed', () => {
    test('without a terminal: a line for each event, no control characters; the name alone on stdout', async () => {
      const reference = `${registry.host}/everything:1`;
      const { stdout, stderr } = await run(['pull', reference]);
      expect(stdout).toBe(`${reference}\n`);
      const [first = '', ...lines] = stderr.trimEnd().split('\n');
      expect(first).toBe('1: Pulling from everything');
      expect(lines.filter((line) => /^[0-9a-f]{12}: Pull complete$/.test(line))).toHaveLength(everything.length);
      // oxlint-disable-next-line no-control-regex
      expect(stderr).not.toMatch(/[\x1b\r]/);
    });

    test('in a terminal: a line for each layer, drawn again and again', async () => {
      const reference = `${registry.host}/everything:1`;
      const pull = await world.spawn(['pull', reference], {
        tty: { cols: 100, rows: 30 },
        env: { MINIRUN_ROOT: root },
      });
      const { code, stdout } = await pull.exit;
      expect(code).toBe(0);
      expect(stdout).toContain('\x1b[');
      expect(stdout.split('Pull complete').length - 1).toBeGreaterThanOrEqual(everything.length);
      expect(stdout).toEndWith(`${reference}\r\n`);
    });

    test('-q: the name only', async () => {
      const reference = `${registry.host}/everything:1`;
      expect(await run(['pull', '-q', reference])).toMatchObject({ code: 0, stdout: `${reference}\n`, stderr: '' });
    });
  });

  describe('layers that buildah would not make', () => {
    /** The tar archive that a shell script writes to its standard output, in a directory of its own. */
    const archive = async (script: string): Promise<Buffer> => {
      const full = `d=$(mktemp -d -p ${world.directory}); cd $d; ${script}`;
      const { code, stdoutBytes, stderr } = await world.host.run(['sh', '-euc', full]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      return stdoutBytes;
    };
    const base = (): Promise<Buffer> => archive(`${everything[0]}; tar -c *`);
    /** Publishes them on top of one that runs. @returns the reference */
    const publish = async (name: string, ...layers: Buffer[]): Promise<string> => {
      const reference = `${registry.host}/${name}:1`;
      await workshop.sh(`skopeo copy -q ${workshop.layout([await base(), ...layers])} docker://${reference}`);
      await output('pull', '-q', reference);
      return reference;
    };

    test('a hundred', async () => {
      const count = 99;
      const layers = path.join(world.directory, 'hundred');
      await world.sh(`mkdir ${layers}; cd ${layers}
        n=0; while [ $n -lt ${count} ]; do echo $n >last; echo $n >f$n; tar -cf $n.tar last f$n; n=$((n + 1)); done`);
      const read = (_: unknown, number: number): Buffer => fs.readFileSync(path.join(layers, `${number}.tar`));
      const reference = await publish('hundred', ...Array.from({ length: count }, read));
      const wanted = await workshop.unpacked(`docker://${reference}`);
      expect(wanted.get('/f98')?.type).toBe('file');
      expect(compareTrees(wanted, await seen(reference))).toEqual([]);
    });

    test('a hard link to a file of a lower layer: refused with the reason, as podman does', async () => {
      const below = await archive('mkdir d; echo below >d/file; tar -c *');
      const link = await archive('mkdir d; echo below >d/file; ln d/file zz; tar -c d/file zz | tar --delete d/file');
      const reference = `${registry.host}/link-below:1`;
      await workshop.sh(`skopeo copy -q ${workshop.layout([await base(), below, link])} docker://${reference}`);
      const { code, stderr } = await run(['pull', '-q', reference]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^minirun: .*"zz".*hard link to "d\/file".*\n$/);
      const podman = workshop.sh(`skopeo copy -q docker://${reference} containers-storage:localhost/link-below`);
      expect(await podman.then(() => 'taken', String)).toContain('adding layer');
    });

    test('names that begin with ./, and an entry of the root itself', async () => {
      const reference = await publish('dot', await archive('mkdir a; echo b >a/b; chown 5:6 .; chmod 751 .; tar -c .'));
      expect(compareTrees(await workshop.unpacked(`docker://${reference}`), await seen(reference))).toEqual([]);
    });

    test('files without entries of their directories; the same name twice; whiteouts after and before what they hide', async () => {
      const below = await archive('mkdir -p w/x v; echo 1 >w/1; echo 2 >w/2; echo x >w/x/x; echo v >v/v; tar -c *');
      const above = await archive(`mkdir -p w v; echo new >w/1; : >w/.wh.2; echo v >v/new; : >v/.wh..wh..opq
        mkdir -p deep/er; echo deep >deep/er/file; echo one >twice; tar -c --no-recursion twice >../t.tar; echo two!! >twice
        tar -r -f ../t.tar --no-recursion v/new v/.wh..wh..opq w/1 w/.wh.2 deep/er/file twice; cat ../t.tar; rm ../t.tar`);
      const reference = await publish('order', below, above);
      const tree = await seen(reference);
      expect([...tree.keys()].filter((name) => /^\/[wv]\//.test(name))).toEqual(['/v/new', '/w/1', '/w/x', '/w/x/x']);
      expect(tree.get('/twice')?.size).toBe(6);
      // No entry, no properties: the unpackers make such a directory as they like.
      const made = /^\/(deep|deep\/er|w|v)$|^\/(proc|sys|dev)?$|^\/etc\/(hosts|hostname|resolv\.conf)$/;
      expect(compareTrees(await workshop.unpacked(`docker://${reference}`), tree, made)).toEqual([]);
    });

    test('without any entry, and the same layer twice', async () => {
      const empty = await archive('tar -c -T /dev/null');
      const twice = await archive('echo again >again; tar -c again');
      const removal = await archive(': >.wh.again; tar -c .wh.again');
      const reference = await publish('twice', twice, empty, removal, twice, empty);
      expect(compareTrees(await workshop.unpacked(`docker://${reference}`), await seen(reference))).toEqual([]);
      expect((await seen(reference)).has('/again')).toBe(true);
    });

    test('every format of GNU tar: long names, sparse files, times', async () => {
      const script = `long=$(printf %0150d 0); mkdir -p $long/$long; echo l >$long/$long/f; ln -s $long/$long/$long target; ln $long/$long/f $long/hard
        printf begin >sparse; truncate -s 2000000 sparse; printf middle >>sparse; truncate -s 5000000 sparse; truncate -s 300000 hole
        touch -d @1234567890.5 sparse; chown 3000000:4000000 hole; mkfifo fifo`;
      const small = 'echo x >x; ln x y; ln -s x z';
      const layers: Buffer[] = [];
      const formats: [string, string, string][] = [
        ['gnu', '--format=gnu -S', script],
        ['oldgnu', '--format=oldgnu -S', script],
        ['posix-1', '--format=posix --sparse-version=1.0 -S', script],
        ['posix-0', '--format=posix --sparse-version=0.1 -S', script],
        ['posix-00', '--format=posix --sparse-version=0.0 -S', script],
        ['ustar', '--format=ustar', small],
        ['v7', '--format=v7', small],
      ];
      const unpacked = path.join(world.directory, 'formats');
      fs.mkdirSync(unpacked);
      for (const [name, flags, make] of formats) {
        const layer = await archive(`mkdir ${name}; cd ${name}; ${make}; cd ..; tar ${flags} -c ${name}`);
        layers.push(layer);
        // GNU tar itself is the reference: umoci and podman refuse its own entries of sparse files.
        const { code } = await world.host.run(['tar', '-x', '-p', '-C', unpacked], { input: layer });
        expect(code).toBe(0);
      }
      const tree = await seen(await publish('formats', ...layers));
      const wanted = await readTree(world.host, unpacked);
      expect(wanted.size).toBeGreaterThan(50);
      const below = new Map(
        [...tree].filter(([name]) =>
          formats.some(([format]) => name === `/${format}` || name.startsWith(`/${format}/`)),
        ),
      );
      expect(compareTrees(wanted, below)).toEqual([]);
    });
  });
});
