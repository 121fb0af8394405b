import fs from 'node:fs';
import path from 'node:path';
import { damagedFiles } from './faults.ts';
import { expectNoLeak, settledSnapshot } from './leaks.ts';
import { Witness } from './witness.ts';
import { createWorld, type Result, type World } from './world.ts';

export interface SoakOptions {
  containers: number;
  workers: number;
  seed: number;
  /** Is told how far it has come. */
  progress?: (line: string) => void;
}

export interface SoakReport {
  containers: number;
  /** Minirun commands that were run. */
  commands: number;
  /** Exit codes that were compared with what the container's command gave. */
  codes: number;
  /** How many processes of each kind were killed. */
  kills: Record<string, number>;
  /** What was wrong: an exit code that nobody gave, output that is missing, a command that failed, something left behind. */
  problems: string[];
  seconds: number;
}

/** What to kill, and when: some milliseconds after the command has begun, or the container runs. */
type Victim = 'command' | 'supervisor' | 'unshare' | 'init' | 'logger';

interface State {
  status: string;
  exitCode: number;
  init?: { pid: number };
  owner?: { pid: number };
}

/**
 * Many short containers in a world of their own, several at a time, some of whose processes are killed at any moment. In the
 * end nothing is left, nobody who was not concerned has noticed, and every container whose processes were left alone has
 * exactly the exit code that its command gave.
 */
export async function soak(options: SoakOptions): Promise<SoakReport> {
  await using world = await createWorld();
  const witness = await Witness.start(world);
  await world.sh('minirun run --rm busybox true; minirun system reconcile');
  const clean = await settledSnapshot(world);
  await world.sh('minirun network create soak-a; minirun network create --ipv6 soak-b');
  const begun = performance.now();
  const shift = new Shift(world, options);
  await Promise.all(Array.from({ length: options.workers }, () => shift.work()));
  const { report } = shift;
  const check = async (what: string, work: () => Promise<unknown>) => {
    await work().catch((error: Error) => report.problems.push(`${what}: ${error.message}`));
  };
  await check('at the end', async () =>
    world.sh('minirun ps -aq --filter name=soak- | xargs -r minirun rm -f -v; minirun network rm soak-a soak-b', {
      timeout: 120_000,
    }),
  );
  await check('leaks', async () => expectNoLeak(clean, world, { timeout: 30_000 }));
  await check('the witness', async () => witness.check());
  for (const file of damagedFiles(world.root)) report.problems.push(`damaged: ${file}`);
  return { ...report, seconds: (performance.now() - begun) / 1000 };
}

class Shift {
  private next = 0;
  readonly report: SoakReport;

  constructor(
    private readonly world: World,
    private readonly options: SoakOptions,
  ) {
    this.report = { containers: 0, commands: 0, codes: 0, kills: {}, problems: [], seconds: 0 };
  }

  /** One worker: containers until there are enough. */
  async work(): Promise<void> {
    while (this.next < this.options.containers) {
      const number = this.next++;
      const one = new One(this.world, this.report, number, this.options.seed);
      try {
        await one.live();
      } catch (error) {
        this.report.problems.push(`${one.title}: ${(error as Error).message}`);
      }
      this.report.containers++;
      if (this.report.containers % 100 === 0)
        this.options.progress?.(`${this.report.containers} containers, ${this.report.problems.length} problems`);
    }
  }
}

/** One container and what happens to it. */
class One {
  private draws = 0;
  private readonly name: string;
  private readonly code: number;
  private readonly said: string;
  private readonly options: string[];
  private readonly victim: Victim | undefined;
  title: string;
  /** Whether a process that its exit code depends on was killed. */
  private killed = false;

  constructor(
    private readonly world: World,
    private readonly report: SoakReport,
    private readonly number: number,
    private readonly seed: number,
  ) {
    this.name = `soak-${number}`;
    this.code = Math.floor(this.random() * 256);
    this.said = `said-${number}`;
    const network = this.pick(['minirun0', 'minirun0', 'minirun0', 'soak-a', 'soak-b', 'none']);
    this.options = [
      '--network',
      network,
      ...(network !== 'none' && this.random() < 0.3 ? ['-p', '80', '-p', '53/udp'] : []),
      ...(this.random() < 0.15 ? ['-v', '/data'] : []),
    ];
    this.victim =
      this.random() < 0.3
        ? this.pick(['command', 'command', 'supervisor', 'unshare', 'init', 'logger'] as const)
        : undefined;
    this.title = this.name;
  }

  private random(): number {
    const x = Math.sin((this.seed * 1000 + this.number) * 12.9898 + this.draws++ * 78.233) * 43758.5453;
    return x - Math.floor(x);
  }

