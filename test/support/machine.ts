import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';

export interface RunOptions {
  /** Written to standard input, which then ends. Without it standard input is empty (`run`) or stays open (`spawn`). */
  input?: string | Buffer;
  /** Added to the clean environment; undefined removes a variable. */
  env?: Record<string, string | undefined>;
  cwd?: string;
  /** Milliseconds until the process is killed and the call fails. */
  timeout?: number;
  /** Gives the process a terminal; what it prints on either stream is then in `stdout`. */
  tty?: boolean | { cols: number; rows: number };
}

export interface Result {
  /** Exit code; undefined after a signal. */
  code: number | undefined;
  signal: NodeJS.Signals | undefined;
  stdout: string;
  stderr: string;
  stdoutBytes: Buffer;
  stderrBytes: Buffer;
}

/** A process that was started in a machine and may still run. */
export interface Running {
  /** Its pid as this test sees it: `process.kill` takes it. */
  pid: number;
  /** Its pid as the machine sees it: what `minirun` itself and `ps` inside know. */
  innerPid: number;
  /** What was printed so far, on both streams. */
  output: () => string;
  write: (data: string | Buffer) => void;
  /** Ends standard input; in a terminal types Ctrl-D. */
  end: () => void;
  resize: (cols: number, rows: number) => void;
  kill: (signal?: NodeJS.Signals) => void;
  /** Waits until it has stopped itself (`MINIRUN_FAULT=stop:N`); false when it ends instead. */
  stopped: () => Promise<boolean>;
  /** Has it go on whenever it is stopped, until it ends. */
  resume: () => Promise<Result>;
  /**
   * Waits until the output (from offset `from` on) holds a text. Fails when the process ends first.
   *
   * @returns the offset behind the text
   */
  waitFor: (text: string | RegExp, options?: { timeout?: number; from?: number }) => Promise<number>;
  /** When the process has ended and its output is complete. */
  exit: Promise<Result>;
}

const defaultTimeout = 30_000;

// The process tells its pid, and only then becomes the command. The shell gives 127 and a message for a missing one.
const enter = 'echo $$ >&3; cd "$1" || exit 125; shift; exec "$@" 3>&-';
const enterTerminal = 'echo $$; cd "$1" || exit 125; shift; exec "$@"';

/** A network, mount and pid namespace that lives as long as the process `pid`. */
export class Machine {
  constructor(
    readonly pid: number,
    readonly env: Record<string, string>,
    readonly cwd: string,
  ) {}

  /** The command line that runs a command inside, for whoever starts processes himself (hyperfine, tmux). */
  command(args: readonly string[]): string[] {
    return ['nsenter', '--target', String(this.pid), '--net', '--mount', '--pid', '--', ...args];
  }

  /** A file of the machine, as seen from outside: for /proc, /sys and /run/netns. */
  path(file: string): string {
    return `/proc/${this.pid}/root${file}`;
  }

  /** Runs a command to its end. Never fails because of its exit code. */
  async run(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const running = await this.spawn(args, { input: '', ...options });
    return running.exit;
  }

  /** Runs a shell script to its end. Fails unless it exits with 0. @returns what it printed */
  async sh(script: string, options: RunOptions = {}): Promise<string> {
    const result = await this.run(['sh', '-euc', script], options);
    if (result.code !== 0) {
      throw new Error(`script failed (${result.signal ?? result.code}): ${script}\n${result.stdout}${result.stderr}`);
    }
    return result.stdout;
  }

  /** Starts a command. Ready when it is the command's turn: the pids are those of the command itself. */
  async spawn(args: readonly string[], options: RunOptions = {}): Promise<Running> {
    const env: Record<string, string> = {};
    for (const [name, value] of Object.entries({ ...this.env, ...options.env })) {
      if (value !== undefined) env[name] = value;
    }
    const script = options.tty ? enterTerminal : enter;
    // nsenter waits outside of the terminal's session: Ctrl-C would end it, and the exit code of the command be lost.
    const session = options.tty ? ['setsid', '--ctty'] : [];
    const command = this.command([...session, 'sh', '-c', script, 'enter', options.cwd ?? this.cwd, ...args]);
    const started = options.tty ? startOnTerminal(command, env, options.tty) : startOnPipes(command, env);
    return follow(started, args.join(' '), options);
  }
}

