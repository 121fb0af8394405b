import fs from 'node:fs';
import { statFields } from './process.ts';

/** What /proc says of a process in `stat`: proc_pid_stat(5). */
export interface ProcessStat {
  pid: number;
  parent: number;
  /** `Z` and `X` have ended. */
  state: string;
  /** Clock ticks of processor time, with those of children that have ended and been waited for. */
  ticks: number;
  threads: number;
}

export function readStat(pid: number): ProcessStat | undefined {
  const fields = statFields(pid);
  if (fields === undefined) return undefined;
  const number = (field: number) => Number(fields[field - 3]);
  return {
    pid,
    parent: number(4),
    state: fields[0] ?? '',
    ticks: number(14) + number(15) + number(16) + number(17),
    threads: number(20),
  };
}

/**
 * The processes of a container, whose first one is given: those in its pid namespace, and their descendants, which may be in
 * namespaces inside it. Those that have ended are left out.
 */
export function processesOf(init: number): number[] {
  return processesOfEach([init]).get(init) ?? [];
}

/** The processes of several containers, by their first one, in one walk through /proc. */
export function processesOfEach(inits: readonly number[]): Map<number, number[]> {
  const found = new Map<number, number[]>(inits.map((init) => [init, []]));
  const initOf = new Map(inits.map((init) => [namespaceOf(init), init]));
  initOf.delete('');
  const parents = new Map<number, number>();
  const owners = new Map<number, number | undefined>();
  for (const entry of fs.readdirSync('/proc')) {
    const stat = /^\d+$/.test(entry) ? readStat(Number(entry)) : undefined;
    if (stat === undefined || stat.state === 'Z' || stat.state === 'X') continue;
    parents.set(stat.pid, stat.parent);
    const owner = initOf.get(namespaceOf(stat.pid));
    if (owner !== undefined) owners.set(stat.pid, owner);
  }
  const ownerOf = (pid: number): number | undefined => {
    if (owners.has(pid)) return owners.get(pid);
    const parent = parents.get(pid);
    const owner = parent === undefined || parent === pid ? undefined : ownerOf(parent);
    owners.set(pid, owner);
    return owner;
  };
  for (const pid of parents.keys()) {
    const owner = ownerOf(pid);
    if (owner !== undefined) found.get(owner)?.push(pid);
  }
  return found;
}

function namespaceOf(pid: number): string {
  try {
    return fs.readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return '';
  }
}
