import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Result, type Snapshot, type World } from '../support/world.ts';

/** What cgroups do for a container: this machine's own hierarchies, of whichever version. */

const quiet = ['--network', 'none'];

describe.skipIf(skipOrFail(missingWorld()))('limits', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', ...quiet, 'busybox', 'true']);
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
  const start = async (name: string, flags: string[], script: string): Promise<void> => {
    const { code, stderr } = await minirun(
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
  };
  const inspect = async (name: string): Promise<Inspected> =>
    (JSON.parse((await minirun('inspect', name)).stdout) as [Inspected])[0];
  const statusOf = async (name: string): Promise<string> =>
    (await minirun('ps', '-a', '--filter', `name=^${name}$`, '--format', '{{.Status}}')).stdout.trim();
  const statsOf = async (name: string): Promise<Record<string, string>> =>
    JSON.parse((await minirun('stats', '--no-stream', '--format', 'json', name)).stdout) as Record<string, string>;
  /** The file of a container's cgroup, in whichever hierarchy has one of these names. */
  const cgroupFile = async (name: string, ...files: string[]): Promise<string> => {
    const id = fs.readlinkSync(path.join(world.root, 'names', name));
    const root = world.host.path('/sys/fs/cgroup');
    const places = ['.', ...fs.readdirSync(root)].map((each) => path.join(root, each, 'minirun', id));
    const found = places
      .flatMap((place) => files.map((file) => path.join(place, file)))
      .find((file) => fs.existsSync(file));
    if (found === undefined) throw new Error(`${name} has no ${files.join(' or ')}`);
    return fs.readFileSync(found, 'utf8').trim();
  };
  const lastLine = async (name: string): Promise<number> =>
    Number((await minirun('logs', '--tail', '1', name)).stdout.trim());
  const counter = 'i=0; while :; do i=$((i+1)); echo $i; usleep 5000; done';

  test('a container that takes too much memory is killed and says so, and its neighbour lives', async () => {
    await start('neighbour', ['-m', '20m'], 'sleep 1000');
    const hog = await minirun('run', '--name', 'hog', '-m', '20m', ...quiet, 'busybox', 'tail', '/dev/zero');
    expect(hog.code).toBe(137);
    expect((await inspect('hog')).State).toMatchObject({ Status: 'exited', OOMKilled: true, ExitCode: 137 });
    expect(await statusOf('hog')).toMatch(/^Exited \(137\) .* ago \(OOM\)$/);
    expect((await inspect('neighbour')).State).toMatchObject({ Status: 'running', OOMKilled: false });
    expect((await inspect('neighbour')).HostConfig).toMatchObject({ Memory: 20 * 2 ** 20, MemorySwap: 40 * 2 ** 20 });
    // Told anew after a start that goes well.
    await minirun('run', '--name', 'good', '-m', '20m', ...quiet, 'busybox', 'true');
    expect((await inspect('good')).State.OOMKilled).toBe(false);
  });

  test('a fork bomb is stopped, and the machine still works', async () => {
    const script = 'bomb() { bomb | bomb & }; bomb; sleep 1000';
    await start('bomb', ['--pids-limit', '20'], script);
    await until(async () => (await minirun('logs', 'bomb')).stderr.includes("can't fork"));
    expect(Number(await cgroupFile('bomb', 'pids.current'))).toBeLessThanOrEqual(20);
    expect(await cgroupFile('bomb', 'pids.max')).toBe('20');
    expect((await minirun('run', '--rm', ...quiet, 'busybox', 'echo', 'works')).stdout).toBe('works\n');
    expect((await minirun('rm', '-f', 'bomb')).code).toBe(0);
  });

  test('half a processor is half a processor', async () => {
    await start('burner', ['--cpus', '0.5'], 'while :; do :; done');
    const nanoseconds = async () => {
      const text = await cgroupFile('burner', 'cpuacct.usage', 'cpu.stat');
      return Number(/usage_usec (\d+)/.exec(text)?.[1] ?? 0) * 1000 || Number(text);
    };
    const throttled = async () => Number(/nr_throttled (\d+)/.exec(await cgroupFile('burner', 'cpu.stat'))?.[1]);
    const [used, at, held] = [await nanoseconds(), process.hrtime.bigint(), await throttled()];
    // Wall time is what is measured here.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const share = ((await nanoseconds()) - used) / Number(process.hrtime.bigint() - at);
    expect(share).toBeLessThan(0.55);
    // In how many of 15 periods of 100 ms it would have gone on. Where others leave it less than half, it is never held.
    if ((await throttled()) - held >= 12) expect(share).toBeGreaterThan(0.4);
    else expect(os.loadavg()[0]).toBeGreaterThan(1);
  });

  test('stats agrees with /proc, with a cgroup and without', async () => {
    // 30 MB of memory that is used, not of files.
    const script = 'x=$(head -c 15000000 /dev/zero | tr "\\0" a); echo ready; sleep 1000 & wait';
    for (const [name, flags] of [
      ['plain', []],
      ['limited', ['-m', '200m']],
    ] as const) {
      await start(name, [...flags], script);
      await until(async () => (await minirun('logs', name)).stdout.includes('ready'));
      const stats = await statsOf(name);
      const resident = await residentBytes(world, (await inspect(name)).State.Pid);
      const [used = '', limit = ''] = (stats.MemUsage ?? '').split(' / ');
      expect(bytes(used) / resident).toBeWithin(0.8, 1.25);
      expect(stats).toMatchObject({ Name: name, PIDs: '2', CPUPerc: expect.stringMatching(/^\d+\.\d\d%$/) as string });
      if (name === 'limited') expect(limit).toBe('200MiB');
      else expect(bytes(limit)).toBeGreaterThan(200 * 2 ** 20);
    }
    const listed = (await minirun('stats', '--no-stream', '--format', '{{.Name}}')).stdout;
    expect(listed).toBe('limited\nplain\n');
    const table = await minirun('stats', '--no-stream');
    expect(table.stdout).toMatch(/^CONTAINER ID +NAME +CPU % +MEM USAGE \/ LIMIT +MEM % +NET I\/O +BLOCK I\/O +PIDS\n/);
    expect(table.stdout.split('\n')).toHaveLength(4);
  });

  test('the live table is drawn over itself and follows containers that come and go', async () => {
    const watching = await world.spawn(['stats'], { tty: { cols: 120, rows: 20 } });
    await watching.waitFor('CONTAINER ID');
    await start('late', [], 'sleep 1000');
    // From the top left corner, each line to its end.
    const escape = '\x1b';
    const line = `${escape}\\[K\r\n`;
    const picture = `${escape}\\[HCONTAINER ID .*PIDS${line}\\S+ +late .*${line}${escape}\\[J`;
    await watching.waitFor(new RegExp(picture));
    watching.write('\x03');
    expect(await watching.exit).toMatchObject({ signal: 'SIGINT' });
  });

  test('pause stops everything, unpause lets it go on', async () => {
    await start('counter', [], counter);
    await until(async () => (await lastLine('counter')) > 3);
    expect(await minirun('pause', 'counter')).toMatchObject({ code: 0, stdout: 'counter\n', stderr: '' });
    const stopped = await lastLine('counter');
    expect(await statusOf('counter')).toMatch(/^Up .* \(Paused\)$/);
    expect((await inspect('counter')).State).toMatchObject({ Status: 'paused', Running: true, Paused: true });
    expect((await minirun('ps', '-q', '--filter', 'status=paused')).stdout).toMatch(/^[0-9a-f]{12}\n$/);
    for (const [command, why] of [
      [['pause', 'counter'], 'paused already'],
      [['exec', 'counter', 'true'], 'it is paused'],
      [['start', 'counter'], 'it is paused'],
      [['rm', 'counter'], 'it is paused'],
    ] as const) {
      const refused = await minirun(...command);
      expect(refused.stderr).toContain(why);
      expect(refused.code).not.toBe(0);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await lastLine('counter')).toBe(stopped);
    expect(await minirun('unpause', 'counter')).toMatchObject({ code: 0, stdout: 'counter\n', stderr: '' });
    await until(async () => (await lastLine('counter')) > stopped);
    expect((await minirun('unpause', 'counter')).stderr).toContain('it is not paused');
  });

  test('a paused container can be stopped, killed, removed, and reclaimed', async () => {
    for (const end of [['stop', '-t', '1'], ['kill'], ['rm', '-f']]) {
      await start('stopped', [], 'trap "exit 3" TERM; sleep 1000 & wait');
      await minirun('pause', 'stopped');
      expect(await minirun(...end, 'stopped')).toMatchObject({ code: 0, stderr: '' });
      if (end[0] === 'stop') expect((await inspect('stopped')).State).toMatchObject({ ExitCode: 3, Paused: false });
      await minirun('rm', '-f', 'stopped');
    }
    // Its supervisor is killed: whoever comes next takes it down, though nothing in it can move.
    await start('orphan', ['--restart', 'no'], 'sleep 1000');
    await minirun('pause', 'orphan');
    const id = fs.readlinkSync(path.join(world.root, 'names/orphan'));
    const file = path.join(world.root, 'containers', id, 'state.json');
    const { owner } = JSON.parse(fs.readFileSync(file, 'utf8')) as { owner: { pid: number } };
    await world.kill(owner.pid);
    expect(await statusOf('orphan')).toStartWith('Exited (137)');
  });

  test('version 2 beside version 1, or alone, is enough to pause', async () => {
    const unified = '[ ! -d /sys/fs/cgroup/unified ] || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup;';
    const there = async (script: string) => world.host.run(['unshare', '-m', 'sh', '-c', `${unified} ${script}`]);
    await start('frozen', [], counter);
    await until(async () => (await lastLine('frozen')) > 3);
    expect(await there('minirun pause frozen')).toMatchObject({ code: 0, stderr: '' });
    expect(await cgroupFile('frozen', 'cgroup.freeze')).toBe('1');
    const stopped = await lastLine('frozen');
    const stats = await there('minirun stats --no-stream --format "{{.Name}} {{.CPUPerc}} {{.PIDs}}"');
    expect(stats.stdout).toMatch(/^frozen 0\.00% [12]\n$/);
    expect(await lastLine('frozen')).toBe(stopped);
    expect(await there('minirun rm -f frozen')).toMatchObject({ code: 0, stderr: '' });
  });

  test('update changes what runs and what is started later', async () => {
    await start('web', [], 'sleep 1000');
    expect(await minirun('update', '-m', '30m', '--pids-limit', '7', '--cpus', '0.2', 'web')).toMatchObject({
      code: 0,
      stdout: 'web\n',
      stderr: '',
    });
    const memory = ['memory.limit_in_bytes', 'memory.max'];
    expect(await cgroupFile('web', ...memory)).toBe(String(30 * 2 ** 20));
    expect(await cgroupFile('web', 'pids.max')).toBe('7');
    // Everything is in: what was there, and what comes later.
    expect((await cgroupFile('web', 'cgroup.procs')).split('\n')).toHaveLength(1);
    const inside = await minirun(
      'exec',
      'web',
      'sh',
      '-c',
      'grep pids: /proc/self/cgroup /proc/1/cgroup || cat /proc/self/cgroup /proc/1/cgroup',
    );
    expect(
      new Set(
        inside.stdout
          .trim()
          .split('\n')
          .map((line) => line.replace(/^.*\//, '')),
      ).size,
    ).toBe(1);
    // Up and down, each with memory and swap in the right order.
    for (const [limit, swap] of [
      [200, 300],
      [40, 40],
    ] as const) {
      const { stderr } = await minirun('update', '-m', `${limit}m`, '--memory-swap', `${swap}m`, 'web');
      expect(stderr).toBe('');
      expect(await cgroupFile('web', ...memory)).toBe(String(limit * 2 ** 20));
    }
    expect((await inspect('web')).HostConfig).toMatchObject({
      Memory: 40 * 2 ** 20,
      NanoCpus: 200_000_000,
      PidsLimit: 7,
      CpuQuota: 0,
    });
    await minirun('stop', '-t', '0', 'web');
    expect((await minirun('update', '--pids-limit', '9', '--restart', 'on-failure:3', 'web')).stderr).toBe('');
    expect((await inspect('web')).HostConfig.RestartPolicy).toEqual({ Name: 'on-failure', MaximumRetryCount: 3 });
    await minirun('start', 'web');
    expect(await cgroupFile('web', 'pids.max')).toBe('9');
    expect(await cgroupFile('web', ...memory)).toBe(String(40 * 2 ** 20));
  });

  test('a container sees its own cgroup and nothing above, read-only; what it makes when privileged goes with it', async () => {
    const look = 'sed "s/.*://" /proc/self/cgroup | sort -u; echo 5 >$(find /sys/fs/cgroup -name pids.max | head -1)';
    const { stdout, stderr } = await minirun(
      'run',
      '--rm',
      ...quiet,
      '--pids-limit',
      '50',
      'busybox',
      'sh',
      '-c',
      look,
    );
    expect(stdout).toBe('/\n');
    expect(stderr).toContain('Read-only file system');
    const nested =
      'for d in $(find /sys/fs/cgroup -name cgroup.procs); do mkdir -p ${d%/*}/inner/most || :; done; ls -d /sys/fs/cgroup/memory/inner/most /sys/fs/cgroup/inner/most';
    const made = await minirun('run', '--rm', '--privileged', ...quiet, 'busybox', 'sh', '-c', nested);
    expect(made.stdout).toContain('inner/most');
    expect(await world.sh('find /sys/fs/cgroup -name inner')).toBe('');
  });

  test('what makes no sense, and what this machine cannot do, is refused before any effect', async () => {
    const refused: [flags: string[], why: string][] = [
      [['-m', '5m'], 'the least is 6m'],
      [['-m', 'much'], 'it is no size'],
      [['-m', '64m', '--memory-swap', '32m'], 'is less than --memory'],
      [['--memory-swap', '1g'], '--memory is missing'],
      [['-m', '64m', '--memory-reservation', '128m'], 'more than the container may have'],
      [['--cpus', '1000'], 'this machine has'],
      [['--cpus', '0.001'], 'this machine has'],
      [['--cpus', '1', '--cpu-quota', '5000'], 'a quota and a period'],
      [['--cpu-quota', '10'], 'out of range'],
      [['--cpuset-cpus', '4000'], 'no processor 4000'],
      [['--cpuset-cpus', '3-1'], 'no list of numbers'],
      [['--pids-limit', 'few'], 'no whole number'],
      [['--blkio-weight', '5'], 'out of range'],
      [['--oom-score-adj', '2000'], 'out of range'],
      [['--cgroup-parent', '/a/../../b'], 'no path below'],
    ];
    await Promise.all(
      refused.map(async ([flags, why]) => {
        const result = await minirun('run', '--name', 'never', ...quiet, ...flags, 'busybox', 'true');
        expect(result.stderr).toContain(why);
        expect(result.stderr).toMatch(/^minirun: [^\n]*\n$/);
        expect(result.code).toBe(125);
      }),
    );
    expect((await minirun('ps', '-aq')).stdout).toBe('');
    // Read-only cgroups: what asks for a limit is refused, what does not is none the wiser.
    const blind = 'mount --bind /sys/fs/cgroup /sys/fs/cgroup; mount -t tmpfs -o ro none /sys/fs/cgroup';
    const script = (command: string) => ['unshare', '-m', 'sh', '-c', `${blind}; exec minirun ${command}`];
    const limited = await world.host.run(script('run --rm --network none -m 64m busybox true'));
    expect(limited).toMatchObject({ code: 125 });
    expect(limited.stderr).toContain('no memory controller');
    expect(await world.host.run(script('run --rm --network none busybox true'))).toMatchObject({ code: 0, stderr: '' });
  });

  test('a parent of its own, and how soon it is killed', async () => {
    await start(
      'child',
      ['--cgroup-parent', 'mine/deep', '--oom-score-adj', '300', '--pids-limit', '20'],
      'sleep 1000',
    );
    const places = await world.sh('find /sys/fs/cgroup -path "*/mine/deep/*/pids.max"');
    expect(places.trim().split('\n')).toHaveLength(1);
    expect((await world.sh(`cat ${places}`)).trim()).toBe('20');
    expect((await inspect('child')).HostConfig).toMatchObject({ CgroupParent: '/mine/deep', OomScoreAdj: 300 });
    expect((await minirun('exec', 'child', 'cat', '/proc/1/oom_score_adj')).stdout).toBe('300\n');
    await minirun('rm', '-f', 'child');
    // What it was made in stays.
    await world.sh(
      'for d in $(find /sys/fs/cgroup -depth -path "*/mine" -o -depth -path "*/mine/deep"); do rmdir $d; done',
    );
  });

  test('top shows the processes of the container and no others', async () => {
    await start('top', [], 'sleep 1001 & sleep 1002 & wait');
    const look = async () => minirun('top', 'top', '-o', 'pid,args');
    await until(async () => (await look()).stdout.includes('sleep 1002\n'));
    await until(async () => (await look()).stdout.includes('sleep 1001\n'));
    const table = await look();
    expect(table.stdout).toMatch(/^PID +COMMAND\n/);
    const commands = table.stdout
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => line.replace(/^\d+ +/, ''));
    expect(commands.toSorted()).toEqual(['sh -c sleep 1001 & sleep 1002 & wait', 'sleep 1001', 'sleep 1002']);
    expect((await minirun('top', 'top')).stdout).toMatch(/^UID +PID +PPID/);
    expect((await minirun('top', 'top', '-o', 'args')).stderr).toContain('no column PID');
  });

  test('the script of --explain makes the cgroup and takes it away', async () => {
    const { stdout } = await minirun(
      'run',
      '-d',
      '--name',
      'byhand',
      '--explain',
      '-m',
      '64m',
      '--pids-limit',
      '50',
      ...quiet,
      'busybox',
      'sleep',
      '1000',
    );
    expect(stdout).toMatch(/mkdir -p \/sys\/fs\/cgroup\/.*minirun\/\$id\n/);
    expect(stdout).toMatch(/echo 67108864 >\/sys\/fs\/cgroup\/.*memory\.(limit_in_bytes|max)\n/);
    const procs =
      'for f in $(find /sys/fs/cgroup -path "*minirun*" -name pids.max); do grep -c . ${f%/*}/cgroup.procs || :; cat $f; done';
    await world.sh('cat >script; sh script add', { input: stdout });
    // The shell that makes everything runs programs of its own, until it becomes the command.
    const commands = `
      for f in $(find /sys/fs/cgroup -path "*minirun*" -name pids.max); do
        for pid in $(cat $\{f%/*}/cgroup.procs); do cat /proc/$pid/comm || :; done
      done`;
    await until(async () => (await world.sh(commands)).includes('sleep\n'));
    // That, and unshare, which waits for it.
    expect(await world.sh(procs)).toContain('2\n50\n');
    await world.sh('sh script delete; sh script delete; rm script');
    await expectNoLeak(before, world);
  });
});

interface Inspected {
  State: { Status: string; Running: boolean; Paused: boolean; OOMKilled: boolean; ExitCode: number; Pid: number };
  HostConfig: Record<string, unknown>;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 10_000; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error('it does not come');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Bytes of `1.5MiB`. */
function bytes(text: string): number {
  const units: Record<string, number> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };
  const [, number, unit = ''] = /^([\d.]+)(\w+)$/.exec(text) ?? [];
  return Number(number) * (units[unit] ?? Number.NaN);
}

/** Memory that is not a file's, of a process and its children. */
async function residentBytes(world: World, pid: number): Promise<number> {
  const script = `for p in ${pid} $(cat /proc/${pid}/task/*/children); do grep RssAnon /proc/$p/status; done`;
  const lines = (await world.sh(script)).trim().split('\n');
  return lines.reduce((sum, line) => sum + Number(/(\d+) kB/.exec(line)?.[1]) * 1024, 0);
}
