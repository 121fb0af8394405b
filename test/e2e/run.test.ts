import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import {
  createWorld,
  expectNoLeak,
  type Result,
  type RunOptions,
  type Snapshot,
  type World,
} from '../support/world.ts';

describe.skipIf(skipOrFail(missingWorld()))('run', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    // The image is made at first use; that belongs to no test.
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    before = await world.snapshot();
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-a']);
    await expectNoLeak(before, world);
    await world.destroy();
  });

  /** Runs a shell script in a container that is removed at its end. */
  const run = async (flags: readonly string[], script: string, options?: RunOptions): Promise<Result> =>
    world.run(['run', '--rm', ...flags, 'busybox', 'sh', '-c', script], options);
  /** Its output; fails unless the script succeeds and stderr is empty. */
  const outputOf = async (flags: readonly string[], script: string, options?: RunOptions): Promise<string> => {
    const { code, stdout, stderr } = await run(flags, script, options);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return stdout;
  };
  const onlyNet = ['--network', 'none'];
  const file = (name: string, content: string): string => {
    const place = path.join(world.directory, name);
    fs.writeFileSync(place, content);
    return place;
  };

  test('prints what the command prints, and nothing else', async () => {
    const { code, stdout, stderr } = await world.run(['run', '--rm', 'busybox', 'echo', 'hi']);
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'hi\n', stderr: '' });
  });

  describe('inside', () => {
    test('eth0, a default route, a gateway that answers', async () => {
      const output = await outputOf(
        [],
        'ip -o -4 addr show eth0; ip route show default; ping -c 1 -W 2 10.90.0.1 >/dev/null && echo pong',
      );
      expect(output).toMatch(/inet 10\.90\.\d+\.\d+\/16 .*eth0/);
      expect(output).toContain('default via 10.90.0.1 dev eth0');
      expect(output).toContain('pong');
    });

    test('pid 1 is the command; the hostname is the short id', async () => {
      const cidfile = path.join(world.directory, 'id');
      const output = await outputOf(
        [...onlyNet, '--cidfile', cidfile],
        'echo $$; tr "\\0" " " </proc/1/cmdline | cut -c 1-5; hostname; cat /etc/hostname',
      );
      const id = fs.readFileSync(cidfile, 'utf8');
      expect(id).toMatch(/^[0-9a-f]{64}$/);
      const short = id.slice(0, 12);
      expect(output.split('\n').slice(0, 4)).toEqual(['1', 'sh -c', short, short]);
    });

    test('only three descriptors, and that of the listing', async () => {
      const { stdout } = await world.run(['run', '--rm', ...onlyNet, 'busybox', 'ls', '-C', '/proc/self/fd']);
      expect(stdout).toBe('0  1  2  3\n');
    });

    test('docker’s capabilities without MKNOD, a seccomp filter', async () => {
      const output = await outputOf(onlyNet, 'grep -E "^(Cap|Seccomp:|NoNewPrivs)" /proc/self/status');
      for (const line of [
        'CapPrm:\t00000000a00425fb',
        'CapEff:\t00000000a00425fb',
        'CapBnd:\t00000000a00425fb',
        'CapInh:\t0000000000000000',
        'CapAmb:\t0000000000000000',
        'Seccomp:\t2',
        'NoNewPrivs:\t0',
      ]) {
        expect(output).toContain(line);
      }
    });

    test('/proc/sys and /sys are read-only, mount and mknod are refused', async () => {
      const { stdout, stderr } = await run(
        onlyNet,
        'echo 1 >/proc/sys/net/ipv4/ip_forward && echo wrote; mkdir /sys/fs/cgroup/x && echo made; echo x >/sys/kernel/mm/ksm/run && echo wrote; mount -t tmpfs t /mnt && echo mounted; mknod /tmp/d b 7 0 && echo node; echo end',
      );
      expect(stdout).toBe('end\n');
      expect(stderr).toMatch(/Read-only file system[\s\S]*(not permitted|denied)/);
    });

    test('SIGPIPE has its default action, no signal is ignored or blocked', async () => {
      expect(await outputOf(onlyNet, 'yes | head -n 1')).toBe('y\n');
      // Not by way of a shell, which changes some itself.
      const { stdout } = await world.run([
        'run',
        '--rm',
        ...onlyNet,
        'busybox',
        'grep',
        '-E',
        '^Sig(Ign|Blk)',
        '/proc/self/status',
      ]);
      expect(stdout).toBe('SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n');
    });

    test('an ordinary user can open /dev/stdout and /dev/stderr', async () => {
      const { code, stdout, stderr } = await run(
        [...onlyNet, '-u', '1000'],
        'echo out >/dev/stdout; echo err >/dev/stderr',
      );
      expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'out\n', stderr: 'err\n' });
    });
  });

  describe('exit codes', () => {
    const cases: [number, string[]][] = [
      [0, ['true']],
      [1, ['false']],
      [32, ['sh', '-c', 'exit 32']],
      [127, ['/no/such']],
      [127, ['no-such-command']],
      [126, ['/etc']],
      [126, ['/etc/passwd']],
      [137, ['sh', '-c', "sh -c 'kill -9 $$'; exit $?"]],
      [143, ['sh', '-c', "sh -c 'kill $$'; exit $?"]],
    ];
    for (const [wanted, command] of cases) {
      test(`${command.join(' ')}: ${wanted}`, async () => {
        const { code, stderr } = await world.run(['run', '--rm', ...onlyNet, 'busybox', ...command]);
        expect(code).toBe(wanted);
        expect(stderr.split('\n').length).toBeLessThanOrEqual(2);
      });
    }

    test('a container that is killed: 137', async () => {
      const running = await world.spawn([
        'run',
        '--name',
        'victim',
        ...onlyNet,
        'busybox',
        'sh',
        '-c',
        'echo ready; exec sleep 1000',
      ]);
      await running.waitFor('ready');
      expect((await world.run(['kill', 'victim'])).stdout).toBe('victim\n');
      expect((await running.exit).code).toBe(137);
      expect((await world.run(['rm', 'victim'])).code).toBe(0);
    });
  });

  describe('process', () => {
    test('-e and --env-file: of the image, of files, of the command line; of the caller by name only', async () => {
      const list = file('list', '# comment\nA=file\nB=with space\nFROM_HOST\n\n');
      const output = await outputOf(
        [...onlyNet, '-e', 'A=flag', '-e', 'C=x=y', '-e', 'ALSO', '-e', 'ABSENT', '--env-file', list],
        'env | sort',
        {
          env: { FROM_HOST: 'one', ALSO: 'two', SECRET: 'never' },
        },
      );
      for (const line of ['A=flag', 'B=with space', 'C=x=y', 'FROM_HOST=one', 'ALSO=two', 'HOME=/root'])
        expect(output.split('\n')).toContain(line);
      expect(output).toMatch(/^HOSTNAME=[0-9a-f]{12}$/m);
      expect(output).toMatch(/^PATH=\/usr\/local\/sbin:/m);
      expect(output).not.toMatch(/SECRET|ABSENT|MINIRUN|TERM=/);
    });

    test('-w: entered, and created where it is missing', async () => {
      expect(await outputOf([...onlyNet, '-w', '/a/new/place'], 'pwd')).toBe('/a/new/place\n');
      expect(await outputOf([...onlyNet, '-w', '/etc'], 'pwd')).toBe('/etc\n');
    });

    test('-u: a name, an id, a group, the supplementary groups and HOME', async () => {
      const rootfs = await makeRootfs(world, 'users');
      fs.writeFileSync(
        path.join(rootfs, 'etc/passwd'),
        'root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv/web:/bin/sh\n',
      );
      fs.writeFileSync(path.join(rootfs, 'etc/group'), 'root:x:0:\nweb:x:44:\nextra:x:55:web\nother:x:66:\n');
      const idOf = async (user: string): Promise<string> => {
        const { stdout } = await world.run([
          'run',
          '--rm',
          ...onlyNet,
          '-u',
          user,
          '--rootfs',
          rootfs,
          'sh',
          '-c',
          'echo $(id -u) $(id -g) $(id -G | tr " " "\\n" | sort -n | tr "\\n" ,) $HOME',
        ]);
        return stdout.trim();
      };
      expect(await idOf('web')).toBe('33 44 44,55, /srv/web');
      expect(await idOf('33')).toBe('33 44 44,55, /srv/web');
      expect(await idOf('web:other')).toBe('33 66 66, /srv/web');
      expect(await idOf('1234:66')).toBe('1234 66 66, /');
      expect(await idOf('1234')).toBe('1234 0 0, /');
      expect(await idOf('0:0')).toBe('0 0 0, /root');
    });

    test('an ordinary user has no effective capabilities', async () => {
      expect(await outputOf([...onlyNet, '-u', '1000'], 'grep CapEff /proc/self/status')).toBe(
        'CapEff:\t0000000000000000\n',
      );
    });

    test('--entrypoint, and an empty one', async () => {
      const echo = await world.run(['run', '--rm', ...onlyNet, '--entrypoint', 'echo', 'busybox', 'a', 'b']);
      expect(echo.stdout).toBe('a b\n');
      const none = await world.run(['run', '--rm', ...onlyNet, '--entrypoint', '', 'busybox', 'echo', 'c']);
      expect(none.stdout).toBe('c\n');
    });

    test('-h', async () => {
      expect(await outputOf([...onlyNet, '-h', 'web.example'], 'hostname; cat /etc/hostname; echo $HOSTNAME')).toBe(
        'web.example\nweb.example\nweb.example\n',
      );
    });

    test('--ulimit and --sysctl', async () => {
      expect(
        await outputOf(
          [...onlyNet, '--ulimit', 'nofile=100:200', '--ulimit', 'core=0'],
          'ulimit -n; ulimit -Hn; ulimit -c',
        ),
      ).toBe('100\n200\n0\n');
      expect(await outputOf([], 'ulimit -n')).toBe('1024\n');
      expect(
        await outputOf(
          ['--sysctl', 'net.ipv4.ip_forward=1', '--sysctl', 'kernel.shm_rmid_forced=1'],
          'cd /proc/sys; cat net/ipv4/ip_forward kernel/shm_rmid_forced',
        ),
      ).toBe('1\n1\n');
    });

    test.skipIf(skipOrFail(missingTool('tini-static')))(
      '--init: a tiny init reaps, forwards signals and passes the exit code on',
      async () => {
        const output = await outputOf([...onlyNet, '--init'], 'sed -n "s/^Name:.//p" /proc/1/status; echo $(($$ > 1))');
        expect(output).toBe('minirun-init\n1\n');
        expect((await run([...onlyNet, '--init'], 'exit 5')).code).toBe(5);
        const running = await world.spawn([
          'run',
          '--rm',
          ...onlyNet,
          '--init',
          'busybox',
          'sh',
          '-c',
          'echo ready; exec sleep 1000',
        ]);
        await running.waitFor('ready');
        running.kill('SIGTERM');
        expect((await running.exit).code).toBe(143);
      },
    );
  });

  describe('privileges', () => {
    const bits = async (...flags: string[]): Promise<string> =>
      (await outputOf([...onlyNet, ...flags], 'sed -n "s/^CapEff:.//p" /proc/self/status')).trim();

    test('--cap-add, --cap-drop, ALL', async () => {
      expect(await bits('--cap-drop', 'ALL')).toBe('0000000000000000');
      expect(await bits('--cap-drop', 'all', '--cap-add', 'net_admin')).toBe('0000000000001000');
      expect(await bits('--cap-drop', 'CAP_CHOWN')).toBe('00000000a00425fa');
      expect(await bits('--cap-add', 'NET_ADMIN')).toBe('00000000a00435fb');
      const own = BigInt(`0x${(await world.sh('sed -n "s/^CapEff:.//p" /proc/self/status')).trim()}`);
      expect(BigInt(`0x${await bits('--cap-add', 'ALL')}`)).toBe(own);
    });

    test('--cap-add NET_ADMIN lets it change its network', async () => {
      expect(
        await outputOf(
          ['--cap-add', 'NET_ADMIN'],
          'ip addr add 10.7.7.7/32 dev lo; ip -o addr show dev lo | grep -c 10.7.7.7',
        ),
      ).toBe('1\n');
    });

    test('--privileged: no filter, /sys is writable, mount works', async () => {
      expect(
        await outputOf(
          [...onlyNet, '--privileged'],
          'mount -t tmpfs t /mnt && echo mounted; sed -n "s/^Seccomp:.//p" /proc/self/status; grep " /sys sysfs" /proc/mounts | cut -d " " -f 4 | cut -d , -f 1',
        ),
      ).toBe('mounted\n0\nrw\n');
    });

    test('--security-opt', async () => {
      expect(
        await outputOf(
          [...onlyNet, '--security-opt', 'no-new-privileges'],
          'grep -E "^(NoNewPrivs|Seccomp):" /proc/self/status',
        ),
      ).toBe('NoNewPrivs:\t1\nSeccomp:\t2\n');
      expect(
        await outputOf([...onlyNet, '--security-opt', 'seccomp=unconfined'], 'grep -E "^Seccomp:" /proc/self/status'),
      ).toBe('Seccomp:\t0\n');
    });
  });

  describe('mounts', () => {
    test('-v: read and write, read-only, a file, a relative source', async () => {
      const directory = path.join(world.directory, 'data');
      fs.mkdirSync(directory, { recursive: true });
      fs.writeFileSync(path.join(directory, 'from-host'), 'host\n');
      expect(
        await outputOf([...onlyNet, '-v', `${directory}:/data`], 'cat /data/from-host; echo box >/data/from-box'),
      ).toBe('host\n');
      expect(fs.readFileSync(path.join(directory, 'from-box'), 'utf8')).toBe('box\n');
      const readonly = await run([...onlyNet, '-v', `${directory}:/data:ro`], 'cat /data/from-box; echo x >/data/y');
      expect(readonly.stdout).toBe('box\n');
      expect(readonly.stderr).toContain('Read-only file system');
      expect(await outputOf([...onlyNet, '-v', `${directory}/from-host:/etc/one/file`], 'cat /etc/one/file')).toBe(
        'host\n',
      );
      expect(await outputOf([...onlyNet, '-v', './data:/data'], 'cat /data/from-host', { cwd: world.directory })).toBe(
        'host\n',
      );
    });

    test('--mount: bind and tmpfs', async () => {
      const directory = path.join(world.directory, 'bound');
      fs.mkdirSync(directory, { recursive: true });
      const readonly = await run(
        [...onlyNet, '--mount', `type=bind,source=${directory},target=/data,readonly`],
        'touch /data/x',
      );
      expect(readonly.stderr).toContain('Read-only file system');
      expect(
        await outputOf([...onlyNet, '--mount', `type=bind,src=${directory},dst=/data`], 'touch /data/x; ls /data'),
      ).toBe('x\n');
      expect(
        await outputOf(
          [...onlyNet, '--mount', 'type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700'],
          'stat -c %a /t; df -k /t | tail -n 1 | tr -s " " | cut -d " " -f 2',
        ),
      ).toBe('700\n1024\n');
    });

    test('--tmpfs: docker’s flags, exec on demand', async () => {
      expect(await outputOf([...onlyNet, '--tmpfs', '/t'], 'grep " /t tmpfs" /proc/mounts | cut -d " " -f 4')).toMatch(
        /^rw,nosuid,nodev,noexec/,
      );
      expect(
        await outputOf(
          [...onlyNet, '--tmpfs', '/t:exec,size=64k'],
          'cp /bin/busybox /t 2>/dev/null; grep " /t tmpfs" /proc/mounts | cut -d " " -f 4',
        ),
      ).toMatch(/^rw,nosuid,nodev,relatime,size=64k/);
    });

    test('--read-only: / is, its tmpfs and /dev are not', async () => {
      const { stdout, stderr } = await run(
        [...onlyNet, '--read-only', '--tmpfs', '/tmp'],
        'touch /x || echo refused; touch /tmp/y && echo y; echo z >/dev/shm/z && echo z',
      );
      expect(stdout).toBe('refused\ny\nz\n');
      expect(stderr).toContain('Read-only file system');
    });

    test('--rootfs: the directory itself is the root', async () => {
      const rootfs = await makeRootfs(world, 'tree');
      const { code, stdout, stderr } = await world.run([
        'run',
        '--rm',
        ...onlyNet,
        '--rootfs',
        rootfs,
        'sh',
        '-c',
        'echo here >/mark; ls -d /bin /proc/1',
      ]);
      expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: '/bin\n/proc/1\n', stderr: '' });
      expect(fs.readFileSync(path.join(rootfs, 'mark'), 'utf8')).toBe('here\n');
    });
  });

  describe('names', () => {
    test('--name, --label, --cidfile', async () => {
      const cidfile = path.join(world.directory, 'cid');
      const { stdout } = await world.run([
        'run',
        '-d',
        '--name',
        'web',
        '--label',
        'tier=front',
        '-l',
        'plain',
        '--cidfile',
        cidfile,
        ...onlyNet,
        'busybox',
        'sleep',
        '1000',
      ]);
      expect(stdout).toMatch(/^[0-9a-f]{64}\n$/);
      expect(fs.readFileSync(cidfile, 'utf8')).toBe(stdout.trim());
      expect(
        (await world.run(['ps', '--filter', 'label=tier=front', '--filter', 'label=plain', '--format', '{{.Names}}']))
          .stdout,
      ).toBe('web\n');
      expect(fs.existsSync(world.host.path('/run/netns/web'))).toBe(true);
      await world.run(['rm', '-f', 'web']);
    });

    test('--add-host and --dns', async () => {
      const output = await outputOf(
        [
          ...onlyNet,
          '--add-host',
          'db:10.1.2.3',
          '--dns',
          '192.0.2.53',
          '--dns-search',
          'lab.example',
          '--dns-option',
          'ndots:2',
        ],
        'grep db /etc/hosts; cat /etc/resolv.conf',
      );
      expect(output).toBe('10.1.2.3\tdb\nnameserver 192.0.2.53\nsearch lab.example\noptions ndots:2\n');
    });
  });

  describe('networks', () => {
    test('none: only a loopback interface, which is up', async () => {
      expect(
        await outputOf(onlyNet, 'ls /sys/class/net; ping -c 1 -W 1 127.0.0.1 >/dev/null && echo up; ip route'),
      ).toBe('lo\nup\n');
    });

    test('host: the host’s interfaces and name', async () => {
      const interfaces = 'hostname; ip -o link | cut -d : -f 2 | cut -d @ -f 1';
      const inside = await outputOf(['--network', 'host'], interfaces);
      expect(inside).toBe(await world.sh(interfaces));
    });

    test('container:NAME: its interfaces and localhost', async () => {
      await world.run([
        'run',
        '-d',
        '--name',
        'server',
        'busybox',
        'sh',
        '-c',
        'echo hello >/tmp/index.html; exec httpd -f -h /tmp',
      ]);
      const other = await outputOf(
        ['--network', 'container:server'],
        'until wget -q -O - http://127.0.0.1/ 2>/dev/null; do :; done; ip -o -4 addr show eth0 | grep -c 10.90',
      );
      expect(other).toBe('hello\n1\n');
      await world.run(['rm', '-f', 'server']);
      const { code, stderr } = await run(['--network', 'container:server'], 'true');
      expect({ code, lines: stderr.split('\n').length }).toEqual({ code: 125, lines: 2 });
    });
  });

  describe('signals', () => {
    const script = 'trap "echo got TERM; exit 3" TERM; trap "echo got HUP; exit 4" HUP; echo ready; sleep 1000 & wait';

    test('reach the command', async () => {
      const running = await world.spawn(['run', '--rm', ...onlyNet, 'busybox', 'sh', '-c', script]);
      await running.waitFor('ready');
      running.kill('SIGTERM');
      expect(await running.exit).toMatchObject({ code: 3, stdout: 'ready\ngot TERM\n' });
    });

    test('do not with --sig-proxy=false', async () => {
      const running = await world.spawn([
        'run',
        '--rm',
        '--name',
        'deaf',
        '--sig-proxy=false',
        ...onlyNet,
        'busybox',
        'sh',
        '-c',
        script,
      ]);
      await running.waitFor('ready');
      running.kill('SIGTERM');
      // Had the first arrived, this could not be the one that ends it.
      await world.run(['kill', '-s', 'HUP', 'deaf']);
      expect(await running.exit).toMatchObject({ code: 4 });
    });

    test('--stop-signal', async () => {
      const running = await world.spawn([
        'run',
        '--rm',
        '--name',
        'hup',
        '--stop-signal',
        'HUP',
        ...onlyNet,
        'busybox',
        'sh',
        '-c',
        script,
      ]);
      await running.waitFor('ready');
      expect((await world.run(['stop', 'hup'])).stdout).toBe('hup\n');
      expect(await running.exit).toMatchObject({ code: 4 });
    });
  });
});

/** A directory with a busybox system that a test may change. */
async function makeRootfs(world: World, name: string): Promise<string> {
  const rootfs = path.join(world.directory, name);
  await world.sh(
    `mkdir -p ${rootfs}/bin ${rootfs}/etc; cp $(command -v busybox) ${rootfs}/bin; chroot ${rootfs} /bin/busybox --install -s /bin`,
  );
  return rootfs;
}
