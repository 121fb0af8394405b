import path from 'node:path';
import type { SmallMachine } from '../host/machine.ts';
import { kernelBootId, type ProcessRef } from '../host/process.ts';
import { readJson } from './json.ts';
import { paths } from './paths.ts';

/** What is known of the machine in small of a state directory: `machine/machine.json`. */
export interface MachineRecord extends SmallMachine {
  schema: 1;
  /** The boot of the real machine in which it was made. */
  kernelBoot: string;
  /** The process that keeps its namespaces. */
  holder: ProcessRef;
  /** What /proc/PID/ns/user says of everything in it. */
  namespace: string;
}

/** Files of a machine in small; all but the locks go with it. */
export const machineFiles = () => {
  const file = (name: string) => path.join(paths.machine(), name);
  return {
    record: file('machine.json'),
    /** Held, shared, by every command that is inside; whoever gets it alone is the last. */
    life: file('life.lock'),
    /** Held while the machine is made. */
    making: file('making.lock'),
    /** The process that ends it in a moment. */
    linger: file('linger.json'),
    /** Where its /run is put together. */
    run: file('run'),
    resolvConf: file('resolv.conf'),
    pastaPid: file('pasta.pid'),
    /** Begins like the socket, which stands in slirp4netns's command line. */
    slirpPid: file('slirp4netns'),
    slirpSocket: file('slirp4netns.sock'),
  };
};

/** The machine of this state directory as it was recorded; undefined when that was in another boot or never. */
export function readRecord(): MachineRecord | undefined {
  let record: Partial<MachineRecord> | undefined;
  try {
    record = readJson<Partial<MachineRecord>>(machineFiles().record);
  } catch {
    // Damaged: what it stood for is made anew.
  }
  const isOurs = record?.kernelBoot === kernelBootId() && typeof record.holder?.pid === 'number';
  return isOurs ? (record as MachineRecord) : undefined;
}
