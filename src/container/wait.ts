import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { soundFile } from '../state/files.ts';
import { kinds } from '../state/migrations.ts';
import { Changes } from './changes.ts';
import { stateShape } from './files.ts';
import { exitCodeOf } from './rebuild.ts';
import type { ContainerState } from './definition.ts';
import { checkCommand, shownHealth } from './health.ts';
import { reclaim } from './reconcile.ts';
import { isAtRest, shownStatus } from './status.ts';
import { type Container, containerFiles, isSettled, readContainer, requireContainer } from './store.ts';

/** What can be waited for: podman's words and those of docker's API. */
export const waitConditions = [
  'configured',
  'created',
  'exited',
  'healthy',
  'initialized',
  'next-exit',
  'not-running',
  'paused',
  'removed',
  'removing',
  'restarting',
  'running',
  'stopped',
  'stopping',
  'unhealthy',
] as const;

export type WaitCondition = (typeof waitConditions)[number];

/** What is printed for those that are not about an end. */
const noExitCode = -1;

/** Those that a container without a trace has met; its exit code tells more than -1. */
const endings: readonly WaitCondition[] = ['exited', 'next-exit', 'not-running', 'removed', 'removing', 'stopped'];

/**
 * Resolves with a container's exit code once one of these is true of it, or with -1 for what is no end; at once when one
 * is true already.
 *
 * @param patience milliseconds between two looks when nothing is heard of it
 * @throws MinirunError when there is no such container, when it was removed without a trace of its exit code, or when
 *   what is waited for cannot come
 */
export async function waitForContainer(
  reference: string,
  conditions: readonly WaitCondition[] = ['stopped'],
  patience = 200,
): Promise<number> {
  const first = requireContainer(reference);
  const { id, name } = first.definition;
  refuseUnchecked(first, conditions);
  const changes = new Changes(containerFiles(id).directory);
  let recorded: number | undefined;
  try {
    for (;;) {
      const container = readContainer(id);
      const met = container && conditions.find((condition) => isMet(condition, container, first.state));
      if (met !== undefined && container !== undefined)
        return endings.includes(met) ? container.state.exitCode : noExitCode;
      if (container !== undefined && isAtRest(container.state)) recorded = container.state.exitCode;
      // With --rm the folder goes right after the exit code was written down, so it is read whenever it is there.
      recorded = recordedCode(id) ?? recorded;
      if (container === undefined) break;
      refuseEnded(container, conditions);
      if (isSettled(container.state)) await changes.next(patience);
      else await reclaim(id);
    }
  } finally {
    changes.end();
  }
  if (recorded !== undefined && conditions.some((condition) => endings.includes(condition))) return recorded;
  if (conditions.some((condition) => condition === 'removed' || condition === 'removing')) return noExitCode;
  throw new MinirunError(
    conditions.some((condition) => endings.includes(condition))
      ? `cannot tell the exit code of container "${name}"`
      : `container "${name}" will never be ${conditions.join(' or ')}`,
    'it was removed meanwhile',
  );
}

/** Whether a condition is true of a container that is there. @param before its state when the waiting began */
function isMet(condition: WaitCondition, { definition, state }: Container, before: ContainerState): boolean {
  switch (condition) {
    case 'stopped':
    case 'not-running':
      return isAtRest(state);
    case 'next-exit':
      return state.finishedAt !== '' && state.finishedAt !== before.finishedAt;
    case 'configured':
    case 'initialized':
    case 'created':
      return shownStatus(state) === 'created';
    case 'stopping':
      return state.status === 'stopping';
    case 'healthy':
    case 'unhealthy':
      return state.status === 'running' && shownHealth(definition, state)?.Status === condition;
    case 'removed':
    case 'removing':
      return false;
    case 'running':
      return state.status === 'running';
    case 'exited':
    case 'paused':
    case 'restarting':
      // As it is shown.
      return (shownStatus(state) as string) === condition;
  }
}

const isAboutHealth = (condition: WaitCondition) => condition === 'healthy' || condition === 'unhealthy';

function refuseUnchecked({ definition }: Container, conditions: readonly WaitCondition[]): void {
  if (!conditions.some(isAboutHealth) || checkCommand(definition) !== undefined) return;
  throw new MinirunError(
    `cannot wait for the health of container "${definition.name}"`,
    'it has no health check',
    'Give it one when it is created: --health-cmd COMMAND',
    { code: 125 },
  );
}

/** Somebody may start one that was created just now; of one that has ended nobody can tell. */
function refuseEnded({ definition, state }: Container, conditions: readonly WaitCondition[]): void {
  if (state.status !== 'exited' || !conditions.every(isAboutHealth)) return;
  throw new MinirunError(
    `container "${definition.name}" is not ${conditions.join(' or ')}`,
    `it has ended with ${state.exitCode}`,
    `See minirun logs ${definition.name}`,
  );
}

/** The exit code in a container's folder or in what a removal has left of it so far. */
function recordedCode(id: string): number | undefined {
  const { directory } = containerFiles(id);
  for (const place of [directory, `${directory}.removing`]) {
    const code = exitCodeOf(path.join(place, 'exit'));
    if (code !== undefined) return code;
  }
  const left = soundFile(kinds.state, stateShape, path.join(`${directory}.removing`, 'state.json'));
  return left !== undefined && isAtRest(left) ? left.exitCode : undefined;
}
