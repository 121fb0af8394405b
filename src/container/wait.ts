import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { soundFile } from '../state/files.ts';
import { kinds } from '../state/migrations.ts';
import { Changes } from './changes.ts';
import { stateShape } from './files.ts';
import { exitCodeOf } from './rebuild.ts';
import { reclaim } from './reconcile.ts';
import { isAtRest } from './status.ts';
import { containerFiles, isSettled, readState, requireContainer } from './store.ts';

/** Milliseconds between two looks at a container when nothing is heard of it. */
const patience = 200;

/**
 * Resolves with a container's exit code once it is at rest or gone; at once when it is already.
 *
 * @throws MinirunError when there is no such container, or it was removed without a trace of its exit code
 */
export async function waitForContainer(reference: string): Promise<number> {
  const { id, name } = requireContainer(reference).definition;
  const changes = new Changes(containerFiles(id).directory);
  let recorded: number | undefined;
  try {
    for (;;) {
      const state = readState(id);
      if (state !== undefined && isAtRest(state)) return state.exitCode;
      // With --rm the folder goes right after the exit code was written down, so it is read whenever it is there.
      recorded = recordedCode(id) ?? recorded;
      if (state === undefined) break;
      if (isSettled(state)) await changes.next(patience);
      else await reclaim(id);
    }
  } finally {
    changes.end();
  }
  if (recorded !== undefined) return recorded;
  throw new MinirunError(`cannot tell the exit code of container "${name}"`, 'it was removed meanwhile');
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
