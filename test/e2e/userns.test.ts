import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { librariesOf } from '../support/posture.ts';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, internetAddress, minirun, type Snapshot, type World } from '../support/world.ts';

interface Shown {
  State: { Pid: number };
  HostConfig: { UsernsMode: string; IDMappings?: { UidMap: string[]; GidMap: string[] } };
}

/** Containers whose root is nobody on the host. */
describe.skipIf(skipOrFail(missingWorld() ?? missingTool('tcpdump', 'ping')))('user namespaces', () => {
  let world: World;
  let before: Snapshot;
  let volume: string;

  beforeAll(async () => {
    world = await createWorld();
    await world.sh('minirun run --rm --network none busybox true');
    volume = path.join(world.directory, 'volume');
    fs.mkdirSync(path.join(volume, 'inner'), { recursive: true });
    fs.writeFileSync(path.join(volume, 'file'), 'of 1000\n');
    fs.chownSync(path.join(volume, 'file'), 1000, 1000);
    before = await world.snapshot();
  });
  afterEach(async () => {
    await world.sh('minirun rm -f -v -a >/dev/null');
    await expectNoLeak(before, world, { timeout: 15_000 });
  });
  afterAll(async () => {
    await world?.destroy();
  });

  const run = async (options: string, script: string) => {
    const { code, stdout, stderr } = await world.run([
      'run',
      '--rm',
      ...options.split(' ').filter(Boolean),
      'busybox',
      'sh',
      '-c',
      script,
    ]);
    return { code, stdout, stderr };
  };
  const start = async (name: string, options: string, command = 'exec sleep 1000') => {
    const result = await world.run([
      'run',
      '-d',
      '--name',
      name,
      ...options.split(' '),
      'busybox',
      'sh',
      '-c',
      command,
    ]);
    expect({ name, code: result.code, stderr: result.stderr }).toEqual({ name, code: 0, stderr: '' });
  };
  const exec = async (name: string, script: string) => (await world.run(['exec', name, 'sh', '-c', script])).stdout;
  const shown = async (name: string) => (JSON.parse((await world.run(['inspect', name])).stdout) as [Shown])[0];
  const ownerOf = (file: string) => {
    const { uid, gid } = fs.lstatSync(file);
    return `${uid}:${gid}`;
  };
  const idsFile = () => path.join(world.root, 'ids.json');

  test('its root is somebody else on the host, and what it writes is root’s on disk', async () => {
    await start('web', '--userns auto', 'echo said >/dev/stdout; exec sleep 1000');
    const { State, HostConfig } = await shown('web');
    const map = HostConfig.IDMappings?.UidMap[0] ?? '';
    const [, first, size] = map.split(':').map(Number);
    expect(HostConfig.UsernsMode).toBe('auto');
    expect(size).toBe(65536);
    expect(first).toBeGreaterThanOrEqual(0x78000000);
    const status = fs.readFileSync(world.host.path(`/proc/${State.Pid}/status`), 'latin1');
    expect(/^Uid:\s+(\d+)/m.exec(status)?.[1]).toBe(String(first));
    expect((await exec('web', 'cat /proc/self/uid_map')).trim().split(/\s+/).map(Number)).toEqual([
      0,
      first as number,
      65536,
    ]);
    expect(await exec('web', 'id -u; echo x >/x; chown 5:6 /x; stat -c %u:%g / /x /dev/null /etc/hosts')).toBe(
      '0\n0:0\n5:6\n0:0\n0:0\n',
    );
    const [id] = fs.readdirSync(path.join(world.root, 'containers'));
    expect(ownerOf(path.join(world.root, 'containers', id as string, 'upper/x'))).toBe('5:6');
    expect(await world.sh('minirun logs web')).toBe('said\n');
    // A second one has other ids, and the first keeps its own while it is at rest.
    await start('other', '--userns auto --network none');
    expect((await shown('other')).HostConfig.IDMappings?.UidMap).not.toEqual([map]);
    await world.sh('minirun stop -t 0 web; minirun start web');
    expect((await shown('web')).HostConfig.IDMappings?.UidMap).toEqual([map]);
    expect(await exec('web', 'stat -c %u:%g /x')).toBe('5:6\n');
    await world.sh('minirun rm -f web other');
    expect(fs.existsSync(idsFile())).toBe(false);
  });

  test('cp, export, commit and a terminal are as without', async () => {
    await start('web', '--userns auto --network none');
    await exec('web', 'mkdir /d; echo in >/d/f; chown -R 7:8 /d');
    await world.sh(`echo out >${world.directory}/out; minirun cp -q ${world.directory}/out web:/d/out`);
    expect(await exec('web', 'stat -c "%u:%g %n" /d/*')).toBe('7:8 /d/f\n0:0 /d/out\n');
    await world.sh(`minirun cp -q -a web:/d ${world.directory}/copied`);
    expect(ownerOf(path.join(world.directory, 'copied/f'))).toBe('7:8');
    const listed = await world.sh(
      'minirun export web | tar --numeric-owner -tv d/f d/out ./d/f ./d/out 2>/dev/null || :',
    );
    expect(listed.match(/\d+\/\d+/g)).toEqual(['7/8', '0/0']);
    await world.sh('minirun commit web kept >/dev/null; minirun stop -t 0 web');
    // At rest, too: nothing on disk is otherwise than it would be without.
    await world.sh(`minirun cp -q ${world.directory}/out web:/d/rest`);
    const kept = await world.run(['run', '--rm', '--network', 'none', 'kept', 'stat', '-c', '%u:%g', '/d/f', '/d/out']);
    expect(kept.stdout).toBe('7:8\n0:0\n');
    await world.sh('minirun start web');
    expect(await exec('web', 'stat -c %u:%g /d/rest')).toBe('0:0\n');
    const look = 'echo $(tty) $(stat -c %u:%g /dev/pts/0) $(test -w /dev/console && echo console)';
    const words = `run --rm -t --userns auto --network none busybox sh -c`.split(' ');
    const terminal = await world.spawn([...words, look], { tty: true });
    expect((await terminal.exit).code).toBe(0);
    expect(terminal.output().replaceAll('\r', '')).toBe('/dev/pts/0 0:5 console\n');
    await world.sh(`minirun rm -f web; minirun rmi kept >/dev/null; rm -r ${world.directory}/copied`);
  });

  test('capabilities are for its own namespaces, and what came from outside is locked', async () => {
    const volumes = `-v ${volume}:/v -v ${volume}:/ro:ro`;
    const admin = await run(
      `--userns auto --cap-add SYS_ADMIN --cap-add NET_ADMIN ${volumes}`,
      `mount -t tmpfs none /mnt && touch /mnt/x && echo mounted
       ip link set eth0 mtu 1400 && cat /sys/class/net/eth0/mtu
       ping -q -c 1 -W 2 ${internetAddress} >/dev/null && echo pinged
       hostname changed && hostname
       mount -o remount,rw,bind /ro || touch /ro/x || echo read-only
       mount -o remount,dev,bind / || echo nodev
       mknod /disk b 254 0 || echo no device
       echo 1 >/proc/sys/kernel/panic || echo no sysctl of the host`,
    );
    expect(admin).toMatchObject({
      code: 0,
      stdout: 'mounted\n1400\npinged\nchanged\nread-only\nnodev\nno device\nno sysctl of the host\n',
    });
    const settings = await run(
      '--userns auto --sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=4096 --network none',
      'cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ping_group_range /proc/sys/kernel/msgmax',
    );
    expect(settings).toEqual({ code: 0, stdout: '1\n0\t65535\n4096\n', stderr: '' });
    const all = await run(
      '--userns auto --privileged --network none',
      'mount -t proc none /mnt; ls -d /mnt/1; dmesg -n 4 2>/dev/null || echo no',
    );
    expect(all.stdout).toBe('/mnt/1\nno\n');
    const host = await run(
      '--userns auto --network host',
      'ls /sys/class/net/lo >/dev/null && echo seen; ip link set lo down || echo no',
    );
    expect(host.stdout).toBe('seen\nno\n');
  });

  test('files of the host keep their owners, seen from inside, too', async () => {
    const write = 'stat -c %u:%g /v/file; touch /v/new; chown 33:34 /v/new';
    expect(await run(`--userns auto --network none -v ${volume}:/v`, write)).toEqual({
      code: 0,
      stdout: '1000:1000\n',
      stderr: '',
    });
    expect(ownerOf(path.join(volume, 'new'))).toBe('33:34');
    fs.rmSync(path.join(volume, 'new'));
    // A volume of the image's content.
    const copied =
      'stat -c %u:%g /etc/passwd /var/spool/x 2>/dev/null; touch /bin/new && ls /bin/busybox >/dev/null && echo copied';
    expect((await run('--userns auto --network none -v /bin', copied)).stdout).toContain('copied\n');
    // A file system that cannot map owners.
    await world.sh(
      `mkdir ${world.directory}/plain; mount -t ramfs none ${world.directory}/plain; echo x >${world.directory}/plain/x`,
    );
    const plain = await run(
      `--userns auto --network none -v ${world.directory}/plain:/v`,
      'stat -c %u /v; cat /v/x; touch /v/y || echo no',
    );
    await world.sh(`umount ${world.directory}/plain; rmdir ${world.directory}/plain`);
    expect(plain).toMatchObject({ code: 0, stdout: '65534\nx\nno\n' });
    expect(plain.stderr).toMatch(
      /^minirun: warning: .*plain keeps the owners it has on the host, .* no idmapped mounts/,
    );
    // A root filesystem as it is.
    await world.sh(
      `mkdir -p ${world.directory}/root/bin; cp $(command -v busybox) ${world.directory}/root/bin/busybox; chown 3:4 ${world.directory}/root/bin`,
    );
    const rootfs = await world.run(
      `run --rm --userns auto --network none --rootfs ${world.directory}/root /bin/busybox stat -c %u:%g /bin /`.split(
        ' ',
      ),
    );
    expect(rootfs).toMatchObject({ code: 0, stdout: '3:4\n0:0\n' });
    await world.sh(`rm -r ${world.directory}/root`);
  });

  test('where nothing can map owners, the files are given to its ids, and what that costs is said', async () => {
    const env = { MINIRUN_FAULT: 'no-idmap' };
    const words = 'run --name given --userns auto --network none -v /vol busybox sh -c'.split(' ');
    const look = 'stat -c %u:%g / /bin/sh /etc/hosts /vol; touch /vol/x; echo x >/new; chown 5:6 /new; chmod 4755 /new';
    const first = await world.run([...words, look], { env });
    expect(first).toMatchObject({ code: 0, stdout: '0:0\n0:0\n0:0\n0:0\n' });
    expect(first.stderr).toMatch(
      /^minirun: warning: copied all \d+ files of the image \(\d+\.\d MB\) into the container, so that they belong/,
    );
    const [id] = fs.readdirSync(path.join(world.root, 'containers'));
    const upper = path.join(world.root, 'containers', id as string, 'upper');
    const { uid } = fs.statSync(path.join(upper, 'bin'));
    expect(uid).toBeGreaterThanOrEqual(0x78000000);
    expect(ownerOf(path.join(upper, 'new'))).toBe(`${uid + 5}:${uid + 6}`);
    // From outside it is as if they belonged to whom they belong to inside.
    await world.sh(
      `echo y >${world.directory}/y; minirun cp -q ${world.directory}/y given:/y; minirun cp -q -a given:/new ${world.directory}/new; minirun commit given kept >/dev/null`,
    );
    expect([ownerOf(path.join(upper, 'y')), ownerOf(path.join(world.directory, 'new'))]).toEqual([
      `${uid}:${uid}`,
      '5:6',
    ]);
    expect(await world.sh('minirun export given | tar --numeric-owner -tv new y 2>/dev/null || :')).toMatch(
      /^-rwsr-xr-x 5\/6 .* new\n.* 0\/0 .* y\n$/,
    );
    const kept = await world.run('run --rm --network none kept stat -c %u:%g:%a /new /bin/sh'.split(' '));
    expect(kept.stdout).toMatch(/^5:6:4755\n0:0:/);
    // It stays so, and is said once.
    expect(await world.run(['start', '-a', 'given'], { env })).toMatchObject({ code: 0, stderr: '' });
    await world.sh(
      `rm ${world.directory}/y ${world.directory}/new; minirun rm -v given >/dev/null; minirun rmi kept >/dev/null`,
    );
  });

  test('networks, links and looking at packets', async () => {
    await world.sh('minirun network create --subnet 10.61.0.0/24 --subnet fd00:61::/64 lab >/dev/null');
    await start('aa', '--userns auto --router', `exec ping -q ${internetAddress} >/dev/null`);
    await start('bb', '--userns auto --network none --cap-add NET_ADMIN');
    await world.sh(
      'minirun network connect lab aa; minirun link add aa:eth9 bb:eth9 --addr 10.62.0.1/24 --peer-addr 10.62.0.2/24 >/dev/null',
    );
    expect(await exec('aa', 'ping -q -c 1 -W 2 10.61.0.1 >/dev/null && echo lab')).toBe('lab\n');
    expect(
      await exec('bb', 'ping -q -c 1 -W 2 10.62.0.1 >/dev/null && ip route add default via 10.62.0.1 && echo link'),
    ).toBe('link\n');
    expect(await world.sh('timeout 20 minirun capture -c 1 aa:any icmp 2>/dev/null')).toContain('ICMP');
    // Who shares the network shares the user namespace, for it belongs to that.
    const joined = await run(
      '--network container:bb',
      'cat /proc/self/uid_map; ping -q -c 1 -W 2 10.62.0.1 >/dev/null && ls /sys/class/net',
    );
    expect(joined.stdout).toBe(`${await exec('bb', 'cat /proc/self/uid_map')}${await exec('bb', 'ls /sys/class/net')}`);
    await start('cc', '--network none');
    const refused = await world.run('run --rm --userns auto --network container:cc busybox true'.split(' '));
    expect(refused).toMatchObject({ code: 125 });
    expect(refused.stderr).toMatch(
      /--userns auto does not go with --network container:cc: that container is in the user namespace of the host/,
    );
    await world.sh('minirun rm -f -a >/dev/null; minirun network rm lab >/dev/null');
  });

  test('as many ids as were asked for', async () => {
    expect((await run('--userns 100 --network none', 'awk "{print \\$3}" /proc/self/uid_map')).stdout).toBe('100\n');
    expect((await run('--userns auto:size=100 --network none -u 100', 'true')).stderr).toContain(
      'cannot run as user 100',
    );
    for (const wrong of ['5', 'keep-id', '99999999999', '']) {
      const { code, stderr } = await world.run(['run', '--rm', `--userns=${wrong}`, 'busybox', 'true']);
      expect({ code, stderr }).toEqual({
        code: 125,
        stderr: expect.stringMatching(/^minirun: invalid --userns "[^\n]*\n$/),
      });
    }
    expect((await run('--userns host --network none', 'awk "{print \\$3}" /proc/self/uid_map')).stdout).toBe(
      '4294967295\n',
    );
  });

  // CVE-2019-5736, where the container's root has no read-only mount to fear but rights that end at its own files.
  test('it cannot change minirun’s binary, nor go where that lies', async () => {
    const directory = path.join(world.directory, 'private');
    const binary = path.join(directory, 'minirun-copy');
    fs.mkdirSync(directory, { mode: 0o700 });
    fs.copyFileSync(minirun, binary);
    fs.chmodSync(binary, 0o755);
    fs.writeFileSync(path.join(volume, 'evil'), '#!/proc/self/exe run\n', { mode: 0o755 });
    const wait = ['-e', 'LD_DEBUG=all', '-e', 'LD_DEBUG_OUTPUT=/wait'];
    const options = [
      '--network',
      'none',
      '--privileged',
      '--userns',
      'auto',
      '-v',
      `${volume}:/evil`,
      ...librariesOf(binary),
    ];
    const prepare = `seq 1 50 | sed 's,^,/wait.,' | xargs mkfifo`;
    const attempt = `for p in /proc/[0-9]*; do
        case $(readlink $p/exe) in */minirun*) (echo x >>$p/exe) 2>&1; chmod 777 $p/exe 2>&1; touch /done ;; esac
      done`;
    const started = await world.host.run([
      binary,
      'run',
      '-d',
      '--name',
      'hostile',
      ...options,
      'busybox',
      'sh',
      '-c',
      `${prepare}; touch /ready; until [ -e /done ]; do ${attempt}; done; sleep 1000`,
    ]);
    expect(started).toMatchObject({ code: 0, stderr: '' });
    while ((await world.host.run([binary, 'exec', 'hostile', 'test', '-e', '/ready'])).code !== 0);
    const victim = world.host.run([binary, 'exec', ...wait, 'hostile', '/evil/evil']);
    const said = await world.spawn(['logs', '-f', 'hostile']);
    await said.waitFor('Operation not permitted\n');
    said.kill();
    await said.exit;
    expect(said.output()).toMatch(/^.*Permission denied\n.*Operation not permitted\n/);
    await world.sh('minirun rm -f hostile');
    await victim;
    expect(await world.sh(`cmp ${binary} ${minirun} && stat -c %a ${binary}`)).toBe('755\n');
    fs.rmSync(directory, { recursive: true });
    fs.rmSync(path.join(volume, 'evil'));
  });
});
