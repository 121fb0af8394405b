import { expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak } from '../support/world.ts';

// A name can be 4096 bytes long, but a tree can be deeper than that. Whoever removes it by names takes minutes or fails.
test.skipIf(skipOrFail(missingWorld()))('a container cannot make a tree that is not removed', async () => {
  await using world = await createWorld();
  await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
  const before = await world.snapshot();
  // Bun's own removal takes two minutes for that many levels.
  const script = `p=$(printf 'd/%.0s' $(seq 1800)); mkdir /x
    for part in 1 2 3 4 5 6; do mkdir -p /y/$p && mv /x /y/\${p}x && mv /y /x || exit; done; echo made`;
  const deep = await world.run(['run', '--name', 'deep', '--network', 'none', 'busybox', 'sh', '-c', script]);
  expect(deep).toMatchObject({ code: 0, stdout: 'made\n' });
  expect(await world.run(['rm', 'deep'])).toMatchObject({ code: 0, stderr: '' });
  expect(fs.readdirSync(path.join(world.root, 'containers'))).toEqual([]);
  await expectNoLeak(before, world);
});
