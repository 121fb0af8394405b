import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { FaultyRegistry, type Published } from '../support/faulty-registry.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { expectSoundStore, halfDone } from '../support/store.ts';
import { tar } from '../support/tar-writer.ts';
import { createWorld, expectNoLeak, type Result, type Running, type Snapshot, type World } from '../support/world.ts';

/** A layer of one file that no compression makes smaller. */
const layerOf = (name: string, bytes: number): Buffer => tar([{ path: name, content: randomBytes(bytes) }]);
const zeros = 'sha256:0000000000000000000000000000000000000000000000000000000000000000';

describe.skipIf(skipOrFail(missingWorld()))('what may go wrong in a pull', () => {
  let world: World;
  let registry: FaultyRegistry;
  let before: Snapshot;
  let roots = 0;
  /** A state directory in which nothing is yet. */
  let root: string;

  beforeAll(async () => {
    world = await createWorld();
    registry = await FaultyRegistry.start(world);
    before = await world.snapshot();
  });
  beforeEach(async () => {
    root = path.join(world.directory, `root-${roots++}`);
    await registry.forget();
  });
  afterAll(async () => {
    await expectNoLeak(before, world);
    await world.destroy();
  });

  const environment = (env: Record<string, string> = {}) => ({
    MINIRUN_ROOT: root,
    MINIRUN_RETRY_BASE_MS: '5',
    ...env,
  });
  const pull = async ({ reference }: { reference: string }, env?: Record<string, string>): Promise<Result> =>
    world.run(['pull', '-q', reference], { env: environment(env) });
  const begin = async ({ reference }: { reference: string }, env?: Record<string, string>): Promise<Running> =>
    world.spawn(['pull', reference], { env: environment(env) });

  const expectPulled = async (image: Published, env?: Record<string, string>): Promise<void> => {
    const { code, stderr } = await pull(image, env);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    await expectSoundStore(world, root);
  };
  /** One line that says it, and nothing kept. */
  const expectRefused = async (image: { reference: string }, words: RegExp, env?: Record<string, string>) => {
    const { code, stdout, stderr } = await pull(image, env);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^minirun: [^\n]+\n$/);
    expect(stderr).toMatch(words);
    expect(stderr).not.toContain('internal error');
    await expectSoundStore(world, root);
    expect(await world.sh('minirun images -q', { env: { MINIRUN_ROOT: root } })).toBe('');
  };
  /** Requests of a blob, as the parts that were asked for. */
  const parts = async (digest: string | undefined): Promise<string[]> =>
    (await registry.requests())
      .filter(({ path: place }) => place.endsWith(`/blobs/${digest}`))
      .map(({ headers }) => headers.range ?? 'all');
  const settings = (name: string, content: object): Record<string, string> => {
    const file = path.join(world.directory, `${name}.yaml`);
    fs.writeFileSync(file, JSON.stringify(content));
    return { MINIRUN_CONFIG: file };
  };

  describe('the connection', () => {
    test('cut after each tenth of a blob: goes on where it broke', async () => {
      const image = await registry.publish('tenths', [layerOf('f', 1_000_000)]);
      const [digest = ''] = image.layers;
      const { size } = await sizeOf(image, digest);
      const tenth = Math.floor(size / 10);
      for (let cut = 0; cut < 9; cut++)
        await registry.fault({ match: `GET .*${digest}`, times: 1, cutAt: tenth, linger: 150 });
      await expectPulled(image);
      const wanted = Array.from({ length: 9 }, (_, cut) => `bytes=${tenth * (cut + 1)}-`);
      expect(await parts(digest)).toEqual(['all', ...wanted]);
    });

    test('cut, and the server knows no parts: what came is skipped', async () => {
      const image = await registry.publish('no-range', [layerOf('f', 300_000)]);
      const [digest = ''] = image.layers;
      for (const cutAt of [100_000, 200_000])
        await registry.fault({ match: `GET .*${digest}`, times: 1, cutAt, linger: 150, ignoreRange: true });
      await registry.fault({ match: `GET .*${digest}`, ignoreRange: true });
      await expectPulled(image);
      expect(await parts(digest)).toEqual(['all', 'bytes=100000-', 'bytes=200000-']);
    });

    test('cut before anything came, again and again, in the manifest, the config and a layer', async () => {
      const image = await registry.publish('nothing', [layerOf('f', 1000)]);
      for (const match of ['manifests/1', 'blobs/'])
        await registry.fault({ match: `GET .*${match}`, times: 3, cutAt: 0 });
      await expectPulled(image);
    });

    test('standing still is a cut: the transfer goes on', async () => {
      const image = await registry.publish('stalled', [layerOf('f', 100_000)]);
      const [digest = ''] = image.layers;
      await registry.fault({ match: `GET .*${digest}`, times: 1, stallAt: 40_000 });
      await expectPulled(image, { MINIRUN_SILENCE_MS: '700' });
      expect(await parts(digest)).toEqual(['all', 'bytes=40000-']);
    });

    test('standing still does not delay the error of another layer', async () => {
      const broken = layerOf('g', 1000);
      const image = await registry.publish('stalled-beside', [layerOf('f', 100_000), broken]);
      const [stalled, flipped] = image.layers;
      await registry.fault({ match: `GET .*${stalled}`, stallAt: 40_000 });
      await registry.fault({ match: `GET .*${flipped}`, flip: 500 });
      const begun = performance.now();
      await expectRefused(image, /its digest is/);
      expect(performance.now() - begun).toBeLessThan(8000);
    });

    test('nobody there', async () => {
      await expectRefused({ reference: '127.0.0.1:1/x:1' }, /cannot reach 127\.0\.0\.1:1: connection refused/);
    });
  });

  describe('the server', () => {
    test('429 with Retry-After: not before that', async () => {
      const image = await registry.publish('busy', [layerOf('f', 1000)]);
      await registry.fault({ match: 'GET .*manifests', times: 1, status: 429, headers: { 'retry-after': '1' } });
      const begun = performance.now();
      const { code, stderr } = await pull(image);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(performance.now() - begun).toBeGreaterThan(1000);
      expect((await registry.requests()).filter(({ path: place }) => place.includes('manifests'))).toHaveLength(2);
    });

    test('500 three times, for the manifest, the config and a layer', async () => {
      const image = await registry.publish('ill', [layerOf('f', 1000)]);
      const [digest = ''] = image.layers;
      await registry.fault({ match: `GET .*${digest}`, times: 3, status: 500 });
      await registry.fault({ match: 'GET .*blobs', times: 3, status: 502 });
      await registry.fault({ match: 'GET .*manifests', times: 3, status: 500 });
      await expectPulled(image);
      expect(await parts(digest)).toHaveLength(4);
    });

    test('503 for ever is what the error says, for a layer, too', async () => {
      const image = await registry.publish('down', [layerOf('f', 1000)]);
      const [digest = ''] = image.layers;
      await registry.fault({ match: `GET .*${digest}`, status: 503 });
      await expectRefused(image, /answers 503/);
      expect(await parts(digest)).toHaveLength(6);
    });

    test('it breaks in mid-transfer and is gone for good', async () => {
      const image = await registry.publish('dies', [layerOf('f', 100_000)]);
      const [digest = ''] = image.layers;
      await registry.fault({ match: `GET .*${digest}`, times: 1, cutAt: 50_000, linger: 150 });
      await registry.fault({ match: `GET .*${digest}`, status: 503 });
      await expectRefused(image, /answers 503/);
    });

    test('a blob that is not there', async () => {
      const image = await registry.publish('lost', [layerOf('f', 1000)]);
      await registry.fault({ match: `GET .*${image.layers[0]}`, status: 404 });
      await expectRefused(image, /has nothing of this name/);
    });

    test('tokens that are good once: each request gets its own, in mid-blob, too', async () => {
      await using guarded = await FaultyRegistry.start(world, { auth: { type: 'bearer', uses: 1 } });
      const image = await guarded.publish('token', [layerOf('f', 100_000)]);
      const [digest = ''] = image.layers;
      // The first one is refused: the token was good for the config.
      await guarded.fault({ match: `GET .*${digest}`, skip: 1, times: 1, cutAt: 50_000, linger: 150 });
      await expectPulled(image);
      const requests = await guarded.requests();
      const answers = requests
        .filter(({ path: place }) => place.endsWith(digest))
        .map(({ status, headers }) => [status, headers.range]);
      // The log has what was answered before the part was cut out of it.
      expect(answers.filter(([status]) => status !== 401).map(([, range]) => range)).toEqual([
        undefined,
        'bytes=50000-',
      ]);
      expect(requests.filter(({ path: place }) => place.startsWith('/token')).length).toBeGreaterThanOrEqual(4);
    });
  });

  describe('what comes is not what was promised', () => {
    const cases: [string, object, RegExp][] = [
      ['shorter than its descriptor', { shortenTo: 900 }, /instead of \d+ bytes/],
      ['longer than its descriptor', { lengthenBy: 10 }, /instead of \d+ bytes/],
      ['shorter, in chunks', { shortenTo: 900, noLength: true }, /instead of \d+ bytes|ended after/],
      ['longer, in chunks', { lengthenBy: 10, noLength: true }, /more than its \d+ bytes/],
      ['empty', { shortenTo: 0 }, /instead of \d+ bytes/],
      ['one bit flipped in the gzip header', { flip: 1 }, /its digest is sha256:\w+ and not sha256:/],
      ['one bit flipped in the gzip data', { flip: 600 }, /its digest is sha256:\w+ and not sha256:/],
      ['one bit flipped in a large layer', { flip: 1_500_000 }, /its digest is sha256:\w+ and not sha256:/],
    ];
    for (const [name, fault, words] of cases) {
      test(`a layer: ${name}`, async () => {
        const bytes = name.includes('large') ? 3_000_000 : 2000;
        const image = await registry.publish('promise', [layerOf('f', bytes)]);
        await registry.fault({ match: `GET .*${image.layers[0]}`, ...fault });
        await expectRefused(image, words);
        await registry.forget();
        await expectPulled(image);
      });
    }

    test('a config with one bit flipped; a manifest with one bit flipped', async () => {
      const image = await registry.publish('small', [layerOf('f', 1000)]);
      await registry.fault({ match: 'GET .*blobs', flip: 3 });
      await expectRefused(image, /the image config is damaged: its digest is/);
      await registry.forget();
      await registry.fault({ match: 'GET .*manifests', flip: 40 });
      await expectRefused(image, /its manifest is not the one of sha256:/);
    });

    test('a digest of a layer that is not in the registry’s gift', async () => {
      const liar = await registry.publish('wrong-digest', [layerOf('f', 1000)], {
        layers: ([layer]) => [{ ...layer, digest: zeros }],
      });
      await expectRefused(liar, /has nothing of this name/);
    });

    test('a diffID that is another’s', async () => {
      const image = await registry.publish('wrong-diff', [layerOf('f', 1000)], { diffIds: [zeros] });
      await expectRefused(image, /not the one that the image config names: its content has the digest sha256:/);
    });

    test('gzip that is cut off, with the digest of what is left', async () => {
      const image = await registry.publish('cut-gzip', [layerOf('f', 50_000)], {}, (archive) =>
        gzipSync(archive).subarray(0, 30_000),
      );
      await expectRefused(image, /its gzip data is cut off/);
    });

    test('tar that is cut off; what is no tar; what is no gzip', async () => {
      const cut = await registry.publish('cut-tar', [layerOf('f', 50_000).subarray(0, 20_000)]);
      await expectRefused(cut, /cut off|ends in the middle|truncated/);
      await expectRefused(await registry.publish('no-tar', [randomBytes(5000)]), /cannot pull layer \w{12}: /);
      const plain = await registry.publish('no-gzip', [randomBytes(5000)], {}, (archive) => archive);
      await expectRefused(plain, /cannot pull layer \w{12}: /);
    });

    test('a config with more or fewer layers than the manifest', async () => {
      const one = layerOf('f', 1000);
      const digest = `sha256:${createHash('sha256').update(one).digest('hex')}`;
      for (const [name, diffIds] of [
        ['more', [digest, zeros]],
        ['fewer', []],
      ] as const) {
        const image = await registry.publish(`lies-${name}`, [one], { diffIds: [...diffIds] });
        await expectRefused(image, /its manifest has 1 layers and its config [02]/);
        expect(await parts(image.layers[0])).toEqual([]);
      }
    });

    const sizes: [string, (size: number) => unknown, RegExp][] = [
      ['none', () => undefined, /size/],
      ['negative', () => -1, /size/],
      ['a fraction', () => 1.5, /size/],
      ['text', (size) => String(size), /size/],
      ['beyond numbers', () => 1e300, /size/],
      ['nothing', () => 0, /\d+ bytes|longer than announced/],
      ['the largest there is', () => Number.MAX_SAFE_INTEGER, /instead of \d+ bytes/],
      ['one too small', (size) => size - 1, /instead of \d+ bytes/],
      ['one too large', (size) => size + 1, /instead of \d+ bytes/],
    ];
    test('sizes of layers in the manifest that are not', async () => {
      for (const [name, change, words] of sizes) {
        const image = await registry.publish(`size-${name.replaceAll(' ', '-')}`, [layerOf('f', 1000)], {
          layers: ([layer]) => [{ ...layer, size: change(layer?.size ?? 0) }],
        });
        await expectRefused(image, words);
      }
    });

    test('digests that are paths; indexes without this platform; indexes without end', async () => {
      const image = await registry.publish('evil', [layerOf('f', 1000)], {
        layers: ([layer]) => [{ ...layer, digest: 'sha256:../../../../etc/passwd' }],
      });
      await expectRefused(image, /digest/);
      const index = async (repository: string, manifests: object[]): Promise<{ reference: string }> => {
        const document = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests };
        await registry.order({ manifest: { repository, tag: '1', document } });
        return { reference: `${registry.host}/${repository}:1` };
      };
      const { digest } = await registry.publish('platforms', [layerOf('f', 1000)]);
      const entry = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest, size: 1 };
      const foreign = await index('platforms', [{ ...entry, platform: { os: 'plan9', architecture: 'mips' } }]);
      await expectRefused(foreign, /there is none for linux\/\w+.*plan9\/mips/);
      await expectRefused(await index('empty', []), /there is none for linux/);
    });
  });

  describe('limits of the config file', () => {
    test('the bytes and the entries of a layer', async () => {
      const image = await registry.publish('limits', [layerOf('f', 100_000)]);
      const many = await registry.publish('many', [
        tar(Array.from({ length: 20 }, (_, number) => ({ path: `f${number}` }))),
      ]);
      const size = settings('layer-size', { limits: { 'layer-size': '50k' } });
      await expectRefused(image, /more than 51200 bytes.*limits\.layer-size/, size);
      const entries = settings('layer-entries', { limits: { 'layer-entries': 10 } });
      await expectRefused(many, /more than 10 entries.*limits\.layer-entries/, entries);
      await expectPulled(image, entries);
    });
  });

  describe('a mirror', () => {
    const mirrored = (name: string, ...mirrors: string[]): Record<string, string> =>
      settings(name, { registries: { [registry.host]: { mirrors } } });

    test('that is not there, and one that turns ill in mid-blob, give way', async () => {
      await using other = await FaultyRegistry.start(world);
      const layers = [layerOf('f', 200_000), layerOf('g', 1000)];
      const image = await registry.publish('mirrored', layers);
      await other.publish('mirrored', layers);
      const env = mirrored('mirrors', 'http://127.0.0.1:1', `http://${other.host}`);
      await other.fault({ match: `GET .*${image.layers[0]}`, flip: 150_000 });
      await expectPulled(image, env);
      expect(await parts(image.layers[0])).toEqual(['all']);

      // The first one alone is of use when it is well.
      root = path.join(world.directory, `root-${roots++}`);
      await registry.forget();
      await other.forget();
      await expectPulled(image, env);
      expect(await registry.requests()).toEqual([]);
    });

    test('does not give way to another when it is this machine that fails', async () => {
      await using other = await FaultyRegistry.start(world);
      const layers = [layerOf('f', 200_000)];
      const image = await registry.publish('ours', layers);
      await other.publish('ours', layers);
      const mirrors = [`http://${other.host}`];
      const env = settings('ours', {
        registries: { [registry.host]: { mirrors } },
        limits: { 'layer-size': 1000 },
      });
      await expectRefused(image, /more than 1000 bytes/, env);
      expect(await registry.requests()).toEqual([]);
    });
  });

  describe('a full disk', () => {
    const small = async (name: string, size: string): Promise<void> => {
      root = path.join(world.directory, name);
      await world.sh(`mkdir ${root}; mount -t tmpfs -o size=${size},mode=700 small ${root}`);
    };
    const free = async (): Promise<void> => {
      await world.sh(`umount ${root}`);
    };
    const full = /no space left on/;

    const sixteen = Array.from({ length: 16 }, () => ({ path: 'f', content: randomBytes(500_000) }));
    const layers: [string, () => Buffer][] = [
      ['while files are made', () => tar([{ path: 'f', content: Buffer.alloc(12_000_000) }])],
      // The same file again and again: little to unpack.
      ['while the archive is written', () => tar(sixteen)],
    ];
    for (const [name, layer] of layers) {
      test(`${name}: said, nothing kept, and it works when there is space`, async () => {
        await small(`full-${name.split(' ').at(-1)}`, '6m');
        const image = await registry.publish('full', [layer()]);
        await expectRefused(image, full);
        await world.sh(`mount -o remount,size=64m ${root}`);
        await expectPulled(image);
        await free();
      });
    }

    test('from any moment on: said, nothing kept, and it works when there is space', async () => {
      const image = await registry.publish('full', [layerOf('f', 50_000)]);
      const seen: string[] = [];
      for (let moment = 1; ; moment++) {
        await small(`full-${moment}`, '1m');
        const pulling = await begin(image, { MINIRUN_FAULT: `stop:${moment}` });
        const isStopped = await pulling.stopped();
        if (isStopped) {
          await world.sh(`head -c 2000000 /dev/zero >${root}/filler 2>/dev/null || true`);
        }
        const { code, stderr } = isStopped ? await pulling.resume() : await pulling.exit;
        seen.push(`${moment}: ${code}`);
        const last = stderr.trimEnd().split('\n').at(-1) ?? '';
        if (code !== 0) {
          expect(last).toMatch(/^minirun: /);
          expect(last).toMatch(full);
        }
        expect(await halfDone(world, root)).toEqual([]);
        await world.sh(`rm -f ${root}/filler`);
        await expectPulled(image);
        await free();
        if (!isStopped) break;
      }
      // Each of them but the last, after which nothing stops.
      expect(seen.filter((line) => line.endsWith(': 1')).length).toBeGreaterThanOrEqual(5);
    });
  });

  describe('when it is broken off', () => {
    /** An image whose first layer is complete while the second does not go on. */
    const halfway = async (repository: string): Promise<{ image: Published; pulling: Running }> => {
      const image = await registry.publish(repository, [layerOf('f', 10_000), layerOf('g', 2_000_000)]);
      await registry.fault({ match: `GET .*${image.layers[1]}`, stallAt: 1_000_000 });
      const pulling = await begin(image);
      await pulling.waitFor(/: Pull complete\n/);
      await helperOf(pulling);
      return { image, pulling };
    };
    const expectContinued = async (image: Published): Promise<void> => {
      await registry.forget();
      await expectPulled(image);
      expect(await parts(image.layers[0])).toEqual([]);
      expect(await parts(image.layers[1])).toEqual(['all']);
    };

    for (const [signal, code] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
    ] as const) {
      test(`${signal} in mid-layer: ${code}, nothing half-done; the next pull goes on`, async () => {
        const { image, pulling } = await halfway(signal.toLowerCase());
        const begun = performance.now();
        pulling.kill(signal);
        const result = await pulling.exit;
        expect(performance.now() - begun).toBeLessThan(3000);
        expect(result.code).toBe(code);
        expect(result.stderr).toEndWith(`\nminirun: stopped by ${signal}: nothing half-done was kept\n`);
        expect(await halfDone(world, root)).toEqual([]);
        await expectNoLeak(before, world, { timeout: 0 });
        expect(await world.sh('minirun system check', { env: { MINIRUN_ROOT: root } })).toContain('no damage');
        await expectContinued(image);
      });
    }

    test('SIGINT while files are made, and the helper does not listen', async () => {
      const image = await registry.publish('deaf', [layerOf('f', 30_000_000)]);
      await registry.fault({ match: `GET .*${image.layers[0]}`, stallAt: 20_000 });
      const pulling = await begin(image);
      const helper = await helperOf(pulling);
      process.kill(helper, 'SIGSTOP');
      await registry.order({ cutStalled: true });
      await registry.order({ forgetFaults: true });
      // The pipe to the helper is full some time; whether it is already makes no difference.
      pulling.kill('SIGINT');
      expect((await pulling.exit).code).toBe(130);
      expect(await halfDone(world, root)).toEqual([]);
      await expectNoLeak(before, world, { timeout: 0 });
    });

    test('SIGINT between attempts', async () => {
      const image = await registry.publish('between', [layerOf('f', 1000)]);
      await registry.fault({ match: `GET .*${image.layers[0]}`, status: 503, headers: { 'retry-after': '30' } });
      const pulling = await begin(image);
      await pulling.waitFor(/503/);
      pulling.kill('SIGINT');
      expect((await pulling.exit).code).toBe(130);
      expect(await halfDone(world, root)).toEqual([]);
    });

    test('kill -9: the helper ends, too; the next pull fetches only what was not complete', async () => {
      const { image, pulling } = await halfway('killed');
      pulling.kill('SIGKILL');
      await pulling.exit;
      await expectNoLeak(before, world);
      expect((await halfDone(world, root)).length).toBeGreaterThan(0);
      await expectContinued(image);
    });

    test('kill -9 of the helper: an error, nothing kept of the layer', async () => {
      const { image, pulling } = await halfway('helpless');
      process.kill(await helperOf(pulling), 'SIGKILL');
      // What is left of the archive is read, to tell whether that is to blame.
      await registry.order({ forgetFaults: true });
      await registry.order({ cutStalled: true });
      const { code, stderr } = await pulling.exit;
      expect(code).toBe(1);
      expect(stderr).toMatch(/\nminirun: cannot pull layer \w{12}: cannot unpack the archive: [^\n]*ended[^\n]*\n$/);
      expect(await halfDone(world, root)).toEqual([]);
      await expectContinued(image);
    });

    test('by a power cut, which leaves files without content', async () => {
      const { image, pulling } = await halfway('power');
      pulling.kill('SIGKILL');
      await pulling.exit;
      for (const entry of await halfDone(world, root)) {
        if (entry.startsWith('.claim')) fs.truncateSync(path.join(root, 'images', entry), 0);
      }
      await expectContinued(image);
    });
  });

  /** The pid, as seen from here, of the helper that unpacks for a pull. */
  async function helperOf({ pid }: Running): Promise<number> {
    for (let attempt = 0; attempt < 500; attempt++) {
      const children = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
      for (const child of children.filter((each) => each !== '')) {
        const tasks = fs.existsSync(`/proc/${child}/root/etc`);
        // Its root is the layer.
        if (!tasks) return Number(child);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error('there is no helper');
  }

  async function sizeOf({ reference }: Published, digest: string): Promise<{ size: number }> {
    const repository = reference.slice(registry.host.length + 1).replace(/:1$/, '');
    const { code, stdout } = await world.host.run([
      'curl',
      '-sI',
      `http://${registry.host}/v2/${repository}/blobs/${digest}`,
    ]);
    expect(code).toBe(0);
    const size = Number(/content-length: (\d+)/i.exec(stdout)?.[1]);
    await registry.forget();
    return { size };
  }
});
