import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type Machine, type World } from '../../support/world.ts';

// A sandbox that shares the caller's terminal can type into it, by TIOCSTI.
describe.skipIf(skipOrFail(missingWorld()))('CVE-2017-5226: no terminal of the host reaches the container', () => {
  let world: World;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '-d', '--name', 'box', '--network', 'none', 'busybox', 'sleep', '1000']);
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-a']);
    await world.destroy();
  });

  /** Device of the file system that standard streams lie on, session and terminal of the process that runs the script. */
  const facts = `stat -L -c %d /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2
    read -r stat </proc/self/stat; set -- $stat; echo session $6 terminal $7`;

  async function inTerminal(host: Machine, words: readonly string[]): Promise<string> {
    const running = await host.spawn(['minirun', ...words], { tty: true });
    return (await running.exit).stdout.replaceAll('\r', '');
  }

  for (const [title, words] of [
    ['run', ['run', '--rm', '--network', 'none', 'busybox']],
    ['exec', ['exec', 'box']],
  ] as const) {
    test(`${title} without -t, from a terminal: pipes, a session of its own, and no terminal`, async () => {
      const stdout = await inTerminal(world.host, [
        ...words,
        'sh',
        '-c',
        `${facts}; [ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none`,
      ]);
      expect(stdout).toContain('terminal 0\n');
      expect(stdout).toContain('none\n');
    });

    test(`${title} -t: one of the container's own devpts`, async () => {
      const [first, ...rest] = words;
      const stdout = await inTerminal(world.host, [first, '-t', ...rest, 'sh', '-c', `stat -c %d /dev/pts; ${facts}`]);
      const [devpts, ...streams] = stdout.split('\n');
      expect(streams.slice(0, 3)).toEqual([devpts, devpts, devpts] as string[]);
      expect(devpts).not.toBe((await world.sh('stat -c %d /dev/pts')).trim());
      expect(stdout).toMatch(/session \d+ terminal [1-9]/);
    });
  }
});