/** What pipes and a terminal have in common. */
interface Session {
  /** The pid of nsenter. */
  pid: number;
  stdout: Buffer[];
  stderr: Buffer[];
  innerPid: Promise<number>;
  /** Runs `listener` when there is more output or an end. */
  onChange: (listener: () => void) => void;
  write: (data: string | Buffer) => void;
  end: () => void;
  resize: (cols: number, rows: number) => void;
  exited: Promise<{ code: number | undefined; signal: NodeJS.Signals | undefined }>;
  /** When every holder of the output has closed it. */
  closed: Promise<void>;
}

async function follow(session: Session, title: string, options: RunOptions): Promise<Running> {
  const output = (): string => Buffer.concat([...session.stdout, ...session.stderr]).toString();
  let ended = false;
  let wake: () => void = () => {};
  const listen = (): void => wake();
  session.onChange(listen);
  void session.exited.then(() => {
    ended = true;
    listen();
  });

  // A command that ends at once may be known to have ended before its pid has been read.
  const first = await Promise.race([session.innerPid, session.exited.then(() => deadline(session.innerPid, 1000))]);
  if (typeof first !== 'number') throw new Error(`cannot enter the machine for ${title}: ${output()}`);
  const innerPid = first;
  const pid = childOf(session.pid) ?? session.pid;
  if (options.input !== undefined) {
    if (options.input.length > 0) session.write(options.input);
    session.end();
  }

  const exit = (async (): Promise<Result> => {
    const timeout = options.timeout ?? defaultTimeout;
    const status = await deadline(session.exited, timeout);
    if (status === undefined) {
      for (const victim of [pid, session.pid]) killQuietly(victim, 'SIGKILL');
      throw new Error(`still running after ${timeout} ms: ${title}\n${output()}`);
    }
    // A process left behind that holds the pipe would make `$(minirun run -d …)` hang: a bug worth a failure.
    const closed = await deadline(
      session.closed.then(() => true),
      2000,
    );
    if (closed === undefined) throw new Error(`its output is held open by another process: ${title}\n${output()}`);
    const stdoutBytes = Buffer.concat(session.stdout);
    const stderrBytes = Buffer.concat(session.stderr);
    return { ...status, stdout: stdoutBytes.toString(), stderr: stderrBytes.toString(), stdoutBytes, stderrBytes };
  })();
  // Whoever never looks at the end must not fail by an unhandled rejection.
  exit.catch(() => {});

  return {
    pid,
    innerPid,
    output,
    write: session.write,
    end: session.end,
    resize: session.resize,
    kill: (signal = 'SIGTERM') => {
      process.kill(pid, signal);
    },
    stopped: async () => {
      for (; !ended; await new Promise((resolve) => setTimeout(resolve, 5))) if (isStopped(pid)) return true;
      return false;
    },
    resume: () => {
      // nsenter stops when it sees that its child has, which may be later.
      const timer = setInterval(() => {
        for (const each of [session.pid, pid]) killQuietly(each, 'SIGCONT');
      }, 5);
      return exit.finally(() => clearInterval(timer));
    },
    exit,
    waitFor: async (text, { timeout = 10_000, from = 0 } = {}) => {
      const until = Date.now() + timeout;
      for (;;) {
        const printed = output();
        const end = endOfMatch(printed.slice(from), text);
        if (end !== undefined) return from + end;
        if (
          ended &&
          (await deadline(
            session.closed.then(() => true),
            100,
          )) !== undefined
        ) {
          if (endOfMatch(output().slice(from), text) !== undefined) continue;
          throw new Error(`ended without printing ${String(text)}: ${title}\n${output()}`);
        }
        const left = until - Date.now();
        if (left <= 0) throw new Error(`did not print ${String(text)} in ${timeout} ms: ${title}\n${printed}`);
        await deadline(
          new Promise<void>((resolve) => {
            wake = resolve;
            if (output().length !== printed.length) resolve();
          }),
          ended ? 50 : left,
        );
      }
    },
  };
}

