import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import path from 'node:path';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { expectTranscript, inLab } from '../support/transcript.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

const directory = path.join(import.meta.dir, '../../docs/demos');

describe.skipIf(skipOrFail(missingWorld() ?? missingTool('bird', 'nginx')))('labs with real network software', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    for (const image of ['busybox', 'nettools']) await world.run(['run', '--rm', '--network', 'none', image, 'true']);
    // The file of published ports stays, empty.
    await world.sh('minirun network create n; minirun run --rm --network n -p 80 busybox true; minirun network rm n');
    before = await world.snapshot();
  });
  afterAll(async () => world.destroy());

  const lab = async (name: string) => {
    const result = await world.host.run(inLab(['sh', path.join(directory, `${name}.sh`)]), { timeout: 50_000 });
    expect({ code: result.code, errors: result.stderr }, result.stdout).toEqual({ code: 0, errors: '' });
    await expectNoLeak(before, world);
    expectTranscript(path.join(directory, `${name}.out`), result.stdout);
    return result.stdout;
  };

  test('BIRD finds another way when a link is cut', async () => {
    const [direct = '', around = ''] = (await lab('lab-ospf')).split('is cut');
    const hops = (text: string) => [...text.matchAll(/^\d +\S+ +(\w+:\w+)/gm)].map((match) => match[1]);
    expect(hops(direct)).toEqual(['r1:lan', 'r3:eth2', 'pc3:eth0']);
    expect(hops(around)).toEqual(['r1:lan', 'r2:eth1', 'r3:eth1', 'pc3:eth0']);
  });

  test('nginx answers behind a published port, under load from a container', async () => {
    expect(await lab('nginx')).toContain('    500 hello ');
  });
});
