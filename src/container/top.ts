import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { processesIn } from '../host/cgroup/cgroup.ts';
import { read } from '../host/cgroup/hierarchies.ts';
import { runTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { processesOf, readStat } from '../host/processes.ts';
import { recordContainer } from './events.ts';
import { requireRunning } from './stop.ts';
import { requireContainer } from './store.ts';

/** Titles and lines of cells. */
export interface ProcessTable {
  titles: string[];
  rows: string[][];
}

/**
 * The processes of a running container, as the host's ps shows them.
 *
 * @param options for ps; they must leave the column PID in place
 */
export async function topContainer(reference: string, options: readonly string[]): Promise<ProcessTable> {
  const container = requireContainer(reference);
  requireRunning(container, 'show the processes of');
  const { state } = container;
  const pids = new Set(processesOf(state.init?.pid ?? 0));
  // Also one that has just joined its cgroup and not yet its namespaces.
  for (const { directory } of state.cgroup?.parts.slice(0, 1) ?? [])
    for (const pid of processesIn(directory)) pids.add(pid);
  recordContainer(container.definition, 'top');
  if (which('ps') !== undefined) return tableOfPs(options.length > 0 ? options : ['-ef'], pids);
  if (options.length === 0) return tableOfProc([...pids].toSorted((a, b) => a - b));
  throw new MinirunError('cannot use options of ps', 'this machine has no ps (package procps)', 'Leave them out', {
    code: 125,
  });
}

async function tableOfPs(options: readonly string[], pids: ReadonlySet<number>): Promise<ProcessTable> {
  const { exitCode, stdout, stderr } = await runTool('ps', options);
  if (exitCode !== 0)
    throw new MinirunError(`ps ${options.join(' ')} has failed`, stderr.trim().split('\n')[0] ?? '', 'See ps(1)');
  const [header = '', ...lines] = stdout.split('\n').filter((line) => line !== '');
  const titles = header.trim().split(/\s+/);
  const column = titles.indexOf('PID');
  if (column < 0)
    throw new MinirunError('cannot tell whose the processes are', 'ps shows no column PID', 'Add it: -o pid,…');
  const rows = lines.map((line) => cells(line, titles.length)).filter((row) => pids.has(Number(row[column])));
  return { titles, rows };
}

/** The words of a line; the last one, usually the command, with the spaces in it. */
function cells(line: string, count: number): string[] {
  const words = line.trim().split(/\s+/);
  return [...words.slice(0, count - 1), words.slice(count - 1).join(' ')];
}

/** What `ps -ef` shows, from /proc: proc_pid_stat(5). */
function tableOfProc(pids: readonly number[]): ProcessTable {
  const boot = Number(/^btime (\d+)/m.exec(read('/proc/stat'))?.[1] ?? 0);
  const users = usersOfHost();
  const rows = pids.flatMap((pid) => {
    const stat = readStat(pid);
    const fields = read(`/proc/${pid}/stat`);
    const startTicks = Number(fields.slice(fields.lastIndexOf(')') + 2).split(' ')[19]);
    if (stat === undefined) return [];
    const uid = /^Uid:\s*(\d+)/m.exec(read(`/proc/${pid}/status`))?.[1] ?? '';
    const command = read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
    const name = command || `[${read(`/proc/${pid}/comm`)}]`;
    const started = new Date((boot + startTicks / 100) * 1000);
    const seconds = Math.floor(stat.ticks / 100);
    const two = (value: number) => String(Math.floor(value)).padStart(2, '0');
    const time = `${two(seconds / 3600)}:${two((seconds / 60) % 60)}:${two(seconds % 60)}`;
    const since = `${two(started.getHours())}:${two(started.getMinutes())}`;
    return [[users.get(uid) ?? uid, String(pid), String(stat.parent), since, time, name]];
  });
  return { titles: ['UID', 'PID', 'PPID', 'STIME', 'TIME', 'CMD'], rows };
}

function usersOfHost(): Map<string, string> {
  const text = fs.existsSync('/etc/passwd') ? fs.readFileSync('/etc/passwd', 'utf8') : '';
  return new Map(text.split('\n').map((line) => [line.split(':')[2] ?? '', line.split(':')[0] ?? '']));
}
