import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

describe.skipIf(skipOrFail(missingWorld()))('diff', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    // Two layers over that of busybox.
    await world.sh(`
      minirun run --name one --network none busybox sh -c 'mkdir -p /d/sub /e; echo 1 >/d/one; echo 1 >/d/two; echo 1 >/e/kept; ln -s / /link'
      minirun commit one layered:1 >/dev/null; minirun rm one
      minirun run --name two --network none layered:1 rm /d/two
      minirun commit two layered:2 >/dev/null; minirun rm two`);
    before = await world.snapshot();
  }, 30_000);
  afterAll(async () => {
    await world.run(['rm', '-f', '-v', '-a']);
    await expectNoLeak(before, world);
    await world.destroy();
  });

  /** What a script changes, when it has ended. */
  async function changed(script: string, ...options: string[]): Promise<string> {
    const name = 'victim';
    await world.run(['run', '--name', name, '--network', 'none', ...options, 'layered:2', 'sh', '-c', script]);
    const { code, stdout, stderr } = await world.run(['diff', name]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    await world.sh(`minirun rm -v ${name}`);
    return stdout;
  }

  test('nothing', async () => {
    expect(await changed('true')).toBe('');
    await world.sh('minirun create --name fresh layered:2 true');
    expect(await world.run(['diff', 'fresh'])).toMatchObject({ code: 0, stdout: '', stderr: '' });
    await world.sh('minirun rm fresh');
  });

  test('added, changed, deleted; with the directories on the way', async () => {
    expect(await changed('echo >>/d/one; echo >/d/sub/new; rm -r /e; mkdir /x; touch /x/y')).toBe(
      'C /d\nC /d/one\nC /d/sub\nA /d/sub/new\nD /e\nA /x\nA /x/y\n',
    );
  });

  test('what a lower layer has deleted is new; what came and went is nothing', async () => {
    expect(await changed('touch /d/two; touch /d/three; rm /d/three')).toBe('C /d\nA /d/two\n');
  });

  test('a directory in place of another, of a file, and the other way round', async () => {
    expect(await changed('rm -r /d; mkdir /d; echo new >/d/one; rm /e/kept; mkdir /e/kept; touch /e/kept/in')).toBe(
      'C /d\nC /d/one\nD /d/sub\nC /e\nC /e/kept\nA /e/kept/in\n',
    );
    expect(await changed('rm -r /d; touch /d')).toBe('C /d\n');
  });

  test('volumes are not its own, owners in a user namespace are', async () => {
    expect(await changed('touch /d/sub/in-volume', '-v', '/d/sub', '--tmpfs', '/e')).toBe('');
    expect(await changed('chown 1:1 /d/one; touch /a', '--userns', 'auto')).toBe('A /a\nC /d\nC /d/one\n');
  });

  test('names with bytes of any kind, on one line each', async () => {
    expect(
      await changed(String.raw`cd /d/sub; touch "$(printf 'a\nb')" "$(printf 'c\033[31m')" "$(printf '\303\274')"`),
    ).toBe('C /d\nC /d/sub\nA /d/sub/a b\nA /d/sub/c?[31m\nA /d/sub/ü\n');
  });

  test('many, and deep', async () => {
    const lines = (await changed('cd /d/sub; i=0; while [ $i -lt 1200 ]; do : >$i; i=$((i+1)); done')).split('\n');
    expect(lines.filter((line) => line.startsWith('A /d/sub/'))).toHaveLength(1200);
    const deep = await changed('cd /d; i=0; while [ $i -lt 300 ]; do mkdir -p sub/s; cd sub; i=$((i+1)); done');
    expect(deep).toContain(`A /d${'/sub'.repeat(300)}/s\n`);
  });

  test('links of a hostile container lead nowhere, also while it changes them', async () => {
    const script = 'cd /d; : >/ready; while :; do rmdir in; ln -s / in; rm in; mkdir in; done 2>/dev/null';
    await world.run(['run', '-d', '--name', 'evil', '--network', 'none', 'layered:2', 'sh', '-c', script]);
    await world.sh('until minirun diff evil | grep -q ready; do :; done');
    for (let tries = 0; tries < 30; tries++) {
      const { stdout, stderr } = await world.run(['diff', 'evil']);
      expect(stderr).toBe('');
      expect(stdout.replace('A /d/in\n', '')).toBe('C /d\nA /ready\n');
    }
    await world.sh('minirun rm -f evil');
  });

  test('what vanishes while it is read fails neither commit nor export nor cp', async () => {
    const script = 'cd /d; : >/ready; while :; do mkdir a b c; : >a/f; rm -r a b c; done';
    await world.run(['run', '-d', '--name', 'busy', '--network', 'none', 'layered:2', 'sh', '-c', script]);
    await world.sh('until minirun diff busy | grep -q ready; do :; done');
    await world.sh(`
      for i in $(seq 25); do
        minirun commit busy busy:1 >/dev/null; minirun rmi busy:1 >/dev/null
        minirun export busy >/dev/null; minirun cp busy:/d - >/dev/null
      done`);
    await world.sh('minirun rm -f busy');
  }, 30_000);

  test('of a directory there is nothing to compare; of no container neither', async () => {
    await world.sh(`
      mkdir rootfs; minirun create --name packed --network none busybox true
      minirun export packed | tar -x -C rootfs; minirun rm packed
      minirun create --name plain --network none --rootfs rootfs true`);
    const refused = await world.run(['diff', 'plain']);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^minirun: cannot tell what container "plain" has changed: [^\n]*--rootfs[^\n]*\n$/);
    await world.sh('minirun rm plain');
    expect(await world.run(['diff', 'nobody'])).toMatchObject({ code: 1, stdout: '' });
  });
});
