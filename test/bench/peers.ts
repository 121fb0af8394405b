import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { missingTool } from '../support/skip.ts';
import { createWorld, minirun, type Machine, type World } from '../support/world.ts';

/** A tool as the benchmark sees it. */
export interface Peer {
  name: string;
  version: string;
  /** Command line, to be run on the benchmark's host, of one container that runs `true` on a bridge network. */
  run: string[];
  /** Command line that starts a container which sleeps, detached; only where its memory is to be measured. */
  detach?: string[];
  /** How it gets and forgets images, without the image's name. */
  puller?: { machine: Machine; pull: string[]; remove: string[] };
  /** Where its processes are. */
  machine: Machine;
  /** Its world, where that is its own. */
  world?: World;
  /** Begin of every command line of its client; only where more is wanted of it than the above. */
  client?: string[];
  /** Ends what was started for it alone. */
  stop: () => Promise<void>;
}

export const sleeper = ['sleep', '987654'];
export const image = 'bench-busybox';
const checkout = path.resolve(import.meta.dir, '../../dist/minirun');
export const launcher = path.resolve(import.meta.dir, '../../bin/minirun');
const nothing = async (): Promise<void> => {};

/** The compiled binary. */
export async function startMinirun(world: World, tarball: string): Promise<Peer> {
  if (!fs.existsSync(minirun)) throw new Error(`${minirun} is not built`);
  await expectZero(world.host, [minirun, 'import', tarball, image]);
  return {
    name: 'minirun',
    version: (await expectZero(world.host, [minirun, '--version'])).trim(),
    run: [minirun, 'run', '--rm', image, 'true'],
    detach: [minirun, 'run', '-d', image, ...sleeper],
    puller: { machine: world.host, pull: [minirun, 'pull', '-q'], remove: [minirun, 'rmi', '-f'] },
    machine: world.host,
    stop: nothing,
  };
}

/** The compiled binary through `bin/minirun`, as a user of a checkout calls it. After `startMinirun`. */
export async function startLauncher(world: World): Promise<Peer> {
  if (!fs.existsSync(minirun)) throw new Error(`${minirun} is not built`);
  // The launcher always runs the checkout's own binary.
  if (minirun !== checkout) throw new Error(`MINIRUN_BIN names another binary`);
  return {
    name: 'bin/minirun',
    version: (await expectZero(world.host, [launcher, '--version'])).trim(),
    run: [launcher, 'run', '--rm', image, 'true'],
    machine: world.host,
    stop: nothing,
  };
}

/** The same by hand, in sh. */
export async function startFloor(world: World, rootfs: string): Promise<Peer> {
  const work = path.join(world.directory, 'floor');
  fs.mkdirSync(work);
  await world.host.sh(`
    ip link add floor0 type bridge
    ip addr add 10.91.0.1/16 dev floor0
    ip link set floor0 up
    echo 1 > /proc/sys/net/ipv4/ip_forward
    iptables -t nat -A POSTROUTING -s 10.91.0.0/16 ! -o floor0 -j MASQUERADE
  `);
  return {
    name: 'floor',
    version: 'sh, iproute2, util-linux',
    run: [path.join(import.meta.dir, 'floor.sh'), rootfs, work, 'true'],
    machine: world.host,
    stop: nothing,
  };
}

/** Docker with a daemon of its own, in a world of its own; its client runs on the benchmark's host. */
export async function startDocker(tarball: string): Promise<Peer> {
  need('docker', 'dockerd', 'containerd', 'runc');
  const world = await createWorld({ cgroups: 'shared' });
  try {
    const directory = path.join(world.directory, 'docker');
    fs.mkdirSync(directory);
    // dockerd and containerd keep more below /run than options can move.
    await world.host.sh('mount -t tmpfs -o mode=755 tmpfs /run');
    const socket = path.join(directory, 'socket');
    const daemon = await world.host.spawn(
      [
        'dockerd',
        `--host=unix://${socket}`,
        `--data-root=${path.join(directory, 'data')}`,
        '--exec-root=/run/docker',
        `--cgroup-parent=${world.cgroup}`,
        `--pidfile=${path.join(directory, 'pid')}`,
      ],
      { timeout: 2 ** 31 - 1 },
    );
    await daemon.waitFor('API listen on', { timeout: 60_000 });
    // Debian's daemon is older than many a client.
    const client = ['env', 'DOCKER_API_VERSION=1.41', `HOME=${directory}`, 'docker', '--host', `unix://${socket}`];
    await expectZero(world.host, [...client, 'import', tarball, image]);
    const version = (await world.host.run([...client, 'version', '--format', '{{.Server.Version}}'])).stdout.trim();
    return {
      name: 'docker',
      version,
      run: [...client, 'run', '--rm', image, 'true'],
      detach: [...client, 'run', '-d', image, ...sleeper],
      puller: { machine: world.host, pull: [...client, 'pull', '-q'], remove: [...client, 'rmi', '-f'] },
      machine: world.host,
      world,
      client,
      stop: async () => world.destroy(),
    };
  } catch (error) {
    await world.destroy();
    throw error;
  }
}

