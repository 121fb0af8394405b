import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Result, type Snapshot, type World } from '../support/world.ts';

// CVE-2023-27561, CVE-2024-45310, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881: what is mounted, covered or set in a
// container is looked up where an attacker may write.
describe.skipIf(skipOrFail(missingWorld()))('mounts and a hostile root', () => {
  let world: World;
  let before: Snapshot;
  /** A directory of the host that no container may read or write. */
  let victim: string;
  /** A root filesystem with links that lead to the victim. */
  let rootfs: string;
  /** A directory of the host that containers may have. */
  let given: string;

  beforeAll(async () => {
    world = await createWorld();
    victim = path.join(world.directory, 'victim');
    rootfs = path.join(world.directory, 'rootfs');
    given = path.join(world.directory, 'given');
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    await world.sh(`
      mkdir ${victim} ${given}; echo "the host" >${victim}/file
      cp -a "$(ls -d $MINIRUN_ROOT/images/layers/* | head -n 1)" ${rootfs}; cd ${rootfs}
      ln -s ${victim} data; ln -s chain2 chain1; ln -s chain3 chain2; ln -s ../../../../../../../..${victim} chain3
      ln -s /proc/self/root${victim} self; ln -s . loop; ln -s /no/where dangling
      mkdir -p .${victim}; echo "the image" >.${victim}/inside`);
    before = await world.snapshot();
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-v', '-a']);
    await world.run(['volume', 'prune', '-a', '-f']);
    await expectNoLeak(before, world);
    await world.destroy();
  });

  function expectUntouched(): void {
    expect(fs.readdirSync(victim)).toEqual(['file']);
    expect(fs.readFileSync(path.join(victim, 'file'), 'utf8')).toBe('the host\n');
  }
  const run = async (...args: readonly string[]): Promise<Result> =>
    world.run(['run', '--rm', '--network', 'none', ...args]);
  /** A container that has a directory of the host, and does something in it all the time. */
  async function attack(directory: string, loop: string): Promise<void> {
    const script = `cd /r && while :; do ${loop}; done 2>/dev/null`;
    const started = await run('-d', '--name', 'attacker', '-v', `${directory}:/r`, 'busybox', 'sh', '-c', script);
    expect(started).toMatchObject({ code: 0, stderr: '' });
  }

  test('places that are links, also by chains and by .., are found inside the root', async () => {
    const places = ['/data', '/data/new/er', '/chain1', '/chain1/deep', '/loop/loop/data/x', '/loop/../../data'];
    for (const [index, place] of places.entries()) {
      const kinds = [
        ['-v', `vol${index}:${place}`],
        ['-v', `${given}:${place}`],
        ['--tmpfs', place],
      ];
      const write = `echo evil >${place}/evil; cat ${place}/evil`;
      const { code, stdout, stderr } = await run(
        ...(kinds[index % 3] as string[]),
        '--rootfs',
        rootfs,
        'sh',
        '-c',
        write,
      );
      expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'evil\n', stderr: '' });
      expectUntouched();
    }
    // What the image has there went into the volume: what the link means inside, and nothing of the host's.
    expect(fs.readdirSync(path.join(world.root, 'volumes/vol0/_data'))).toEqual(['evil', 'inside']);
    for (const place of ['/self', '/dangling'])
      expect(await run('-v', `${given}:${place}`, '--rootfs', rootfs, 'true')).toMatchObject({ code: 125, stdout: '' });
    fs.rmSync(path.join(given, 'evil'));
    expectUntouched();
  });

  test('a place that is swapped for a link all the time', async () => {
    await world.sh(`mkdir ${rootfs}/place ${rootfs}/aside`);
    await attack(rootfs, `mv place old; ln -s ${victim} place; rm place; mv old place`);
    for (let round = 0; round < 6; round++) {
      const command = ['--rootfs', rootfs, 'sh', '-c', 'grep -c " /place" /proc/self/mountinfo'];
      const results = await Promise.all([
        run('-v', `${given}:/place:ro`, ...command),
        run('-v', 'shared:/place/in/it', '--tmpfs', '/place', ...command),
      ]);
      // Now and then the place is gone just then, or what is mounted goes with it; that is the attacker's own doing.
      for (const { code } of results) expect([0, 1, 125]).toContain(code as number);
      expectUntouched();
    }
    expect(fs.readdirSync(given)).toEqual([]);
    await world.run(['rm', '-f', 'attacker']);
  }, 60_000);

  test('/proc that is moved aside while it is being covered is covered all the same', async () => {
    await attack(rootfs, 'mv proc p2; mkdir proc; rmdir proc; mv p2 proc');
    const look =
      'for p in /proc /p2; do (: >>$p/sys/kernel/core_pattern) && echo open; head -c 1 $p/timer_list; done 2>/dev/null; :';
    for (let round = 0; round < 8; round++) {
      const { code, stdout } = await run('--rootfs', rootfs, 'sh', '-c', look);
      expect([0, 125, 126, 127]).toContain(code as number);
      expect(stdout).toBe('');
    }
    await world.run(['rm', '-f', 'attacker']);
    await world.sh(`cd ${rootfs}; [ -d proc ] || mkdir proc`);
  }, 60_000);

  test('CVE-2025-31133: what is called /dev/null is not put over what is to be hidden unless it is that', async () => {
    const dev = path.join(world.directory, 'dev');
    const message = "the container's /dev/null is not the null device";
    await world.sh(`mkdir -p ${dev}; ln -s /proc/uptime ${dev}/null`);
    expect(await run('-v', `${dev}:/dev`, 'busybox', 'true')).toMatchObject({
      code: 125,
      stderr: expect.stringContaining(message) as string,
    });
    await world.sh(`cd ${dev}; rm null; echo evil >null`);
    expect(await run('-v', `${dev}/null:/dev/null`, 'busybox', 'true')).toMatchObject({
      code: 125,
      stderr: expect.stringContaining(message) as string,
    });
    const masked = await run('--rootfs', rootfs, 'sh', '-c', 'stat -c "%F %t,%T" /proc/keys /proc/timer_list');
    expect(masked.stdout).toBe('character special file 1,3\ncharacter special file 1,3\n');
  });

  test('CVE-2025-52565: the terminal is the one that was opened, whatever /dev/pts and /dev/console lead to', async () => {
    const dev = path.join(world.directory, 'dev-links');
    const fake = path.join(world.directory, 'fake-pts');
    // Names that are looked up on the host, or inside through links, would lead to the victim.
    await world.sh(`
      mkdir ${dev} ${fake}; cd ${dev}; mknod -m 666 null c 1 3; ln -s ${fake} pts; touch console
      cd ${fake}; ln -s /dev/pts/ptmx ptmx; for n in $(seq 0 40); do ln -s ${victim}/file $n; done; mkdir -p ${rootfs}${fake}`);
    const mine = await run('-t', '-v', `${dev}:/dev`, '--rootfs', rootfs, 'sh', '-c', 'echo mine >/dev/console');
    expect(mine).toMatchObject({ code: 0, stdout: 'mine\r\n' });
    expectUntouched();
    const plain = await run(
      '-t',
      '--rootfs',
      rootfs,
      'sh',
      '-c',
      'stat -c "%t %F" /dev/console; [ /dev/console -ef $(tty) ]; echo $?',
    );
    expect(plain.stdout).toBe('88 character special file\r\n0\r\n');
  });

  test('CVE-2025-52881: a setting goes to proc itself or nowhere', async () => {
    const fake = path.join(world.directory, 'fake-sys');
    await world.sh(
      `mkdir -p ${fake}/ipv4; ln -s ${victim}/file ${fake}/ipv4/ip_forward; for each in ip_default_ttl ping_group_range ip_unprivileged_port_start; do echo 0 >${fake}/ipv4/$each; done`,
    );
    for (const key of ['net.ipv4.ip_forward', 'net.ipv4.ip_default_ttl']) {
      const result = await run('-v', `${fake}:/proc/sys/net`, '--sysctl', `${key}=1`, 'busybox', 'true');
      expect(result).toMatchObject({ code: 125, stdout: '' });
    }
    // Those that minirun sets by itself, too.
    for (const file of ['ip_default_ttl', 'ping_group_range', 'ip_unprivileged_port_start'])
      expect(fs.readFileSync(path.join(fake, 'ipv4', file), 'utf8')).toBe('0\n');
    expectUntouched();
  });

  test('nothing is believed that the /proc of the container says', async () => {
    const fake = path.join(world.directory, 'fake-proc');
    await world.sh(`
      mkdir -p ${fake}/sys/kernel ${fake}/self; echo 0 >${fake}/sys/kernel/cap_last_cap; ln -s / ${fake}/self/cwd
      printf 'CapPrm:\\t000001ffffffffff\\n' >${fake}/self/status`);
    const args = ['-v', `${fake}:/proc`, '-v', '/proc:/real', '--network', 'host', 'busybox'];
    const { stdout } = await world.run(['run', '--rm', ...args, 'sed', '-n', 's/^CapBnd:.//p', '/real/self/status']);
    const usual = await run('busybox', 'sed', '-n', 's/^CapBnd:.//p', '/proc/self/status');
    expect(usual.stdout).toMatch(/^[0-9a-f]{16}\n$/);
    expect(stdout).toBe(usual.stdout);
  });

  test('a part of a volume is found inside it, also while a container swaps it for a link', async () => {
    await world.sh('minirun volume create vols');
    const data = path.join(world.root, 'volumes/vols/_data');
    await world.sh(`cd ${data}; mkdir sub; echo mine >sub/file; ln -s ${victim} out; ln -s ../../../../../etc up`);
    const part = async (subpath: string, ...command: string[]) =>
      run('--mount', `src=vols,dst=/part,volume-subpath=${subpath}`, 'busybox', ...command);
    expect(await part('sub/file', 'cat', '/part')).toMatchObject({ code: 0, stdout: 'mine\n' });
    for (const subpath of ['out', 'up', 'out/file', 'missing'])
      expect(await part(subpath, 'ls', '/part')).toMatchObject({ code: 125, stdout: '' });
    await attack(data, `mv sub old; ln -s ${victim} sub; rm sub; mv old sub`);
    for (let round = 0; round < 6; round++) {
      const { code, stdout } = await part('sub', 'cat', '/part/file');
      expect([0, 1, 125]).toContain(code as number);
      expect(['', 'mine\n']).toContain(stdout);
    }
    await world.run(['rm', '-f', 'attacker']);
  }, 60_000);

  // After a `..` openat2(2) gives up as soon as anybody has renamed or mounted anything on the whole machine.
  test('what others rename meanwhile is no reason to fail', async () => {
    await world.sh(`mkdir ${rootfs}/deep; minirun volume create disturbed`);
    await world.sh(`cd ${world.root}/volumes/disturbed/_data; echo mine >file; ln -s ${'../'.repeat(200)}file up`);
    const places = Array.from({ length: 40 }, (_, index) => `up${index}`);
    for (const place of places) fs.symlinkSync(`${'../'.repeat(200)}deep`, path.join(rootfs, place));
    const rename =
      "const { renameSync } = require('node:fs'); console.log('renaming'); for (;;) { renameSync('a', 'b'); renameSync('b', 'a'); }";
    const storms = await Promise.all(
      ['one', 'two'].map(async (name) => {
        const directory = path.join(world.directory, 'storm', name);
        fs.mkdirSync(path.join(directory, 'a'), { recursive: true });
        const storm = await world.host.spawn([process.execPath, '-e', rename], { cwd: directory });
        await storm.waitFor('renaming');
        return storm;
      }),
    );
    try {
      const mounts = places.flatMap((place) => ['--tmpfs', `/${place}/${place}`]);
      const count = 'grep -c " /deep/up" /proc/self/mountinfo';
      expect(await run(...mounts, '--rootfs', rootfs, 'sh', '-c', count)).toMatchObject({
        stdout: `${places.length}\n`,
        stderr: '',
        code: 0,
      });
      for (const userns of ['host', 'auto'])
        expect(
          await run(
            '--userns',
            userns,
            '--mount',
            'src=disturbed,dst=/part,volume-subpath=up',
            'busybox',
            'cat',
            '/part',
          ),
        ).toMatchObject({ stdout: 'mine\n', stderr: '', code: 0 });
    } finally {
      for (const storm of storms) storm.kill('SIGKILL');
      await Promise.all(storms.map(async ({ exit }) => exit));
    }
  }, 60_000);
});
