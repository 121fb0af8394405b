import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { smallMachine } from './machine.ts';
import { textOrEmpty } from './text.ts';

/** A process named so that a recycled pid is never mistaken for it: proc_pid_stat(5), field 22. */
export interface ProcessRef {
  pid: number;
  /** Start time in clock ticks since boot. */
  start: number;
}

/** The fields of a process's `stat` from the third (its state) on, as proc_pid_stat(5) counts; undefined when it is gone. */
export function statFields(pid: number): string[] | undefined {
  let stat: string;
  try {
    stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The command name is in parentheses and may hold anything, so count fields from the last one.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** Start time of a process in clock ticks since boot; undefined when it is gone or a zombie. */
export function startTime(pid: number): number | undefined {
  const fields = statFields(pid);
  return fields === undefined || fields[0] === 'Z' || fields[0] === 'X' ? undefined : Number(fields[19]);
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

/** Whether both are one process, alive or not. */
export function isSame(one: ProcessRef | undefined, other: ProcessRef | undefined): boolean {
  return one !== undefined && one.pid === other?.pid && one.start === other.start;
}

/** Whether that very process (not another with its pid) is running. */
export function isAlive(ref: ProcessRef | undefined): boolean {
  return ref !== undefined && startTime(ref.pid) === ref.start;
}

/** Whether there is a process of that number, whichever: kill(2) with no signal, a tenth of the time of a look into /proc. */
export function isTaken(pid: number): boolean {
  // 0 would mean this process's group.
  if (pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Sends a signal to that very process; false when it is gone. @throws MinirunError when the kernel forbids it */
export function signalProcess(ref: ProcessRef | undefined, signal: NodeJS.Signals | number): boolean {
  if (ref === undefined || !isAlive(ref)) return false;
  try {
    process.kill(ref.pid, signal);
    return true;
  } catch (error) {
    if (!['EPERM', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw new MinirunError(
      `cannot signal process ${ref.pid}`,
      "the kernel does not allow it: it is another user's, or its AppArmor profile takes no signals",
      'Be root, and let a profile of your own have "signal (receive) peer=unconfined,"',
    );
  }
}

/** Ends a process with its whole process group, which it leads; not this process's own. */
export function endGroup(leader: ProcessRef | undefined): void {
  if (leader === undefined || leader.pid === process.pid || !isAlive(leader)) return;
  try {
    process.kill(-leader.pid, 'SIGKILL');
  } catch {
    // It has just ended.
  }
}

let boot: string | undefined;

/**
 * The kernel's id of this boot: namespaces, mounts and leases do not outlive it. A machine in small has one of its own,
 * because all of that goes with it.
 */
export function bootId(): string {
  boot ??= smallMachine()?.boot ?? kernelBootId();
  return boot;
}

/** The id of this boot of the real machine. */
export function kernelBootId(): string {
  return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

const markName = 'MINIRUN_BY';

/** The variable that tells whose a host tool is, also after that process has been killed: see `endOrphans`. */
export function ownMark(): Record<string, string> {
  const { pid, start } = selfRef();
  return { [markName]: `${pid}.${start}` };
}

/**
 * Ends the host tools that a killed process has left running: one `ip` or `iptables-restore` that only now gets its
 * turn would make again what is about to be taken back.
 */
export function endOrphans(parent: ProcessRef | undefined): void {
  if (parent === undefined || isAlive(parent)) return;
  endMarked(`${markName}=${parent.pid}.${parent.start}`);
}

/**
 * Kills every process that has this in its environment, and waits until it is gone.
 *
 * @param variable `NAME=VALUE`
 * @returns how many there were
 */
export function endMarked(variable: string): number {
  for (let count = 0; ; ) {
    const ended = endListed(variable);
    count += ended;
    // One that has ended may have started another after the list was read, as a daemon does when it goes into the background.
    if (ended === 0) return count;
  }
}

/** Kills those that are there at this moment. */
function endListed(variable: string): number {
  let count = 0;
  for (const entry of fs.readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || !`\0${textOrEmpty(`/proc/${pid}/environ`)}`.includes(`\0${variable}\0`)) continue;
    const marked = processRef(pid);
    if (!signalProcess(marked, 'SIGKILL')) continue;
    count++;
    for (let tries = 0; tries < 500 && isAlive(marked); tries++) pause(1);
  }
  return count;
}

function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}
