import { isAlive, selfRef } from '../host/process.ts';
import { finish } from './finish.ts';
import { recordedEnding } from './reconcile.ts';
import { readContainer } from './store.ts';

/**
 * Takes a detached container down whose process has ended; runs in the supervisor's place, with its pid. While the
 * command that started the container has not handed it over yet, waits for that.
 */
export async function reap(id: string): Promise<void> {
  const self = selfRef();
  for (;;) {
    const container = readContainer(id);
    if (container === undefined) return;
    const { owner, status } = container.state;
    if (status === 'created' || status === 'exited') return;
    const ours = owner?.pid === self.pid && owner.start === self.start;
    if (ours || !isAlive(owner)) break;
    if (status === 'stopping') return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const container = readContainer(id);
  if (container === undefined) return;
  const ending = recordedEnding(id) ?? { exitCode: 137 };
  await finish(id, ending, container.definition.autoRemove ? 'removed' : 'exited');
}
