import fs from 'node:fs';

/** A process named so that a recycled pid is never mistaken for it: proc_pid_stat(5), field 22. */
export interface ProcessRef {
  pid: number;
  /** Start time in clock ticks since boot. */
  start: number;
}

/** Start time of a process in clock ticks since boot; undefined when it is gone or a zombie. */
export function startTime(pid: number): number | undefined {
  let stat: string;
  try {
    stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The command name is in parentheses and may hold anything, so count fields from the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
  return Number(fields[19]);
}

/** The reference of a running process, or undefined when it is gone. */
export function processRef(pid: number): ProcessRef | undefined {
  const start = startTime(pid);
  return start === undefined ? undefined : { pid, start };
}

let own: ProcessRef | undefined;

/** The reference of this process. */
export function selfRef(): ProcessRef {
  own ??= processRef(process.pid) ?? { pid: process.pid, start: 0 };
  return own;
}

/** Whether that very process (not another with its pid) is running. */
export function isAlive(ref: ProcessRef | undefined): boolean {
  return ref !== undefined && startTime(ref.pid) === ref.start;
}

/** Sends a signal to that very process; false when it is gone. */
export function signalProcess(ref: ProcessRef | undefined, signal: NodeJS.Signals | number): boolean {
  if (ref === undefined || !isAlive(ref)) return false;
  try {
    process.kill(ref.pid, signal);
    return true;
  } catch {
    return false;
  }
}

let boot: string | undefined;

/** The kernel's id of this boot: namespaces, mounts and leases do not outlive it. */
export function bootId(): string {
  boot ??= fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return boot;
}
