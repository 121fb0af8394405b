import fs from 'node:fs';
import { isDiskFull } from '../errors.ts';
import type { Holder } from '../host/holder.ts';
import { attachForeground, type Foreground, SignalProxy } from './attach.ts';
import { type Draft, writeContainer } from './create.ts';
import { finish } from './finish.ts';
import { startContainer, type StartMode } from './start.ts';
import { atRest } from './stop.ts';
import { containerFiles, requireContainer } from './store.ts';

/** What may be said of a start besides. */
type Further = Pick<StartMode, 'holder' | 'notice'>;

/** Writes a container down, and meanwhile begins its user namespace if it is to have one. */
async function write(draft: Draft): Promise<{ holder?: Promise<Holder> }> {
  const { definition } = draft;
  const holder =
    definition.userns === undefined ? undefined : (await import('./in-user-namespace.ts')).beginHolding(definition);
  try {
    await writeContainer(draft, true);
  } catch (error) {
    (await holder?.catch(() => undefined))?.end();
    throw error;
  }
  return { holder };
}

/** `run -d`: returns the id once the command runs; a supervisor stays with it. */
export async function runDetached(draft: Draft, notice?: StartMode['notice']): Promise<string> {
  const { holder } = await write(draft);
  await startDetached(draft.definition.id, 'removed', { holder, notice });
  return draft.definition.id;
}

/** Starts a container under a supervisor. */
export async function startDetached(
  id: string,
  onFailure: 'removed' | 'created' | 'exited',
  further: Further = {},
): Promise<void> {
  const { child } = await startContainer(id, { foreground: false, onFailure, ...further });
  child.release();
}

/** `run` in the foreground: returns the command's exit code once everything is taken down again. */
export async function runForeground(draft: Draft, options: { sigProxy: boolean } & Further): Promise<number> {
  const { holder } = await write(draft);
  return startForeground(draft.definition.id, 'removed', { ...options, holder });
}

/** Starts a container in the foreground of this process and stays with it to its end. */
export async function startForeground(
  id: string,
  onFailure: 'removed' | 'created' | 'exited',
  { sigProxy, ...further }: { sigProxy: boolean } & Further,
): Promise<number> {
  const { definition } = requireContainer(id, true);
  const signals = new SignalProxy(sigProxy);
  let foreground: Foreground | undefined;
  const size = definition.tty ? { height: process.stdout.rows ?? 24, width: process.stdout.columns ?? 80 } : undefined;
  try {
    const { child, ready } = await startContainer(id, {
      foreground: true,
      size,
      onFailure,
      ...further,
      onReady: async (answer) => {
        foreground = await attachForeground(definition, answer, signals);
      },
    });
    foreground?.begin(ready.pid);
    const exitCode = commandExit(await child.exited, child.stderr());
    await foreground?.end();
    await finishForeground(id, exitCode, definition.autoRemove);
    return exitCode;
  } finally {
    foreground?.restore();
    signals.end();
  }
}

/** Up to util-linux 2.40 unshare cannot pass SIGKILL on: it complains and exits with 1. */
function commandExit(code: number, complaint: string): number {
  return code === 1 && /^unshare: /m.test(complaint) ? 137 : code;
}

async function finishForeground(id: string, exitCode: number, autoRemove: boolean): Promise<void> {
  // As a supervisor does: whoever waits for it learns the code even when the container is removed right away.
  try {
    fs.writeFileSync(containerFiles(id).exit, `${exitCode}\n`);
  } catch (error) {
    // All the more reason to take it down.
    if (!isDiskFull(error)) throw error;
  }
  const done = await finish(id, { exitCode }, autoRemove ? 'removed' : 'exited', { linger: true });
  // `rm -f` or `stop` in another terminal is taking it down: wait until it has.
  if (!done) await atRest(id, Number.POSITIVE_INFINITY);
}
