import fs from 'node:fs';
import { messageOf } from '../errors.ts';
import { endMarked } from '../host/process.ts';
import { randomHex } from '../host/random.ts';
import { formatDuration } from './duration.ts';
import { type Entered, enterContainer } from './exec.ts';
import type { HealthResult } from './health-record.ts';
import { readPipe } from './pipe.ts';
import type { Container } from './store.ts';

/** Bytes of a check's output that are kept: docker's. */
const outputSize = 4096;

/** Milliseconds for which the output of a check that has ended is waited for: it may have left a process behind. */
const patience = 100;

/** By this variable the processes of a check are found that has to be ended. */
const markName = 'MINIRUN_HEALTHCHECK';

/**
 * Runs a check in a container, as `exec` would: as the container's user, in its working directory, with its environment.
 * One that takes too long is ended with all processes that it has started, unless they have cleared their environment.
 */
export async function probe(container: Container, command: string[], timeout: number): Promise<HealthResult> {
  const Start = new Date().toISOString();
  const result = (ExitCode: number, Output: string): HealthResult => ({
    Start,
    End: new Date().toISOString(),
    ExitCode,
    Output,
  });
  const mark = `${markName}=${randomHex(8)}`;
  const output = new Output();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), timeout);
  });
  try {
    const work = run(container, command, mark, output);
    // It fails when it is ended, too.
    work.catch(() => {});
    const code = await Promise.race([work, late]);
    if (code !== 'late') return result(code, output.text());
    // One that is just being born is found the next time.
    while (endMarked(mark) > 0);
    const text = output.text();
    return result(-1, `Health check exceeded timeout (${formatDuration(timeout)})${text === '' ? '' : `: ${text}`}`);
  } catch (error) {
    return result(-1, messageOf(error));
  } finally {
    clearTimeout(timer);
  }
}

async function run(container: Container, command: string[], mark: string, output: Output): Promise<number> {
  const entered = await enterContainer(
    container,
    { command, env: [mark], envFiles: [], tty: false, interactive: false, privileged: false, detach: false },
    { stdin: 'null', stdout: 'pipe', stderr: 'pipe' },
  );
  const relays = Promise.all([output.take(entered, 'stdout'), output.take(entered, 'stderr')]);
  relays.catch(() => {});
  entered.child.send({ type: 'go' });
  const failure = await entered.status;
  if (failure !== undefined) throw new Error([failure.what, failure.why].filter(Boolean).join(': '));
  const code = await entered.child.exited;
  await Promise.race([relays, new Promise((resolve) => setTimeout(resolve, patience).unref())]);
  return code;
}

/** The beginning of what a check writes, both streams in one. */
class Output {
  private readonly chunks: Buffer[] = [];
  private length = 0;

  async take({ ready }: Entered, stream: 'stdout' | 'stderr'): Promise<void> {
    const fd = fs.openSync(`/proc/${ready.pid}/fd/${ready.fds[stream]}`, 'r');
    for await (const chunk of readPipe(fd)) {
      // Read to its end in any case: a check must not wait for somebody to read it.
      if (this.length < outputSize) this.chunks.push(Buffer.from(chunk.subarray(0, outputSize - this.length)));
      this.length += chunk.length;
    }
  }

  text(): string {
    return Buffer.concat(this.chunks).toString() + (this.length > outputSize ? '...' : '');
  }
}