  private pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.random() * list.length)] as T;
  }

  async live(): Promise<void> {
    const ways = ['foreground', 'foreground', 'detached', 'stopped', 'again'] as const;
    const way = this.pick(ways);
    this.title = `${this.name} (${way}, exit ${this.code}, ${this.options.join(' ')}, killed: ${this.victim ?? 'none'})`;
    await this[way]();
  }

  /** `run --rm`: the code is that of the command line, and nothing stays. */
  private async foreground(): Promise<void> {
    const script = `echo ${this.said}; exit ${this.code}`;
    const args = ['run', '--rm', '--name', this.name, ...this.options, 'busybox', 'sh', '-c', script];
    const result = this.victim === 'command' ? await this.killedCommand(args, 90) : await this.minirun(args);
    if (this.killed) return this.gone();
    this.expectCode('run', result);
    if (result.stdout !== `${this.said}\n`) this.wrong(`printed ${JSON.stringify(result.stdout)}`);
  }

  /** `run -d`, `wait`, `logs`, `inspect`, `rm`. */
  private async detached(): Promise<void> {
    const script = `echo ${this.said}; sleep 0.${Math.floor(this.random() * 3)}; exit ${this.code}`;
    const args = ['run', '-d', '--name', this.name, ...this.options, 'busybox', 'sh', '-c', script];
    if (this.victim === 'command') {
      await this.killedCommand(args, 90);
      // It is there and goes its way, or nothing of it is.
      if (this.killed) return this.gone();
    } else {
      this.expectOk(await this.minirun(args));
      // What it says is lost with its logger.
      if (this.victim !== 'logger') await this.kill();
    }
    const waited = await this.minirun(['wait', this.name]);
    this.expectOk(waited);
    this.expectNumber('wait', waited.stdout);
    await this.expectInspected();
    if (!this.killed) {
      const logs = await this.minirun(['logs', this.name]);
      if (logs.stdout !== `${this.said}\n`) this.wrong(`its log is ${JSON.stringify(logs.stdout)}`);
    }
    await this.remove();
  }

  /** One that waits for SIGTERM and gives the code then; `exec` meanwhile. */
  private async stopped(): Promise<void> {
    const script = `trap "exit ${this.code}" TERM; echo ready; while :; do sleep 0.05; done`;
    this.expectOk(
      await this.minirun(['run', '-d', '--name', this.name, ...this.options, 'busybox', 'sh', '-c', script]),
    );
    await this.ready();
    const other = Math.floor(this.random() * 120);
    const executed = await this.minirun(['exec', this.name, 'sh', '-c', `exit ${other}`]);
    if (executed.code !== other) this.wrong(`exec gave ${executed.code} and not ${other}: ${executed.stderr}`);
    const stop = ['stop', '-t', '20', this.name];
    if (this.victim === 'command') {
      await this.killedCommand(stop, 40);
      this.killed = false;
    } else await this.kill();
    this.expectOk(await this.minirun(stop));
    const waited = await this.minirun(['wait', this.name]);
    this.expectNumber('wait', waited.stdout);
    await this.expectInspected();
    await this.remove();
  }

  /** `create`, `start`, `wait`, and the same again. */
  private async again(): Promise<void> {
    const args = ['create', '--name', this.name, ...this.options, 'busybox', 'sh', '-c', `exit ${this.code}`];
    this.expectOk(await this.minirun(args));
    for (const round of [1, 2]) {
      if (round === 2 && this.victim === 'command') {
        await this.killedCommand(['start', this.name], 60);
        // It was started, or is as it was: then it has the code of the first time.
      } else {
        this.expectOk(await this.minirun(['start', this.name]));
        if (round === 2) await this.kill();
      }
      const waited = await this.minirun(['wait', this.name]);
      this.expectNumber('wait', waited.stdout);
      await this.expectInspected();
    }
    await this.remove();
  }

  private async minirun(args: string[]): Promise<Result> {
    this.report.commands++;
    return this.world.run(args, { timeout: 120_000 });
  }

  /** Kills the command itself, up to so many milliseconds after its beginning. */
  private async killedCommand(args: string[], most: number): Promise<Result> {
    this.report.commands++;
    const running = await this.world.spawn(args, { timeout: 120_000, input: '' });
    await new Promise((resolve) => setTimeout(resolve, this.random() * most));
    try {
      running.kill('SIGKILL');
    } catch {
      // It has ended already.
    }
    const result = await running.exit;
    if (
      result.signal === 'SIGKILL' ||
      result.code === undefined ||
      /Killed/.test(result.stderr) ||
      result.code === 137
    ) {
      if (this.code !== 137 || result.signal !== undefined) {
        this.killed = true;
        this.count('command');
      }
    } else if (args[1] !== '--rm') this.expectOk(result);
    return result;
  }

  private count(what: string): void {
    this.report.kills[what] = (this.report.kills[what] ?? 0) + 1;
  }

  /** Kills one of the container's processes, if it is there still. */
  private async kill(): Promise<void> {
    if (this.victim === undefined || this.victim === 'command') return;
    await new Promise((resolve) => setTimeout(resolve, this.random() * 30));
    const state = this.state();
    if (state?.init === undefined || state.owner === undefined) return;
    const pid =
      this.victim === 'init'
        ? state.init.pid
        : this.victim === 'supervisor'
          ? state.owner.pid
          : this.victim === 'unshare'
            ? this.parentOf(state.init.pid)
            : this.childrenOf(state.owner.pid).find((child) => this.commandOf(child).includes('s6-log'));
    // Another process may have got that pid since: only one of this container is killed.
    if (pid === undefined || !(pid > 1)) return;
    if (this.victim === 'supervisor' && !this.commandOf(pid).includes(this.name) && !this.isSupervisor(pid)) return;
    this.count(this.victim);
    // Without its logger it ends as it would.
    if (this.victim !== 'logger') this.killed = true;
    await this.world.host.run(['kill', '-KILL', String(pid)]);
  }

  private isSupervisor(pid: number): boolean {
    return this.commandOf(pid).includes('minirun-supervisor') || this.commandOf(pid).includes('reap');
  }

  private inside(file: string): string {
    try {
      return fs.readFileSync(this.world.host.path(`/proc/${file}`), 'latin1');
    } catch {
      return '';
    }
  }

  private commandOf(pid: number): string {
    return this.inside(`${pid}/cmdline`);
  }

  private parentOf(pid: number): number | undefined {
    const stat = this.inside(`${pid}/stat`);
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) || undefined;
  }

  private childrenOf(pid: number): number[] {
    return this.inside(`${pid}/task/${pid}/children`).trim().split(' ').filter(Boolean).map(Number);
  }

  private folder(): string | undefined {
    try {
      return path.join(this.world.root, 'containers', fs.readlinkSync(path.join(this.world.root, 'names', this.name)));
    } catch {
      return undefined;
    }
  }

  private state(): State | undefined {
    try {
      return JSON.parse(fs.readFileSync(path.join(this.folder() ?? '', 'state.json'), 'utf8')) as State;
    } catch {
      return undefined;
    }
  }

  /** Waits until it has said so. */
  private async ready(): Promise<void> {
    const deadline = Date.now() + 30_000;
    for (;;) {
      try {
        const log = fs.readFileSync(path.join(this.folder() ?? '', 'log/stdout/current'), 'latin1');
        if (log.includes('ready')) return;
      } catch {
        // Not yet.
      }
      if (Date.now() > deadline) throw new Error('it never got ready');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** After the command was killed that made it: nothing of it, or a container that goes its way. */
  private async gone(): Promise<void> {
    await this.minirun(['ps', '-a']);
    if (this.state() === undefined) return;
    const waited = await this.minirun(['wait', this.name]);
    if (waited.code === 0) this.expectNumber('wait', waited.stdout);
    await this.remove();
  }

  private async expectInspected(): Promise<void> {
    const { code, stdout, stderr } = await this.minirun([
      'inspect',
      '--format',
      '{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}',
      this.name,
    ]);
    const [status, exitCode = '', ...error] = stdout.trim().split(' ');
    if (code !== 0 || status !== 'exited') this.wrong(`inspect says ${stdout.trim()} ${stderr.trim()}`);
    this.expectNumber(`inspect (${error.join(' ')})`, exitCode);
  }

  private expectOk({ code, stderr }: Result): void {
    if (code !== 0 && !this.killed) this.wrong(`a command ended with ${code}: ${stderr.trim()}`);
  }

  private expectCode(what: string, { code, stderr }: Result): void {
    this.report.codes++;
    if (code === this.code || (this.killed && code === 137)) return;
    this.wrong(`${what} gave exit code ${code} and not ${this.code}: ${stderr.trim()}`);
  }

  private expectNumber(what: string, text: string): void {
    this.report.codes++;
    const code = text.trim() === '' ? Number.NaN : Number(text.trim());
    if (code === this.code || (this.killed && code === 137)) return;
    this.wrong(`${what} gave exit code ${text.trim()} and not ${this.code}`);
  }

  private async remove(): Promise<void> {
    const { code, stderr } = await this.minirun(['rm', '-f', '-v', this.name]);
    if (code !== 0) this.wrong(`rm: ${stderr.trim()}`);
  }

  private wrong(what: string): void {
    this.report.problems.push(`${this.title}: ${what}`);
  }
}
