import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { makeRootfs } from '../../bench/rootfs.ts';
import { missingTool, missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

// `docker cp` looked users up by a library of the container's, with the rights of the host.
describe.skipIf(skipOrFail(missingWorld() ?? missingTool('busybox')))(
  'CVE-2019-14271: nothing is loaded from the container’s root',
  () => {
    let world: World;
    let rootfs: string;

    beforeAll(async () => {
      world = await createWorld();
      ({ rootfs } = makeRootfs(world.directory));
      // Whoever opens one of these waits for ever. Places where libraries, their configuration and decompressors are.
      const names = [
        'libnss_files.so.2',
        'libnss_compat.so.2',
        'libc.so.6',
        'libz.so.1',
        'libgcc_s.so.1',
        'libnss_dns.so.2',
      ];
      const folders = [
        'lib',
        'lib64',
        'usr/lib',
        'lib/x86_64-linux-gnu',
        'usr/lib/x86_64-linux-gnu',
        'lib/aarch64-linux-gnu',
      ];
      const traps = [
        ...folders.flatMap((folder) => names.map((name) => `${folder}/${name}`)),

        'etc/nsswitch.conf',
        'etc/ld.so.cache',
        'etc/ld.so.preload',
        'etc/localtime',
        'etc/locale.alias',
        'bin/tar',
        'usr/bin/gzip',
        'package.json',
        'bunfig.toml',
        '.env',
        'tsconfig.json',
        'root/package.json',
        'root/.env',
      ];
      await world.sh(
        traps
          .map((trap) => path.join(rootfs, trap))
          .map((trap) => `mkdir -p ${path.dirname(trap)}; rm -f ${trap}; mkfifo ${trap}`)
          .join('\n'),
      );
      fs.appendFileSync(path.join(rootfs, 'etc/passwd'), 'web:x:1000:1000::/tmp:/bin/sh\n');
      const start = ['run', '-d', '--name', 'box', '--network', 'none', '--rootfs', rootfs, 'sleep', '1000'];
      expect((await world.run(start)).code).toBe(0);
      fs.writeFileSync(path.join(world.directory, 'file'), 'content');
    });
    afterAll(async () => {
      await world.run(['rm', '-f', '-a']);
      await world.destroy();
    });

    const timeout = 10_000;

    test('exec as a user that is looked up by name', async () => {
      const { stdout, stderr } = await world.run(['exec', '-u', 'web', '-w', '/root', 'box', 'id', '-u'], { timeout });
      expect({ stdout, stderr }).toEqual({ stdout: '1000\n', stderr: '' });
    });

    test('cp in and out', async () => {
      const options = { cwd: world.directory, timeout };
      expect(await world.run(['cp', '-q', 'file', 'box:/tmp/file'], options)).toMatchObject({ code: 0, stderr: '' });
      expect(await world.run(['cp', '-q', '-a', 'box:/tmp/file', 'back'], options)).toMatchObject({
        code: 0,
        stderr: '',
      });
      expect(fs.readFileSync(path.join(world.directory, 'back'), 'utf8')).toBe('content');
    });

    test('a further container', async () => {
      const words = ['run', '--rm', '--network', 'none', '-u', 'web', '--rootfs', rootfs, 'id', '-u'];
      expect(await world.run(words, { timeout })).toMatchObject({ code: 0, stdout: '1000\n', stderr: '' });
    });
  },
);
