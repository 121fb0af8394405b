/**
 * `npm run bench`: minirun against docker, podman and the floor, side by side on the same root filesystem.
 *
 *     npm run bench             everything
 *     npm run bench -- images   only a part (containers, images, networks, posture): nothing is written down then,
 *                               but what `posture` finds (results/posture.json, docs/security.md)
 *
 * Everything runs in private worlds (test/support/world.ts), which end with this process: a docker daemon too.
 * Needs root and hyperfine. What is not installed is left out and said so.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type Archives, makeImages, nameOf, peakMemory, type Puller, startRegistry, type TestImage } from './images.ts';
import { missingTool, missingWorld } from '../support/skip.ts';
import { createWorld, minirun, type World } from '../support/world.ts';
import { memoryPerContainer } from './memory.ts';
import { measureNetworks } from './networks.ts';
import {
  expectZero,
  findNode,
  image,
  launcher,
  type Peer,
  sleeper,
  startDocker,
  startFloor,
  startLauncher,
  startMinirun,
  startPodman,
} from './peers.ts';
import { comparePosture } from './posture.ts';
import { makeRootfs } from './rootfs.ts';

interface Timing {
  name: string;
  /** Seconds. */
  mean: number;
  stddev: number;
  min: number;
  max: number;
}

interface Ratio {
  what: string;
  value: number;
  target: number;
  /** The value is to be the target at least, not at most. */
  atLeast?: boolean;
}

interface Memory {
  /** Bytes. */
  one: number;
  mean: number;
}

const parts = ['containers', 'images', 'networks', 'posture'];
const only = process.argv[2];
const many = 200;
const several = 20;
const pullRounds = 6;

const wanted = (part: string): boolean => only === undefined || only === part;
const problem =
  only !== undefined && !parts.includes(only)
    ? `no part "${only}": there are ${parts.join(', ')}`
    : (missingWorld() ?? missingTool('hyperfine', 'busybox'));
if (problem !== undefined) {
  process.stderr.write(`bench: ${problem}\n`);
  process.exit(1);
}

const skipped: string[] = [];
const ratios: Ratio[] = [];
const world = await createWorld({ cgroups: 'shared' });
const peers: Peer[] = [];
try {
  const { rootfs, tarball } = makeRootfs(world.directory);
  await add('minirun', () => startMinirun(world, tarball));
  if (wanted('containers')) {
    await add('bin/minirun', () => startLauncher(world));
    await add('floor', () => startFloor(world, rootfs));
  }
  await add('docker', () => startDocker(tarball));
  if (wanted('containers') || wanted('images') || wanted('posture'))
    await add('podman', () => startPodman(world, tarball));

  const result = {
    ...(wanted('containers') ? await measureContainers() : {}),
    ...(wanted('images') ? { images: await measureImages() } : {}),
    ...(wanted('networks') ? { networks: await networks(tarball) } : {}),
  };

  if (wanted('posture')) {
    const weaker = await comparePosture(world, peers);
    process.stdout.write(`\nposture: ${weaker.length === 0 ? 'minirun is nowhere weaker' : 'minirun is WEAKER'}\n`);
    for (const line of weaker) process.stdout.write(`  ${line}\n`);
  }

  process.stdout.write('\ntargets\n');
  for (const { what, value, target, atLeast = false } of ratios) {
    const verdict = (atLeast ? value >= target : value <= target) ? 'reached' : 'MISSED';
    const limit = `${atLeast ? '≥' : '≤'} ${target}`;
    process.stdout.write(`  ${what.padEnd(48)} ${value.toFixed(2).padStart(8)}   target ${limit}   ${verdict}\n`);
  }
  for (const reason of skipped) process.stdout.write(`  left out: ${reason}\n`);

  if (only === undefined) writeDown(result);
} finally {
  for (const peer of peers) await peer.stop();
  // minirun's own directory, as long as no other minirun uses it.
  await world.sh('find /sys/fs/cgroup -depth -name minirun -type d -exec rmdir {} + 2> /dev/null || true');
  await world.destroy();
}
process.exit(0);

