import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { fillDisk } from './full-disk.ts';

/**
 * Fault injection for the tests: `MINIRUN_FAULT=kill:N` ends this process with SIGKILL at its Nth fault point,
 * `fail:N` makes that point fail, `stop:N` stops the process there until SIGCONT, so that another can get in between.
 * Fault points lie after every step and between the phases of a command; in place of N may stand the name of one. With `enospc:N` the Nth thing that is written
 * finds the disk full, with `full:N` everything from the Nth on (`full-disk.ts`).
 */
const [mode, at] = (process.env.MINIRUN_FAULT ?? '').split(':');
let left = Number(at);

function isTurn(name: string): boolean {
  return --left === 0 || name === at;
}

/** Whether to do as if the kernel had no idmapped mounts: `MINIRUN_FAULT=no-idmap`. */
export const withoutIdmap = mode === 'no-idmap';

/** Whether a fault is to be injected; the executor then applies one command at a time. */
export const faultsOn = mode === 'kill' || mode === 'fail' || mode === 'stop';

if (mode === 'enospc' || mode === 'full') fillDisk(left, mode === 'full' ? Number.POSITIVE_INFINITY : 1);
/** A place where a test can make minirun die or fail. */
export function faultPoint(name: string): void {
  if (!faultsOn || !isTurn(name)) return;
  if (mode === 'kill') die(name);
  if (mode === 'stop') {
    process.kill(process.pid, 'SIGSTOP');
    // The signal may reach another thread first.
    wait(50);
    return;
  }
  throw new MinirunError('injected fault', name);
}

/** A place where nothing can fail, but where a test can make minirun die. */
export function killPoint(name: string): void {
  if (mode === 'kill' && isTurn(name)) die(name);
}

function die(name: string): void {
  fs.writeSync(2, `minirun: killed at ${name}\n`);
  process.kill(process.pid, 'SIGKILL');
  // The signal may reach another thread first; nothing more is to happen here.
  wait();
}

function wait(milliseconds?: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}
