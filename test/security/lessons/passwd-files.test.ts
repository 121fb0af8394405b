import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

// The runtime read /etc/passwd of an image with the rights of the host: a link led elsewhere, a FIFO made it wait, and
// an endless device filled its memory.
describe.skipIf(skipOrFail(missingWorld()))('CVE-2024-9676: passwd and group files that are none', () => {
  let world: World;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-a']);
    await world.destroy();
  });

  const cases: [string, string][] = [
    ['a FIFO', 'rm /etc/passwd; mkfifo /etc/passwd'],
    ['a link to another file', 'mv /etc/passwd /x; echo web:x:7:7::/: >>/x; ln -s /x /etc/passwd'],
    ['a link to itself', 'ln -sf passwd /etc/passwd'],
    ['a link to an endless device', 'ln -sf /dev/zero /etc/passwd'],
    ['a directory', 'rm /etc/passwd; mkdir /etc/passwd'],
    ['larger than any real one', 'truncate -s 100G /etc/passwd; echo web:x:7:7::/: >>/etc/passwd'],
    ['missing', 'rm /etc/passwd'],
  ];
  for (const [title, script] of cases) {
    test(title, async () => {
      const name = `c${cases.findIndex(([each]) => each === title)}x`;
      const made = await world.run([
        'run',
        '-d',
        '--name',
        name,
        '--network',
        'none',
        'busybox',
        'sh',
        '-c',
        `${script}; touch /ready; sleep 1000`,
      ]);
      expect(made.code).toBe(0);
      while ((await world.run(['exec', '-u', '0', name, 'test', '-e', '/ready'], { timeout: 10_000 })).code !== 0);
      const { code, stderr, stdout } = await world.run(['exec', '-u', 'web', name, 'id'], { timeout: 10_000 });
      expect({ code, stdout, stderr }).toEqual({
        code: 125,
        stdout: '',
        stderr: `minirun: unknown user "web": the image's /etc/passwd has no such name. Give a numeric uid, or a name that the image has.\n`,
      });
      const numeric = await world.run(['exec', '-u', '5:6', name, 'grep', 'Uid', '/proc/self/status'], {
        timeout: 10_000,
      });
      expect(numeric).toMatchObject({ code: 0, stdout: 'Uid:\t5\t5\t5\t5\n' });
    });
  }
});
