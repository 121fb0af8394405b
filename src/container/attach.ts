import fs from 'node:fs';
import os from 'node:os';
import type { Writable } from 'node:stream';
import { type ProcessRef, processRef, signalProcess } from '../host/process.ts';
import type { Definition } from './definition.ts';
import { ForegroundLog } from './foreground-log.ts';
import { type Input, readInput, readPipe } from './pipe.ts';
import type { Ready } from './protocol.ts';
import { RawTerminal } from './raw-terminal.ts';

/** The user's side of a process in a container: its streams or its terminal, and the signals that are passed on. */
export interface Foreground {
  /** From now on signals of this process go to that one. */
  begin(pid: number): void;
  /** Resolves when all output has been passed on. */
  end(): Promise<void>;
  /** Puts the user's terminal back; may be called twice. */
  restore(): void;
}

/** Connects this process's streams to those of a container's first process, and keeps its log. */
export function attachForeground(definition: Definition, ready: Ready, signals: SignalProxy): Promise<Foreground> {
  const log = new ForegroundLog(definition);
  return attach(ready, { tty: definition.tty, stdin: definition.openStdin, log, signals });
}

/** What a process in a container is connected to. */
export interface Connection {
  tty: boolean;
  stdin: boolean;
  log?: ForegroundLog;
  signals: SignalProxy;
}

/** Connects this process's streams to those of a process whose init is ready. */
export async function attach(ready: Ready, { tty, stdin, log, signals }: Connection): Promise<Foreground> {
  return tty ? attachTerminal(ready, stdin, signals, log) : attachPipes(ready, signals, log);
}

/** Opens the other end of a descriptor of init. Pipes can be opened through /proc; a terminal could not. */
function openEnd(ready: Ready, fd: number, flags: string): number {
  return fs.openSync(`/proc/${ready.pid}/fd/${fd}`, flags);
}

function attachPipes(ready: Ready, signals: SignalProxy, log?: ForegroundLog): Foreground {
  const relays: Promise<void>[] = [];
  let input: Input | undefined;
  for (const name of ['stdout', 'stderr'] as const) {
    const fd = ready.fds[name];
    if (fd === undefined) continue;
    relays.push(relay(readPipe(openEnd(ready, fd, 'r')), name, (chunk) => log?.write(name, chunk)));
  }
  if (ready.fds.stdin !== undefined) {
    input = readInput();
    void feed(input, fs.createWriteStream('', { fd: openEnd(ready, ready.fds.stdin, 'w') }));
  }
  return {
    begin: (pid) => signals.begin(pid),
    end: async () => {
      await Promise.all(relays);
      await log?.end();
    },
    restore: () => {
      input?.stop();
      log?.abandon();
      signals.end();
    },
  };
}

/** Passes input on to its end, no faster than it is taken. */
async function feed(input: Input, sink: Writable): Promise<void> {
  let open = true;
  // A command that ends without reading its input is no error.
  sink.on('error', () => {
    open = false;
    input.stop();
  });
  try {
    for (let chunk = await input.read(); open && chunk !== undefined; chunk = await input.read()) {
      const bytes = chunk;
      await new Promise<void>((resolve) => sink.write(bytes, () => resolve()));
    }
  } catch {
    // An input that cannot be read is at its end.
  }
  sink.end();
}

/**
 * Copies a stream to the end to one of ours. When our reader goes away (`| head`) so do we, and the container's next write
 * fails, as in any pipeline. Ours is made when there is something to write: that takes two milliseconds.
 */
async function relay(
  source: AsyncIterable<Buffer>,
  name: 'stdout' | 'stderr',
  copy: (chunk: Buffer) => void,
): Promise<void> {
  let open = true;
  let sink: Writable | undefined;
  try {
    for await (const chunk of source) {
      copy(chunk);
      sink ??= process[name].on('error', () => {
        open = false;
      });
      const to = sink;
      await new Promise<void>((resolve) => to.write(chunk, () => resolve()));
      if (!open) break;
    }
  } catch (error) {
    // A terminal whose last process has gone answers EIO: that is its end of file.
    if ((error as NodeJS.ErrnoException).code !== 'EIO') throw error;
  }
}

async function attachTerminal(
  ready: Ready,
  stdin: boolean,
  signals: SignalProxy,
  log?: ForegroundLog,
): Promise<Foreground> {
  // Loaded here only: it brings bun:ffi.
  const { takeDescriptor, resizeTerminal } = await import('./libc.ts');
  const master = takeDescriptor(ready.pid, ready.fds.terminal as number);
  // A terminal cannot be polled by Bun: one of its threads waits for it.
  const output = relay(fs.createReadStream('', { fd: master, autoClose: false }), 'stdout', (chunk) =>
    log?.write('stdout', chunk),
  );
  const resize = () => resizeTerminal(master, process.stdout.rows ?? 24, process.stdout.columns ?? 80);
  const raw = stdin && process.stdin.isTTY ? new RawTerminal() : undefined;
  let ended = false;
  return {
    begin: (pid) => {
      if (process.stdout.isTTY) {
        resize();
        process.on('SIGWINCH', resize);
      }
      if (stdin) {
        const input = fs.createWriteStream('', { fd: master, autoClose: false });
        input.on('error', () => {});
        process.stdin.on('data', (chunk) => input.write(chunk));
        process.stdin.on('end', () => input.write('\u0004'));
        process.stdin.on('error', () => {});
      }
      signals.begin(pid);
    },
    end: async () => {
      // A background process of `exec` may keep the terminal open: what is there now is passed on, no more.
      await Promise.race([output, new Promise((resolve) => setTimeout(resolve, 500))]);
      await log?.end();
      process.stdin.destroy();
    },
    restore: () => {
      if (ended) return;
      ended = true;
      process.off('SIGWINCH', resize);
      raw?.leave();
      log?.abandon();
      signals.end();
    },
  };
}

/** Signals that docker's client passes on: all but those that mean this process itself. */
const proxied = (Object.keys(os.constants.signals) as NodeJS.Signals[]).filter((name) =>
  ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGCONT', 'SIGALRM'].includes(name),
);

/**
 * Passes signals of this process on to another. It holds them from its making on: one that comes while the
 * container is being started reaches the command as soon as there is one.
 */
export class SignalProxy {
  private readonly handlers = new Map<NodeJS.Signals, () => void>();
  private readonly held: NodeJS.Signals[] = [];
  private target: ProcessRef | undefined;

  /**
   * @param enabled false for `--sig-proxy=false`: signals then reach nobody, for a container in the foreground would
   *   not survive the end of this process
   */
  constructor(enabled: boolean) {
    for (const signal of proxied) {
      const handler = () => {
        if (!enabled) return;
        if (this.target === undefined) this.held.push(signal);
        else signalProcess(this.target, signal);
      };
      this.handlers.set(signal, handler);
      process.on(signal, handler);
    }
  }

  begin(pid: number): void {
    this.target = processRef(pid);
    for (const signal of this.held) signalProcess(this.target, signal);
  }

  end(): void {
    for (const [signal, handler] of this.handlers) process.off(signal, handler);
    this.handlers.clear();
  }
}
