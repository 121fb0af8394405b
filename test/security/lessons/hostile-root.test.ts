import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { makeRootfs } from '../../bench/rootfs.ts';
import { missingTool, missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

// Inside the root, /dev/null, /dev/pts/N and /proc are the attacker's: runc masked with a file of the image's, mounted a
// file of the host's on /dev/console, and wrote sysctls into a file that only looked like one.
describe.skipIf(skipOrFail(missingWorld() ?? missingTool('busybox')))(
  'CVE-2025-31133, CVE-2025-52565, CVE-2025-52881: what lies in the root is the attacker’s',
  () => {
    let world: World;
    let rootfs: string;

    beforeAll(async () => {
      world = await createWorld();
      ({ rootfs } = makeRootfs(world.directory));
    });
    afterAll(async () => {
      await world.run(['rm', '-f', '-a']);
      await world.destroy();
    });

    const run = async (options: readonly string[], script: string) =>
      world.run(['run', '--rm', '--network', 'none', ...options, '--rootfs', rootfs, 'sh', '-c', script]);

    test('masking: a /dev/null of the image, and one that is mounted in its place', async () => {
      fs.writeFileSync(path.join(rootfs, 'dev/null'), 'of the image');
      const script = 'stat -c "%F %t:%T" /proc/keys /dev/null; cat /proc/keys';
      const { stdout, code } = await run([], script);
      expect({ stdout, code }).toEqual({
        stdout: 'character special file 1:3\ncharacter special file 1:3\n',
        code: 0,
      });
      const fake = path.join(world.directory, 'fake');
      fs.writeFileSync(fake, 'fake');
      const refused = await run(['-v', `${fake}:/dev/null`], 'cat /proc/keys');
      expect(refused.stdout).toBe('');
      expect(refused.stderr).toMatch(/^minirun: .*the container's \/dev\/null is not the null device/);
      expect(refused.code).toBe(125);
    });

    test('sysctls: a directory in the place of /proc', async () => {
      const fake = path.join(world.directory, 'proc');
      const file = path.join(fake, 'sys/kernel/msgmax');
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, 'untouched');
      const { code, stderr } = await run(['-v', `${fake}:/proc`, '--sysctl', 'kernel.msgmax=4096'], 'true');
      expect(code).toBe(125);
      expect(stderr).toContain('/proc of the container is not proc');
      expect(fs.readFileSync(file, 'utf8')).toBe('untouched');
    });

    test('the console: links of the image lead nowhere', async () => {
      const victim = path.join(world.directory, 'victim');
      fs.writeFileSync(victim, 'the host');
      fs.mkdirSync(path.join(rootfs, 'dev/pts'), { recursive: true });
      fs.symlinkSync(victim, path.join(rootfs, 'dev/pts/0'));
      fs.symlinkSync(victim, path.join(rootfs, 'dev/console'));
      const { stdout, code } = await run(['-t'], 'stat -c %F /dev/console; echo overwritten >/dev/console');
      expect(code).toBe(0);
      expect(stdout.replaceAll('\r', '')).toBe('character special file\noverwritten\n');
      expect(fs.readFileSync(victim, 'utf8')).toBe('the host');
    });
  },
);
