import type { Command } from 'commander';
import type { LimitRequest } from '../container/limits.ts';

/** The options of `run`, `create` and `update` that limit what a container may use; docker's names. */
export function limitOptions(command: Command): Command {
  return command
    .option('-m, --memory <size>', 'most memory: a number of bytes, or one with k, m or g')
    .option('--memory-swap <size>', 'most memory and swap together; -1: as much swap as there is')
    .option('--memory-reservation <size>', 'memory that it is left with when memory is short')
    .option('--cpus <number>', 'most processor time: 1.5 is one and a half processors')
    .option('-c, --cpu-shares <weight>', 'weight of its processor time among others; usual is 1024')
    .option('--cpu-period <microseconds>', 'length of a period for --cpu-quota')
    .option('--cpu-quota <microseconds>', 'processor time in each period')
    .option('--cpuset-cpus <list>', 'processors that it may use: 0-2,4')
    .option('--cpuset-mems <list>', 'memory nodes that it may use')
    .option('--pids-limit <number>', 'most processes and threads; -1: no limit')
    .option('--blkio-weight <weight>', 'weight of its disk traffic among others, 10 to 1000');
}

/** The options that were given; undefined when there is none of them. */
export function limitsFrom(options: Record<string, unknown>): LimitRequest | undefined {
  const names = [
    'memory',
    'memorySwap',
    'memoryReservation',
    'cpus',
    'cpuShares',
    'cpuPeriod',
    'cpuQuota',
    'cpusetCpus',
    'cpusetMems',
    'pidsLimit',
    'blkioWeight',
    'oomScoreAdj',
    'oomKillDisable',
    'cgroupParent',
  ] as const satisfies readonly (keyof LimitRequest)[];
  const given = names.filter((name) => options[name] !== undefined).map((name) => [name, options[name]]);
  return given.length === 0 ? undefined : (Object.fromEntries(given) as LimitRequest);
}
