import fs from 'node:fs';
import { launchBackground, ownBinary } from '../host/launch.ts';
import { isAlive, processRef, type ProcessRef } from '../host/process.ts';
import { flock } from '../init/libc.ts';
import { listNetworks } from '../network/store.ts';
import { readJson, writeJson } from '../state/json.ts';
import { paths, stateRoot } from '../state/paths.ts';
import { machineFiles, type MachineRecord, readRecord } from '../state/machine.ts';
import { endInsiders, nsenterArgv } from './holder.ts';
import { endUplink } from './uplink.ts';

/**
 * Ends the machine when no container is anywhere but at rest, no network is in use or lingers, and no other command is
 * inside: whoever comes next makes a new one.
 *
 * @param life the descriptor by which this command holds the lock
 */
export async function endIfIdle(life?: number): Promise<void> {
  if (!isIdle()) return;
  const lock = life ?? fs.openSync(machineFiles().life, 'a', 0o600);
  if (!flock(lock, 'alone', { wait: false })) return;
  const record = readRecord();
  // Looked at again: now nobody can begin anything.
  if (record === undefined || !isIdle()) return;
  await end(record);
}

/** Seconds for which an idle machine stays: making one takes longer than what a short command does. */
const lingerSeconds = 2;

/** Sees to it that an idle machine ends in a moment, by a process that outlives this one. */
export function lingerIfIdle(): void {
  if (!isIdle()) return;
  const { linger } = machineFiles();
  const waiting = lingering(linger);
  const record = readRecord();
  if (record === undefined || (waiting !== undefined && isAlive(waiting))) return;
  const script = `trap '' HUP INT; sleep ${lingerSeconds}; exec "$@"`;
  const argv = [
    // This process may be one that has kept the host's network.
    ...nsenterArgv(record.holder.pid, ['--mount', '--net']),
    'sh',
    '-c',
    script,
    'minirun-linger',
    ownBinary,
    '--root',
    stateRoot(),
    'system',
    'reconcile',
    '--due',
  ];
  writeJson(linger, processRef(launchBackground(argv)) ?? null, { durable: false });
}

function lingering(file: string): ProcessRef | undefined {
  try {
    return readJson<ProcessRef>(file);
  } catch {
    // Damaged: then there is one more, which finds nothing to do.
    return undefined;
  }
}

function isIdle(): boolean {
  // Whoever is not at rest has an owner here (container/owners.ts).
  if (fs.readdirSync(paths.owners()).some((entry) => !entry.startsWith('boot-'))) return false;
  return !listNetworks().some(({ automatic, up, leases }) => Object.keys(leases).length > 0 || (automatic && up));
}

async function end(record: MachineRecord): Promise<void> {
  const files = machineFiles();
  await endUplink();
  await endInsiders(record);
  for (const file of [files.record, files.resolvConf, files.linger]) fs.rmSync(file, { force: true });
}
