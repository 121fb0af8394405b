import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

const quiet = '--network none';
const prompt = /\/ # $/;

/** A shell of the host in a terminal that is 80 columns wide and 24 rows high. */
class Pane {
  private constructor(
    private readonly world: World,
    private readonly name: string,
  ) {}

  static async open(world: World, name: string): Promise<Pane> {
    const pane = new Pane(world, name);
    await pane.tmux('-f', '/dev/null', 'new-session', '-d', '-x', '80', '-y', '24', 'env', 'PS1=host> ', 'sh');
    await pane.shows(/^host> $/);
    return pane;
  }

  private async tmux(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.world.host.run(['tmux', '-L', this.name, ...args], {
      env: { TMUX_TMPDIR: this.world.directory, TERM: 'xterm-256color', ENV: undefined },
    });
    if (code !== 0) throw new Error(`tmux ${args.join(' ')}: ${stderr}`);
    return stdout;
  }

  /** Presses keys by tmux's names. */
  async press(...keys: string[]): Promise<void> {
    await this.tmux('send-keys', ...keys);
  }

  async type(line: string): Promise<void> {
    await this.tmux('send-keys', '-l', `${line}\n`);
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.tmux('resize-window', '-x', String(columns), '-y', String(rows));
  }

  async clear(): Promise<void> {
    await this.press('C-l');
    await this.tmux('clear-history');
  }

  /** Everything since the beginning, without the empty rows at the end; long lines are not broken. */
  async text(): Promise<string> {
    return (await this.tmux('capture-pane', '-p', '-J', '-S', '-')).replace(/\n+$/, '');
  }

  /** Looks until the text is there, maybe doing something between two looks. */
  async shows(wanted: RegExp, meanwhile: () => Promise<void> = async () => {}): Promise<RegExpExecArray> {
    let text = '';
    for (const end = Date.now() + 15_000; Date.now() < end; await meanwhile()) {
      text = await this.text();
      const match = wanted.exec(text);
      if (match !== null) return match;
    }
    throw new Error(`the terminal does not show ${wanted}:\n${text}`);
  }

  /** Types a command whose output says what it is and waits for that. */
  async answers(line: string, wanted: RegExp): Promise<RegExpExecArray> {
    await this.type(line);
    return this.shows(wanted);
  }

  async close(): Promise<void> {
    await this.tmux('kill-server');
  }
}

