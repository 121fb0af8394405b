import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, type World } from '../support/world.ts';

describe.skipIf(skipOrFail(missingWorld()))('the directory in which minirun is called', () => {
  let world: World;

  beforeAll(async () => {
    world = await createWorld();
  });
  afterAll(async () => {
    await world.destroy();
  });

  test('has no say: neither its .env nor its bunfig.toml is read', async () => {
    const hostile = path.join(world.directory, 'hostile');
    fs.mkdirSync(hostile);
    const elsewhere = path.join(world.directory, 'elsewhere');
    fs.writeFileSync(path.join(hostile, '.env'), `MINIRUN_ROOT=${elsewhere}\nMINIRUN_FAULT=fail:1\n`);
    fs.writeFileSync(path.join(hostile, 'bunfig.toml'), 'preload = ["./preload.ts"]\n');
    fs.writeFileSync(path.join(hostile, 'preload.ts'), `await Bun.write('${elsewhere}', 'loaded');\n`);
    // Without MINIRUN_ROOT in the environment, where a .env would not override it.
    const script = `cd ${hostile} && env -u MINIRUN_ROOT minirun --root ${world.root} run --rm --network none busybox echo fine`;
    expect(await world.sh(script)).toBe('fine\n');
    expect(fs.existsSync(elsewhere)).toBe(false);
  });

  test('no variable of the caller reaches the container', async () => {
    const { stdout } = await world.run(['run', '--rm', '--network', 'none', 'busybox', 'env'], {
      env: { SECRET_TOKEN: 'hunter2', BUN_OPTIONS: '', MINIRUN_INIT: '1' },
    });
    expect(stdout).not.toContain('hunter2');
    expect(stdout).not.toContain('MINIRUN');
  });
});
