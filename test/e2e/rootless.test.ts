import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { takeSnapshot } from '../support/leaks.ts';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { tar } from '../support/tar-writer.ts';
import { User } from '../support/user.ts';
import {
  createWorld,
  expectNoLeak,
  hostAddress,
  internetAddress,
  type Snapshot,
  type World,
} from '../support/world.ts';

const tools = missingTool('newuidmap', 'pasta', 'slirp4netns');

describe.skipIf(skipOrFail(missingWorld() ?? tools))('without root', () => {
  let world: World;
  let user: User;
  let before: Snapshot;
  /** What is left in the world, and in the user's state directory. */
  const snapshot = { snapshot: () => takeSnapshot(world.host, user.root) };

  beforeAll(async () => {
    world = await createWorld();
    user = await User.create(world);
    // The first command of a user on a fresh machine.
    await minirun('run', '--rm', '-p', '8080:80', 'busybox', 'true');
    await minirun('system', 'reconcile');
    before = await snapshot.snapshot();
  });
  afterAll(async () => {
    await world.destroy();
  });
  afterEach(async () => {
    await user.run(['system', 'reconcile']);
    try {
      await expectNoLeak(before, snapshot);
    } catch (error) {
      // One that fails is not to fail those after it.
      await user.sh('minirun rm -f -a');
      throw error;
    }
    expect(fs.readdirSync(path.join(user.root, 'machine')).toSorted()).toEqual(['life.lock', 'making.lock', 'run']);
  });

  /** Runs minirun as the user and fails unless it succeeds without a word of complaint. */
  const minirun = async (...args: string[]) => {
    const { code, stdout, stderr } = await user.run(args);
    expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
    return stdout;
  };
  const status = (text: string, field: string) => new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(text)?.[1];
  const holder = () =>
    (JSON.parse(fs.readFileSync(path.join(user.root, 'machine/machine.json'), 'utf8')) as { holder: { pid: number } })
      .holder.pid;

  test('the user is root inside, and has no capability outside', async () => {
    const outside = await user.sh('cat /proc/self/status');
    expect([status(outside, 'Uid'), status(outside, 'CapEff'), status(outside, 'CapPrm')]).toEqual([
      '31415\t31415\t31415\t31415',
      '0000000000000000',
      '0000000000000000',
    ]);
    await minirun('run', '-d', '--name', 'one', '--network', 'none', 'busybox', 'sleep', '1000');
    const inside = await minirun('exec', 'one', 'sh', '-c', 'id -u; cat /proc/self/uid_map; touch /made; ls -ln /made');
    expect(inside.replace(/ +/g, ' ')).toMatch(/^0\n 0 31415 1\n 1 1000000000 65536\n-rw-r--r-- 1 0 0 0 .* \/made\n$/);
    // As root of the real machine sees it.
    const [state] = JSON.parse(await minirun('inspect', 'one')) as [{ State: { Pid: number } }];
    const process = fs.readFileSync(world.host.path(`/proc/${state.State.Pid}/status`), 'utf8');
    expect(status(process, 'Uid')).toBe('31415\t31415\t31415\t31415');
    expect(await minirun('info', '--format', '{{.Rootless}}')).toBe('true\n');
    const refused = await user.run(['run', '--rm', '--network', 'none', '-u', '70000', 'busybox', 'true']);
    expect(refused.stderr).toContain(
      "cannot run as user 70000, group 0: the container's user namespace has no such id",
    );
    await minirun('rm', '-f', 'one');
  });

  test('layers keep owners and modes, and hide what was deleted', async () => {
    const archive = path.join(user.home, 'layer.tar');
    const busybox = fs.readFileSync(Bun.which('busybox') as string);
    fs.writeFileSync(
      archive,
      tar([
        { path: 'bin/busybox', mode: 0o755, content: busybox },
        { path: 'etc/', type: '5', mode: 0o755 },
        { path: 'etc/dir/', type: '5', mode: 0o750, uid: 12, gid: 34 },
        { path: 'etc/dir/old', content: 'old' },
        { path: 'etc/gone', uid: 1234, gid: 2345, mode: 0o640, content: 'gone' },
        { path: 'etc/setuid', uid: 7, mode: 0o4755 },
        { path: 'dev/disk', type: '4', major: 8, minor: 0 },
      ]),
    );
    await minirun('import', archive, 'owners:1');
    const list = 'cd /etc; for f in dir gone setuid; do busybox stat -c "%n %u:%g %a" $f; done; busybox ls /dev/disk';
    const first = await user.run(['run', '--rm', '--network', 'none', 'owners:1', '/bin/busybox', 'sh', '-c', list]);
    expect(first.stdout).toBe('dir 12:34 750\ngone 1234:2345 640\nsetuid 7:0 4755\n');
    await minirun(
      'run',
      '--name',
      'change',
      '--network',
      'none',
      'owners:1',
      '/bin/busybox',
      'sh',
      '-c',
      'cd /etc; busybox rm -r dir gone; busybox mkdir dir; echo new >dir/new; busybox chown 77:88 dir/new',
    );
    // Places that minirun has made for its own mounts are none of its changes.
    const changed = await minirun('diff', 'change');
    expect(changed).toBe('C /etc\nC /etc/dir\nA /etc/dir/new\nD /etc/dir/old\nD /etc/gone\n');
    await minirun('commit', 'change', 'owners:2');
    await minirun('save', '-o', 'saved.tar', 'owners:2');
    await minirun('rm', 'change');
    await minirun('rmi', 'owners:2');
    await minirun('load', '-q', '-i', 'saved.tar');
    const show = 'cd /etc; busybox find dir gone; busybox stat -c %u:%g dir/new';
    const second = await user.run(['run', '--rm', '--network', 'none', 'owners:2', '/bin/busybox', 'sh', '-c', show]);
    expect(second.stdout).toBe('dir\ndir/new\n77:88\n');
    expect(second.stderr).toContain('gone: No such file');
    await minirun('rmi', 'owners:1', 'owners:2');
    fs.writeFileSync(archive, tar([{ path: 'far', uid: 70_000 }]));
    const far = await user.run(['import', archive, 'far:1']);
    expect(far.stderr).toContain('cannot unpack "far": it belongs to 70000:0, and this user namespace has no such id');
  });

  test.each(['pasta', 'slirp4netns'])('a network, names, ports and the way out by %s', async (carrier) => {
    const env = { MINIRUN_UPLINK: carrier };
    world.internet.forgetRequests();
    const web = ['sh', '-c', 'mkdir /w; echo served >/w/index.html; echo begun; exec httpd -f -p 80 -h /w'];
    const { stderr } = await user.run(['run', '-d', '--name', 'web', '-p', '8080:80', 'busybox', ...web], env);
    expect(stderr).toBe('');
    await minirun('run', '-d', '--name', 'two', 'busybox', 'sleep', '1000');
    // pasta has beside it the slirp4netns that publishes ports.
    const running = await world.sh('ps -e -o args= | grep -oE "^(pasta|slirp4netns) " | sort');
    expect(running).toBe(carrier === 'pasta' ? 'pasta \nslirp4netns \n' : 'slirp4netns \n');
    expect(await minirun('exec', 'two', 'ping', '-c', '1', '-W', '2', 'web')).toContain('1 packets received');
    await minirun('exec', 'two', 'wget', '-q', '-O', '-', `http://${internetAddress}/from-two`);
    expect(world.internet.requests()).toEqual([{ address: hostAddress, path: '/from-two' }]);
    for (const address of ['127.0.0.1', hostAddress])
      expect(await world.sh(`curl -s --max-time 5 http://${address}:8080/`)).toBe('served\n');
    expect(await world.internet.sh(`curl -s --max-time 5 http://${hostAddress}:8080/`)).toBe('served\n');
    // What listens on the host's loopback address only is not the container's business.
    const local = await world.host.spawn(['socat', 'TCP-LISTEN:7777,bind=127.0.0.1,fork', 'OPEN:/dev/null']);
    await world.sh('until ss -Hlnt sport = 7777 | grep -q .; do :; done');
    const gateway = await user.run(['exec', 'two', 'nc', '-w', '1', '10.0.2.2', '7777'], {}, { input: 'x' });
    expect(gateway.code).not.toBe(0);
    local.kill();
    expect(await minirun('logs', 'web')).toBe('begun\n');
    expect((await minirun('ps', '--format', '{{.Names}} {{.Ports}}')).split('\n').toSorted()).toEqual([
      '',
      'two ',
      'web 0.0.0.0:8080->80/tcp',
    ]);
    await minirun('stop', '-t', '0', 'web');
    expect(await user.sh('curl -s --max-time 2 http://127.0.0.1:8080/ || echo refused')).toBe('refused\n');
    const low = await user.run(['run', '--rm', '-p', '81:80', 'busybox', 'true']);
    expect([low.code, low.stderr]).toEqual([125, expect.stringContaining('only root may take ports below 1024')]);
    await minirun('rm', '-f', 'web', 'two');
  });

  test('a name server on a loopback address of the host is asked for containers', async () => {
    const server = await world.host.spawn([
      'dnsmasq',
      '--keep-in-foreground',
      '--conf-file=/dev/null',
      '--no-hosts',
      '--no-resolv',
      '--user=root',
      '--pid-file=',
      '--bind-interfaces',
      '--listen-address=127.0.0.53',
      '--address=/outside.example/198.51.100.7',
      '--log-facility=-',
    ]);
    await server.waitFor('started');
    const resolvConf = path.join(world.directory, 'resolv.conf');
    const old = fs.readFileSync(resolvConf, 'utf8');
    fs.writeFileSync(resolvConf, 'nameserver 127.0.0.53\n');
    for (const carrier of ['pasta', 'slirp4netns']) {
      // By way of the network's own name server, and directly.
      const network = carrier === 'pasta' ? 'asking' : 'host';
      if (carrier === 'pasta') await minirun('network', 'create', 'asking');
      const lookup = ['run', '--rm', '--network', network, 'busybox', 'nslookup', '-type=a', 'outside.example'];
      const { stdout } = await user.run(lookup, { MINIRUN_UPLINK: carrier });
      expect(stdout).toContain('198.51.100.7');
      if (carrier === 'pasta') await minirun('network', 'rm', 'asking');
      // It ends the machine, and with it the carrier.
      await minirun('system', 'reconcile');
    }
    fs.writeFileSync(resolvConf, old);
    server.kill();
  });

  test('pull asks a registry on the host’s own loopback address', async () => {
    const log = path.join(world.directory, 'asked');
    const server = await world.host.spawn([process.execPath, path.join(import.meta.dir, '../support/http.ts'), log]);
    await server.waitFor('listening');
    const { code } = await user.run(['pull', '-q', '--tls-verify=false', '127.0.0.1:80/some:1']);
    expect(code).toBe(1);
    expect(fs.readFileSync(log, 'utf8')).toContain('"/v2/');
    server.kill();
  });

  test('what is missing is said in a sentence', async () => {
    const hidden = async (files: string[], args: string[], env?: Record<string, string>) => {
      for (const file of files) await world.sh(`mount --bind /dev/null ${file}`);
      try {
        return await user.run(args, env);
      } finally {
        for (const file of files) await world.sh(`umount ${file}`);
      }
    };
    const isolated = ['run', '--rm', '--network', 'none', 'busybox', 'true'];
    const sentence = async (files: string[]) => {
      const { code, stderr } = await hidden(files, isolated);
      expect(code).toBe(125);
      return stderr;
    };
    expect(await sentence([Bun.which('newuidmap') as string])).toMatch(
      /^minirun: cannot run without root: this machine has no newuidmap, .*apt-get install uidmap.*\.\n$/,
    );
    expect(await sentence(['/etc/subuid', '/etc/subgid'])).toMatch(
      /^minirun: cannot run without root: user alice has no ids for containers in \/etc\/subuid and \/etc\/subgid\. Add some: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 alice\.\n$/,
    );
    expect(await sentence(['/etc/passwd'])).toMatch(
      /^minirun: cannot run without root: user 31415 is not in \/etc\/passwd\./,
    );
    const carriers = ['pasta', 'slirp4netns'].map((tool) => Bun.which(tool) as string);
    expect((await hidden(carriers, isolated)).stderr).toBe('');
    await user.run(['system', 'reconcile']);
    const warned = await hidden(carriers, [
      'run',
      '--rm',
      '--network',
      'host',
      'busybox',
      'timeout',
      '2',
      'wget',
      `http://${internetAddress}/`,
    ]);
    expect(warned.stderr).toStartWith('minirun: warning: neither pasta nor slirp4netns is here');
    expect([warned.code, warned.stderr]).toEqual([1, expect.stringContaining('Network is unreachable')]);
    await minirun('system', 'reconcile');
    const port = await hidden(
      [Bun.which('slirp4netns') as string],
      ['run', '--rm', '-p', '8080:80', 'busybox', 'true'],
    );
    expect([port.code, port.stderr]).toEqual([125, expect.stringContaining('it takes slirp4netns')]);
    // Nor has a user a home directory who is in no list and whose environment is empty.
    await world.sh('mount --bind /dev/null /etc/passwd');
    const homeless = await world.host.run(user.command(['env', '-u', 'HOME', 'minirun', 'ps']));
    await world.sh('umount /etc/passwd; rm -rf /tmp/minirun-31415');
    expect([homeless.code, homeless.stderr]).toEqual([
      125,
      expect.stringContaining('user 31415 is not in /etc/passwd'),
    ]);
    const elsewhere = await user.run(['--root', world.directory, 'ps']);
    expect(elsewhere.code).toBe(125);
    expect(elsewhere.stderr).toMatch(
      /^minirun: cannot use the state directory .*it belongs to user 0, and this is user 31415/,
    );
  });

  test('doctor says what a user lacks', async () => {
    const { stdout } = await user.run(['doctor']);
    expect(stdout).toContain('ok      subordinate ids 65536 of alice');
    expect(stdout).toContain('ok      uplink pasta, slirp4netns');
    expect(stdout).not.toContain('MISSING');
  });

  test('first commands at the same time make one machine', async () => {
    const names = ['a', 'b', 'c'];
    const start = (name: string) => minirun('run', '-d', '--name', `x${name}`, 'busybox', 'sleep', '1000');
    await Promise.all(names.map(start));
    expect((await world.sh('pgrep -f -c "^[s]h -c read -r _ minirun-machine"')).trim()).toBe('1');
    await minirun('rm', '-f', ...names.map((name) => `x${name}`));
  });

  test('nobody ends a machine that a command is about to enter', async () => {
    const command = ['run', '--rm', '--network', 'none', 'busybox', 'echo', 'fine'];
    // machine.entering is the fifth point; inside the count begins anew, so it stops there once more.
    const entering = await user.spawn(command, { MINIRUN_FAULT: 'stop:5' });
    expect(await entering.stopped()).toBe(true);
    const waits = holder();
    await minirun('system', 'reconcile');
    expect(fs.existsSync(world.host.path(`/proc/${waits}`))).toBe(true);
    expect((await entering.resume()).stdout).toBe('fine\n');
  });

  test('a machine survives its holder, and is made again after its end', async () => {
    await minirun('run', '-d', '--name', 'keeper', 'busybox', 'sleep', '1000');
    const first = holder();
    await world.kill(first);
    expect(await minirun('exec', 'keeper', 'echo', 'still here')).toBe('still here\n');
    expect(holder()).not.toBe(first);
    // All of it is killed, as a log-out may do: the next command finds a machine that has ended.
    const all = await world.sh('pgrep -u 31415');
    await world.kill(...all.trim().split('\n').map(Number));
    expect(await minirun('ps', '-a', '--format', '{{.Names}} {{.State}}')).toBe('keeper exited\n');
    expect(await minirun('start', 'keeper')).toBe('keeper\n');
    expect(await minirun('exec', 'keeper', 'echo', 'again')).toBe('again\n');
    await minirun('rm', '-f', 'keeper');
  });

  test('a kill -9 at any point of making the machine leaves nothing that the next command does not take back', async () => {
    const points: string[] = [];
    for (let number = 1; ; number++) {
      const { stderr } = await user.run(['run', '--rm', 'busybox', 'true'], { MINIRUN_FAULT: `kill:${number}` });
      const point = /^minirun: killed at (\S+)$/m.exec(stderr)?.[1] ?? '';
      await user.run(['system', 'reconcile']);
      await expectNoLeak(before, snapshot);
      points.push(point);
      if (point === 'machine.entering' || point === '') break;
    }
    expect(points).toEqual([
      'machine.unshared',
      'machine.ready',
      'json.opened',
      'json.written',
      'machine.recorded',
      'uplink.started',
      'machine.entering',
    ]);
  });
});