/** Starting, keeping and listing containers. */
async function measureContainers(): Promise<object> {
  const run = await hyperfine(
    world,
    peers.map(({ name, run: command }) => ({ name, command })),
    20,
  );
  print('run --rm busybox true, with network', run);
  compare('run: minirun / docker', run, 'minirun', 'docker', 0.33);
  compare('run: minirun / floor', run, 'minirun', 'floor', 2);
  return { run, start: await measureStart(), memory: await measureMemory(), ps: await measurePs() };
}

/** Traffic, and containers that come and go on networks with many others. */
async function networks(tarball: string): Promise<object | undefined> {
  const missing = missingTool('iperf3');
  if (missing !== undefined || !has('minirun')) {
    skipped.push(`networks: ${missing ?? 'minirun'}`);
    return undefined;
  }
  const measured = await measureNetworks(
    tarball,
    peers.find(({ name }) => name === 'docker'),
  );
  ratios.push(...measured.ratios);
  skipped.push(...measured.skipped);
  return measured.figures;
}

function writeDown(figures: object): void {
  const versions = Object.fromEntries(peers.map(({ name, version }) => [name, version]));
  const computer = { kernel: os.release(), cpu: os.cpus()[0]?.model, cpus: os.cpus().length };
  const date = new Date().toISOString();
  const file = path.join(import.meta.dir, 'results', `${date.slice(0, 19).replaceAll(':', '')}.json`);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, `${JSON.stringify({ date, computer, versions, ...figures, ratios, skipped }, null, 2)}\n`);
  process.stdout.write(`\nwritten to ${path.relative(process.cwd(), file)}\n`);
}

/** Starts a tool, and runs it once as a warm-up that must succeed; a tool that fails is left out. */
async function add(name: string, begin: () => Promise<Peer>): Promise<void> {
  let peer: Peer | undefined;
  try {
    peer = await begin();
    await expectZero(world.host, peer.run);
    peers.push(peer);
  } catch (error) {
    await peer?.stop();
    skipped.push(`${name}: ${(error as Error).message}`);
    process.stderr.write(`bench: left out ${name}: ${(error as Error).message}\n`);
  }
}

/** An empty script: minirun's own start against that of the language it could have been written for. */
async function measureStart(): Promise<Timing[]> {
  const node = findNode();
  const empty = path.join(world.directory, 'empty.js');
  fs.writeFileSync(empty, '');
  const commands = [{ name: `node ${node.version}, empty script`, command: [node.file, empty] }];
  if (has('minirun')) commands.push({ name: 'minirun --version', command: [minirun, '--version'] });
  if (has('bin/minirun')) commands.push({ name: 'bin/minirun --version', command: [launcher, '--version'] });
  const timings = await hyperfine(world, commands, 30);
  print('start', timings);
  compare(
    `start: minirun --version / node ${node.version}`,
    timings,
    'minirun --version',
    commands[0]?.name ?? '',
    0.5,
  );
  return timings;
}

/** Of one container alone, and the mean of several, which share the pages of their programs. */
async function measureMemory(): Promise<Record<string, Memory>> {
  const memory: Record<string, Memory> = {};
  process.stdout.write('\nmemory (PSS) per detached container, beside its own process\n');
  for (const peer of peers) {
    if (peer.detach === undefined) continue;
    const { one, mean } = await memoryPerContainer(peer, several);
    memory[peer.name] = { one, mean };
    const numbers = [one, mean].map((bytes) => `${(bytes / 1e6).toFixed(2).padStart(7)} MB`);
    process.stdout.write(`  ${peer.name.padEnd(32)} one: ${numbers[0]}   mean of ${several}: ${numbers[1]}\n`);
  }
  if (has('minirun')) {
    await expectZero(world.host, [minirun, 'rm', '-f', '-a']);
    ratios.push({
      what: 'memory: MB for one detached container',
      value: (memory.minirun?.one ?? 0) / 1e6,
      target: 1.5,
    });
  }
  return memory;
}

