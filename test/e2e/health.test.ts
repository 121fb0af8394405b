import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { eventsOf, expectOrderlyEvents } from '../support/events.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Result, type Running, type Snapshot, type World } from '../support/world.ts';

const quiet = ['--network', 'none'];
const often = ['--health-interval', '100ms'];
const seldom = ['--health-interval', '1h'];
const checkedBy = (command: string, retries = 3) => ['--health-cmd', command, '--health-retries', String(retries)];
const detached = (name: string) => ['run', '-d', '--name', name, ...quiet];
const sleeper = ['busybox', 'sleep', '1000'];

interface Inspected {
  Id: string;
  State: { Status: string; Health?: { Status: string; FailingStreak: number; Log: HealthResult[] } };
  RestartCount: number;
}
interface HealthResult {
  Start: string;
  End: string;
  ExitCode: number;
  Output: string;
}

describe.skipIf(skipOrFail(missingWorld()))('events and health', () => {
  let world: World;
  let before: Snapshot;
  let follower: Running;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', ...quiet, 'busybox', 'true']);
    before = await world.snapshot();
    // It goes on through all tests. From now on, also when it begins to read later.
    const words = [
      '--since',
      String(Date.now() / 1000),
      '--format',
      '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}',
    ];
    follower = await world.spawn(['events', ...words], { timeout: 2 ** 31 - 1 });
  });
  afterAll(async () => {
    await world.destroy();
  });

  const minirun = async (...args: string[]): Promise<Result> => world.run(args);
  const ok = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await minirun(...args);
    expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
    return stdout;
  };
  const inspect = async (name: string): Promise<Inspected> => (JSON.parse(await ok('inspect', name)) as [Inspected])[0];
  const actionsOf = async (name: string): Promise<string[]> =>
    (await eventsOf(world, '--filter', `container=${name}`)).map(({ Action }) => Action);
  const kill = async (pid: number) => world.kill(pid);
  /** The process that keeps the time of a container's checks, as the world sees it. */
  const keeperOf = (id: string) =>
    Number(fs.readFileSync(path.join(world.root, 'containers', id, 'health.pid'), 'utf8'));

  describe('events', () => {
    test('of a run: in order, each once, as docker words them', async () => {
      await ok('run', '--rm', '--name', 'once', '--label', 'team=a b', 'busybox', 'true');
      const found = await eventsOf(world, '--filter', 'type=container', '--filter', 'label=team=a b');
      expect(found.map(({ Action }) => Action)).toEqual(['create', 'attach', 'start', 'die', 'destroy']);
      expect(found[3]).toMatchObject({
        status: 'die',
        from: 'busybox',
        scope: 'local',
        Actor: { Attributes: { name: 'once', image: 'busybox', exitCode: '0', execDuration: '0', team: 'a b' } },
      });
      const [id] = found.map(({ Actor: { ID } }) => ID);
      const passing = await eventsOf(world, '--filter', 'type=network', '--filter', 'network=minirun0');
      const mine = passing.filter(({ Actor }) => Actor.Attributes.container === id);
      expect(mine.map(({ Action }) => Action)).toEqual(['connect', 'disconnect']);

      const text = await ok('events', '--since', '10m', '--until', '0s', '-f', 'container=once', '-f', 'event=die');
      expect(text).toMatch(
        /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) container die [0-9a-f]{64} \(execDuration=0, exitCode=0, image=busybox, name=once, team=a b\)\n$/,
      );
      for (const part of ['create', 'start', 'die', 'destroy']) await follower.waitFor(`container ${part} once\n`);
      expect(await ok('events', '--until', '1m')).toBe('');
    });

    test('of what other commands do', async () => {
      const since = String(Date.now() / 1000);
      await ok('network', 'create', 'extra');
      const id = (await ok('run', '-d', '--name', 'old', ...sleeper)).trim();
      await ok('network', 'connect', 'extra', 'old');
      await ok('exec', 'old', 'true');
      await ok('rename', 'old', 'new');
      await ok('network', 'disconnect', 'extra', 'new');
      await ok('stop', '-t', '0', 'new');
      await ok('start', 'new');
      await ok('kill', 'new');
      await ok('rm', 'new');
      await ok('network', 'rm', 'extra');
      await ok('tag', 'busybox', 'other:1');
      await ok('rmi', 'other:1');
      const all = await eventsOf(world, '--since', since);
      const words = all.map(({ Type, Action }) => `${Type} ${Action}`);
      expect(words).toEqual([
        'network create',
        'container create',
        'network connect',
        'container start',
        'network connect',
        'container exec_create: true',
        'container exec_start: true',
        'container exec_die',
        'container rename',
        'network disconnect',
        'container kill',
        'container die',
        'network disconnect',
        'container stop',
        'network connect',
        'container start',
        'container kill',
        'container die',
        'network disconnect',
        'container destroy',
        'network destroy',
        'image tag',
        'image untag',
      ]);
      expect((await eventsOf(world, '--filter', 'event=exec_create', '--filter', `container=${id}`)).length).toBe(1);
      expect((await eventsOf(world, '--filter', 'image=other', '--since', since)).length).toBe(2);
    });

    test('whoever settles what a killed process has left tells of it, once', async () => {
      const id = (await ok('run', '-d', '--name', 'lost', ...quiet, ...sleeper)).trim();
      const state = path.join(world.root, 'containers', id, 'state.json');
      const { owner, init } = JSON.parse(fs.readFileSync(state, 'utf8')) as Record<string, { pid: number }>;
      await kill(owner?.pid ?? 0);
      await kill(init?.pid ?? 0);
      // The first one dies when it has told and before it has settled: at one of its first boundaries.
      for (let boundary = 1; ; boundary++) {
        const { stderr } = await world.run(['ps'], { env: { MINIRUN_FAULT: `kill:${boundary}` } });
        if (stderr.includes('finish.announced')) break;
        expect(boundary).toBeLessThan(30);
      }
      expect(await actionsOf('lost')).toEqual(['create', 'start', 'die']);
      await Promise.all([ok('ps'), ok('ps', '-a'), ok('ps')]);
      await ok('rm', 'lost');
      expect(await actionsOf('lost')).toEqual(['create', 'start', 'die', 'destroy']);
    });

    test('on a full disk are lost, and the command succeeds', async () => {
      const current = path.join(world.root, 'events', 'current');
      fs.renameSync(current, `${current}.aside`);
      fs.symlinkSync('/dev/full', current);
      await ok('run', '--rm', ...quiet, 'busybox', 'true');
      fs.rmSync(current);
      fs.renameSync(`${current}.aside`, current);
    });

    test.each([
      [['--since', 'soon'], 'invalid --since'],
      [['--filter', 'colour=red'], 'invalid filter'],
      [['--filter', 'type=cat'], 'invalid filter'],
      [['--format', '{{.Nothing'], 'template'],
    ])('%p is refused', async (args, message) => {
      const { code, stdout, stderr } = await minirun('events', '--until', '0s', ...args);
      expect(code).not.toBe(0);
      expect(stdout).toBe('');
      expect(stderr).toContain(message);
    });
  });

  describe('health', () => {
    test('goes from starting to unhealthy to healthy, and is shown everywhere', async () => {
      await ok(
        ...detached('web'),
        ...often,
        ...checkedBy('echo looks; echo badly >&2; test -e /tmp/well', 2),
        ...sleeper,
      );
      expect(await ok('ps', '--format', '{{.Status}}')).toMatch(/^Up .* \((health: starting|unhealthy)\)\n$/);
      expect(await ok('wait', '--condition', 'unhealthy', 'web')).toBe('-1\n');
      expect(await ok('ps', '--filter', 'health=unhealthy', '--format', '{{.Status}}')).toContain('(unhealthy)');
      const { State } = await inspect('web');
      expect(State.Health?.Status).toBe('unhealthy');
      expect(State.Health?.FailingStreak).toBeGreaterThanOrEqual(2);
      expect(State.Health?.Log.at(-1)).toMatchObject({
        ExitCode: 1,
        Output: expect.stringContaining('badly\n') as string,
      });
      expect((await minirun('healthcheck', 'run', 'web')).code).toBe(1);
      await ok('exec', 'web', 'touch', '/tmp/well');
      expect(await ok('wait', '--condition', 'healthy', 'web')).toBe('-1\n');
      await ok('healthcheck', 'run', 'web');
      expect(await ok('ps', '-q', '--filter', 'health=unhealthy')).toBe('');
      expect(await ok('ps', '--filter', 'health=healthy', '--format', '{{.Status}}')).toContain('(healthy)');
      await ok('stop', '-t', '0', 'web');
      expect((await actionsOf('web')).filter((action) => !action.startsWith('exec_'))).toEqual([
        'create',
        'start',
        'health_status: unhealthy',
        'health_status: healthy',
        'kill',
        'die',
        'stop',
      ]);
      await follower.waitFor('container health_status: healthy web\n');
      expect((await minirun('healthcheck', 'run', 'web')).code).toBe(125);
      await ok('rm', 'web');
    });

    test('a check that takes too long is ended with all its processes', async () => {
      const marks = ['4711', '4712', '4713'];
      const command = `echo begun; sleep ${marks[0]} & setsid sleep ${marks[1]} & (sleep ${marks[2]} &); sleep 1000`;
      await ok(...detached('slow'), ...seldom, '--health-timeout', '300ms', ...checkedBy(command, 1), ...sleeper);
      expect((await minirun('healthcheck', 'run', 'slow')).code).toBe(1);
      expect((await inspect('slow')).State.Health?.Log).toMatchObject([
        { ExitCode: -1, Output: 'Health check exceeded timeout (300ms): begun\n' },
      ]);
      const { stdout } = await minirun('exec', 'slow', 'ps', '-o', 'args');
      expect(marks.filter((mark) => stdout.includes(`sleep ${mark}`))).toEqual([]);
      expect(stdout).toContain('sleep 1000');
      await ok('rm', '-f', 'slow');
    });

    test('a command that is missing, and one that writes a lot', async () => {
      await ok(
        'run',
        '-d',
        '--name',
        'odd',
        ...quiet,
        '--health-interval',
        '1h',
        '--health-cmd',
        '["/nothing"]',
        ...sleeper,
      );
      expect((await minirun('healthcheck', 'run', 'odd')).code).toBe(1);
      expect((await inspect('odd')).State.Health?.Log[0]?.ExitCode).toBe(-1);
      await ok('rm', '-f', 'odd');
      await ok(
        'run',
        '-d',
        '--name',
        'odd',
        ...quiet,
        '--health-interval',
        '1h',
        '--health-cmd',
        'seq 9999',
        ...sleeper,
      );
      await ok('healthcheck', 'run', 'odd');
      expect((await inspect('odd')).State.Health?.Log[0]?.Output).toHaveLength(4096 + '...'.length);
      await ok('rm', '-f', 'odd');
    });

    test('the check of an image, and none', async () => {
      await ok('create', '--name', 'base', ...quiet, 'busybox', 'sleep', '1000');
      await ok('commit', '-c', 'HEALTHCHECK --interval=100ms CMD true', 'base', 'checked:1');
      await ok('run', '-d', '--name', 'image', ...quiet, 'checked:1');
      expect(await ok('wait', '--condition', 'healthy', 'image')).toBe('-1\n');
      await ok('run', '-d', '--name', 'without', ...quiet, '--no-healthcheck', 'checked:1');
      expect((await inspect('without')).State.Health).toBeUndefined();
      expect(await ok('ps', '--filter', 'health=none', '--format', '{{.Names}}')).toBe('without\n');
      expect((await minirun('wait', '--condition', 'healthy', 'without')).stderr).toContain('it has no health check');
      await ok('rm', '-f', '-a');
      await ok('rmi', 'checked:1');
    });

    test('in the foreground, it ends with the container', async () => {
      const run = await world.spawn(
        ['run', '--rm', '--name', 'front', ...quiet, ...often, '--health-cmd', 'true', 'busybox', 'cat'].toSpliced(
          1,
          0,
          '-i',
        ),
      );
      await follower.waitFor('container health_status: healthy front\n');
      run.end();
      expect((await run.exit).code).toBe(0);
      await expectNoLeakBut(follower);
    });

    test.each([
      ['kill', ['--restart', 'on-failure:1'], ['die', 'start', 'die'], 1],
      ['kill', [], ['die'], 0],
      ['stop', ['--restart', 'always'], ['die'], 0],
      ['restart', [], ['die', 'start', 'health_status: healthy'], 0],
    ] as const)('--health-on-failure %s with %p', async (action, flags, expected, restarts) => {
      const name = `${action}-${flags.length}`;
      // Well again once it has been restarted by `restart`.
      const check = action === 'restart' ? 'test -e /tmp/seen || { touch /tmp/seen; false; }' : 'false';
      const id = (
        await ok(
          ...detached(name),
          ...often,
          ...flags,
          ...checkedBy(check, 1),
          '--stop-timeout',
          '0',
          '--health-on-failure',
          action,
          ...sleeper,
        )
      ).trim();
      if (action === 'restart') await follower.waitFor(`container health_status: healthy ${name}\n`);
      else await ok('wait', '--condition', 'stopped', name);
      const told = (await actionsOf(id))
        .slice(2)
        .filter((each) => each === 'die' || each === 'start' || each.endsWith(': healthy'));
      expect(told).toEqual([...expected]);
      expect((await inspect(name)).RestartCount).toBe(restarts);
      await ok('rm', '-f', name);
    });

    test('nothing is left of a killed keeper, nor of a killed container', async () => {
      const flags = ['--rm', ...quiet, '--health-interval', '1h', '--health-cmd', 'true'];
      const first = (await ok('run', '-d', ...flags, ...sleeper)).trim();
      await kill(keeperOf(first));
      const second = (await ok('run', '-d', ...flags, ...sleeper)).trim();
      const state = path.join(world.root, 'containers', second, 'state.json');
      const { owner, init } = JSON.parse(fs.readFileSync(state, 'utf8')) as Record<string, { pid: number }>;
      await kill(owner?.pid ?? 0);
      await kill(init?.pid ?? 0);
      await ok('ps');
      await ok('rm', '-f', first);
      await expectNoLeakBut(follower);
    });

    test.each([
      [['--health-cmd', 'true', '--no-healthcheck'], 'does not go with'],
      [['--health-cmd', 'true', '--health-interval', '5'], 'invalid --health-interval'],
      [['--health-on-failure', 'kill'], 'needs a health check'],
    ])('%p is refused before any effect', async (flags, message) => {
      const { code, stderr } = await minirun('run', '--rm', ...flags, 'busybox', 'true');
      expect(code).toBe(125);
      expect(stderr).toContain(message);
      expect(await ok('ps', '-aq')).toBe('');
    });
  });

  test('wait for each condition', async () => {
    await ok('create', '--name', 'made', ...quiet, 'busybox', 'sh', '-c', 'sleep 0.3; exit 3');
    expect(await ok('wait', '--condition', 'created', 'made')).toBe('-1\n');
    const waits = ['running', 'exited', 'next-exit', 'removed'].map((condition) =>
      ok('wait', '--condition', condition, 'made'),
    );
    await ok('start', 'made');
    expect(await Promise.all(waits.slice(0, 3))).toEqual(['-1\n', '3\n', '3\n']);
    expect(await ok('wait', '--condition', 'running', '--condition', 'stopped', 'made')).toBe('3\n');
    await ok('rm', 'made');
    expect(await waits[3]).toBe('3\n');
    expect(await ok('wait', '--ignore', 'made')).toBe('-1\n');
    expect((await minirun('wait', '--condition', 'well', 'made')).stderr).toContain('invalid --condition');
  });

  test('units for systemd, and what starts at boot', async () => {
    await ok('create', '--name', 'unit', ...quiet, '-e', 'A=50% $x', '--restart', 'always', ...sleeper);
    await ok('create', '--name', 'other', ...quiet, ...sleeper);
    const directory = path.join(world.directory, 'units');
    fs.mkdirSync(directory);
    const { stdout } = await world.run(['generate', 'systemd', '--new', '--files', 'unit'], { cwd: directory });
    expect(stdout).toBe(`${directory}/container-unit.service\n`);
    const unit = fs.readFileSync(path.join(directory, 'container-unit.service'), 'utf8');
    expect(unit).toContain(
      ` run --rm --name unit --network none -e "A=50%% $$x" busybox sleep 1000\n`.replace('$$', '$$$$'),
    );
    expect(unit).toContain(`Environment=MINIRUN_ROOT=${world.root}\n`);
    expect(await ok('generate', 'systemd', '--name', '--no-header', '-t', '3', 'unit')).toMatch(
      /^\[Unit\]\n[^]*ExecStop=\S+ stop -t 3 unit\n[^]*TimeoutStopSec=63\n/,
    );
    expect(await ok('generate', 'systemd', '--restart-service')).toContain('should-start-on-boot=true\n');
    expect((await minirun('generate', 'systemd', '--restart-policy', 'maybe', 'unit')).code).toBe(125);
    // What the units call: all that is to run after a boot; and one in the foreground, whose exit code is the container's.
    expect(await ok('start', '--all', '--filter', 'should-start-on-boot=true')).toBe('unit\n');
    expect((await minirun('start', '--all', 'unit')).code).toBe(125);
    await ok('rm', '-f', '-a');
    const trap = 'trap "echo told; exit 7" INT; echo begun; while :; do sleep 1000 & wait; done';
    await ok('create', '--name', 'unit', ...quiet, '--stop-signal', 'INT', 'busybox', 'sh', '-c', trap);
    const main = await world.spawn(['start', '--attach', 'unit']);
    await main.waitFor('begun');
    await ok('stop', '-t', '10', 'unit');
    expect(await main.exit).toMatchObject({ code: 7, stdout: 'begun\ntold\n' });
    await ok('rm', 'unit');
  });

  test('a follower ends when it is told to, and all was told once', async () => {
    await expectOrderlyEvents(world);
    follower.kill('SIGINT');
    expect(await follower.exit).toMatchObject({ code: 130, stderr: '' });
    await expectNoLeak(before, world);
  });

  /** As before all tests, but for the follower. */
  async function expectNoLeakBut({ innerPid }: Running): Promise<void> {
    const snapshot = async () => {
      const now = await world.snapshot();
      return { ...now, processes: now.processes.filter((line) => !line.startsWith(`${innerPid} `)) };
    };
    await expectNoLeak(before, { snapshot });
  }
});
