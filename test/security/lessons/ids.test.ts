import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

// A uid that does not fit became 0; groups of the runtime's own process stayed with the container's.
describe.skipIf(skipOrFail(missingWorld()))('CVE-2024-40635, CVE-2023-25173: ids and groups', () => {
  let world: World;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '-d', '--name', 'box', '--network', 'none', 'busybox', 'sleep', '1000']);
    const evil = `printf 'big:x:4294967296:0::/:\\nneg:x:-1:0::/:\\nnone:x::0::/:\\nweb:x:1000:1000::/:\\n' >>/etc/passwd
      printf 'extra:x:44:web\\nbig:x:4294967296:\\n' >>/etc/group`;
    await world.run(['run', '--name', 'evil', '--network', 'none', 'busybox', 'sh', '-c', evil]);
    await world.run(['commit', 'evil', 'evil']);
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-a']);
    await world.destroy();
  });

  const asUser = async (user: string) =>
    world.run(['run', '--rm', '--network', 'none', '-u', ...user.split(' '), 'evil', 'id']);

  test.each([
    '2147483648',
    '4294967295',
    '4294967296',
    '1:4294967296',
    '-1',
    'nobody-here',
    '0:nobody-here',
    'big',
    'neg',
    'none',
    'web:big',
    '0 --group-add 4294967296',
    '0 --group-add -1',
    '0 --group-add nobody-here',
    '0 --group-add big',
  ])('-u %s is refused', async (user) => {
    const { code, stdout, stderr } = await asUser(user);
    expect(stdout).toBe('');
    expect(code).toBe(125);
    expect(stderr).toMatch(/^minirun: [^\n]+\n$/);
  });

  test('the groups are the user’s, and none of the caller’s', async () => {
    const call = `setpriv --groups 0,4,27,999 minirun run --rm --network none -u web evil id -G`;
    expect((await world.sh(call)).trim().split(' ').sort()).toEqual(['1000', '44']);
    const numeric = `setpriv --groups 0,4,27,999 minirun run --rm --network none -u 1234:55 evil id -G`;
    expect(await world.sh(numeric)).toBe('55\n');
    const added = 'minirun run --rm --network none -u 1234:55 --group-add 44 --group-add 7 evil id -G';
    expect((await world.sh(added)).trim().split(' ').sort()).toEqual(['44', '55', '7']);
    const exec = `setpriv --groups 0,4,27,999 minirun exec -u 1234:55 box id -G`;
    expect(await world.sh(exec)).toBe('55\n');
  });
});