/** `ps` with no container and with many that run. */
async function measurePs(): Promise<Timing[]> {
  if (!has('minirun')) return [];
  const command = [minirun, 'ps'];
  const none = await hyperfine(world, [{ name: 'ps, no container', command }], 20);
  for (let index = 0; index < many; index++) {
    await expectZero(world.host, [minirun, 'run', '-d', image, ...sleeper]);
  }
  const full = await hyperfine(world, [{ name: `ps, ${many} containers`, command }], 20);
  await expectZero(world.host, [minirun, 'rm', '-f', '-a']);
  const timings = [...none, ...full];
  print('ps', timings);
  compare(`ps: ${many} containers / none`, timings, `ps, ${many} containers`, 'ps, no container', 3);
  return timings;
}

interface ImageFigures {
  pull: Record<string, Timing[]>;
  unpack: Timing[];
  again: Timing[];
  /** Peak of PSS, in bytes. */
  memory: Record<string, number>;
}

/** Pulls from one registry on the loopback of each tool's host, by every tool; each time all of the image is fetched. */
async function measureImages(): Promise<ImageFigures | undefined> {
  const missing = missingTool('docker-registry', 'skopeo');
  if (missing !== undefined || !has('minirun')) {
    skipped.push(`images: ${missing ?? 'minirun'}`);
    return undefined;
  }
  const { store, images, large, archives } = await makeImages(world);
  const pullers = peers.flatMap(({ name, puller }): Puller[] => (puller === undefined ? [] : [{ name, ...puller }]));
  for (const { machine } of pullers) if (machine !== world.host) await startRegistry(machine, world.directory, store);
  const pull: Record<string, Timing[]> = {};
  for (const image of images) {
    const timings = await timePulls(pullers, image);
    pull[image.name] = timings;
    print(`pull ${image.name}: ${(image.bytes / 1e6).toFixed(0)} MB, ${image.files} files`, timings);
    for (const other of ['docker', 'podman'])
      compare(`pull ${image.name}: minirun / ${other}`, timings, 'minirun', other, 1);
  }
  const unpack = await measureUnpack(archives);
  const again = await measureSecondPull(images[1] as TestImage);
  const memory: Record<string, number> = {};
  for (const image of [...images, large]) {
    await world.host.run([minirun, 'rmi', '-f', nameOf(image.name)]);
    memory[image.name] = await peakMemory(world.host, [minirun, 'pull', '-q', nameOf(image.name)]);
    process.stdout.write(
      `  pull ${image.name} (${(image.bytes / 1e6).toFixed(0)} MB): peak memory ${((memory[image.name] ?? 0) / 1e6).toFixed(0)} MB\n`,
    );
  }
  const peaks = Object.values(memory);
  ratios.push({ what: 'pull: MB of memory at most', value: Math.max(...peaks) / 1e6, target: 300 });
  ratios.push({
    what: 'pull: memory large / ten-layers',
    value: (memory.large ?? 0) / (memory['ten-layers'] ?? 1),
    target: 1.2,
  });
  return { pull, unpack, again, memory };
}

/** Takes turns: the disk of a virtual machine is not the same from one minute to the next. */
async function timePulls(pullers: readonly Puller[], image: TestImage): Promise<Timing[]> {
  const reference = nameOf(image.name);
  const seconds = new Map<string, number[]>(pullers.map(({ name }) => [name, []]));
  for (let round = 0; round <= pullRounds; round++) {
    for (const { name, machine, pull, remove } of pullers) {
      await machine.run([...remove, reference], { timeout: 120_000 });
      await machine.run(['sync'], { timeout: 120_000 });
      const begin = performance.now();
      await expectZero(machine, [...pull, reference]);
      // The first is a warm-up.
      if (round > 0) seconds.get(name)?.push((performance.now() - begin) / 1000);
    }
  }
  return [...seconds].map(([name, all]) => {
    const mean = all.reduce((sum, each) => sum + each, 0) / all.length;
    const variance = all.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (all.length - 1);
    return { name, mean, stddev: Math.sqrt(variance), min: Math.min(...all), max: Math.max(...all) };
  });
}

