import fs from 'node:fs';

/** Field 22 of proc_pid_stat(5); the name before it may hold anything but ends with the last parenthesis. */
export function startTime(pid: number): number {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
}
