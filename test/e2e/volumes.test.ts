import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Result, type Snapshot, type World } from '../support/world.ts';

describe.skipIf(skipOrFail(missingWorld()))('volumes and mounts', () => {
  let world: World;
  let before: Snapshot;
  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    before = await world.snapshot();
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-v', '-a']);
    await world.run(['volume', 'prune', '-a', '-f']);
    await expectNoLeak(before, world);
    await world.destroy();
  });

  const run = async (...args: readonly string[]): Promise<Result> =>
    world.run(['run', '--rm', '--network', 'none', ...args]);
  /** What it prints; fails unless it exits with 0 and says nothing on stderr. */
  const ok = async (...args: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await world.run(args);
    expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
    return stdout;
  };
  const output = async (...args: readonly string[]): Promise<string> => ok('run', '--rm', '--network', 'none', ...args);
  const volumes = () => fs.readdirSync(path.join(world.root, 'volumes')).sort();
  const data = (name: string) => path.join(world.root, 'volumes', name, '_data');
  const start = async (name: string, ...args: readonly string[]) =>
    ok('run', '-d', '--name', name, '--network', 'none', ...args);

  test('a volume is made by its first use, filled from the image, shared, and stays', async () => {
    const etc = await output('busybox', 'ls', '/etc');
    expect(await output('-v', 'conf:/etc', 'busybox', 'sh', '-c', 'ls /etc; echo mine >/etc/mine')).toBe(etc);
    await start('one', '-v', 'conf:/conf', '-v', '/own', 'busybox', 'sleep', '1000');
    // Not filled again, whatever the image has there.
    expect(await output('-v', 'conf:/bin:ro,nocopy', '--entrypoint', '/bin/mine', 'busybox').catch(() => '')).toBe('');
    expect(await ok('exec', 'one', 'cat', '/conf/mine')).toBe('mine\n');
    expect(await run('-v', 'conf:/conf:ro', 'busybox', 'touch', '/conf/x')).toMatchObject({ code: 1 });
    expect(await output('-v', 'plain:/etc:nocopy', 'busybox', 'ls', '/etc')).toBe('hostname\nhosts\nresolv.conf\n');

    const mounts = JSON.parse(await ok('inspect', '-f', '{{json .Mounts}}', 'one')) as { Name: string }[];
    expect(mounts[0] as object).toEqual({
      Type: 'volume',
      Name: 'conf',
      Source: data('conf'),
      Destination: '/conf',
      Driver: 'local',
      Mode: '',
      RW: true,
      Propagation: '',
    });
    expect(await ok('inspect', '-f', '{{json .HostConfig.Binds}}', 'one')).toBe('["conf:/conf"]\n');
    expect(await ok('ps', '-q', '--no-trunc', '--filter', 'volume=conf')).toMatch(/^[0-9a-f]{64}\n$/);
    expect(await ok('ps', '-q', '--filter', 'volume=plain')).toBe('');
    expect(await ok('volume', 'ls', '-q', '--filter', 'dangling=true')).toBe('plain\n');
    expect(await ok('system', 'df', '--format', '{{.Type}} {{.TotalCount}} {{.Active}}')).toContain(
      'Local Volumes 3 2\n',
    );

    for (const state of ['running', 'at rest']) {
      const { code, stderr } = await world.run(['volume', 'rm', 'conf']);
      expect({ state, code, stderr }).toEqual({
        state,
        code: 1,
        stderr: 'minirun: cannot remove volume "conf": container one has it. Remove that first: minirun rm -f one.\n',
      });
      await ok('stop', '-t', '0', 'one');
    }
    await ok('rm', '-v', 'one');
    expect(volumes()).toEqual(['conf', 'plain']);
    expect(await ok('volume', 'prune', '-f')).toBe('Total reclaimed space: 0B\n');
    expect(await ok('volume', 'rm', 'conf', 'plain')).toBe('conf\nplain\n');
  });

  test('create, ls, inspect, rm and prune are docker’s', async () => {
    expect(await ok('volume', 'create', '--label', 'a=b', 'vol-1')).toBe('vol-1\n');
    expect(await ok('volume', 'create', 'vol-1')).toBe('vol-1\n');
    const unnamed = (await ok('volume', 'create')).trim();
    expect(unnamed).toMatch(/^[0-9a-f]{64}$/);
    expect(await ok('volume', 'ls')).toBe(`DRIVER    VOLUME NAME\nlocal     ${unnamed}\nlocal     vol-1\n`);
    expect(await ok('volume', 'ls', '-q', '-f', 'label=a=b')).toBe('vol-1\n');
    expect(await ok('volume', 'ls', '--format', '{{.Name}} {{.Labels}}', '-f', 'name=^vol')).toBe('vol-1 a=b\n');
    expect(JSON.parse(await ok('volume', 'inspect', 'vol-1'))).toEqual([
      {
        CreatedAt: expect.any(String) as string,
        Driver: 'local',
        Labels: { a: 'b' },
        Mountpoint: data('vol-1'),
        Name: 'vol-1',
        Options: null,
        Scope: 'local',
      },
    ]);
    expect(await ok('inspect', '--type', 'volume', '-f', '{{.Name}}', 'vol-1')).toBe('vol-1\n');
    expect(await ok('volume', 'prune', '-f')).toStartWith(`Deleted Volumes:\n${unnamed}\n\n`);
    expect(await ok('volume', 'prune', '-a', '-f', '--filter', 'label!=a')).not.toContain('vol-1');
    expect(await ok('volume', 'prune', '-a', '-f')).toContain('Deleted Volumes:\nvol-1\n');
    expect(await ok('volume', 'rm', '-f', 'vol-1')).toBe('vol-1\n');
    const refusals: [string[], RegExp][] = [
      [['volume', 'rm', 'vol-1'], /no volume "vol-1"/],
      [['volume', 'rm', '../images'], /is no name of a volume/],
      [['volume', 'create', '-d', 'nfs', 'vol-1'], /no volume driver "nfs"/],
      [['volume', 'create', '-o', 'type=nfs', '-o', 'device=:/x', 'vol-1'], /mounts no nfs .*o=bind/],
      [['volume', 'create', '-o', 'o=bind', '-o', 'device=/no/such', 'vol-1'], /is no directory of this machine/],
      [['run', '--device', '/dev/null:r', 'busybox', 'true'], /no device cgroup/],
      [['run', '--device', '/etc/passwd', 'busybox', 'true'], /it is no device/],
      [['run', '--volumes-from', 'nobody', 'busybox', 'true'], /no container "nobody"/],
      [['run', '-v', `${world.directory}:/x:rshared`, 'busybox', 'true'], /Make it one: mount --make-shared/],
    ];
    for (const [args, message] of refusals) {
      const { code, stderr } = await world.run(args);
      expect({ args, isRefused: code !== 0, stderr }).toEqual({
        args,
        isRefused: true,
        stderr: expect.stringMatching(message) as string,
      });
    }
    expect(volumes()).toEqual([]);
  });

  test('several containers that use a volume for the first time at once find it whole', async () => {
    const count = ['busybox', 'sh', '-c', 'ls /etc | wc -l'];
    const whole = await output(...count);
    await ok('volume', 'create', 'empty');
    for (const name of ['empty', 'fresh']) {
      const all = await Promise.all(Array.from({ length: 4 }, () => output('-v', `${name}:/etc`, ...count)));
      expect(all).toEqual([whole, whole, whole, whole]);
    }
    expect(volumes()).toEqual(['empty', 'fresh']);
    await ok('volume', 'rm', 'empty', 'fresh');
  });

  test('a first use that is cut short at any point leaves no volume, an empty one or a whole one', async () => {
    const create = ['create', '--name', 'cut', '-v', 'used:/etc', 'busybox', 'true'];
    const whole = (await output('busybox', 'ls', '/etc')).trim().split('\n');
    for (const first of [undefined, ['volume', 'create', 'used']]) {
      const killedAt: string[] = [];
      // Before the 9th the container is written down, which test/e2e/crash.test.ts cuts short.
      for (let point = 9, isCut = true; isCut; point++) {
        if (first !== undefined) await ok(...first);
        const { code, stderr } = await world.run(create, { env: { MINIRUN_FAULT: `kill:${point}` } });
        isCut = code !== 0;
        killedAt.push(/killed at (\S+)/.exec(stderr)?.[1] ?? '');
        await world.run(['rm', '-f', 'cut']);
        expect(first === undefined ? [[], ['used']] : [['used']]).toContainEqual(volumes());
        const inside = volumes().length === 0 ? [] : fs.readdirSync(data('used'));
        expect([[], whole]).toContainEqual(inside.sort());
        if (!isCut) expect(inside).toEqual(whole);
        await ok('volume', 'rm', '-f', 'used');
      }
      expect(killedAt).toEqual(
        expect.arrayContaining(['volume.drafted', 'volume.filled', 'volume.published']) as string[],
      );
    }
    for (let point = 1, isCut = true; isCut; point++) {
      await ok('volume', 'create', 'used');
      isCut = (await world.run(['volume', 'rm', 'used'], { env: { MINIRUN_FAULT: `kill:${point}` } })).code !== 0;
      await ok('volume', 'rm', '-f', 'used');
      expect(volumes()).toEqual([]);
    }
  }, 60_000);

  test('--volumes-from: what another container has, also when that is gone', async () => {
    const mine = path.join(world.directory, 'mine');
    await world.sh(`mkdir ${mine}; echo host >${mine}/file`);
    await start('giver', '-v', '/own', '-v', 'given:/given', '-v', `${mine}:/mine`, 'busybox', 'sleep', '1000');
    await ok('exec', 'giver', 'sh', '-c', 'echo own >/own/file; echo given >/given/file');
    const all = 'cat /own/file /given/file /mine/file';
    await start('taker', '--volumes-from', 'giver', 'busybox', 'sleep', '1000');
    const readonly = await output(
      '--volumes-from',
      'giver:ro',
      'busybox',
      'sh',
      '-c',
      `${all}; touch /own/x 2>&1 || :`,
    );
    expect(readonly).toBe('own\ngiven\nhost\ntouch: /own/x: Read-only file system\n');
    expect(await output('--volumes-from', 'giver', '--tmpfs', '/given', 'busybox', 'ls', '/given')).toBe('');
    await ok('rm', '-f', '-v', 'giver');
    expect(await ok('exec', 'taker', 'sh', '-c', all)).toBe('own\ngiven\nhost\n');
    await ok('rm', '-f', '-v', 'taker');
    expect(volumes()).toEqual(['given']);
    await ok('volume', 'rm', 'given');
  });

  test('volumes that are directories of the host, or in memory', async () => {
    const mine = path.join(world.directory, 'bound');
    fs.mkdirSync(mine);
    const options = (type: string, o: string, device: string) => [
      '-o',
      `type=${type}`,
      '-o',
      `o=${o}`,
      '-o',
      `device=${device}`,
    ];
    await ok('volume', 'create', ...options('none', 'bind', mine), 'bound');
    expect(await output('-v', 'bound:/etc', 'busybox', 'sh', '-c', 'echo x >/etc/file')).toBe('');
    expect(fs.readdirSync(mine).sort()).toEqual(['file', 'hostname', 'hosts', 'resolv.conf']);
    await ok('volume', 'rm', 'bound');
    expect(fs.existsSync(path.join(mine, 'file'))).toBe(true);

    await ok('volume', 'create', ...options('tmpfs', 'size=1m,mode=1777', 'tmpfs'), 'memory');
    await start('first', '-v', 'memory:/m', 'busybox', 'sleep', '1000');
    await ok('exec', 'first', 'sh', '-c', 'echo shared >/m/file');
    const second = await output(
      '-v',
      'memory:/n',
      'busybox',
      'sh',
      '-c',
      'cat /n/file; grep -c "/n tmpfs .*size=1024k" /proc/mounts',
    );
    expect(second).toBe('shared\n1\n');
    // Killed with all of its minirun: whoever comes next takes the mount away.
    await ok('kill', 'first');
    await ok('rm', '-f', 'first');
    expect(await output('-v', 'memory:/n', 'busybox', 'ls', '/n')).toBe('');
    expect((await world.snapshot()).mounts).toEqual(before.mounts);
    await ok('volume', 'rm', 'memory');
  });

  test('propagation: slave takes mounts of the host, shared gives it those of the container, private neither', async () => {
    const place = path.join(world.directory, 'shared');
    await world.sh(`mkdir ${place}; mount --bind ${place} ${place}; mount --make-shared ${place}`);
    await start(
      'prop',
      '--privileged',
      '-v',
      `${place}:/slave:rslave`,
      '-v',
      `${place}:/shared:rshared`,
      '-v',
      `${place}:/private`,
      'busybox',
      'sleep',
      '1000',
    );
    await world.sh(`mkdir ${place}/late; mount -t tmpfs late ${place}/late; touch ${place}/late/seen`);
    expect(await ok('exec', '--privileged', 'prop', 'sh', '-c', 'ls /slave/late /shared/late /private/late')).toBe(
      '/private/late:\n\n/shared/late:\nseen\n\n/slave/late:\nseen\n',
    );
    await ok(
      'exec',
      '--privileged',
      'prop',
      'sh',
      '-c',
      'for p in slave shared; do mkdir /$p/in-$p; mount -t tmpfs t /$p/in-$p; touch /$p/in-$p/seen; done',
    );
    expect(await world.sh(`ls ${place}/in-slave ${place}/in-shared`)).toBe(
      `${place}/in-shared:\nseen\n\n${place}/in-slave:\n`,
    );
    await ok('rm', '-f', 'prop');
    await world.sh(`umount ${place}/in-shared ${place}/late ${place}`);
  });

  test('flags of mounts: read-only and without devices to the bottom', async () => {
    const tree = path.join(world.directory, 'tree');
    await world.sh(
      `mkdir -p ${tree}/sub; mount -t tmpfs sub ${tree}/sub; mknod ${tree}/sub/disk b 7 0; chmod 666 ${tree}/sub/disk`,
    );
    const write =
      'for f in /t/x /t/sub/x; do touch $f 2>/dev/null && echo $f; done; rm -f /t/x /t/sub/x 2>/dev/null; :';
    const mount = `type=bind,src=${tree},dst=/t`;
    expect(await output('--mount', `${mount},readonly`, 'busybox', 'sh', '-c', write)).toBe('');
    expect(await output('-v', `${tree}:/t:ro`, 'busybox', 'sh', '-c', write)).toBe('');
    const writable = await output('--mount', `${mount},readonly,bind-recursive=writable`, 'busybox', 'sh', '-c', write);
    expect(writable).toBe('/t/sub/x\n');
    expect(await output('--mount', `${mount},bind-nonrecursive`, 'busybox', 'ls', '/t/sub')).toBe('');
    const open = ['busybox', 'sh', '-c', 'head -c 1 /t/sub/disk 2>&1; grep -c " /t.*nodev" /proc/mounts; :'];
    expect(await output('-v', `${tree}:/t`, ...open)).toMatch(/Permission denied\n2\n$/);
    expect(await output('-v', `${tree}:/t:dev`, ...open)).not.toContain('Permission denied');
    await world.sh(`umount ${tree}/sub`);
  });

  test('--device, --shm-size, --read-only, and /dev/null for everybody', async () => {
    const shown =
      'stat -c "%n %F %t,%T %a" /dev/zero2 /etc/full /dev/null; df -k /dev/shm | tail -n 1 | tr -s " " | cut -d " " -f 2';
    expect(
      await output(
        '--device',
        '/dev/zero:/dev/zero2',
        '--device',
        '/dev/full:/etc/full:rw',
        '--shm-size',
        '8m',
        'busybox',
        'sh',
        '-c',
        `${shown}; head -c 2 /dev/zero2 | wc -c`,
      ),
    ).toBe(
      '/dev/zero2 character special file 1,5 666\n/etc/full character special file 1,7 666\n/dev/null character special file 1,3 666\n8192\n2\n',
    );
    expect(
      await output(
        '-u',
        '1000',
        '--read-only',
        '-v',
        'vol:/v',
        '--tmpfs',
        '/t',
        'busybox',
        'sh',
        '-c',
        'echo x >/dev/null; echo x >/t/x; touch /x 2>/dev/null || echo no',
      ),
    ).toBe('no\n');
    await ok('volume', 'rm', 'vol');
  });
});
