import { MinirunError } from '../errors.ts';

/**
 * Fault injection for the tests: `MINIRUN_FAULT=kill:N` ends this process with SIGKILL at its Nth fault point,
 * `fail:N` makes that point fail. Fault points lie after every step and between the phases of a command.
 */
const [mode, count] = (process.env.MINIRUN_FAULT ?? '').split(':');
let left = Number(count);

/** Whether a fault is to be injected; the executor then applies one command at a time. */
export const faultsOn = mode === 'kill' || mode === 'fail';

/** A place where a test can make minirun die or fail. */
export function faultPoint(name: string): void {
  if (!faultsOn || --left !== 0) return;
  if (mode === 'kill') process.kill(process.pid, 'SIGKILL');
  throw new MinirunError('injected fault', name);
}
