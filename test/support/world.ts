import { type ChildProcessByStdio, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { type Snapshot, takeSnapshot } from './leaks.ts';
import { deadline, firstLine, Machine, type Result, type RunOptions, type Running } from './machine.ts';

export { expectNoLeak, type Snapshot } from './leaks.ts';
export { Machine, type Result, type RunOptions, type Running } from './machine.ts';

/** The compiled binary under test. */
export const minirun = path.resolve(process.env.MINIRUN_BIN ?? path.join(import.meta.dir, '../../dist/minirun'));

export const hostAddress = '203.0.113.2';
export const internetAddress = '203.0.113.1';

export interface Request {
  address: string;
  path: string;
}

/** The machine on the other side of the host's default route, with an HTTP server on port 80. */
export class Internet extends Machine {
  constructor(
    pid: number,
    env: Record<string, string>,
    cwd: string,
    private readonly log: string,
  ) {
    super(pid, env, cwd);
  }

  readonly address = internetAddress;

  /** Every request so far. Complete as soon as the client has its answer. */
  requests(): Request[] {
    if (!fs.existsSync(this.log)) return [];
    const text = fs.readFileSync(this.log, 'utf8');
    return text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Request]));
  }

  forgetRequests(): void {
    fs.rmSync(this.log, { force: true });
  }
}

/** A host with a state directory of its own, and an internet without a route to anything behind that host. */
export class World {
  constructor(
    /** On a real disk, gone after `destroy`. For files that tests need. */
    readonly directory: string,
    /** MINIRUN_ROOT. */
    readonly root: string,
    readonly host: Machine,
    readonly internet: Internet,
    private readonly end: () => Promise<void>,
  ) {}

  /** The directory of this world in every real cgroup file system. */
  get cgroup(): string {
    return `/${path.basename(this.directory)}`;
  }

  /** Runs minirun on the host, to its end. */
  async run(args: readonly string[], options?: RunOptions): Promise<Result> {
    return this.host.run([minirun, ...args], options);
  }

  /** Starts minirun on the host. The pid is that of minirun itself. */
  async spawn(args: readonly string[], options?: RunOptions): Promise<Running> {
    return this.host.spawn([minirun, ...args], options);
  }

  /** Runs a shell script on the host; `minirun` is in its PATH. Fails unless it exits with 0. */
  async sh(script: string, options?: RunOptions): Promise<string> {
    return this.host.sh(script, options);
  }

  /** Ends processes by SIGKILL, or groups by their negative numbers, and waits until they are gone: a busy kernel takes its time. */
  async kill(...pids: readonly number[]): Promise<void> {
    const script = pids.map(
      (pid) => `kill -KILL ${pid} 2>/dev/null || :; while [ -e /proc/${Math.abs(pid)} ]; do :; done`,
    );
    await this.host.sh(script.join('; '));
  }

  /** What could leak; for `expectNoLeak`. */
  async snapshot(): Promise<Snapshot> {
    return takeSnapshot(this.host, this.root);
  }

  /** Ends every process of the world and removes its files. Twice is no error. */
  async destroy(): Promise<void> {
    await this.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }
}

/** The pipes whose end ends a world: held here, or the garbage collector might close them. */
const alive = new Set<Writable>();

/**
 * Builds a world. It ends with `destroy`, and in any case with this process, however that ends: see `world.sh`.
 *
 * Its files are below MINIRUN_TEST_DIR or /var/tmp, because overlay needs a file system that /tmp often is not.
 *
 * @param options.cgroups `own`: the cgroup file systems show a directory of this world's own as their root. `shared`:
 *   they show the machine's, for runc, which gets lost otherwise; what is made below `world.cgroup` is removed
 */
export async function createWorld({ cgroups = 'own' }: { cgroups?: 'own' | 'shared' } = {}): Promise<World> {
  const directory = fs.mkdtempSync(path.join(process.env.MINIRUN_TEST_DIR ?? '/var/tmp', 'minirun-world-'));
  // In a session of its own, and nobody's child: Ctrl-C must reach this process only, whose end then ends the keeper in
  // good order, and `bun test` kills the children of a test that timed out, but the world serves the tests after it.
  const keeper = spawn('setsid', ['--fork', 'sh', path.join(import.meta.dir, 'world.sh'), 'keep', directory], {
    env: { ...process.env, WORLD_CGROUPS: cgroups },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  }) as ChildProcessByStdio<null, Readable, Readable>;
  // Not its standard input, which is closed here when setsid ends.
  const life = keeper.stdio[3] as unknown as Writable;
  alive.add(life);
  let complaints = '';
  keeper.stderr.on('data', (chunk: Buffer) => {
    complaints += chunk.toString();
  });
  const ended = new Promise<void>((resolve) => {
    keeper.stdout.once('end', () => resolve());
  });
  const end = async (): Promise<void> => {
    life.destroy();
    alive.delete(life);
    if (
      (await deadline(
        ended.then(() => true),
        20_000,
      )) === undefined
    ) {
      throw new Error(`the keeper of ${directory} does not end: ${complaints}`);
    }
  };

  const answer = await deadline(Promise.race([firstLine(keeper.stdout), ended.then(() => '')]), 20_000);
  const [hostPid = 0, internetPid = 0] = (answer ?? '').split(' ').map(Number);
  if (hostPid === 0 || internetPid === 0) {
    await end();
    throw new Error(`cannot build a world: ${complaints.trim() || 'no answer from world.sh'}`);
  }

  const root = path.join(directory, 'minirun');
  const env = {
    PATH: `${path.dirname(minirun)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: directory,
    LANG: 'C.UTF-8',
    MINIRUN_ROOT: root,
  };
  const log = path.join(directory, 'requests');
  const host = new Machine(hostPid, env, directory);
  const internet = new Internet(internetPid, env, directory, log);
  try {
    const server = await internet.spawn([process.execPath, path.join(import.meta.dir, 'http.ts'), log], {
      timeout: 2 ** 31 - 1,
    });
    await server.waitFor('listening');
  } catch (error) {
    await end();
    throw error;
  }
  return new World(directory, root, host, internet, end);
}
