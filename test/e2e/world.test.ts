import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { deadline, firstLine } from '../support/machine.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, hostAddress, internetAddress, type World } from '../support/world.ts';

/** What no test may change on the machine that runs it. */
function machine(): string {
  const links = execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' });
  const rules = execFileSync('iptables-save', { encoding: 'utf8' }).replace(/^#.*\n/gm, '');
  return `${links}${rules}${fs.readFileSync('/proc/self/mountinfo', 'utf8')}`;
}

describe.skipIf(skipOrFail(missingWorld()))('the fake world', () => {
  let untouched: string;
  let world: World;

  beforeAll(async () => {
    untouched = machine();
    world = await createWorld();
  });

  afterAll(async () => {
    const { directory } = world;
    await world.destroy();
    await world.destroy();
    expect(fs.existsSync(directory)).toBe(false);
    expect(machine()).toBe(untouched);
  });

  test('the host reaches the internet, which sees its address', async () => {
    const body = await world.sh(`busybox wget -q -O - http://${internetAddress}/some/path`);
    expect(body).toBe(`${hostAddress}\n`);
    expect(world.internet.requests()).toEqual([{ address: hostAddress, path: '/some/path' }]);
    world.internet.forgetRequests();
    expect(world.internet.requests()).toEqual([]);
  });

  test('the internet has no route to networks behind the host', async () => {
    expect(await world.internet.sh('ip route')).toBe(
      '203.0.113.0/24 dev eth0 proto kernel scope link src 203.0.113.1 \n',
    );
    expect(await world.sh('ip route show default')).toBe('default via 203.0.113.1 dev eth0 \n');
  });

  test('the host sees nothing of the machine', async () => {
    expect(await world.sh('ls /sys/class/net | grep -v bonding_masters')).toBe('eth0\nlo\n');
    expect(await world.sh('ls /run/netns; cat /proc/sys/net/ipv4/ip_forward')).toBe('0\n');
    expect(await world.sh('cat /proc/1/comm; echo $MINIRUN_ROOT')).toBe(`sleep\n${world.root}\n`);
  });

  test('input and output are complete and binary safe', async () => {
    const input = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 256));
    const result = await world.host.run(['cat'], { input });
    expect(result.code).toBe(0);
    expect(result.stdoutBytes.equals(input)).toBe(true);
    const other = await world.host.run(['sh', '-c', 'pwd; echo bad >&2; exit 32'], { cwd: '/proc', env: { A: 'b' } });
    expect(other).toMatchObject({ code: 32, signal: undefined, stdout: '/proc\n', stderr: 'bad\n' });
  });

  test('a running process is known by its own pid', async () => {
    const running = await world.host.spawn(['sh', '-c', 'echo $$; read line; echo got $line; exec sleep 1000']);
    await running.waitFor(`${running.innerPid}\n`);
    expect(fs.readFileSync(`/proc/${running.pid}/comm`, 'utf8')).toBe('sh\n');
    running.write('a line\n');
    await running.waitFor('got a line');
    running.kill('SIGKILL');
    expect(await running.exit).toMatchObject({ code: undefined, signal: 'SIGKILL' });
  });

  test('a terminal', async () => {
    // The signal may come before `read` waits or while it does, which it then ends.
    const script = 'tty; stty size; trap "stty size" WINCH; echo ready; until read line; do :; done; exit 3';
    const running = await world.host.spawn(['sh', '-c', script], { tty: { cols: 100, rows: 30 } });
    await running.waitFor(/^\/dev\/pts\/\d+\r\n30 100\r\nready/);
    running.resize(90, 20);
    await running.waitFor('20 90');
    running.write('\r');
    expect(await running.exit).toMatchObject({ code: 3 });
    // Ctrl-C reaches the foreground: the terminal is a controlling one.
    const sleeper = await world.host.spawn(['sh', '-c', 'echo ready; exec sleep 1000'], { tty: true });
    await sleeper.waitFor('ready');
    sleeper.write('\x03');
    expect(await sleeper.exit).toMatchObject({ signal: 'SIGINT' });
    // It reaches nobody else: who handles it lives on, and his exit code is known.
    const handler = 'trap "echo caught" INT; echo ready; until read line; do :; done; exit 4';
    const survivor = await world.host.spawn(['sh', '-c', handler], { tty: true });
    await survivor.waitFor('ready');
    survivor.write('\x03');
    await survivor.waitFor('caught');
    survivor.write('\r');
    expect(await survivor.exit).toMatchObject({ code: 4 });
  });

  test('what takes too long, and who holds the output open, fail', async () => {
    const messageOf = async (run: Promise<unknown>): Promise<string> =>
      run.then(
        () => 'no error',
        (error: unknown) => (error as Error).message,
      );
    expect(await messageOf(world.host.run(['sleep', '1000'], { timeout: 100 }))).toContain(
      'still running after 100 ms',
    );
    const leaver = world.host.run(['sh', '-c', 'sleep 1000 & echo $! > left']);
    expect(await messageOf(leaver)).toContain('held open by another process');
    await world.sh('kill $(cat left)');
  }, 10_000);

  test('a snapshot is stable, and shows what was added', async () => {
    const before = await world.snapshot();
    await expectNoLeak(before, world, { timeout: 0 });
    await world.sh(`
      ip netns add web
      ip link add br0 type bridge
      ip addr add 10.1.1.1/24 dev br0
      iptables -t nat -A POSTROUTING -s 10.1.1.0/24 -j MASQUERADE
      iptables -P FORWARD DROP
      ip6tables -N MINE
      mkdir -p $MINIRUN_ROOT/networks $MINIRUN_ROOT/containers/c1 $MINIRUN_ROOT/names/web $MINIRUN_ROOT/state.lock
      echo '{"leases": {"10.1.1.2": {}}}' > $MINIRUN_ROOT/networks/minirun0.json
      mount -t tmpfs tmpfs $MINIRUN_ROOT/containers
      cg=/sys/fs/cgroup/pids; [ -d $cg ] || cg=/sys/fs/cgroup
      mkdir -p $cg/minirun/left
    `);
    const sleeper = await world.host.spawn(['sleep', '1000']);
    const failure: unknown = await expectNoLeak(before, world, { timeout: 0 }).catch((error: unknown) => error);
    for (const line of [
      '+ links: br0 bridge',
      '+ netns: web',
      '+ mounts: /run/netns/web nsfs',
      `+ mounts: ${world.root}/containers tmpfs`,
      '+ iptables: nat -A POSTROUTING -s 10.1.1.0/24 -j MASQUERADE',
      '+ iptables: filter :FORWARD DROP',
      '+ ip6tables: filter :MINE -',
      '+ leases: minirun0 10.1.1.2',
      '+ names: web',
      '+ state: state.lock',
      `+ processes: ${sleeper.innerPid} sleep 1000`,
    ]) {
      expect((failure as Error).message).toContain(line);
    }
    expect((failure as Error).message).toMatch(/\+ cgroups: (pids\/)?minirun\/left/);
    sleeper.kill();
    await sleeper.exit;
    await world.sh(`
      umount $MINIRUN_ROOT/containers
      rm -r $MINIRUN_ROOT
      ip netns del web
      ip link del br0
      iptables -t nat -F
      iptables -P FORWARD ACCEPT
      ip6tables -X MINE
      find /sys/fs/cgroup -path '*/minirun/left' -type d -exec rmdir {} +
    `);
    await expectNoLeak(before, world);
  });

  test('orphans are reaped', async () => {
    await world.sh('sh -c "true & exec true" & wait; sh -c "(sleep 0.01; exit 1) &"');
    const deadlineTime = Date.now() + 2000;
    let zombies: string;
    do {
      zombies = await world.sh('cat /proc/[0-9]*/stat 2> /dev/null | grep ") Z " || true');
    } while (zombies !== '' && Date.now() < deadlineTime);
    expect(zombies).toBe('');
  });

  test('worlds do not see each other', async () => {
    const before = await world.snapshot();
    const [one, two] = await Promise.all([createWorld(), createWorld()]);
    await one.sh('ip netns add web; find /sys/fs/cgroup -maxdepth 1 -name pids -exec mkdir {}/minirun \\;');
    await two.sh('ip netns add web; busybox wget -q -O /dev/null http://203.0.113.1/two');
    expect(world.internet.requests()).toEqual([]);
    expect(one.internet.requests()).toEqual([]);
    expect(two.internet.requests()).toEqual([{ address: hostAddress, path: '/two' }]);
    await expectNoLeak(before, world, { timeout: 0 });
    await Promise.all([one.destroy(), two.destroy()]);
  });

  test('nothing stays when a machine is killed', async () => {
    const victim = await createWorld();
    await victim.sh('ip netns add web; mkdir -p $MINIRUN_ROOT; mount -t tmpfs tmpfs $MINIRUN_ROOT');
    const sleeper = await victim.host.spawn(['sleep', '1000']);
    process.kill(victim.host.pid, 'SIGKILL');
    expect(await sleeper.exit).toMatchObject({ signal: 'SIGKILL' });
    await expectGone(victim.directory, victim.host.pid, victim.internet.pid);
    await victim.destroy();
  });

  test('nothing stays when the test process is killed', async () => {
    const script = `
      import { createWorld } from '${path.join(import.meta.dir, '../support/world.ts')}';
      const world = await createWorld();
      await world.host.spawn(['sh', '-c', 'sleep 1000 & sleep 1000']);
      console.log(world.directory, world.host.pid, world.internet.pid);
      await new Promise(() => setInterval(() => {}, 1000));
    `;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [directory = '', host, internet] = (await firstLine(child.stdout)).split(' ');
    expect(fs.existsSync(directory)).toBe(true);
    child.kill('SIGKILL');
    await expectGone(directory, Number(host), Number(internet));
  });
});

/** Waits until a world's files, cgroups and machines are gone. */
async function expectGone(directory: string, ...pids: readonly number[]): Promise<void> {
  const gone = (async () => {
    while (fs.existsSync(directory)) await new Promise((resolve) => setTimeout(resolve, 10));
    return true;
  })();
  expect(await deadline(gone, 5000)).toBe(true);
  for (const pid of pids) expect(fs.existsSync(`/proc/${pid}`)).toBe(false);
  const cgroups = execFileSync('find', ['/sys/fs/cgroup', '-name', path.basename(directory)], { encoding: 'utf8' });
  expect(cgroups).toBe('');
}
