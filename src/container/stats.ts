import fs from 'node:fs';
import os from 'node:os';
import { readUsage } from '../host/cgroup/cgroup.ts';
import { read } from '../host/cgroup/hierarchies.ts';
import type { Usage } from '../host/cgroup/version.ts';
import { processesOfEach, readStat } from '../host/processes.ts';
import { type Container, isRunning } from './store.ts';

/** What a container has used until a moment. */
interface Sample {
  container: Container;
  running: boolean;
  /** Nanoseconds of some clock that only goes forward. */
  at: bigint;
  usage: Usage;
  received: number;
  sent: number;
}

/** What a container uses, as `stats` shows it. */
export interface Stats {
  container: Container;
  running: boolean;
  /** Of one processor; 200 is all of two. */
  cpuPercent: number;
  /** Bytes. */
  memory: number;
  memoryLimit: number;
  received: number;
  sent: number;
  read: number;
  written: number;
  pids: number;
}

/** proc(5): clock ticks in /proc are hundredths of a second on all architectures that minirun runs on. */
const nanosecondsOfTick = 10_000_000;

/** What containers have used so far: what their cgroups have counted, and from /proc what no cgroup of theirs counts. */
export function sampleContainers(containers: readonly Container[]): Sample[] {
  const live = containers.filter(({ state }) => isRunning(state));
  const inits = live.flatMap(({ state }) => (needsProcesses(state.cgroup) ? [state.init?.pid ?? 0] : []));
  const processes = inits.length === 0 ? new Map<number, number[]>() : processesOfEach(inits);
  return containers.map((container) => {
    const { state, definition } = container;
    const init = state.init?.pid ?? 0;
    const running = live.includes(container);
    const at = process.hrtime.bigint();
    const pids = processes.get(init);
    const usage = running ? { ...(pids === undefined ? {} : usageOfProcesses(pids)), ...countedBy(state.cgroup) } : {};
    const traffic = running && definition.network !== 'host' ? networkTraffic(init) : { received: 0, sent: 0 };
    return { container, running, at, usage, ...traffic };
  });
}

type Cgroup = Container['state']['cgroup'];

/** Only a cgroup that the container was born in, and that has all controllers, has counted everything. */
function needsProcesses(cgroup: Cgroup): boolean {
  const usage = countedBy(cgroup);
  return [usage.cpu, usage.memory, usage.pids, usage.read].includes(undefined);
}

function countedBy(cgroup: Cgroup): Usage {
  if (cgroup === undefined) return {};
  const usage = readUsage(cgroup.parts);
  if (cgroup.late !== true) return usage;
  // Memory that a process had when it was moved stays with the cgroup where it was, and so do times and traffic.
  const { pids, memoryLimit } = usage;
  return { ...(pids === undefined ? {} : { pids }), ...(memoryLimit === undefined ? {} : { memoryLimit }) };
}

/** The sum over processes: what /proc says of each. Memory that several share is divided among them: proc_pid_smaps(5). */
function usageOfProcesses(pids: readonly number[]): Usage {
  const usage = { cpu: 0, memory: 0, read: 0, written: 0, pids: 0 };
  for (const pid of pids) {
    const stat = readStat(pid);
    if (stat === undefined) continue;
    usage.cpu += stat.ticks * nanosecondsOfTick;
    usage.pids += stat.threads;
    usage.memory += 1024 * numberAfter(read(`/proc/${pid}/smaps_rollup`), 'Pss');
    const io = read(`/proc/${pid}/io`);
    usage.read += numberAfter(io, 'read_bytes');
    usage.written += numberAfter(io, 'write_bytes');
  }
  return usage;
}

function numberAfter(text: string, word: string): number {
  return Number(new RegExp(`^${word}:\\s*(\\d+)`, 'm').exec(text)?.[1] ?? 0);
}

/** Bytes through all interfaces of a process's network namespace but the loopback one: proc_pid_net(5). */
function networkTraffic(pid: number): { received: number; sent: number } {
  const traffic = { received: 0, sent: 0 };
  for (const line of read(`/proc/${pid}/net/dev`).split('\n')) {
    const match = /^\s*([^\s:]+):\s*(.*)$/.exec(line);
    if (match === null || match[1] === 'lo') continue;
    const numbers = (match[2] as string).split(/\s+/).map(Number);
    traffic.received += numbers[0] ?? 0;
    traffic.sent += numbers[8] ?? 0;
  }
  return traffic;
}

/**
 * What containers use between two samples.
 *
 * @param before samples of an earlier moment; a container that is not among them has no processor time yet
 */
export function compare(before: readonly Sample[], now: readonly Sample[]): Stats[] {
  const earlier = new Map(before.map((sample) => [sample.container.definition.id, sample]));
  return now.map(({ container, running, at, usage, received, sent }) => {
    const last = earlier.get(container.definition.id);
    // Time of processes that have ended unwaited for is lost.
    const used = Math.max(0, (usage.cpu ?? 0) - (last?.usage.cpu ?? usage.cpu ?? 0));
    const passed = last === undefined ? 0 : Number(at - last.at);
    return {
      container,
      running,
      cpuPercent: passed === 0 ? 0 : (used / passed) * 100,
      memory: usage.memory ?? 0,
      memoryLimit: running ? Math.min(usage.memoryLimit ?? Number.POSITIVE_INFINITY, machineMemory()) : 0,
      received,
      sent,
      read: usage.read ?? 0,
      written: usage.written ?? 0,
      pids: usage.pids ?? 0,
    };
  });
}

function machineMemory(): number {
  const match = /^MemTotal:\s*(\d+)/m.exec(fs.readFileSync('/proc/meminfo', 'latin1'));
  return match === null ? os.totalmem() : Number(match[1]) * 1024;
}
