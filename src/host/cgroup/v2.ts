import fs from 'node:fs';
import { read } from './hierarchies.ts';
import type { Resources } from './resources.ts';
import { type CgroupVersion, numberAt, numberOf, type PartFacts, type Setting } from './version.ts';

/** cgroups of version 2: Documentation/admin-guide/cgroup-v2.rst of the kernel. */
export const version2: CgroupVersion = {
  settings,
  facts(directory) {
    return {
      countsSwap: fs.existsSync(`${directory}/memory.swap.max`),
      weightFile: ['io.bfq.weight', 'io.weight'].find((file) => fs.existsSync(`${directory}/${file}`)),
      swapLimit: Number.POSITIVE_INFINITY,
    };
  },
  presumedWeightFile(root) {
    if (fs.existsSync('/sys/module/bfq')) return 'io.bfq.weight';
    return fs.existsSync(`${root}/io.cost.qos`) ? 'io.weight' : undefined;
  },
  usage(directory) {
    const inactive = numberAt(read(`${directory}/memory.stat`), 'inactive_file') ?? 0;
    const used = numberOf(read(`${directory}/memory.current`));
    const micros = numberAt(read(`${directory}/cpu.stat`), 'usage_usec');
    return {
      cpu: micros === undefined ? undefined : micros * 1000,
      memory: used === undefined ? undefined : Math.max(0, used - inactive),
      memoryLimit: numberOf(read(`${directory}/memory.max`)),
      ...diskTraffic(`${directory}/io.stat`),
      pids: numberOf(read(`${directory}/pids.current`)),
    };
  },
  oomKills: (directory) => numberAt(read(`${directory}/memory.events`), 'oom_kill') ?? 0,
  freezing: { file: 'cgroup.freeze', frozen: '1', thawed: '0' },
  isFrozen: (directory) => numberAt(read(`${directory}/cgroup.events`), 'frozen') === 1,
};

function settings({ memory, cpu, pids, blockIO }: Resources, facts: PartFacts): Setting[] {
  const list: Setting[] = [];
  const set = (controller: Setting['controller'], file: string, value: number | string | undefined) => {
    if (value !== undefined) list.push({ controller, file, value: String(value) });
  };
  const orMax = (value: number | undefined) => (value !== undefined && value < 0 ? 'max' : value);
  set('memory', 'memory.max', orMax(memory?.limit));
  if (facts.countsSwap) set('memory', 'memory.swap.max', orMax(swapAlone(memory)));
  set('memory', 'memory.low', memory?.reservation);
  if (cpu?.shares !== undefined) set('cpu', 'cpu.weight', weightOfShares(cpu.shares));
  if (cpu?.quota !== undefined || cpu?.period !== undefined)
    set('cpu', 'cpu.max', `${orMax(cpu.quota) ?? 'max'} ${cpu.period ?? 100_000}`);
  set('cpuset', 'cpuset.cpus', cpu?.cpus);
  set('cpuset', 'cpuset.mems', cpu?.mems);
  set('pids', 'pids.max', orMax(pids?.limit));
  if (blockIO !== undefined) {
    const file = facts.weightFile ?? 'io.weight';
    // io.weight goes from 1 to 10000, BFQ's as docker's option does.
    const weight = file === 'io.weight' ? 1 + Math.floor(((blockIO.weight - 10) * 9999) / 990) : blockIO.weight;
    set('io', file, `default ${weight}`);
  }
  return list;
}

/** Version 2 limits swap by itself, and the option both together. */
function swapAlone(memory: Resources['memory']): number | undefined {
  if (memory?.swap === undefined) return undefined;
  return memory.swap < 0 ? -1 : memory.swap - (memory.limit ?? 0);
}

/**
 * The weight (1 to 10000, usually 100) for shares (2 to 262144, usually 1024): a curve through the ends and the usual values,
 * as runc and crun have it since 2025 (opencontainers/cgroups, ConvertCPUSharesToCgroupV2Value; crun 1.23).
 */
export function weightOfShares(shares: number): number {
  if (shares <= 2) return 1;
  if (shares >= 262_144) return 10_000;
  const log = Math.log2(shares);
  return Math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34));
}

/** Of lines like `254:0 rbytes=4096 wbytes=0 rios=1 …`; a cgroup without traffic has none. */
function diskTraffic(file: string): { read?: number; written?: number } {
  if (!fs.existsSync(file)) return {};
  const text = read(file);
  const sum = (word: string) =>
    [...text.matchAll(new RegExp(`\\b${word}=(\\d+)`, 'g'))].reduce((total, match) => total + Number(match[1]), 0);
  return { read: sum('rbytes'), written: sum('wbytes') };
}
