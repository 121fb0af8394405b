import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Duplex, Readable, Writable } from 'node:stream';
import { MinirunError, messageOf } from '../errors.ts';
import { missingTool, toolPath } from './exec.ts';

/** A long-living child that speaks over a socket, its file descriptor 3. */
export interface Child {
  pid: number;
  /** Messages, one JSON object a line; ends with undefined when the other side is gone. */
  receive(): Promise<Record<string, unknown> | undefined>;
  send(message: unknown): void;
  /** Its standard input when that was asked to be a pipe. */
  stdin?: Writable;
  /** What the child itself (not the container) wrote to stderr so far. */
  stderr(): string;
  /** Resolves when the child has ended: 128 + n for signal n. */
  exited: Promise<number>;
  /** Lets this process end without waiting for the child. */
  release(): void;
  /**
   * Releases it after it has been told to end, and has: then nobody holds its socket any more. One that does not within
   * some seconds is not waited for.
   *
   * @param message what tells it
   */
  dismiss(message: unknown): Promise<void>;
}

/** Milliseconds for which a child that was told to end is waited for. */
const patience = 3000;

/**
 * This very binary, to be run again as init or as a clean-up. When this code runs from its sources there is none, and then
 * nothing may be run by mistake: `bun init` would make a project of the working directory.
 */
export const ownBinary = process.argv[1]?.startsWith('/$bunfs/') ? process.execPath : '/minirun-is-not-compiled';

/** How `launch` is told to hand this binary over as a descriptor: not every user may go where it lies. */
const heldBinary = '/proc/self/fd/4';

/**
 * The command of an init that is to help from outside a container, in mounts of its own.
 *
 * @param inside a process whose user namespace it is to be in
 */
export function helperArgv(inside?: number): string[] {
  if (inside === undefined) return ['unshare', '--mount', '--', ownBinary, 'init'];
  return ['nsenter', '--target', String(inside), '--user', '--', 'unshare', '--mount', '--', heldBinary, 'init'];
}

/**
 * Starts `argv` with nothing of this process but a socket on file descriptor 3. execa has no two-way pipes beyond
 * stdio that survive `detached`, so this is Node's own spawn.
 *
 * @param further descriptors of this process that it is to have as its 4, 5 and so on
 */
export function launch(
  argv: readonly string[],
  env: Record<string, string>,
  stdin: 'ignore' | 'pipe' | number = 'ignore',
  further: readonly number[] = [],
): Child {
  const [command = '', ...args] = argv;
  const found = which(command);
  if (found === undefined) throw missingTool(command);
  const binary = args.includes(heldBinary) ? fs.openSync(ownBinary, 'r') : undefined;
  const child = spawn(found, args, {
    stdio: [stdin, 'ignore', 'pipe', 'pipe', ...(binary === undefined ? further : [binary])],
    detached: true,
    env: { PATH: toolPath, ...env },
    cwd: '/',
  });
  if (binary !== undefined) fs.closeSync(binary);
  const socket = child.stdio[3] as Duplex;
  const diagnostics = child.stderr as Readable;
  let text = '';
  diagnostics.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  diagnostics.on('error', () => {});
  const messages = lines(socket);
  const send = (message: unknown) => void socket.write(`${JSON.stringify(message)}\n`);
  const release = () => {
    socket.destroy();
    diagnostics.destroy();
    child.unref();
  };
  const exited = new Promise<number>((resolve, reject) => {
    child.on('error', (error) => reject(new MinirunError(`cannot start ${command}`, messageOf(error))));
    child.on('exit', (code, signal) => resolve(code ?? 128 + (signalNumber(signal) ?? 0)));
  });
  // Whoever waits for it sees a rejection; without a waiter it must not end the process.
  exited.catch(() => {});
  return {
    pid: child.pid as number,
    receive: async () => {
      const line = await messages();
      return line === undefined ? undefined : (JSON.parse(line) as Record<string, unknown>);
    },
    send,
    stdin: child.stdin ?? undefined,
    stderr: () => text,
    exited,
    release,
    dismiss: async (message) => {
      if (!socket.readableEnded && !socket.destroyed) {
        send(message);
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, patience);
          const gone = () => {
            clearTimeout(timer);
            resolve();
          };
          for (const event of ['end', 'close']) socket.once(event, gone);
          exited.catch(gone);
        });
      }
      release();
    },
  };
}

/** Starts a process that outlives this one and belongs to nobody. Its standard input may be a descriptor. */
export function launchBackground(argv: readonly string[], stdin: number | 'ignore' = 'ignore', input?: string): number {
  const [command = '', ...args] = argv;
  const found = which(command);
  if (found === undefined) throw missingTool(command);
  const child = spawn(found, args, {
    stdio: [input === undefined ? stdin : 'pipe', 'ignore', 'ignore'],
    detached: true,
    env: { PATH: toolPath, LC_ALL: 'C' },
    cwd: '/',
  });
  child.on('error', () => {});
  if (input !== undefined) child.stdin?.end(input);
  child.unref();
  return child.pid as number;
}

/** The file that a host tool's name stands for. */
export function which(tool: string): string | undefined {
  if (tool.includes('/')) return tool;
  for (const directory of toolPath.split(':')) {
    const file = path.join(directory, tool);
    try {
      fs.accessSync(file, fs.constants.X_OK);
      return file;
    } catch {
      // The next directory may have it.
    }
  }
  return undefined;
}

function lines(stream: Readable): () => Promise<string | undefined> {
  let buffered = '';
  let ended = false;
  let wake: (() => void) | undefined;
  stream.on('data', (chunk: Buffer) => {
    buffered += chunk.toString();
    wake?.();
  });
  for (const event of ['end', 'close', 'error']) {
    stream.on(event, () => {
      ended = true;
      wake?.();
    });
  }
  return async () => {
    for (;;) {
      const end = buffered.indexOf('\n');
      if (end >= 0) {
        const line = buffered.slice(0, end);
        buffered = buffered.slice(end + 1);
        return line;
      }
      if (ended) return undefined;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
}

function signalNumber(signal: NodeJS.Signals | null): number | undefined {
  return signal === null ? undefined : os.constants.signals[signal];
}

/** A logger that this process feeds. */
export class LogPipe {
  private readonly child;
  private readonly ended: Promise<void>;

  constructor(argv: readonly string[], directory: string) {
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.child = spawn(argv[0] as string, argv.slice(1), {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
      cwd: '/',
    });
    this.child.stdin.on('error', () => {});
    this.ended = new Promise((resolve) => {
      this.child.on('error', () => resolve());
      this.child.on('exit', () => resolve());
    });
  }

  write(chunk: Buffer): void {
    this.child.stdin.write(chunk);
  }

  /** Lets the logger end when it has stored what it has got. */
  abandon(): void {
    this.child.stdin.end();
    this.child.unref();
  }

  /** Writes the last bytes and waits until the logger has stored everything. */
  async end(last: string): Promise<void> {
    this.child.stdin.end(last);
    await this.ended;
  }
}
