import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { zstdCompressSync } from 'node:zlib';
import { FaultyRegistry, type Published } from '../support/faulty-registry.ts';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { expectSoundStore, halfDone } from '../support/store.ts';
import { type RawEntry, tar } from '../support/tar-writer.ts';
import { createWorld, expectNoLeak, type Result, type Running, type Snapshot, type World } from '../support/world.ts';

const random = (name: string, bytes: number): Buffer => tar([{ path: name, content: randomBytes(bytes) }]);

describe.skipIf(skipOrFail(missingWorld() ?? missingTool('busybox')))('pulls that share layers', () => {
  let world: World;
  let registry: FaultyRegistry;
  let before: Snapshot;
  let roots = 0;
  /** A layer with a shell, so that the image runs. */
  let base: Buffer;
  /** A state directory in which nothing is yet. */
  let root: string;

  beforeAll(async () => {
    world = await createWorld();
    registry = await FaultyRegistry.start(world);
    const program = (await world.sh('command -v busybox.static || command -v busybox')).trim();
    const directories = ['bin/', 'proc/', 'sys/', 'dev/', 'etc/'].map(
      (name): RawEntry => ({ path: name, type: '5', mode: 0o755 }),
    );
    const shell: RawEntry = { path: 'bin/sh', type: '2', linkpath: 'busybox' };
    base = tar([...directories, { path: 'bin/busybox', mode: 0o755, content: fs.readFileSync(program) }, shell]);
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

  const environment = () => ({ MINIRUN_ROOT: root, MINIRUN_RETRY_BASE_MS: '5' });
  const minirun = async (...args: string[]): Promise<Result> =>
    world.run(args, { env: environment(), timeout: 60_000 });
  const output = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await minirun(...args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return stdout;
  };
  const begin = async ({ reference }: { reference: string }): Promise<Running> =>
    world.spawn(['pull', reference], { env: environment() });
  const inside = async ({ reference }: { reference: string }, script: string): Promise<string> =>
    output('run', '--rm', '--network', 'none', '--pull', 'never', reference, 'sh', '-c', script);
  const stall = async (digest: string | undefined, at: number): Promise<void> =>
    registry.fault({ match: `GET .*${digest}`, times: 1, stallAt: at });
  /** Lets what stands still go on. */
  const goOn = async (): Promise<void> => {
    await registry.order({ cutStalled: true });
  };
  const fetches = async ({ layers }: Published): Promise<(number | undefined)[]> => {
    const counts = await registry.blobFetches();
    return layers.map((digest) => counts.get(digest));
  };

  test('8 images at once: each blob once, all whole, and they run', async () => {
    const shared = [base, ...[1, 2, 3, 4].map((number) => random(`shared-${number}`, 2_000_000))];
    const images: Published[] = [];
    for (let number = 0; number < 8; number++) {
      const own = tar([{ path: 'own', content: `${number}\n` }]);
      // Not all in the same order: who waits for whom goes around in circles.
      const middle = number % 2 === 0 ? shared.slice(1) : shared.slice(1).toReversed();
      images.push(await registry.publish(`eight/${number}`, [base, ...middle, own]));
    }
    const results = await Promise.all(images.map(({ reference }) => minirun('pull', '-q', reference)));
    for (const { code, stderr } of results) expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const counts = await registry.blobFetches();
    expect(counts.size).toBe(5 + 2 * 8);
    expect([...counts.values()].filter((count) => count !== 1)).toEqual([]);
    await expectSoundStore(world, root);
    for (const [number, image] of images.entries())
      expect(await inside(image, 'cat own; ls / | busybox grep -c shared || :')).toMatch(new RegExp(`^${number}\n`));
  });

  test('who waits does not burn the processor', async () => {
    const image = await registry.publish('idle', [random('f', 100_000)]);
    await stall(image.layers[0], 50_000);
    const first = await begin(image);
    await first.waitFor(/Pulling fs layer/);
    await registryHas(image.layers[0]);
    const second = await begin(image);
    await somebodyWaits();
    for (const { pid } of [first, second]) {
      const start = loadOf(pid);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const end = loadOf(pid);
      expect(end.ticks - start.ticks).toBeLessThanOrEqual(10);
      expect(end.switches - start.switches).toBeLessThan(1000);
    }
    await goOn();
    for (const { exit } of [first, second]) expect((await exit).code).toBe(0);
    expect((await registry.requests()).filter(({ path: place }) => place.endsWith(image.layers[0] ?? ''))).toHaveLength(
      2,
    );
    await expectSoundStore(world, root);
  });

  test('who fetches is killed: who waits takes over', async () => {
    const image = await registry.publish('taken-over', [base, random('f', 100_000)]);
    await stall(image.layers[1], 50_000);
    const first = await begin(image);
    await first.waitFor(/Pull complete/);
    await registryHas(image.layers[1]);
    const second = await begin(image);
    await somebodyWaits();
    first.kill('SIGKILL');
    expect((await second.exit).code).toBe(0);
    expect(await fetches(image)).toEqual([1, 2]);
    // What the dead one was at is for the next command that sweeps.
    await output('system', 'reconcile');
    await expectSoundStore(world, root);
    expect(await inside(image, 'busybox wc -c <f')).toBe('100000\n');
  });

  test('who fetches is interrupted or fails: who waits takes over', async () => {
    const image = await registry.publish('given-up', [random('f', 100_000)]);
    await stall(image.layers[0], 50_000);
    const first = await begin(image);
    await registryHas(image.layers[0]);
    const second = await begin(image);
    await somebodyWaits();
    first.kill('SIGINT');
    expect((await first.exit).code).toBe(130);
    expect((await second.exit).code).toBe(0);
    await expectSoundStore(world, root);
  });

  test('who waits is interrupted: the other one does not notice', async () => {
    const image = await registry.publish('impatient', [random('f', 100_000)]);
    await stall(image.layers[0], 50_000);
    const first = await begin(image);
    await registryHas(image.layers[0]);
    const second = await begin(image);
    await somebodyWaits();
    second.kill('SIGINT');
    expect((await second.exit).code).toBe(130);
    await goOn();
    expect((await first.exit).code).toBe(0);
    await expectSoundStore(world, root);
  });

  test('rmi, prune and reconcile meanwhile: what the pull has got, or counts on, stays', async () => {
    const old = await registry.publish('old', [base, random('old', 1000)]);
    await output('pull', '-q', old.reference);
    const image = await registry.publish('new', [base, random('f', 1000), random('g', 100_000)]);
    await stall(image.layers[2], 50_000);
    const pulling = await begin(image);
    await pulling.waitFor(/Already exists/);
    await pulling.waitFor(/Pull complete/);
    expect(await output('rmi', old.reference)).toContain('Deleted:');
    await output('image', 'prune', '-af');
    await output('system', 'prune', '-af');
    await output('system', 'reconcile');
    expect((await halfDone(world, root)).length).toBeGreaterThan(0);
    await goOn();
    expect((await pulling.exit).code).toBe(0);
    expect(await inside(image, 'busybox wc -c <g')).toBe('100000\n');
    expect(await fetches(image)).toEqual([1, 1, 2]);
    await expectSoundStore(world, root);
    // And it goes in the end.
    await output('rmi', image.reference);
    expect(
      await world.sh(`ls ${root}/images/layers ${root}/images/blobs/sha256 ${root}/images/configs | grep -v :`),
    ).toBe('\n\n');
  });

  test('run while another process pulls: it waits for that, and runs', async () => {
    const image = await registry.publish('wanted', [base, random('f', 100_000)]);
    await stall(image.layers[1], 50_000);
    const pulling = await begin(image);
    await pulling.waitFor(/Pull complete/);
    await registryHas(image.layers[1]);
    const args = ['run', '--rm', '--network', 'none', image.reference, 'sh', '-c', 'busybox wc -c <f'];
    const running = await world.spawn(args, { env: environment() });
    await somebodyWaits();
    await goOn();
    expect(await running.exit).toMatchObject({ code: 0, stdout: '100000\n' });
    expect((await pulling.exit).code).toBe(0);
    expect(await fetches(image)).toEqual([1, 2]);
    await expectSoundStore(world, root);
  });

  test('a layer that is here with another compression is not fetched, and save and push have it', async () => {
    const layer = random('f', 50_000);
    const gzipped = await registry.publish('gzip', [base, layer]);
    const zstd = await registry.publish(
      'zstd',
      [base, layer],
      { layerType: 'application/vnd.oci.image.layer.v1.tar+zstd', config: { author: 'another' } },
      (archive) => zstdCompressSync(archive),
    );
    await output('pull', '-q', gzipped.reference);
    await output('pull', '-q', zstd.reference);
    expect(await fetches(zstd)).toEqual([undefined, undefined]);
    expect(await inside(zstd, 'busybox wc -c <f')).toBe('50000\n');
    await expectSoundStore(world, root);
    await output('rmi', gzipped.reference);
    await expectSoundStore(world, root);
    await output('tag', zstd.reference, `${registry.host}/again:1`);
    await output('push', '-q', `${registry.host}/again:1`);
    await output('save', '-o', path.join(world.directory, 'saved.tar'), zstd.reference);
    for (const get of [
      ['pull', '-q', `${registry.host}/again:1`],
      ['load', '-q', '-i', path.join(world.directory, 'saved.tar')],
    ]) {
      root = path.join(world.directory, `root-${roots++}`);
      await output(...get);
      expect(
        await inside(
          { reference: get[0] === 'pull' ? `${registry.host}/again:1` : zstd.reference },
          'busybox wc -c <f',
        ),
      ).toBe('50000\n');
      await expectSoundStore(world, root);
    }
  });

  test('one layer several times in an image, also under two compressions', async () => {
    const layer = random('f', 50_000);
    const other = zstdCompressSync(layer);
    const stored = path.join(world.directory, 'other');
    fs.writeFileSync(stored, other);
    const blob = await registry.order<{ digest: string; size: number }>({
      blob: { repository: 'twice', file: stored },
    });
    const image = await registry.publish('twice', [base, layer, layer, layer], {
      layers: ([first, second, third]) => [
        first,
        second,
        third,
        { mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd', ...blob },
      ],
    });
    await output('pull', '-q', image.reference);
    expect(await inside(image, 'busybox wc -c <f')).toBe('50000\n');
    const counts = await registry.blobFetches();
    expect((counts.get(image.layers[1] ?? '') ?? 0) + (counts.get(blob.digest) ?? 0)).toBe(1);
    await expectSoundStore(world, root);
  });

  /** Waits until a blob was asked for. */
  async function registryHas(digest: string | undefined): Promise<void> {
    for (let attempt = 0; attempt < 500; attempt++) {
      if ((await registry.requests()).some(({ path: place }) => place.endsWith(digest ?? ''))) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`nobody asks for ${digest}`);
  }

  /** Waits until two processes want one layer: each has written its claim, and one of them has made it. */
  async function somebodyWaits(): Promise<void> {
    const images = path.join(root, 'images');
    for (let attempt = 0; attempt < 1000; attempt++) {
      const claims = fs.readdirSync(images).filter((entry) => fs.existsSync(path.join(images, entry, 'claim')));
      if (claims.length === 2) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error('nobody waits');
  }

  /** Clock ticks (a hundredth of a second) and context switches of a process so far. */
  function loadOf(pid: number): { ticks: number; switches: number } {
    let ticks = 0;
    let switches = 0;
    for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
      const stat = fs.readFileSync(`/proc/${pid}/task/${task}/stat`, 'latin1');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      ticks += Number(fields[11]) + Number(fields[12]);
      const status = fs.readFileSync(`/proc/${pid}/task/${task}/status`, 'latin1');
      for (const [, count] of status.matchAll(/ctxt_switches:\s+(\d+)/g)) switches += Number(count);
    }
    return { ticks, switches };
  }
});
