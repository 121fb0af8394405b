import fs from 'node:fs';
import { read } from './hierarchies.ts';
import type { Resources } from './resources.ts';
import { type CgroupVersion, numberAt, numberOf, type PartFacts, type Setting } from './version.ts';

/** cgroups of version 1: Documentation/admin-guide/cgroup-v1 of the kernel. */
export const version1: CgroupVersion = {
  settings,
  facts(directory) {
    const swapFile = `${directory}/memory.memsw.limit_in_bytes`;
    return {
      countsSwap: fs.existsSync(swapFile),
      weightFile: ['blkio.weight', 'blkio.bfq.weight'].find((file) => fs.existsSync(`${directory}/${file}`)),
      swapLimit: numberOf(read(swapFile)) ?? Number.POSITIVE_INFINITY,
    };
  },
  presumedWeightFile(root) {
    if (fs.existsSync(`${root}/blkio.weight`)) return 'blkio.weight';
    return fs.existsSync(`${root}/blkio.bfq.io_serviced`) ? 'blkio.bfq.weight' : undefined;
  },
  usage(directory) {
    const inactive = numberAt(read(`${directory}/memory.stat`), 'total_inactive_file') ?? 0;
    const used = numberOf(read(`${directory}/memory.usage_in_bytes`));
    const limit = numberOf(read(`${directory}/memory.limit_in_bytes`));
    const disk = diskTraffic(read(`${directory}/blkio.throttle.io_service_bytes_recursive`));
    return {
      cpu: numberOf(read(`${directory}/cpuacct.usage`)),
      memory: used === undefined ? undefined : Math.max(0, used - inactive),
      // What is not limited has the greatest number of pages that the kernel can count.
      memoryLimit: limit !== undefined && limit < 2 ** 60 ? limit : undefined,
      ...disk,
      pids: numberOf(read(`${directory}/pids.current`)),
    };
  },
  oomKills: (directory) => numberAt(read(`${directory}/memory.oom_control`), 'oom_kill') ?? 0,
  freezing: { file: 'freezer.state', frozen: 'FROZEN', thawed: 'THAWED' },
  isFrozen: (directory) => read(`${directory}/freezer.state`) === 'FROZEN',
};

function settings({ memory, cpu, pids, blockIO }: Resources, facts: PartFacts): Setting[] {
  const list: Setting[] = [];
  const set = (controller: Setting['controller'], file: string, value: number | string | undefined) => {
    if (value !== undefined) list.push({ controller, file, value: String(value) });
  };
  const limit = () => set('memory', 'memory.limit_in_bytes', memory?.limit);
  const swap = () => set('memory', 'memory.memsw.limit_in_bytes', facts.countsSwap ? memory?.swap : undefined);
  // At no moment may memory alone have more than memory and swap together.
  if ((memory?.limit ?? 0) > facts.swapLimit) {
    swap();
    limit();
  } else {
    limit();
    swap();
  }
  set('memory', 'memory.soft_limit_in_bytes', memory?.reservation);
  if (memory?.disableOOMKiller === true) set('memory', 'memory.oom_control', 1);
  set('cpu', 'cpu.shares', cpu?.shares);
  set('cpu', 'cpu.cfs_period_us', cpu?.period);
  set('cpu', 'cpu.cfs_quota_us', cpu?.quota);
  set('cpuset', 'cpuset.cpus', cpu?.cpus);
  set('cpuset', 'cpuset.mems', cpu?.mems);
  set('pids', 'pids.max', pids === undefined ? undefined : pids.limit < 0 ? 'max' : pids.limit);
  set('io', facts.weightFile ?? 'blkio.weight', blockIO?.weight);
  return list;
}

/** Of lines like `254:0 Read 4096`. */
function diskTraffic(text: string): { read?: number; written?: number } {
  if (text === '') return {};
  const sum = (word: string) =>
    text.split('\n').reduce((total, line) => total + (line.split(' ')[1] === word ? Number(line.split(' ')[2]) : 0), 0);
  return { read: sum('Read'), written: sum('Write') };
}
