import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

// runc left a directory of the host open, and entered a working directory by way of it.
describe.skipIf(skipOrFail(missingWorld()))('CVE-2024-21626: descriptors, and the working directory', () => {
  let world: World;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '-d', '--name', 'box', '--network', 'none', 'busybox', 'sleep', '1000']);
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-a']);
    await world.destroy();
  });

  const list = 'for fd in /proc/self/fd/*; do echo ${fd##*/}; done';
  for (const [title, words] of [
    ['run', ['run', '--rm', '--network', 'none', 'busybox']],
    ['exec', ['exec', 'box']],
  ] as const) {
    test(`${title}: nothing but 0, 1 and 2 is open, whatever the caller had open`, async () => {
      const call = `exec 7</ 8</etc/passwd 9>/dev/null; minirun ${words.join(' ')} sh -c '${list}'`;
      // The shell that lists has one more while it does: its own directory.
      expect(
        (await world.sh(call))
          .trim()
          .split('\n')
          .filter((fd) => Number(fd) > 3),
      ).toEqual([]);
    });

    test(`${title}: no descriptor as working directory leads out`, async () => {
      for (let fd = 3; fd < 24; fd++) {
        const place = `/proc/self/fd/${fd}/../../..`;
        const [command, ...rest] = words;
        const { stdout } = await world.run([
          command,
          '-w',
          place,
          ...rest,
          'sh',
          '-c',
          'pwd -P; ls -d etc/debian_version',
        ]);
        // Either refused, or a directory of the container.
        expect(stdout).not.toContain('debian_version');
      }
    }, 60_000);
  }

  test('a working directory of an image that is a link to a descriptor', async () => {
    const make = 'for n in 3 4 5 6 7 8 9 10 11 12; do ln -s /proc/self/fd/$n /fd$n; done';
    await world.run(['run', '--name', 'links', '--network', 'none', 'busybox', 'sh', '-c', make]);
    await world.run(['commit', 'links', 'links']);
    for (let fd = 3; fd <= 12; fd++) {
      const words = [
        'run',
        '--rm',
        '--network',
        'none',
        '-w',
        `/fd${fd}`,
        'links',
        'sh',
        '-c',
        'ls -d ../etc/debian_version etc/debian_version',
      ];
      expect((await world.run(words)).stdout).toBe('');
    }
  });

  test('standard input is the container’s own null device: its mode is not the host’s', async () => {
    const mode = () => world.sh('stat -c %a /dev/null');
    // Should the protection fail, the machine's own device must not change: a mount of this world's own on it.
    await world.sh('mkdir -p $PWD/dev && mknod -m 666 $PWD/dev/null c 1 3 && mount --bind $PWD/dev/null /dev/null');
    const change = 'chmod 640 /proc/self/fd/0; chown 5 /proc/self/fd/0; stat -L -c %a /proc/self/fd/0';
    for (const words of [
      ['run', '--rm', '--network', 'none', 'busybox'],
      ['exec', 'box'],
    ]) {
      expect((await world.run([...words, 'sh', '-c', change])).stdout).toBe('640\n');
      expect(await mode()).toBe('666\n');
      await world.run(['exec', 'box', 'chmod', '666', '/dev/null']);
    }
    await world.run(['run', '-d', '--name', 'quiet', '--network', 'none', 'busybox', 'sh', '-c', change]);
    await world.run(['wait', 'quiet']);
    expect(await mode()).toBe('666\n');
  });
});