/** Podman on the benchmark's host, with storage and run-time directories of its own. */
export async function startPodman(world: World, tarball: string): Promise<Peer> {
  need('podman', 'conmon', 'runc');
  const directory = path.join(world.directory, 'podman');
  fs.mkdirSync(directory);
  await world.host.sh(`
    for shared in /dev/shm /etc/cni/net.d /run/containers /run/libpod /run/lock /run/runc /var/lib/cni; do
      mkdir -p $shared
      mount -t tmpfs tmpfs $shared
    done
    # Ids for --userns=auto.
    echo containers:2000000000:655360 > ${directory}/ids
    for file in /etc/subuid /etc/subgid; do [ ! -e $file ] || mount --bind ${directory}/ids $file; done
  `);
  const podman = [
    'podman',
    `--root=${path.join(directory, 'root')}`,
    `--runroot=${path.join(directory, 'run')}`,
    `--tmpdir=${path.join(directory, 'tmp')}`,
    '--runtime=runc',
    '--cgroup-manager=cgroupfs',
    '--events-backend=file',
  ];
  await expectZero(world.host, [...podman, 'import', tarball, image]);
  // Its defaults raise limits, which fails where root has no CAP_SYS_RESOURCE.
  const options = ['--cgroup-parent', world.cgroup, '--ulimit', 'nofile=20000:20000', '--ulimit', 'nproc=1000:1000'];
  const version = (await world.host.run([...podman, 'version', '--format', '{{.Client.Version}}'])).stdout.trim();
  return {
    name: 'podman',
    version,
    run: [...podman, 'run', '--rm', ...options, image, 'true'],
    detach: [...podman, 'run', '-d', ...options, image, ...sleeper],
    puller: {
      machine: world.host,
      pull: [...podman, 'pull', '-q', '--tls-verify=false'],
      remove: [...podman, 'rmi', '-f'],
    },
    machine: world.host,
    stop: nothing,
  };
}

/** The node that the target is about, from npm into a cache outside of this repository; else the installed one. */
export function findNode(): { file: string; version: string } {
  const cache = path.join(process.env.MINIRUN_BENCH_CACHE ?? '/var/tmp/minirun-bench-cache', 'node-24');
  const platform = `node-linux-${process.arch}`;
  const cached = path.join(cache, 'node_modules', platform, 'bin/node');
  let file = cached;
  if (!fs.existsSync(cached)) {
    try {
      fs.mkdirSync(cache, { recursive: true });
      const options = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel', 'error', '--prefix', cache];
      execFileSync('npm', ['install', ...options, `${platform}@24`], { cwd: cache, stdio: 'pipe' });
    } catch {
      file = Bun.which('node') ?? '';
    }
  }
  if (file === '') throw new Error('node is not installed');
  return { file, version: execFileSync(file, ['--version'], { encoding: 'utf8' }).trim() };
}

function need(...tools: readonly string[]): void {
  const missing = missingTool(...tools);
  if (missing !== undefined) throw new Error(missing);
}

/** Runs a command that must succeed. */
export async function expectZero(machine: Machine, command: readonly string[]): Promise<string> {
  const result = await machine.run(command, { timeout: 120_000 });
  if (result.code !== 0) throw new Error(`${command.join(' ')}: ${result.stderr.trim() || `exit code ${result.code}`}`);
  return result.stdout;
}
