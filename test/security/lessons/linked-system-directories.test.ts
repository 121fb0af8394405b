import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { makeRootfs } from '../../bench/rootfs.ts';
import { missingTool, missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

// An image whose /proc is a link had the runtime mount proc, with all its protections, somewhere else.
describe.skipIf(skipOrFail(missingWorld() ?? missingTool('busybox')))(
  'CVE-2023-27561, CVE-2024-45310: system directories and targets that are links',
  () => {
    let world: World;
    let rootfs: string;
    let victim: string;

    beforeAll(async () => {
      world = await createWorld();
      ({ rootfs } = makeRootfs(world.directory));
      victim = path.join(world.directory, 'victim');
      fs.mkdirSync(victim);
    });
    afterAll(async () => {
      await world.run(['rm', '-f', '-a']);
      await world.destroy();
    });

    const run = async (...words: string[]) =>
      world.run([
        'run',
        '--rm',
        '--network',
        'none',
        ...words.slice(0, -1),
        '--rootfs',
        rootfs,
        'sh',
        '-c',
        words.at(-1) as string,
      ]);

    for (const name of ['proc', 'sys', 'dev']) {
      test(`/${name}`, async () => {
        const place = path.join(rootfs, name);
        fs.rmdirSync(place);
        fs.mkdirSync(path.join(rootfs, 'elsewhere'), { recursive: true });
        fs.symlinkSync('/elsewhere', place);
        const { code, stderr } = await run('true');
        fs.unlinkSync(place);
        fs.mkdirSync(place);
        expect(stderr).toBe(
          `minirun: refusing this image: its /${name} is a symbolic link. Use an image whose system directories are real.\n`,
        );
        expect(code).toBe(125);
      });
    }

    test('the target of a volume, absolute and upwards', async () => {
      fs.symlinkSync(victim, path.join(rootfs, 'absolute'));
      fs.symlinkSync(`../../../../../..${victim}`, path.join(rootfs, 'upwards'));
      fs.mkdirSync(path.join(rootfs, victim), { recursive: true });
      const source = path.join(world.directory, 'source');
      fs.mkdirSync(source);
      fs.writeFileSync(path.join(source, 'file'), 'x');
      const { stdout, stderr, code } = await run(
        '-v',
        `${source}:/absolute/one`,
        '--tmpfs',
        '/upwards/two',
        `ls ${victim}; ls ${victim}/one`,
      );
      expect({ stdout, stderr, code }).toEqual({ stdout: 'one\ntwo\nfile\n', stderr: '', code: 0 });
      // Made inside the root, where the link leads as the container sees it.
      expect(fs.readdirSync(victim)).toEqual([]);
    });
  },
);
