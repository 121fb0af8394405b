import type { Controller, Resources } from './resources.ts';

/** A value for a file of a cgroup. */
export interface Setting {
  controller: Controller;
  /** Name of the file in the cgroup's directory. */
  file: string;
  value: string;
}

/** What of a cgroup that is there decides how its limits are written. */
export interface PartFacts {
  /** Whether the kernel counts swap. */
  countsSwap: boolean;
  /** The file that weighs its disk traffic; absent when the kernel has no scheduler that would. */
  weightFile?: string;
  /** Bytes of memory and swap together that it may have now; version 1. */
  swapLimit: number;
}

/** What a cgroup has used. What its controllers do not count is absent. */
export interface Usage {
  /** Nanoseconds of processor time since it was made. */
  cpu?: number;
  /** Bytes, without what the kernel could drop at once. */
  memory?: number;
  /** Bytes; absent when it is not limited. */
  memoryLimit?: number;
  /** Bytes read from and written to disks. */
  read?: number;
  written?: number;
  /** Processes and threads. */
  pids?: number;
}

/** The two versions of cgroups differ in names, units and what is in which file; this is all that differs. */
export interface CgroupVersion {
  /** The values that limits are, in the order in which they must be written. Pure. */
  settings(resources: Resources, facts: PartFacts): Setting[];
  facts(directory: string): PartFacts;
  /**
   * The file that would weigh disk traffic in a cgroup of this hierarchy: the root itself is not weighed. Undefined when the
   * kernel has no scheduler that would.
   */
  presumedWeightFile(root: string): string | undefined;
  /** What a directory's controllers have counted; its files are those of one hierarchy. */
  usage(directory: string): Usage;
  /** Processes that the kernel has killed in it because its memory was used up. */
  oomKills(directory: string): number;
  freezing: { file: string; frozen: string; thawed: string };
  isFrozen(directory: string): boolean;
}

/** The number behind a word in a file of `WORD NUMBER` lines. */
export function numberAt(text: string, word: string): number | undefined {
  const match = new RegExp(`^${word} (\\d+)$`, 'm').exec(text);
  return match === null ? undefined : Number(match[1]);
}

/** A number, or undefined for an empty text and for `max`. */
export function numberOf(text: string): number | undefined {
  return /^\d+$/.test(text) ? Number(text) : undefined;
}
