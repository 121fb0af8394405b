import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { versionOf } from '../host/cgroup/cgroup.ts';
import { type Hierarchy, read, readHierarchies } from '../host/cgroup/hierarchies.ts';
import { controllersFor, type Resources } from '../host/cgroup/resources.ts';
import { requireControllers } from './cgroups.ts';
import { cgroupParent as usualParent } from './spec.ts';

/** The options of `run`, `create` and `update` that limit a container, as they were typed; docker's names. */
export interface LimitRequest {
  memory?: string;
  memorySwap?: string;
  memoryReservation?: string;
  cpus?: string;
  cpuShares?: string;
  cpuPeriod?: string;
  cpuQuota?: string;
  cpusetCpus?: string;
  cpusetMems?: string;
  pidsLimit?: string;
  blkioWeight?: string;
  oomScoreAdj?: string;
  oomKillDisable?: boolean;
  cgroupParent?: string;
}

/** What a container is limited to. */
export interface Limits {
  /** Absent when nothing is limited. */
  resources?: Resources;
  /** -1000 to 1000; absent: as minirun's own. */
  oomScoreAdj?: number;
  /** The directory that is to hold its cgroup, from the mount point; absent when it needs none. */
  cgroupParent?: string;
  /** `--cpus` as it was given, for `inspect`, in billionths of a processor. */
  nanoCpus?: number;
}

function invalid(option: string, value: string, why: string, remedy: string): MinirunError {
  return new MinirunError(`invalid ${option} "${value}"`, why, remedy, { code: 125 });
}

const units: Record<string, number> = { '': 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40, p: 2 ** 50 };

/** Bytes of `512m`, `1.5g`, `100KiB`: docker's rule (go-units, RAMInBytes), powers of 1024. */
export function parseBytes(option: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?([bkmgtp]?)(?:i?b)?$/i.exec(text);
  const bytes =
    match === null ? Number.NaN : Math.floor(Number(match[1]) * (units[(match[2] ?? '').toLowerCase()] ?? 1));
  if (Number.isSafeInteger(bytes)) return bytes;
  throw invalid(option, text, 'it is no size', 'Give a number of bytes, or one with k, m or g: 512m');
}

/** Docker's least: below that the programs of a runtime themselves do not fit. */
const leastMemory = 6 * 2 ** 20;

function memoryOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const bytes = parseBytes(option, text);
  if (bytes === 0) return undefined;
  if (bytes < leastMemory) throw invalid(option, text, 'the least is 6m', 'Give more');
  return bytes;
}

function parseMemory(request: LimitRequest, before: Resources['memory']): Resources['memory'] {
  const limit = memoryOf('--memory', request.memory) ?? before?.limit;
  const reservation = memoryOf('--memory-reservation', request.memoryReservation) ?? before?.reservation;
  const { memorySwap = '' } = request;
  const given = memorySwap === '' || /^0+$/.test(memorySwap) ? undefined : memorySwap;
  let swap = given === '-1' ? -1 : given === undefined ? before?.swap : parseBytes('--memory-swap', given);
  if (given !== undefined && limit === undefined)
    throw invalid(
      '--memory-swap',
      given,
      'it counts memory and swap together, and --memory is missing',
      'Add --memory',
    );
  if (limit !== undefined && swap !== undefined && swap >= 0 && swap < limit) {
    if (given === undefined)
      throw invalid(
        '--memory',
        request.memory ?? '',
        'the container may have less than that of memory and swap together',
        'Give --memory-swap, too',
      );
    throw invalid('--memory-swap', given, 'it counts memory and swap together, and is less than --memory', 'Give more');
  }
  // As much swap as memory: docker's default.
  if (limit !== undefined && swap === undefined) swap = 2 * limit;
  if (limit !== undefined && reservation !== undefined && reservation > limit)
    throw invalid(
      '--memory-reservation',
      request.memoryReservation ?? String(reservation),
      'it is more than the container may have',
      'Give less than --memory',
    );
  const disableOOMKiller = request.oomKillDisable === true || before?.disableOOMKiller === true;
  if (limit === undefined && reservation === undefined && !disableOOMKiller) return undefined;
  return {
    ...(limit === undefined ? {} : { limit }),
    ...(swap === undefined ? {} : { swap }),
    ...(reservation === undefined ? {} : { reservation }),
    ...(disableOOMKiller ? { disableOOMKiller } : {}),
  };
}

