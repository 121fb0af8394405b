import os from 'node:os';
import { MinirunError } from '../errors.ts';

/**
 * Does work that Ctrl-C and the like may break off. It is told by the signal and cleans up after itself; only then this
 * process goes on to end.
 *
 * @throws MinirunError with 128 + n as its code when signal n has come
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let caught: NodeJS.Signals | undefined;
  const onSignal = (name: NodeJS.Signals) => {
    caught ??= name;
    controller.abort(new Error(`stopped by ${name}`));
  };
  const signals: NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  for (const name of signals) process.on(name, onSignal);
  try {
    const value = await work(controller.signal);
    controller.signal.throwIfAborted();
    return value;
  } catch (error) {
    if (caught === undefined) throw error;
    throw new MinirunError(`stopped by ${caught}`, 'nothing half-done was kept', undefined, {
      code: 128 + os.constants.signals[caught],
    });
  } finally {
    for (const name of signals) process.off(name, onSignal);
  }
}
