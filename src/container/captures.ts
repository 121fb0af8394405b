import fs from 'node:fs';
import path from 'node:path';
import { isAlive, type ProcessRef, signalProcess } from '../host/process.ts';
import { interruptIdle } from '../host/stream.ts';
import { containerFiles, readState } from './store.ts';

/**
 * Which processes capture packets in a container's network namespace: a file `captures/PID-START` in its folder for each.
 * A process in a namespace keeps that alive, with its interfaces: whoever takes the container down ends these first.
 */
const folder = (id: string) => path.join(containerFiles(id).directory, 'captures');

/** Notes a capture. @returns false when the container is not running any more: then the capture is to end at once */
export function noteCapture(id: string, { pid, start }: ProcessRef): boolean {
  try {
    fs.mkdirSync(folder(id), { mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return false;
    if (code !== 'EEXIST') throw error;
  }
  fs.writeFileSync(path.join(folder(id), `${pid}-${start}`), '');
  // Whoever takes it down says so before it looks for captures.
  return readState(id)?.status === 'running';
}

/** Forgets a capture that has ended. */
export function forgetCapture(id: string, { pid, start }: ProcessRef): void {
  fs.rmSync(path.join(folder(id), `${pid}-${start}`), { force: true });
}

/** Ends all captures of a container, in good order if they obey within a second. */
export async function endCaptures(id: string): Promise<void> {
  let names: string[];
  try {
    names = fs.readdirSync(folder(id));
  } catch {
    return;
  }
  const running = names
    .map((name) => name.split('-').map(Number))
    .map(([pid = 0, start = 0]): ProcessRef => ({ pid, start }));
  await Promise.all(running.map(interruptIdle));
  for (let tries = 0; running.some(isAlive); tries++) {
    if (tries === 200) for (const each of running) signalProcess(each, 'SIGKILL');
    if (tries === 400) break;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  fs.rmSync(folder(id), { recursive: true, force: true });
}
