import { smallMachine } from '../host/machine.ts';
import { lifeVariable, placeVariable } from './variables.ts';

let life: number | undefined;

/** Whether this process is in a machine in small: there it is root, as all of minirun wants to be. */
export function isInside(): boolean {
  return smallMachine() !== undefined;
}

/** Takes up what `enterMachine` has left to this process. */
export function settleIn(): void {
  const { [lifeVariable]: descriptor, [placeVariable]: place } = process.env;
  delete process.env[lifeVariable];
  delete process.env[placeVariable];
  if (descriptor !== undefined) life = Number(descriptor);
  if (place === undefined) return;
  try {
    process.chdir(place);
  } catch {
    // A directory that is gone, or below the machine's own /run: the root is as good as any.
  }
}

/** Commands after which nobody waits for a next one: what is idle goes at once. */
const last = new Set(['rm', 'stop', 'kill', 'reap', 'system']);

/** Ends the machine when nothing is left in it and nobody else is about to use it: at once, or in a moment. */
export async function leave(command: string | undefined): Promise<void> {
  const { endIfIdle, lingerIfIdle } = await import('./leave.ts');
  if (last.has(command ?? '')) await endIfIdle(life);
  else lingerIfIdle();
}