/** A layer's archive into a directory, beside GNU tar, which verifies nothing. */
async function measureUnpack({ plain, gzip }: Archives): Promise<Timing[]> {
  const unpack = path.join(world.directory, 'unpack');
  const build = ['build', '--compile', '--bytecode', '--splitting', '--format=esm', '--minify', `--outfile=${unpack}`];
  execFileSync(process.execPath, [...build, path.join(import.meta.dir, 'unpack.ts')], { stdio: 'pipe' });
  const out = path.join(world.directory, 'unpacked');
  const timings: Timing[] = [];
  for (const [kind, archive] of Object.entries({ plain, gzip })) {
    const commands = [
      { name: `minirun, ${kind}`, command: [unpack, archive, out] },
      { name: `tar -xp, ${kind}`, command: ['tar', '-xpf', archive, '-C', out] },
    ];
    const pair = await hyperfine(world, commands, 10, `rm -rf ${out}; mkdir ${out}; sync`);
    timings.push(...pair);
    compare(`unpack ${kind}: minirun / tar`, pair, `minirun, ${kind}`, `tar -xp, ${kind}`, 1.2);
  }
  print('unpack alone', timings);
  return timings;
}

/** An image that is here already, beside the one request that it takes to know. */
async function measureSecondPull(image: TestImage): Promise<Timing[]> {
  const reference = nameOf(image.name);
  await expectZero(world.host, [minirun, 'pull', '-q', reference]);
  const [host = '', ...repository] = reference.split('/');
  const commands = [
    { name: 'second pull', command: [minirun, 'pull', '-q', reference] },
    {
      name: 'one request by curl',
      command: [
        'curl',
        '-sfI',
        '-H',
        'Accept: application/vnd.oci.image.manifest.v1+json',
        '-o',
        '/dev/null',
        `http://${host}/v2/${repository.join('/')}/manifests/latest`,
      ],
    },
  ];
  const timings = await hyperfine(world, commands, 20);
  print('second pull', timings);
  const [second, request] = timings;
  ratios.push({
    what: 'second pull: ms beside one request',
    value: ((second?.mean ?? 0) - (request?.mean ?? 0)) * 1000,
    target: 50,
  });
  return timings;
}

/** One run of hyperfine over all commands, on the host of the world and without a shell. */
async function hyperfine(
  place: World,
  commands: readonly { name: string; command: readonly string[] }[],
  runs: number,
  prepare?: string,
): Promise<Timing[]> {
  if (commands.length === 0) return [];
  const file = path.join(place.directory, 'hyperfine.json');
  const result = await place.host.run(
    [
      'hyperfine',
      ...(prepare === undefined ? ['-N'] : ['--shell=sh', '--prepare', prepare, '--ignore-failure']),
      '--warmup=3',
      `--runs=${runs}`,
      '--style=none',
      `--export-json=${file}`,
      ...commands.flatMap(({ name, command }) => ['--command-name', name, command.map(quote).join(' ')]),
    ],
    { timeout: 600_000 },
  );
  if (result.code !== 0) throw new Error(`hyperfine: ${result.stderr.trim()}`);
  const { results } = JSON.parse(fs.readFileSync(file, 'utf8')) as { results: (Timing & { command: string })[] };
  return results.map(({ mean, stddev, min, max }, index) => ({
    name: commands[index]?.name ?? '',
    mean,
    stddev,
    min,
    max,
  }));
}

function compare(what: string, timings: readonly Timing[], name: string, other: string, target: number): void {
  const mean = (wanted: string): number | undefined => timings.find((timing) => timing.name === wanted)?.mean;
  const [value, base] = [mean(name), mean(other)];
  if (value !== undefined && base !== undefined) ratios.push({ what, value: value / base, target });
}

function print(title: string, timings: readonly Timing[]): void {
  process.stdout.write(`\n${title}\n`);
  for (const { name, mean, stddev, min } of timings) {
    const numbers = [mean, stddev, min].map((seconds) => `${(seconds * 1000).toFixed(1).padStart(7)} ms`);
    process.stdout.write(`  ${name.padEnd(32)} ${numbers[0]} ±${numbers[1]}   min ${numbers[2]}\n`);
  }
}

function has(name: string): boolean {
  return peers.some((peer) => peer.name === name);
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`;
}
