import fs from 'node:fs';
import { endGroup, processRef, signalProcess, isAlive, type ProcessRef } from './process.ts';

/** The running daemon that wrote a pid file; undefined when it has ended, also when another process has its pid now. */
export function daemonOf(pidFile: string): ProcessRef | undefined {
  let pid: number;
  try {
    pid = Number(fs.readFileSync(pidFile, 'latin1').trim());
    if (!(pid > 1) || !fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(pidFile)) return undefined;
  } catch {
    return undefined;
  }
  return processRef(pid);
}

/**
 * Ends a daemon and waits until it is gone; one that has ended already is no error.
 *
 * @param hasChildren whether the processes of its group, which it leads, end with it
 */
export async function endDaemon(pidFile: string, hasChildren = false): Promise<void> {
  const daemon = daemonOf(pidFile);
  if (hasChildren) endGroup(daemon);
  for (let tries = 0; isAlive(daemon); tries++) {
    // It has nothing to lose: what it knows is in files.
    if (tries % 200 === 0) signalProcess(daemon, tries === 0 ? 'SIGTERM' : 'SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  fs.rmSync(pidFile, { force: true });
}
