/**
 * What a container may have of the machine, in the words of the OCI runtime-spec (`linux.resources`), whose numbers are
 * those of cgroup v1. What is absent is not limited.
 *
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups
 */
export interface Resources {
  memory?: {
    /** Bytes. */
    limit?: number;
    /** Bytes of memory and swap together; -1 is no limit. */
    swap?: number;
    /** Bytes that it is to be left with when memory is short. */
    reservation?: number;
    disableOOMKiller?: boolean;
  };
  cpu?: {
    /** Weight among others, 2 to 262144; 1024 is usual. */
    shares?: number;
    /** Microseconds of processor time in each period; negative is no limit. */
    quota?: number;
    /** Microseconds. */
    period?: number;
    /** Processors, as a list: `0-2,4`. */
    cpus?: string;
    /** Memory nodes, likewise. */
    mems?: string;
  };
  /** Processes and threads together; -1 is no limit. */
  pids?: { limit: number };
  /** 10 to 1000. */
  blockIO?: { weight: number };
}

/** What a hierarchy can do; named as in cgroup v2, where `freezer` and `cpuacct` are always there. */
export type Controller = 'memory' | 'cpu' | 'cpuacct' | 'cpuset' | 'pids' | 'io' | 'freezer';

/** The controllers without which these limits cannot be kept. */
export function controllersFor({ memory, cpu, pids, blockIO }: Resources): Controller[] {
  const needed = new Set<Controller>();
  if (memory !== undefined) needed.add('memory');
  if (cpu?.shares !== undefined || cpu?.quota !== undefined || cpu?.period !== undefined) needed.add('cpu');
  if (cpu?.cpus !== undefined || cpu?.mems !== undefined) needed.add('cpuset');
  if (pids !== undefined) needed.add('pids');
  if (blockIO !== undefined) needed.add('io');
  return [...needed];
}
