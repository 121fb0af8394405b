import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { simulateReboot } from '../support/reboot.ts';
import { settledSnapshot } from '../support/leaks.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

/** Processes killed from outside, at moments spread over a command's duration; locks, and a reboot. */

interface State {
  status: string;
  exitCode: number;
  boot: string;
  init?: { pid: number; start: number };
  owner?: { pid: number; start: number };
  endpoints: { ipv4: { address: string } }[];
}

const readJson = <T>(file: string): T => JSON.parse(fs.readFileSync(file, 'utf8')) as T;

/** A number from 0 to 1 for each seed, always the same. */
function random(seed: number): number {
  const x = Math.sin(seed * 12.9898) * 43758.5453;
  return x - Math.floor(x);
}

async function until<T>(what: string, look: () => T | undefined | false): Promise<T> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const found = look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Has the image built and the default network written down. @returns what there is then */
async function atRest(world: World): Promise<Snapshot> {
  await world.sh('minirun run --rm busybox true; minirun system reconcile');
  return settledSnapshot(world);
}

describe.skipIf(skipOrFail(missingWorld()))('killed from outside', () => {
  let world: World;
  let clean: Snapshot;
  let witness: string;

  const stateOf = (id: string): State => readJson(path.join(world.root, 'containers', id, 'state.json'));

  /** Pids, as the host counts, of its processes with such a command line. Quick: the moment is what matters. */
  function find(pattern: RegExp): number[] {
    return fs.readdirSync(world.host.path('/proc')).flatMap((entry) => {
      if (!/^\d+$/.test(entry)) return [];
      try {
        const command = fs.readFileSync(world.host.path(`/proc/${entry}/cmdline`), 'latin1').replaceAll('\0', ' ');
        return pattern.test(command) ? [Number(entry)] : [];
      } catch {
        return [];
      }
    });
  }

  /** Milliseconds that a script takes. */
  async function timed(script: string): Promise<number> {
    const begun = performance.now();
    await world.sh(script);
    return performance.now() - begun;
  }

  async function reclaimed(): Promise<void> {
    await world.sh('minirun ps -a > /dev/null; minirun rm -f victim > /dev/null 2>&1');
    await expectNoLeak(clean, world);
    expect(JSON.stringify(stateOf(witness))).toBe(seen);
    await world.sh(`busybox ping -c 1 -W 2 ${stateOf(witness).endpoints[0]?.ipv4.address}`);
  }
  let seen: string;

  beforeAll(async () => {
    world = await createWorld();
    witness = (await world.sh('minirun run -d --name witness busybox sleep 100000')).trim();
    await world.sh('minirun run --rm busybox true; minirun system reconcile');
    seen = JSON.stringify(stateOf(witness));
    clean = await world.snapshot();
  }, 30_000);

  afterAll(() => world.destroy());

  const commands: [string, string, string | undefined][] = [
    ['run --rm', 'run --rm --name victim busybox true', undefined],
    ['run -d', 'run -d --name victim busybox sleep 1000', undefined],
    ['start', 'start victim', 'create --name victim busybox sleep 1000'],
    ['stop', 'stop -t 0 victim', 'run -d --name victim busybox sleep 1000'],
    ['rm -f', 'rm -f victim', 'run -d --name victim busybox sleep 1000'],
  ];
  for (const [name, command, before] of commands) {
    test(`the CLI of ${name}, at any moment`, async () => {
      for (let seed = 1; seed <= 12; seed++) {
        if (before !== undefined) await world.sh(`minirun ${before}`);
        const running = await world.spawn(command.split(' '));
        const moment = Math.round(random(seed) * 60);
        await new Promise((resolve) => setTimeout(resolve, moment));
        try {
          running.kill('SIGKILL');
        } catch {
          // It has ended already.
        }
        await running.exit;
        await reclaimed().catch((error: Error) => {
          throw new Error(`${name} killed after ${moment} ms: ${error.message}`);
        });
      }
    }, 60_000);
  }

  for (const [name, pattern] of [
    ['supervisor', /minirun-supervisor/],
    ['unshare', /^unshare .*minirun init/],
    ['init', /^\S*minirun init/],
    ['logger', /^\S*s6-log /],
  ] as const) {
    test(`the ${name}, while a container starts`, async () => {
      const others = new Set(find(pattern));
      for (let seed = 1; seed <= 10; seed++) {
        const running = await world.spawn(['run', '-d', '--name', 'victim', 'busybox', 'sleep', '1000']);
        const victims = await until(`a ${name}`, () => {
          const found = find(pattern).filter((pid) => !others.has(pid));
          return found.length > 0 && found;
        });
        await new Promise((resolve) => setTimeout(resolve, random(seed) * 30));
        await world.kill(...victims);
        const result = await running.exit;
        if (result.code !== 0) expect(`${result.code} ${result.stderr}`).toMatch(/^125 minirun: [^\n]*\n$/);
        await reclaimed().catch((error: Error) => {
          throw new Error(`${name}, seed ${seed}: ${error.message}`);
        });
      }
    }, 60_000);
  }

  test('the supervisor of a running container: reclaimed with 137, or removed with --rm', async () => {
    const id = (await world.sh('minirun run -d --name victim busybox sleep 1000')).trim();
    await world.kill(stateOf(id).owner?.pid as number);
    await world.sh('minirun ps');
    expect(stateOf(id)).toMatchObject({ status: 'exited', exitCode: 137, endpoints: [] });
    await reclaimed();
    const other = (await world.sh('minirun run -d --rm --name victim busybox sleep 1000')).trim();
    await world.kill(stateOf(other).owner?.pid as number);
    await world.sh('minirun ps');
    await expectNoLeak(clean, world);
  });

  test('start, before the command began: 137 and why, whatever init gave up with', async () => {
    await world.sh('minirun run --name victim busybox sh -c "exit 3" || [ $? = 3 ]');
    const id = (await world.sh('minirun ps -a -q --no-trunc -f name=victim')).trim();
    await world.run(['start', 'victim'], { env: { MINIRUN_FAULT: 'kill:init.ready' } });
    // The supervisor writes down what init ended with, and becomes minirun.
    await until('exited', () => stateOf(id).status === 'exited');
    expect(stateOf(id)).toMatchObject({ exitCode: 137, error: 'its minirun process was killed' });
    await reclaimed();
  });

  test('the CLI in the foreground of a running container: as well', async () => {
    for (const [options, left] of [
      [[], true],
      [['--rm'], false],
    ] as const) {
      const running = await world.spawn([
        'run',
        ...options,
        '--name',
        'victim',
        'busybox',
        'sh',
        '-c',
        'echo up; sleep 1000',
      ]);
      await running.waitFor('up');
      // The command speaks before minirun has written down that it runs: until then a kill leaves nothing.
      await world.sh(`until [ "$(minirun inspect --format '{{.State.Status}}' victim)" = running ]; do :; done`);
      running.kill('SIGKILL');
      await world.sh('minirun ps');
      expect((await world.run(['inspect', 'victim'])).code === 0).toBe(left);
      await reclaimed();
    }
  });

  test('init and unshare of a running container: it has ended with 137', async () => {
    for (const victim of ['init', 'unshare'] as const) {
      const id = (await world.sh('minirun run -d --name victim busybox sleep 1000')).trim();
      const init = stateOf(id).init?.pid as number;
      const parent = Number((await world.sh(`cut -d ' ' -f 4 /proc/${init}/stat`)).trim());
      await world.kill(victim === 'init' ? init : parent);
      expect(await world.sh('minirun wait victim')).toBe('137\n');
      expect(stateOf(id)).toMatchObject({ status: 'exited', exitCode: 137 });
      await reclaimed();
    }
  });

  test('the loggers of a running container: it lives on, and its exit code is recorded', async () => {
    const others = new Set(find(/^\S*s6-log /));
    const id = (
      await world.sh('minirun run -d --name victim busybox sh -c \'trap "exit 7" TERM; while :; do sleep 0.1; done\'')
    ).trim();
    await world.kill(...find(/^\S*s6-log /).filter((pid) => !others.has(pid)));
    await world.sh('minirun ps');
    expect(stateOf(id).status).toBe('running');
    await world.sh('minirun stop -t 5 victim');
    await until('exited', () => stateOf(id).status === 'exited');
    expect(stateOf(id).exitCode).toBe(7);
    await reclaimed();
  });

  test('the process that was to take an idle network down: the next command does', async () => {
    await using other = await createWorld();
    await other.sh('minirun run --rm busybox true; minirun system reconcile');
    const before = await other.snapshot();
    await other.sh('minirun run --rm busybox true');
    const { linger } = readJson<{ linger: { pid: number } }>(path.join(other.root, 'networks/minirun0.json'));
    await other.kill(-linger.pid);
    await other.sh('minirun ps');
    await expectNoLeak(before, other, { timeout: 1000 });
  });

  test('whoever was to take a network down, while somebody waits to use it: one name server, that goes with it', async () => {
    await using other = await createWorld();
    const before = await atRest(other);
    await other.sh('minirun run -d --name one busybox sleep 1000');
    const removing = await other.spawn(['rm', '-f', 'one'], { env: { MINIRUN_FAULT: 'stop:finish.left' } });
    expect(await removing.stopped()).toBe(true);
    const starting = await other.spawn(['run', '-d', '--name', 'two', 'busybox', 'sleep', '1000']);
    await until('somebody who waits', () => {
      const folders = fs.readdirSync(path.join(other.root, 'containers')).filter((each) => /^[0-9a-f]{64}$/.test(each));
      return folders.some(
        (id) => readJson<State>(path.join(other.root, 'containers', id, 'state.json')).status === 'starting',
      );
    });
    removing.kill('SIGKILL');
    await removing.resume();
    expect(await starting.exit).toMatchObject({ code: 0, stderr: '' });
    await other.sh('minirun exec two nslookup two 10.90.0.1; minirun rm -f -a');
    await expectNoLeak(before, other);
  }, 30_000);

  test('a network is taken down by the second attempt, too', async () => {
    await using other = await createWorld();
    const before = await atRest(other);
    let hit = false;
    for (let boundary = 1; !hit; boundary++) {
      await other.sh('minirun run -d --name victim busybox sleep 1000');
      const { code, stderr } = await other.run(['rm', '-f', 'victim'], { env: { MINIRUN_FAULT: `fail:${boundary}` } });
      hit = stderr.includes('finish.left');
      expect(`${boundary}: ${code} ${stderr}`).toContain('injected fault');
      if (!hit) await other.sh('minirun rm -f victim || minirun ps');
    }
    // With no further command.
    await expectNoLeak(before, other);
  }, 30_000);

  test('what somebody leaves who is ended by rm -f, just when it makes itself a lock', async () => {
    await using other = await createWorld();
    const before = await atRest(other);
    await other.sh('minirun run -d --name one busybox sleep 1000');
    const removing = await other.spawn(['rm', '-f', 'one'], { env: { MINIRUN_FAULT: 'stop:finish.left' } });
    expect(await removing.stopped()).toBe(true);
    // A process with this pid would have another start.
    fs.mkdirSync(path.join(other.root, 'state.lock.1-1-1-abcdef'));
    expect((await removing.resume()).code).toBe(0);
    await expectNoLeak(before, other);
  }, 30_000);

  test('a foreign network namespace of the same name stays', async () => {
    await world.sh('ip netns add victim');
    const inode = fs.statSync(world.host.path('/run/netns/victim')).ino;
    const result = await world.run(['run', '--rm', '--name', 'victim', 'busybox', 'true']);
    expect(result.code).toBe(125);
    for (const boundary of ['kill:20', 'fail:5', 'fail:8']) {
      await world.run(['run', '--rm', '--name', 'victim', 'busybox', 'true'], { env: { MINIRUN_FAULT: boundary } });
      await world.sh('minirun ps');
    }
    expect(fs.statSync(world.host.path('/run/netns/victim')).ino).toBe(inode);
    await world.sh('ip netns del victim');
    await reclaimed();
  });

  test('stop and rm -f in the middle of a start', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      await world.sh('minirun create --name victim busybox sleep 1000');
      const starting = await world.spawn(['start', 'victim']);
      await new Promise((resolve) => setTimeout(resolve, random(seed) * 40));
      const ending = await world.run(seed % 2 === 0 ? ['stop', '-t', '0', 'victim'] : ['rm', '-f', 'victim']);
      expect(ending.code).toBe(0);
      await starting.exit;
      await reclaimed();
    }
  }, 30_000);

  test('a lock whose holder was killed is taken over within a second', async () => {
    for (const file of ['lock.taken', 'lock.done']) {
      let hit = false;
      for (let boundary = 1; boundary < 40 && !hit; boundary++) {
        const result = await world.run(['run', '--rm', '--name', 'victim', 'busybox', 'true'], {
          env: { MINIRUN_FAULT: `kill:${boundary}` },
        });
        hit = result.stderr.includes(file);
        if (!hit) continue;
        expect(fs.existsSync(path.join(world.root, 'state.lock'))).toBe(true);
        const taking = await timed('minirun create --name other busybox true; minirun rm -f other');
        // What the same takes on this machine with a lock that is free.
        const free = await timed('minirun create --name other busybox true; minirun rm -f other');
        expect(taking - free).toBeLessThan(1000);
      }
      expect(hit).toBe(true);
      await reclaimed();
    }
  }, 30_000);
});

describe.skipIf(skipOrFail(missingWorld()))('a reboot', () => {
  test('containers have exited, leases are free, and they start again', async () => {
    await using world = await createWorld();
    const before = await world.snapshot();
    const id = (await world.sh('minirun run -d --name victim busybox sleep 1000')).trim();
    await world.sh('minirun run -d --rm --name gone busybox sleep 1000; minirun create --name fresh busybox true');
    await simulateReboot(world);
    const table = await world.sh('minirun ps -a --format "{{.Names}} {{.State}}"');
    expect(table.trim().split('\n').sort()).toEqual(['fresh created', 'victim exited']);
    expect(readJson<State>(path.join(world.root, 'containers', id, 'state.json')).exitCode).toBe(137);
    const [network] = JSON.parse(await world.sh('minirun network inspect minirun0')) as { Containers: object }[];
    expect(network?.Containers).toEqual({});
    await world.sh('minirun start victim; minirun exec victim ping -c 1 10.90.0.1');
    await world.sh('minirun rm -f -a');
    const after = await world.snapshot();
    expect({ ...after, state: [], names: [] }).toEqual({ ...before, state: [], names: [] });
  }, 30_000);
});
