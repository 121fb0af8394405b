import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { type Machine, minirun, type World } from '../support/world.ts';
import { expectZero } from './peers.ts';

/** A tool that pulls: its command lines without the image, and where they run. */
export interface Puller {
  name: string;
  machine: Machine;
  pull: string[];
  remove: string[];
}

export interface TestImage {
  name: string;
  /** Bytes of its files, and how many there are. */
  bytes: number;
  files: number;
}

const port = 5000;

/** The archives that `unpack alone` is about. */
export interface Archives {
  plain: string;
  gzip: string;
}

/**
 * Makes the images and puts them into the store of a docker-registry, which every world then serves by a registry of
 * its own on its loopback: nobody has a longer way.
 */
export async function makeImages(
  world: World,
): Promise<{ store: string; images: TestImage[]; large: TestImage; archives: Archives }> {
  const store = path.join(world.directory, 'bench-registry');
  await startRegistry(world.host, world.directory, store);
  const files = pickFiles();
  const directory = path.join(world.directory, 'bench-layers');
  fs.mkdirSync(directory);
  const one = await archiveOf(world, directory, 'one', files.slice(0, 5500), 70e6);
  const tenth: string[] = [];
  for (let layer = 0; layer < 10; layer++) {
    const part = files.slice(layer * 900, (layer + 1) * 900);
    tenth.push((await archiveOf(world, directory, `ten-${layer}`, part, 20e6)).gzip);
  }
  const huge: string[] = [];
  for (let layer = 0; layer < 10; layer++) huge.push(await archiveOfOne(world, directory, `huge-${layer}`, 60e6));
  const images = [
    await push(world, directory, 'one-layer', [one.gzip]),
    await push(world, directory, 'ten-layers', tenth),
  ];
  const large = await push(world, directory, 'large', huge);
  return { store, images, large, archives: one };
}

/** Starts a registry over that store on a machine's loopback. */
export async function startRegistry(machine: Machine, directory: string, store: string): Promise<void> {
  const config = path.join(directory, 'bench-registry.yml');
  const settings = {
    version: '0.1',
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: store } },
    http: { addr: `127.0.0.1:${port}`, secret: 'bench' },
  };
  // JSON is YAML.
  fs.writeFileSync(config, JSON.stringify(settings));
  await machine.spawn(['docker-registry', 'serve', config], { timeout: 2 ** 31 - 1 });
  await expectZero(machine, [
    'curl',
    '-so',
    '/dev/null',
    '--retry',
    '100',
    '--retry-connrefused',
    '--retry-delay',
    '1',
    `http://127.0.0.1:${port}/v2/`,
  ]);
}

export const nameOf = (image: string): string => `127.0.0.1:${port}/bench/${image}`;

/** Real files of this machine, as an image has them: many small ones. */
function pickFiles(): string[] {
  const found: string[] = [];
  const walk = (directory: string) => {
    for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
      const place = path.join(directory, entry.name);
      if (entry.isDirectory()) walk(place);
      else if (entry.isFile() && fs.statSync(place).size <= 16_000) found.push(place);
      if (found.length >= 9000) return;
    }
  };
  for (const root of ['/usr/share', '/usr/include', '/usr/lib']) if (fs.existsSync(root)) walk(root);
  return found;
}

/** A tar of files, filled up to a size with a few larger ones, as programs and libraries are. */
async function archiveOf(
  world: World,
  directory: string,
  name: string,
  files: readonly string[],
  bytes: number,
): Promise<Archives> {
  const extra = path.join(directory, `${name}.extra`);
  fs.mkdirSync(extra);
  let left = bytes - files.reduce((sum, file) => sum + fs.statSync(file).size, 0);
  const program = fs.readFileSync(minirun).subarray(0, 90e6);
  for (let index = 0; left > 0; index++) {
    const size = Math.min(left, 3e6);
    const start =
      (index * 2_999_999 + createHash('sha256').update(name).digest().readUInt32LE(0)) % (program.length - 3e6);
    fs.writeFileSync(path.join(extra, `program-${index}`), program.subarray(start, start + size));
    left -= size;
  }
  const list = path.join(directory, `${name}.list`);
  fs.writeFileSync(list, files.map((file) => `${file.slice(1)}\n`).join(''));
  const plain = path.join(directory, `${name}.tar`);
  await expectZero(world.host, ['tar', '-cf', plain, '-C', '/', '-T', list]);
  await expectZero(world.host, ['tar', '-rf', plain, '-C', extra, '.']);
  await expectZero(world.host, ['gzip', '-kn', plain]);
  return { plain, gzip: `${plain}.gz` };
}

