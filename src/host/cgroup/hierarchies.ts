import fs from 'node:fs';
import type { Controller } from './resources.ts';
import { textOrEmpty } from '../text.ts';

/** A mounted tree of cgroups, as far as minirun has a use for it. cgroups(7). */
export interface Hierarchy {
  version: 1 | 2;
  /** Where it is mounted. */
  point: string;
  /** Those that containers get from it: of version 2 only what no tree of version 1 has. */
  controllers: Controller[];
  /** Why no cgroup can be made in it. */
  problem?: string;
  /** The directories from the mount point to the one that is to hold cgroups of containers, outermost first. */
  levels: Level[];
}

/** A directory above those of containers. */
interface Level {
  directory: string;
  exists: boolean;
  /** Version 2: what it hands on to the cgroups in it. */
  enabled: string[];
  /**
   * Version 2: it has processes of its own and is not the root of all. Nothing may be handed on by it: some controllers could be,
   * but then no process could be put into the cgroups in it ("domain invalid").
   */
  occupied: boolean;
  /** Version 1 of cpuset: the processors and memory nodes of those in it, empty where nobody has set them yet. */
  cpus: string;
  mems: string;
}

/** The part of a container's cgroup that is in one hierarchy. */
export interface Part {
  version: 1 | 2;
  controllers: Controller[];
  directory: string;
}

/** Version 1 calls one of them by another name. */
const names: Record<string, Controller> = {
  memory: 'memory',
  cpu: 'cpu',
  cpuacct: 'cpuacct',
  cpuset: 'cpuset',
  pids: 'pids',
  blkio: 'io',
  io: 'io',
  freezer: 'freezer',
};

const controllersOf = (words: readonly string[]): Controller[] =>
  words.flatMap((word) => (Object.hasOwn(names, word) ? [names[word] as Controller] : []));

/**
 * The hierarchies of this machine: one of version 2, several of version 1, or both. Each controller comes from one of them.
 *
 * @param parent the directory that is to hold cgroups of containers, from the mount point: `/minirun`
 * @param prefix stands before each path of the machine, for recorded trees
 * @param options.all also those that have nothing for containers: systemd's own, and that of devices
 */
export function readHierarchies(parent: string, prefix = '', { all = false } = {}): Hierarchy[] {
  const taken = new Set<Controller>();
  const found: Hierarchy[] = [];
  for (const { point, version, words } of cgroupMounts(prefix)) {
    const offered: Controller[] =
      version === 1
        ? controllersOf(words)
        : // Of the core, not of a controller: cgroup.freeze and the times in cpu.stat.
          [...controllersOf(read(`${point}/cgroup.controllers`).split(/\s+/)), 'freezer', 'cpuacct'];
    const controllers = offered.filter((each) => !taken.has(each));
    if (controllers.length === 0 && !all) continue;
    for (const each of controllers) taken.add(each);
    const levels = levelsOf(point, parent, version === 1 && controllers.includes('cpuset'));
    found.push({ version, point, controllers, levels, problem: problemOf(levels) });
  }
  return found;
}

const implied: ReadonlySet<Controller> = new Set<Controller>(['freezer', 'cpuacct']);

/** Mounts of cgroup file systems that can be seen, version 1 first. proc_pid_mountinfo(5). */
function cgroupMounts(prefix: string): { point: string; version: 1 | 2; words: string[] }[] {
  // Of several mounts in one place the last covers the others.
  const mounts = new Map<string, { version: 1 | 2; words: string[] }>();
  for (const line of read(`${prefix}/proc/self/mountinfo`).split('\n')) {
    const [left = '', right = ''] = line.split(' - ');
    const [type, , options = ''] = right.split(' ');
    const point = left.split(' ')[4];
    if (point === undefined || !point.startsWith('/sys/fs/cgroup')) continue;
    mounts.delete(point);
    if (type === 'cgroup') mounts.set(point, { version: 1, words: options.split(',') });
    if (type === 'cgroup2') mounts.set(point, { version: 2, words: [] });
  }
  return (
    [...mounts]
      .map(([point, mount]) => ({ point: `${prefix}${point}`, ...mount }))
      // A later mount above it may hide one, as a new /sys does.
      .filter(({ point }) => fs.existsSync(`${point}/cgroup.procs`))
      .toSorted((a, b) => a.version - b.version)
  );
}

function levelsOf(point: string, parent: string, isCpuset: boolean): Level[] {
  const words = parent.split('/').filter((word) => word !== '');
  return [...words.keys(), words.length].map((depth) => {
    const directory = [point, ...words.slice(0, depth)].join('/');
    return {
      directory,
      exists: fs.existsSync(directory),
      enabled: read(`${directory}/cgroup.subtree_control`).split(/\s+/).filter(Boolean),
      // The root of all has no file of events, nor has version 1.
      occupied: fs.existsSync(`${directory}/cgroup.events`) && read(`${directory}/cgroup.procs`) !== '',
      cpus: isCpuset ? read(`${directory}/cpuset.cpus`) : '',
      mems: isCpuset ? read(`${directory}/cpuset.mems`) : '',
    };
  });
}

/** Why no directory can be made in the innermost level that is there. */
function problemOf(levels: readonly Level[]): string | undefined {
  const innermost = levels.findLast(({ exists }) => exists)?.directory ?? '';
  try {
    fs.accessSync(innermost, fs.constants.W_OK);
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'EROFS' ? `${innermost} is mounted read-only` : `${innermost} belongs to somebody else`;
  }
}

/**
 * Why a container cannot have a controller; undefined when it can. In version 2 each directory on the way must hand it on,
 * and one that has processes of its own cannot, the root of all excepted: "no internal processes" in cgroups(7).
 */
export function whyWithout(hierarchies: readonly Hierarchy[], controller: Controller): string | undefined {
  const hierarchy = hierarchies.find(({ controllers }) => controllers.includes(controller));
  if (hierarchy === undefined) {
    return hierarchies.length === 0
      ? 'no cgroup file system is mounted below /sys/fs/cgroup'
      : 'no cgroup hierarchy of this machine has it';
  }
  const { version, problem, levels } = hierarchy;
  if (problem !== undefined) return problem;
  if (version === 1 || implied.has(controller)) return undefined;
  const missing = levels.find(({ exists, enabled }) => exists && !enabled.includes(controller));
  if (missing === undefined) return undefined;
  const { directory, occupied } = missing;
  try {
    fs.accessSync(`${directory}/cgroup.subtree_control`, fs.constants.W_OK);
  } catch {
    return `${directory} does not hand the ${controller} controller on, and this user may not make it`;
  }
  return occupied
    ? `${directory} has processes of its own and so cannot hand the ${controller} controller on`
    : undefined;
}

/** What is to be done about a missing controller. */
export const remedyWithout = 'See minirun doctor for what this machine has, and docs/limits.md for what to do about it';

/** The content of a file of the kernel's, without line ends around it; empty where there is none. */
export function read(file: string): string {
  return textOrEmpty(file).trim();
}