/** A whole number within bounds; 0 stands for none, as with docker. */
function number(option: string, text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined) return undefined;
  if (!/^-?\d+$/.test(text)) throw invalid(option, text, 'it is no whole number', `Give one from ${least} to ${most}`);
  const value = Number(text);
  if (value === 0 && least > 0) return undefined;
  if (value < least || value > most)
    throw invalid(option, text, 'it is out of range', `Give one from ${least} to ${most}`);
  return value;
}

const usualPeriod = 100_000;

function parseCpus(text: string, online: number): number {
  const cpus = /^\d+(\.\d{1,9})?$|^\.\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(cpus)) throw invalid('--cpus', text, 'it is no number of processors', 'For example --cpus 1.5');
  // The kernel's least quota is a millisecond in each period.
  if (cpus !== 0 && (cpus < 0.01 || cpus > online))
    throw invalid('--cpus', text, `this machine has ${online}`, `Give 0.01 to ${online}`);
  return cpus;
}

function parseCpu(request: LimitRequest, before: Resources['cpu']): { cpu?: Resources['cpu']; nanoCpus?: number } {
  const shares = number('--cpu-shares', request.cpuShares, 2, 262_144) ?? before?.shares;
  let period = number('--cpu-period', request.cpuPeriod, 1000, 1_000_000);
  let quota =
    request.cpuQuota !== undefined && /^-\d+$/.test(request.cpuQuota)
      ? -1
      : number('--cpu-quota', request.cpuQuota, 1000, Number.MAX_SAFE_INTEGER);
  const online = membersOf(read('/sys/devices/system/cpu/online')) ?? [0];
  const cpus = request.cpus === undefined ? 0 : parseCpus(request.cpus, online.length);
  if (cpus > 0) {
    const other = quota === undefined ? (period === undefined ? undefined : '--cpu-period') : '--cpu-quota';
    if (other !== undefined)
      throw new MinirunError(
        '--cpus does not go with ' + other,
        'it stands for a quota and a period',
        `Leave one out`,
        {
          code: 125,
        },
      );
    period = usualPeriod;
    quota = Math.round(cpus * usualPeriod);
  }
  quota ??= before?.quota;
  period ??= before?.period;
  const list = {
    cpus: parseSet('--cpuset-cpus', request.cpusetCpus, '/sys/devices/system/cpu/online', 'processor') ?? before?.cpus,
    mems:
      parseSet('--cpuset-mems', request.cpusetMems, '/sys/devices/system/node/online', 'memory node') ?? before?.mems,
  };
  const cpu = Object.fromEntries(
    Object.entries({ shares, quota, period, ...list }).filter(([, value]) => value !== undefined),
  ) as Resources['cpu'];
  return {
    ...(Object.keys(cpu ?? {}).length === 0 ? {} : { cpu }),
    ...(cpus > 0 ? { nanoCpus: Math.round(cpus * 1e9) } : {}),
  };
}

/** The numbers of a list like `0-2,4`; undefined when it is none. */
export function membersOf(text: string): number[] | undefined {
  const members = new Set<number>();
  for (const part of text.split(',')) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim());
    if (match === null) return undefined;
    const [from, to] = [Number(match[1]), Number(match[2] ?? match[1])];
    if (to < from) return undefined;
    for (let each = from; each <= to; each++) members.add(each);
  }
  return [...members];
}

function parseSet(option: string, text: string | undefined, onlineFile: string, what: string): string | undefined {
  if (text === undefined || text === '') return undefined;
  const wanted = membersOf(text);
  if (wanted === undefined) throw invalid(option, text, 'it is no list of numbers', `For example ${option} 0-2,4`);
  // A machine without memory nodes has one.
  const there = read(onlineFile) || '0';
  const online = new Set(membersOf(there));
  const missing = wanted.find((each) => !online.has(each));
  if (missing !== undefined) throw invalid(option, text, `this machine has no ${what} ${missing}`, `It has ${there}`);
  return text;
}

function parsePids(text: string | undefined): Resources['pids'] {
  if (text === undefined) return undefined;
  if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(Number(text)))
    throw invalid('--pids-limit', text, 'it is no whole number', 'Give how many processes there may be, or -1');
  return Number(text) <= 0 ? { limit: -1 } : { limit: Number(text) };
}