/** A tar of one file that is half noise. */
async function archiveOfOne(world: World, directory: string, name: string, bytes: number): Promise<string> {
  const file = path.join(directory, `${name}.file`);
  const noise = fs.readFileSync(minirun).subarray(0, bytes);
  noise.write(name);
  fs.writeFileSync(file, noise);
  const plain = path.join(directory, `${name}.tar`);
  await expectZero(world.host, ['tar', '-cf', plain, '-C', directory, path.basename(file)]);
  fs.writeFileSync(`${plain}.gz`, gzipSync(fs.readFileSync(plain), { level: 1 }));
  for (const gone of [file, plain]) fs.rmSync(gone);
  return `${plain}.gz`;
}

/** Makes an OCI image layout and has skopeo push it. */
async function push(world: World, directory: string, name: string, layers: readonly string[]): Promise<TestImage> {
  const layout = path.join(directory, name);
  fs.mkdirSync(path.join(layout, 'blobs/sha256'), { recursive: true });
  const add = (content: Buffer, mediaType: string) => {
    const hex = createHash('sha256').update(content).digest('hex');
    fs.writeFileSync(path.join(layout, 'blobs/sha256', hex), content);
    return { mediaType, digest: `sha256:${hex}`, size: content.length };
  };
  const type = 'application/vnd.oci.image';
  const descriptors = layers.map((file) => add(fs.readFileSync(file), `${type}.layer.v1.tar+gzip`));
  let bytes = 0;
  let files = 0;
  const diffIds: string[] = [];
  for (const file of layers) {
    const digest = await world.host.sh(`gzip -dc ${file} | sha256sum`);
    diffIds.push(`sha256:${digest.slice(0, 64)}`);
    const [count, size] = (await world.host.sh(`tar -tvzf ${file} | awk '{n++; s+=$3} END {print n, s}'`)).split(' ');
    files += Number(count);
    bytes += Number(size);
  }
  const config = {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    config: { Cmd: ['/bin/true'] },
    rootfs: { type: 'layers', diff_ids: diffIds },
  };
  const manifest = {
    schemaVersion: 2,
    mediaType: `${type}.manifest.v1+json`,
    config: add(Buffer.from(JSON.stringify(config)), `${type}.config.v1+json`),
    layers: descriptors,
  };
  const descriptor = add(Buffer.from(JSON.stringify(manifest)), manifest.mediaType);
  fs.writeFileSync(path.join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  fs.writeFileSync(path.join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }));
  await expectZero(world.host, [
    'skopeo',
    '--insecure-policy',
    'copy',
    '-q',
    '--dest-tls-verify=false',
    `oci:${layout}`,
    `docker://${nameOf(name)}`,
  ]);
  fs.rmSync(layout, { recursive: true });
  return { name, bytes, files };
}

/** Peak of the memory (PSS) of a command and all that it starts, in bytes; looked at every few milliseconds. */
export async function peakMemory(machine: Machine, command: readonly string[]): Promise<number> {
  const before = new Set(pids(machine));
  let peak = 0;
  let running = true;
  const result = expectZero(machine, command).finally(() => {
    running = false;
  });
  while (running) {
    peak = Math.max(peak, sumOfPss(machine, before));
    await Bun.sleep(4);
  }
  await result;
  return peak;
}

function sumOfPss(machine: Machine, except: ReadonlySet<string>): number {
  let sum = 0;
  const seen = new Set<string>();
  for (const pid of pids(machine)) {
    if (except.has(pid)) continue;
    try {
      // Until it executes something, a child that vfork(2) has made is in its parent's memory, command line and all.
      const command = fs.readFileSync(machine.path(`/proc/${pid}/cmdline`), 'utf8');
      const shared = command.includes('\0pull\0') && seen.has(command);
      seen.add(command);
      if (shared) continue;
      const rollup = fs.readFileSync(machine.path(`/proc/${pid}/smaps_rollup`), 'utf8');
      sum += Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1] ?? 0) * 1024;
    } catch {
      // It ended meanwhile.
    }
  }
  return sum;
}

function pids(machine: Machine): string[] {
  return fs.readdirSync(machine.path('/proc')).filter((name) => /^\d+$/.test(name));
}
