import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Result, type Snapshot, type World } from '../support/world.ts';

const quiet = ['--network', 'none'];
/** Ends at once when asked to, with 0. */
const willing = 'trap "exit 0" TERM; echo ready; sleep 1000 & wait';
/** Does not end when asked to. */
const unwilling = 'trap "" TERM; echo ready; while :; do sleep 1000; done';

describe.skipIf(skipOrFail(missingWorld()))('the life of containers', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    // Makes the state directory and nothing else.
    await world.run(['ps']);
    before = await world.snapshot();
  });
  afterEach(async () => {
    expect((await minirun('rm', '-f', '-a')).stderr).toBe('');
    await expectNoLeak(before, world);
  });
  afterAll(async () => {
    await world.destroy();
  });

  const minirun = async (...args: string[]): Promise<Result> => world.run(args);
  /** A detached container whose script has begun. */
  const start = async (name: string, script: string, ...flags: string[]): Promise<string> => {
    const { code, stdout, stderr } = await minirun(
      'run',
      '-d',
      '--name',
      name,
      ...quiet,
      ...flags,
      'busybox',
      'sh',
      '-c',
      script,
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    if (script.includes('echo ready')) await until(async () => (await minirun('logs', name)).stdout.includes('ready'));
    return stdout.trim();
  };
  const statusOf = async (name: string): Promise<string> =>
    (await minirun('ps', '-a', '--filter', `name=^${name}$`, '--format', '{{.Status}}')).stdout.trim();
  const stateOf = async (name: string): Promise<State> =>
    (JSON.parse((await minirun('inspect', name)).stdout) as [{ State: State; RestartCount: number }])[0].State;
  const restartsOf = async (name: string): Promise<number> =>
    (JSON.parse((await minirun('inspect', name)).stdout) as [{ RestartCount: number }])[0].RestartCount;

  test('run -d prints the id and nothing else', async () => {
    const { code, stdout, stderr } = await minirun('run', '-d', '--name', 'web', ...quiet, 'busybox', 'sleep', '1000');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^[0-9a-f]{64}\n$/);
    expect((await minirun('ps', '-q')).stdout).toBe(`${stdout.slice(0, 12)}\n`);
    expect((await minirun('ps', '-q', '--no-trunc')).stdout).toBe(stdout);
  });

  test('create, start, stop, start again, rm', async () => {
    const id = (await minirun('create', '--name', 'web', ...quiet, 'busybox', 'sh', '-c', willing)).stdout.trim();
    expect(id).toMatch(/^[0-9a-f]{64}$/);
    expect(await statusOf('web')).toBe('Created');
    expect((await minirun('ps', '-q')).stdout).toBe('');
    for (const name of ['web', id.slice(0, 6)]) {
      expect(await minirun('start', name)).toMatchObject({ code: 0, stdout: `${name}\n`, stderr: '' });
      expect(await statusOf('web')).toStartWith('Up ');
      // No error, as with docker.
      expect((await minirun('start', 'web')).code).toBe(0);
      await until(async () => (await minirun('logs', 'web')).stdout.includes('ready'));
      expect(await minirun('stop', name)).toMatchObject({ code: 0, stdout: `${name}\n`, stderr: '' });
      expect(await statusOf('web')).toMatch(/^Exited \(\d+\) /);
      expect((await minirun('stop', 'web')).code).toBe(0);
    }
    expect(await minirun('rm', 'web')).toMatchObject({ code: 0, stdout: 'web\n' });
    expect((await minirun('ps', '-a', '-q')).stdout).toBe('');
  });

  test('stop of one that ignores TERM: 137', async () => {
    await start('deaf', unwilling);
    expect((await minirun('stop', '-t', '1', 'deaf')).stdout).toBe('deaf\n');
    expect(await statusOf('deaf')).toStartWith('Exited (137) ');
    await start('deaf2', unwilling, '--stop-timeout', '0');
    expect((await minirun('stop', 'deaf2')).code).toBe(0);
    expect(await statusOf('deaf2')).toStartWith('Exited (137) ');
  });

  test('kill, and kill with another signal', async () => {
    await start('web', willing);
    expect((await minirun('kill', 'web')).stdout).toBe('web\n');
    expect(await statusOf('web')).toStartWith('Exited (137) ');
    expect(await minirun('kill', 'web')).toMatchObject({ code: 1, stdout: '' });
    await start('usr', 'trap "exit 42" USR1; echo ready; sleep 1000 & wait');
    expect((await minirun('kill', '-s', 'USR1', 'usr')).code).toBe(0);
    expect((await minirun('wait', 'usr')).stdout).toBe('42\n');
  });

  test('restart: another process, the same files', async () => {
    await start('web', `echo x >>/count; ${willing}`);
    const first = await stateOf('web');
    expect(await minirun('restart', '-t', '1', 'web')).toMatchObject({ code: 0, stdout: 'web\n', stderr: '' });
    const second = await stateOf('web');
    expect(second.Pid).not.toBe(first.Pid);
    expect(second.StartedAt > first.StartedAt).toBe(true);
    await until(async () => (await minirun('exec', 'web', 'cat', '/count')).stdout === 'x\nx\n');
  });

  test('the exit code and the times of a detached one are recorded', async () => {
    const began = new Date().toISOString();
    await start('short', 'exit 7');
    expect((await minirun('wait', 'short')).stdout).toBe('7\n');
    const state = await stateOf('short');
    expect(state).toMatchObject({ Status: 'exited', Running: false, ExitCode: 7, Pid: 0 });
    expect(
      began <= state.StartedAt && state.StartedAt <= state.FinishedAt && state.FinishedAt <= new Date().toISOString(),
    ).toBe(true);
    expect(await statusOf('short')).toStartWith('Exited (7) ');
  });

  test('wait: for several, while they run', async () => {
    await start('one', `${willing}; exit 0`);
    await start('two', 'trap "exit 5" TERM; echo ready; sleep 1000 & wait');
    const waiting = await world.spawn(['wait', 'one', 'two']);
    await minirun('stop', 'two', 'one');
    expect(await waiting.exit).toMatchObject({ code: 0, stdout: '0\n5\n' });
  });

  test('start -a passes the output and the exit code on', async () => {
    await minirun('create', '--name', 'job', ...quiet, 'busybox', 'sh', '-c', 'echo out; echo err >&2; exit 6');
    expect(await minirun('start', '-a', 'job')).toMatchObject({ code: 6, stdout: 'out\n', stderr: 'err\n' });
    expect(await statusOf('job')).toStartWith('Exited (6) ');
    await minirun('create', '--name', 'cat', '-i', ...quiet, 'busybox', 'cat');
    expect(await world.run(['start', '-a', '-i', 'cat'], { input: 'through\n' })).toMatchObject({
      code: 0,
      stdout: 'through\n',
    });
  });

  test('start of one whose command does not exist: 127, and it stays', async () => {
    await minirun('create', '--name', 'wrong', ...quiet, 'busybox', '/no/such');
    const { code, stderr } = await minirun('start', 'wrong');
    expect({ code: code !== 0, lines: stderr.split('\n').length }).toEqual({ code: true, lines: 2 });
    expect(await statusOf('wrong')).toMatch(/^(Created|Exited \(127\))/);
  });

  test('rm: refuses what runs, -f does not', async () => {
    await start('web', willing);
    expect(await minirun('rm', 'web')).toMatchObject({ code: 1, stdout: '' });
    expect(await statusOf('web')).toStartWith('Up ');
    expect(await minirun('rm', '-f', 'web', 'nobody')).toMatchObject({ code: 0, stdout: 'web\n', stderr: '' });
    expect((await minirun('ps', '-a', '-q')).stdout).toBe('');
    expect((await minirun('rm', 'nobody')).code).toBe(1);
  });

  test('docker’s longer names: container run, ls, inspect, rm, prune', async () => {
    const quietly = ['--network', 'none'];
    expect(await minirun('container', 'run', ...quietly, '--name', 'web', 'busybox', 'echo', '--rm')).toMatchObject({
      code: 0,
      stdout: '--rm\n',
    });
    for (const list of ['ls', 'list', 'ps'])
      expect((await minirun('container', list, '-a', '--format', '{{.Names}}')).stdout).toBe('web\n');
    expect((await minirun('container', 'inspect', '-f', '{{.Name}}', 'web')).stdout).toBe('/web\n');
    expect((await minirun('container', 'inspect', 'busybox')).stderr).toContain('no container "busybox"');
    const id = (await minirun('ps', '-a', '-q', '--no-trunc')).stdout;
    expect((await minirun('container', 'prune', '-f')).stdout).toBe(
      `Deleted Containers:\n${id}\nTotal reclaimed space: 0B\n`,
    );
    await start('web', willing);
    expect((await minirun('container', 'rm', '-f', 'web')).stdout).toBe('web\n');
    expect(await minirun('container', 'nonsense')).toMatchObject({ code: 125, stdout: '' });
  });

  test('--rm removes it at its end, also when detached or stopped', async () => {
    await start('gone', 'exit 3', '--rm');
    await until(async () => (await minirun('ps', '-a', '-q')).stdout === '');
    await start('gone', willing, '--rm');
    await minirun('stop', 'gone');
    await until(async () => (await minirun('ps', '-a', '-q')).stdout === '');
  });

  test('rename and cp', async () => {
    await start('old', willing);
    expect((await minirun('rename', 'old', 'new')).code).toBe(0);
    expect((await minirun('ps', '--format', '{{.Names}}')).stdout).toBe('new\n');
    await world.sh(`echo content >file
      minirun cp file new:/tmp/inside
      minirun exec new cat /tmp/inside
      minirun cp new:/tmp/inside back && cmp file back`);
    expect((await minirun('exec', 'old', 'true')).code).toBe(1);
  });

  test('ps: docker’s table', async () => {
    await start('web', willing);
    const { stdout } = await minirun('ps');
    expect(stdout).toMatch(
      /^CONTAINER ID {3}IMAGE {5}COMMAND +CREATED +STATUS +PORTS +NAMES\n[0-9a-f]{12} {3}busybox {3}"sh -c 'trap /,
    );
    expect(stdout).toEndWith(' web\n');
    expect(JSON.parse((await minirun('ps', '--format', 'json')).stdout)).toMatchObject({
      Names: 'web',
      Image: 'busybox',
      State: 'running',
    });
  });

  describe('exec', () => {
    test('exit codes', async () => {
      const id = await start('web', willing);
      for (const [command, code] of [
        ['true', 0],
        ['exit 9', 9],
        ['kill -9 $$', 137],
      ] as const) {
        expect((await minirun('exec', 'web', 'sh', '-c', command)).code).toBe(code);
      }
      expect((await minirun('exec', id.slice(0, 8), 'no-such-command')).code).toBe(127);
      expect((await minirun('exec', 'web', '/no/such')).code).toBe(127);
      expect((await minirun('exec', 'web', '/etc')).code).toBe(126);
      expect((await minirun('exec', '--nosuch', 'web', 'true')).code).toBe(125);
    });

    test('-u, -w, -e; privileges and namespaces of the container', async () => {
      await start('web', willing, '-e', 'A=own', '-h', 'web');
      const { stdout } = await minirun(
        'exec',
        '-u',
        '1000:1001',
        '-w',
        '/etc',
        '-e',
        'B=more',
        'web',
        'sh',
        '-c',
        'id -u; id -g; pwd; echo $A $B; hostname; grep CapBnd /proc/self/status; ls /sys/class/net',
      );
      expect(stdout).toBe('1000\n1001\n/etc\nown more\nweb\nCapBnd:\t00000000a00425fb\nlo\n');
      const fds = await minirun('exec', 'web', 'ls', '-C', '/proc/self/fd');
      expect(fds.stdout).toBe('0  1  2  3\n');
    });

    test('-w makes no directory', async () => {
      await start('web', willing);
      const { code, stderr } = await minirun('exec', '-w', '/nowhere/at/all', 'web', 'pwd');
      expect(stderr).toBe(
        'minirun: cannot enter the working directory /nowhere/at/all: there is no such directory. Give another one with -w.\n',
      );
      expect(code).toBe(125);
      expect((await minirun('exec', 'web', 'ls', '/nowhere')).code).toBe(1);
    });

    test('in one that is at rest: 1 and a line', async () => {
      await start('short', 'exit 0');
      await minirun('wait', 'short');
      const { code, stdout, stderr } = await minirun('exec', 'short', 'true');
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toMatch(
        /^minirun: cannot exec in container "short": it is not running .*minirun start short\.\n$/,
      );
    });

    test('-d does not wait', async () => {
      await start('web', willing);
      expect(await minirun('exec', '-d', 'web', 'sh', '-c', 'echo done >/made; sleep 1000')).toMatchObject({
        code: 0,
        stdout: '',
      });
      await until(async () => (await minirun('exec', 'web', 'cat', '/made')).stdout === 'done\n');
    });
  });

  describe('restart policies', () => {
    test('on-failure:2 starts it two times more', async () => {
      await start('failing', 'echo x >>/count; exit 4', '--restart', 'on-failure:2');
      await until(
        async () => (await restartsOf('failing')) === 2 && (await statusOf('failing')).startsWith('Exited (4) '),
      );
      expect((await minirun('start', '-a', 'failing')).code).toBe(4);
      await minirun('stop', 'failing');
      await world.sh('minirun cp failing:/count count; test $(wc -l <count) -ge 4');
    });

    test('on-failure leaves a success alone', async () => {
      await start('fine', 'exit 0', '--restart', 'on-failure');
      await until(async () => (await statusOf('fine')).startsWith('Exited (0) '));
      expect(await restartsOf('fine')).toBe(0);
    });

    test('always and unless-stopped start it until the user stops it', async () => {
      for (const policy of ['always', 'unless-stopped']) {
        const name = `ever-${policy}`;
        await start(name, 'exit 0', '--restart', policy);
        await until(async () => (await restartsOf(name)) >= 2);
        await minirun('stop', name);
        expect(await statusOf(name)).toStartWith('Exited ');
        const count = await restartsOf(name);
        // Whoever would start it again is gone.
        expect(await world.sh('ps -eo args | grep -c "[m]inirun-restart" || :')).toBe('0\n');
        expect(await restartsOf(name)).toBe(count);
      }
    });
  });

  test('run -dit keeps an idle shell alive', async () => {
    const { code } = await minirun('run', '-dit', '--name', 'idle', ...quiet, 'busybox');
    expect(code).toBe(0);
    expect((await minirun('exec', 'idle', 'readlink', '/proc/1/fd/0')).stdout).toBe('/dev/pts/0\n');
    expect(await statusOf('idle')).toStartWith('Up ');
    await minirun('run', '-di', '--name', 'piped', ...quiet, 'busybox', 'cat');
    expect((await minirun('exec', 'piped', 'true')).code).toBe(0);
  });

  test('twenty at once: twenty addresses, all listed, nothing left', async () => {
    const names = Array.from({ length: 20 }, (_, index) => `box-${index}`);
    const results = await Promise.all(
      names.map(async (name) => minirun('run', '-d', '--name', name, 'busybox', 'sleep', '1000')),
    );
    expect(results.map(({ code, stderr }) => `${code} ${stderr}`)).toEqual(names.map(() => '0 '));
    expect(new Set(results.map(({ stdout }) => stdout)).size).toBe(20);
    expect((await minirun('ps', '--format', '{{.Names}}')).stdout.trim().split('\n').toSorted()).toEqual(
      names.toSorted(),
    );
    const inspected = JSON.parse((await minirun('inspect', ...names)).stdout) as {
      NetworkSettings: { IPAddress: string };
    }[];
    const addresses = inspected.map((each) => each.NetworkSettings.IPAddress);
    expect(new Set(addresses).size).toBe(20);
    for (const address of addresses) expect(address).toMatch(/^10\.90\.\d+\.\d+$/);
    expect((await minirun('exec', 'box-0', 'ping', '-c', '1', '-W', '2', addresses[19] as string)).code).toBe(0);
    const removed = await minirun('rm', '-f', '-a');
    expect(removed.stdout.trim().split('\n').toSorted()).toEqual(names.toSorted());
    await expectNoLeak(before, world);
  });
});

interface State {
  Status: string;
  Running: boolean;
  ExitCode: number;
  Pid: number;
  StartedAt: string;
  FinishedAt: string;
}

/** Asks until the answer is yes. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 15_000; !(await condition()); ) {
    if (Date.now() > end) throw new Error(`not in time: ${condition.toString()}`);
  }
}
