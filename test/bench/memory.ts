import fs from 'node:fs';
import type { Machine } from '../support/world.ts';
import { expectZero, type Peer, sleeper } from './peers.ts';

/**
 * Memory that a detached container costs beside its own process: PSS, in bytes, of what else was started for it.
 * Growth of processes that ran before (a daemon) is not in it.
 */
export async function memoryPerContainer(peer: Peer, count: number): Promise<{ one: number; mean: number }> {
  const before = new Set(pids(peer.machine));
  const start = async (): Promise<string> => expectZero(peer.machine, peer.detach ?? []);
  await start();
  const one = supervisorMemory(peer.machine, before);
  for (let index = 1; index < count; index++) await start();
  return { one, mean: supervisorMemory(peer.machine, before) / count };
}

/** PSS of all processes of a machine but the containers' own and those in `except`. */
function supervisorMemory(machine: Machine, except: ReadonlySet<string>): number {
  let sum = 0;
  for (const pid of pids(machine)) {
    if (except.has(pid)) continue;
    try {
      const command = fs.readFileSync(machine.path(`/proc/${pid}/cmdline`), 'utf8');
      if (command === `${sleeper.join('\0')}\0`) continue;
      const rollup = fs.readFileSync(machine.path(`/proc/${pid}/smaps_rollup`), 'utf8');
      sum += Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1] ?? 0) * 1024;
    } catch {
      // It ended meanwhile.
    }
  }
  return sum;
}

function pids(machine: Machine): string[] {
  return fs.readdirSync(machine.path('/proc')).filter((name) => /^\d+$/.test(name));
}