function parseParent(text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  const words = text.split('/').filter((word) => word !== '' && word !== '.');
  if (words.length === 0 || words.includes('..') || text.includes('\0') || text.includes('\n'))
    throw invalid('--cgroup-parent', text, 'it is no path below the root of the cgroups', 'For example /my-group');
  return `/${words.join('/')}`;
}

/**
 * What the options stand for. Everything that makes no sense is refused.
 *
 * @param before what the container is limited to already (`update`): what is not given stays
 */
export function parseLimits(request: LimitRequest, before: Resources = {}): Limits {
  const memory = parseMemory(request, before.memory);
  const { cpu, nanoCpus } = parseCpu(request, before.cpu);
  const pids = parsePids(request.pidsLimit) ?? before.pids;
  const weight = number('--blkio-weight', request.blkioWeight, 10, 1000);
  const blockIO = weight === undefined ? before.blockIO : { weight };
  const resources: Resources = {
    ...(memory === undefined ? {} : { memory }),
    ...(cpu === undefined ? {} : { cpu }),
    ...(pids === undefined ? {} : { pids }),
    ...(blockIO === undefined ? {} : { blockIO }),
  };
  const isLimited = Object.keys(resources).length > 0;
  const parent = parseParent(request.cgroupParent);
  return {
    ...(isLimited ? { resources } : {}),
    oomScoreAdj: parseOomScore(request.oomScoreAdj),
    cgroupParent: parent ?? (isLimited ? usualParent : undefined),
    ...(nanoCpus === undefined ? {} : { nanoCpus }),
  };
}

/** CAP_SYS_RESOURCE: capabilities(7). */
const sysResource = 1n << 24n;

/** @throws MinirunError also when this machine would not let minirun set it: lowering it takes CAP_SYS_RESOURCE */
function parseOomScore(text: string | undefined): number | undefined {
  const value = number('--oom-score-adj', text, -1000, 1000);
  if (value === undefined) return undefined;
  const own = Number(read('/proc/self/oom_score_adj') || 0);
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(read('/proc/self/status'))?.[1] ?? '0';
  if (value < own && (BigInt(`0x${effective}`) & sysResource) === 0n)
    throw invalid(
      '--oom-score-adj',
      text ?? '',
      `minirun's own is ${own}, and to go below takes CAP_SYS_RESOURCE, which it lacks here`,
      `Give one from ${own} to 1000`,
    );
  return value;
}

/** @throws MinirunError when disk traffic can be counted but not weighed */
function requireWeighing(hierarchy: Hierarchy): void {
  if (versionOf(hierarchy).presumedWeightFile(hierarchy.point) !== undefined) return;
  throw new MinirunError(
    'cannot weigh disk traffic',
    'this kernel has no I/O scheduler that does (bfq, iocost)',
    'Load bfq (modprobe bfq), or leave --blkio-weight out',
    { code: 125 },
  );
}

/**
 * Makes sure that this machine can keep the limits; before any effect.
 *
 * @returns what it cannot keep but can do without, as warnings
 */
export function checkLimits({ resources = {}, cgroupParent = usualParent }: Limits): string[] {
  const hierarchies = readHierarchies(cgroupParent);
  requireControllers(hierarchies, controllersFor(resources), 'cannot limit the container');
  const counting = hierarchies.find(({ controllers }) => controllers.includes('memory'));
  const weighing = hierarchies.find(({ controllers }) => controllers.includes('io'));
  if (resources.blockIO !== undefined && weighing !== undefined) requireWeighing(weighing);
  const warnings: string[] = [];
  if (resources.memory?.limit !== undefined && counting?.version === 1) {
    if (!fs.existsSync(`${counting.point}/memory.memsw.limit_in_bytes`))
      warnings.push('this kernel does not count swap: memory is limited, swap is not');
  }
  if (resources.memory?.disableOOMKiller === true) {
    if (counting?.version === 2) warnings.push('--oom-kill-disable means nothing with cgroup version 2');
    else if (resources.memory.limit === undefined)
      warnings.push('--oom-kill-disable without --memory means nothing: the container is not limited');
  }
  return warnings;
}
