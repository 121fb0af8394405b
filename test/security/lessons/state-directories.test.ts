import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { missingTool, missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

// Users of the host ran setuid programs out of images that lay where everybody could get.
describe.skipIf(skipOrFail(missingWorld() ?? missingTool('setpriv')))(
  'CVE-2021-41091: state directories are for root alone',
  () => {
    let world: World;

    beforeAll(async () => {
      world = await createWorld();
      // The world's own directory is closed to others; what is to be tested is minirun's.
      await world.sh('chmod 755 .');
      const setuid = 'cp /bin/busybox /setuid; chmod 4755 /setuid; sleep 1000';
      const words = `run -d --name box -v /data busybox sh -c '${setuid}'`;
      // With a mask that takes nothing away, modes are those that minirun gives.
      await world.sh(
        `umask 0; minirun network create lab; minirun ${words}; minirun run -d --network lab busybox sleep 1000`,
      );
    });
    afterAll(async () => {
      await world.run(['rm', '-f', '-a']);
      await world.destroy();
    });

    test('a user of the host gets at nothing in them', async () => {
      const others = 'setpriv --reuid 1000 --regid 1000 --clear-groups';
      const { stdout, stderr } = await world.host.run(['sh', '-c', `${others} find ${world.root} -mindepth 1`]);
      expect(stdout).toBe('');
      expect(stderr).toContain('Permission denied');
      const found = await world.sh(`find ${world.root} -name setuid -perm -4000`);
      expect(found.trim().split('\n')).toHaveLength(1);
      // By way of a shell: setpriv itself keeps its capabilities until it has executed something.
      const run = await world.host.run(['sh', '-c', `${others} sh -c '${found.trim()} busybox id'`]);
      expect(run).toMatchObject({ stdout: '' });
      expect(run.stderr).toContain('Permission denied');
    });

    test('no file of the state is for others to read or write; what dnsmasq reads they cannot change', async () => {
      expect(await world.sh('find /run/minirun ! -type l -perm /022')).toBe('');
      expect(await world.sh(`find ${world.root} -maxdepth 1 -type d -perm /077`)).toBe('');
      expect(await world.sh(`find ${world.root} /run/minirun -name '*.json' -perm /077`)).toBe('');
    });
  },
);
