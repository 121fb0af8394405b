import { spawn } from 'node:child_process';
import fs from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { MinirunError, messageOf } from '../errors.ts';
import { missingTool, toolPath } from './exec.ts';
import { which } from './launch.ts';
import { processRef, type ProcessRef, signalProcess } from './process.ts';

/** A host tool that runs until it is told to end or has nothing left to do. */
export interface StreamingTool {
  ref: ProcessRef;
  /** Its standard input when that was asked to be a pipe. */
  stdin?: Writable;
  /** Its standard output when that was asked to be a pipe. */
  stdout?: Readable;
  /**
   * Waits for a line on its standard error.
   *
   * @returns undefined when it ends without having printed one like it
   */
  line(pattern: RegExp): Promise<string | undefined>;
  /** What it has written to standard error so far. */
  stderr(): string;
  /** Has it do what it has to do yet, and end in good order, as by Ctrl-C. */
  end(): void;
  /** When it has ended and its standard error is complete: 128 for a signal. */
  exited: Promise<number>;
  /** Lets this process end without waiting for it. */
  release(): void;
}

/** What a tool's streams are. */
export interface StreamingOptions {
  stdin?: 'ignore' | 'pipe';
  /** A pipe, an open file, or nothing. */
  stdout: 'ignore' | 'pipe' | number;
  /** Whether it is to end when this process is killed. Not for a tool that changes its user: that makes the kernel forget. */
  endsWithThis: boolean;
}

/**
 * Starts a host tool in a session of its own: Ctrl-C reaches this process only, which then ends the tool in good order.
 *
 * @throws MinirunError when the tool is missing
 */
export function startTool(
  argv: readonly string[],
  { stdin = 'ignore', stdout, endsWithThis }: StreamingOptions,
): StreamingTool {
  const [command = '', ...args] = endsWithThis ? ['setpriv', '--pdeathsig', 'INT', '--', ...argv] : argv;
  const found = which(command);
  if (found === undefined) throw missingTool(command);
  const { TZ } = process.env;
  const child = spawn(found, args, {
    stdio: [stdin, stdout, 'pipe'],
    detached: true,
    env: { PATH: toolPath, LC_ALL: 'C', ...(TZ === undefined ? {} : { TZ }) },
    cwd: '/',
  });
  const diagnostics = child.stderr as Readable;
  let text = '';
  let ended = false;
  let wake = () => {};
  diagnostics.on('data', (chunk: Buffer) => {
    text += chunk.toString();
    wake();
  });
  diagnostics.on('error', () => {});
  const exited = new Promise<number>((resolve, reject) => {
    child.on('error', (error) => reject(new MinirunError(`cannot start ${command}`, messageOf(error))));
    child.on('close', (code) => {
      ended = true;
      wake();
      resolve(code ?? 128);
    });
  });
  // Whoever waits for it sees a rejection; without a waiter it must not end the process.
  exited.catch(() => {});
  child.stdin?.on('error', () => {});
  const pid = child.pid ?? 0;
  const ref = processRef(pid) ?? { pid, start: 0 };
  return {
    ref,
    stdin: child.stdin ?? undefined,
    stdout: child.stdout ?? undefined,
    stderr: () => text,
    line: async (pattern) => {
      for (;;) {
        const line = text
          .split('\n')
          .slice(0, -1)
          .find((each) => pattern.test(each));
        if (line !== undefined || ended) return line;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    end: () => void interruptIdle(ref),
    exited,
    release: () => {
      diagnostics.destroy();
      child.unref();
    },
  };
}

/** Milliseconds for which a tool may go on with what it has to do, before it is interrupted. */
const patience = 200;

/**
 * Interrupts a tool (SIGINT) as soon as it waits for something: a tcpdump that is interrupted before leaves out packets
 * that are in its buffer already.
 */
export async function interruptIdle(ref: ProcessRef): Promise<void> {
  const deadline = Date.now() + patience;
  while (!isWaiting(ref.pid) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 2));
  signalProcess(ref, 'SIGINT');
}

/** Whether a process sleeps: proc_pid_stat(5), field 3. One that has ended does, too. */
function isWaiting(pid: number): boolean {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat[stat.lastIndexOf(')') + 2] !== 'R';
  } catch {
    return true;
  }
}
