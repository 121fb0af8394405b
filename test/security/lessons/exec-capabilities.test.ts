import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

// Inheritable capabilities let a user's program that has file capabilities gain what the user was never given.
describe.skipIf(skipOrFail(missingWorld()))('CVE-2022-29162: exec sets no inheritable capabilities', () => {
  let world: World;

  beforeAll(async () => {
    world = await createWorld();
    await world.run([
      'run',
      '-d',
      '--name',
      'box',
      '--network',
      'none',
      '--cap-add',
      'ALL',
      'busybox',
      'sleep',
      '1000',
    ]);
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-a']);
    await world.destroy();
  });

  for (const options of [[], ['-u', '1000'], ['--privileged'], ['--privileged', '-u', '1000']]) {
    test(['exec', ...options].join(' '), async () => {
      const { stdout } = await world.run([
        'exec',
        ...options,
        'box',
        'grep',
        '-E',
        'Cap(Inh|Amb)',
        '/proc/self/status',
      ]);
      expect(stdout).toBe('CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n');
    });
  }

  test('run --cap-add as a user', async () => {
    const words = ['run', '--rm', '--network', 'none', '--cap-add', 'NET_ADMIN', '-u', '1000', 'busybox'];
    const { stdout } = await world.run([...words, 'grep', '-E', 'Cap(Inh|Amb|Eff)', '/proc/self/status']);
    expect(stdout).toBe('CapInh:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n');
  });
});