describe.skipIf(skipOrFail(missingWorld() ?? missingTool('tmux')))('a terminal', () => {
  let world: World;
  let before: Snapshot;
  let pane: Pane;
  let count = 0;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    before = await world.snapshot();
  });
  beforeEach(async () => {
    pane = await Pane.open(world, `pane-${count++}`);
    await pane.answers('saved=$(stty -g); echo kept=$?', /^kept=0$/m);
  });
  afterEach(async () => {
    await pane.close();
    await world.run(['rm', '-f', '-a']);
    await expectNoLeak(before, world);
  });
  afterAll(async () => {
    await world.destroy();
  });

  /** The host's shell has its terminal again, with the settings it had. */
  const expectSane = async (): Promise<void> => {
    // After a SIGKILL it is put back a moment later: what is typed before that is not shown, and the answer not on a line of its own.
    await pane.answers('until [ "$(stty -g)" = "$saved" ]; do :; done; echo sane=$?', /sane=0$/m);
    await pane.answers('cat >/dev/null', /cat >\/dev\/null/);
    // Echo, line editing and signals by key are on again.
    await pane.press('a', 'b', 'BSpace', 'c');
    await pane.shows(/^ac$/m);
    // What is typed between the interrupt and the prompt, the kernel and the shell may throw away.
    await pane.press('C-c');
    await pane.shows(/\^C\nhost> $/);
    await pane.answers('echo back=$?', /^back=130$/m);
  };

  /** Starts a program in the foreground of a shell in a container, and is back when it has begun. */
  const foreground = async (name: string, seconds: number): Promise<void> => {
    await pane.type(`sleep ${seconds}`);
    // The shell has given it the terminal: its process group is the foreground one.
    const script = `for p in /proc/[0-9]*; do read -r s <$p/stat || continue; set -- $s; [ "$2" = "(sleep)" ] && [ "$5" = "$8" ] && exit; done; exit 1`;
    for (const end = Date.now() + 10_000; (await world.run(['exec', name, 'sh', '-c', script])).code !== 0; ) {
      if (Date.now() > end) throw new Error(`sleep does not get the terminal:\n${await pane.text()}`);
    }
  };

  test('prompt, /dev/pts/0, size and resize', async () => {
    await pane.type(`minirun run --rm -it ${quiet} busybox sh; echo rc=$?`);
    await pane.shows(prompt);
    await pane.answers('tty', /^\/dev\/pts\/0$/m);
    await pane.answers('stty size', /^24 80$/m);
    await pane.answers('echo $TERM $((40 + 2))', /^xterm 42$/m);
    await pane.type('until [ "$(stty size)" = "30 100" ]; do :; done; echo resized=$?');
    await pane.resize(100, 30);
    await pane.shows(/^resized=0$/m);
    await pane.type('exit 7');
    await pane.shows(/^rc=7$/m);
    await expectSane();
  });

  test('Ctrl-C ends the job and not the shell; Ctrl-D ends the shell', async () => {
    await pane.type(`minirun run --rm -it --name box ${quiet} busybox sh; echo rc=$?`);
    await pane.shows(prompt);
    await foreground('box', 100);
    await pane.press('C-c');
    await pane.answers('echo code=$? pid=$$', /^code=130 pid=1$/m);
    await pane.press('C-d');
    await pane.shows(/^rc=130$|^rc=0$/m);
    await expectSane();
  });

  test('job control', async () => {
    await pane.type(`minirun run --rm -it --name box ${quiet} busybox sh; echo rc=$?`);
    await pane.shows(prompt);
    await pane.answers('sleep 101 &', /\/ # $/);
    await pane.answers('jobs', /^\[1\]\+ +Running +sleep 101/m);
    await foreground('box', 102);
    await pane.press('C-z');
    await pane.shows(/\[2\]\+ +Stopped +sleep 102/);
    await pane.type('fg');
    await pane.shows(/fg\nsleep 102/);
    await pane.press('C-c');
    await pane.answers('kill %1; wait; echo waited', /^waited$/m);
    expect(await pane.text()).not.toContain("can't access tty");
    await pane.type('exit');
    await pane.shows(/^rc=\d+$/m);
    await expectSane();
  });

  test('-t without -i: a terminal that nobody types to', async () => {
    await pane.type(`minirun run --rm -t ${quiet} busybox sh -c 'tty; test -t 1 && echo terminal'`);
    await pane.shows(/^\/dev\/pts\/0\nterminal\nhost> $/m);
    await expectSane();
  });

  test('a command that ends at once leaves the terminal as it was', async () => {
    await pane.type(`for i in 1 2 3; do minirun run --rm -it ${quiet} busybox true; done; echo rc=$?`);
    await pane.shows(/^rc=0$/m);
    await pane.type(`minirun run --rm -it ${quiet} busybox /no/such; echo rc=$?`);
    await pane.shows(/^rc=127$/m);
    await expectSane();
  });

  test('exec -it', async () => {
    await world.run(['run', '-d', '--name', 'box', '--network', 'none', 'busybox', 'sleep', '1000']);
    await pane.type('minirun exec -it box sh; echo rc=$?');
    await pane.shows(prompt);
    await pane.answers('tty', /^\/dev\/pts\/0$/m);
    await pane.answers('stty size', /^24 80$/m);
    await pane.type('until [ "$(stty size)" = "25 90" ]; do :; done; echo resized=$?');
    await pane.resize(90, 25);
    await pane.shows(/^resized=0$/m);
    await pane.press('C-c');
    await pane.type('exit 3');
    await pane.shows(/^rc=3$/m);
    await expectSane();
  });

  for (const [title, command] of [
    ['run', `run --rm -it --name box ${quiet} busybox sh`],
    ['exec', 'exec -it box sh'],
  ] as const) {
    test(`${title}: the terminal is put back even after kill -9`, async () => {
      if (title === 'exec')
        await world.run(['run', '-d', '--name', 'box', '--network', 'none', 'busybox', 'sleep', '1000']);
      await pane.type(`minirun ${command}`);
      await pane.shows(prompt);
      await pane.answers('echo typed=$((1 + 1))', /^typed=2$/m);
      await world.sh(`kill -9 $(pgrep -f '^minirun ${command}$')`);
      await pane.shows(/host> $/);
      await expectSane();
    });
  }

  test('the container’s terminal goes with a terminal that is closed', async () => {
    await pane.type(`minirun run --rm -it --name box ${quiet} busybox sh`);
    await pane.shows(prompt);
    await pane.close();
    for (const end = Date.now() + 10_000; (await world.run(['ps', '-a', '-q'])).stdout !== ''; ) {
      if (Date.now() > end) throw new Error('the container is still there');
    }
    pane = await Pane.open(world, `pane-${count++}`);
  });
});