function startOnPipes(command: readonly string[], env: Record<string, string>): Session {
  const child: ChildProcess = spawn(command[0] as string, command.slice(1), {
    env,
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  const listeners: (() => void)[] = [];
  const collect = (into: Buffer[]) => (chunk: Buffer) => {
    into.push(chunk);
    for (const listener of listeners) listener();
  };
  child.stdout?.on('data', collect(stdout));
  child.stderr?.on('data', collect(stderr));
  // The command may well end without reading its input.
  child.stdin?.on('error', () => {});
  const pidPipe = child.stdio[3] as NodeJS.ReadableStream;
  return {
    pid: child.pid ?? 0,
    stdout,
    stderr,
    innerPid: firstLine(pidPipe).then(Number),
    onChange: (listener) => void listeners.push(listener),
    write: (data) => void child.stdin?.write(data),
    end: () => void child.stdin?.end(),
    resize: () => {
      throw new Error('it has no terminal');
    },
    exited: new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => resolve({ code: code ?? undefined, signal: signal ?? undefined }));
    }),
    closed: new Promise((resolve) => child.once('close', () => resolve())),
  };
}

function startOnTerminal(
  command: readonly string[],
  env: Record<string, string>,
  size: true | { cols: number; rows: number },
): Session {
  const stdout: Buffer[] = [];
  const listeners: (() => void)[] = [];
  let head: string | undefined = '';
  let tellPid: (pid: number) => void;
  let tellClosed: () => void;
  const innerPid = new Promise<number>((resolve) => {
    tellPid = resolve;
  });
  const closed = new Promise<void>((resolve) => {
    tellClosed = resolve;
  });
  const child = Bun.spawn([...command], {
    env: { TERM: 'xterm-256color', ...env },
    terminal: {
      ...(size === true ? { cols: 80, rows: 24 } : size),
      data: (_, data) => {
        let chunk = Buffer.from(data);
        if (head !== undefined) {
          head += chunk.toString('latin1');
          const end = head.indexOf('\n');
          if (end < 0) return;
          tellPid(Number(head.slice(0, end)));
          chunk = Buffer.from(head.slice(end + 1), 'latin1');
          head = undefined;
        }
        stdout.push(chunk);
        for (const listener of listeners) listener();
      },
      // The other side is closed by all: the last output has been read.
      exit: () => tellClosed(),
    },
  });
  const { terminal } = child;
  if (terminal === undefined) throw new Error('this Bun has no terminals');
  return {
    pid: child.pid,
    stdout,
    stderr: [],
    innerPid,
    onChange: (listener) => void listeners.push(listener),
    write: (data) => void terminal.write(data),
    end: () => void terminal.write('\x04'),
    resize: (cols, rows) => terminal.resize(cols, rows),
    exited: child.exited.then(() => ({
      code: child.signalCode === null ? (child.exitCode ?? undefined) : undefined,
      signal: (child.signalCode as NodeJS.Signals | null) ?? undefined,
    })),
    closed,
  };
}

/** A promise's value, or undefined when it takes longer than `milliseconds`. */
export async function deadline<T>(promise: Promise<T>, milliseconds: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The first line that a stream prints, without its end; never when the stream ends before. */
export async function firstLine(stream: NodeJS.ReadableStream): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    stream.on('data', (chunk: Buffer) => {
      const whole = text.includes('\n');
      text += chunk.toString();
      if (!whole && text.includes('\n')) resolve(text.slice(0, text.indexOf('\n')));
    });
  });
}

function endOfMatch(printed: string, text: string | RegExp): number | undefined {
  if (typeof text === 'string') {
    const start = printed.indexOf(text);
    return start < 0 ? undefined : start + text.length;
  }
  const match = text.exec(printed);
  return match === null ? undefined : match.index + match[0].length;
}

/** nsenter forks to enter a pid namespace: its only child is the command. */
function childOf(pid: number): number | undefined {
  try {
    const child = Number(fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]);
    return child > 0 ? child : undefined;
  } catch {
    return undefined;
  }
}

function isStopped(pid: number): boolean {
  try {
    return /\) T /.test(fs.readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

function killQuietly(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended meanwhile.
  }
}
