import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, internetAddress, minirun, type Snapshot, type World } from '../support/world.ts';

interface Inspected {
  NetworkSettings: { IPAddress: string };
}

/** Nothing may be had from a registry: refused at once. apt heeds only the name in lower case. */
const noRegistry = { HTTPS_PROXY: 'http://127.0.0.1:1' };

describe.skipIf(skipOrFail(missingWorld()))('recipes', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    before = await world.snapshot();
  });
  afterAll(async () => {
    await world.destroy();
  });
  afterEach(async () => {
    await world.run(['rm', '-f', '-a']);
    await expectNoLeak(before, world);
  });

  const images = () => path.join(world.root, 'images');
  /** What is there beside the index and the folders of the store. */
  const leftovers = () => fs.readdirSync(images()).filter((name) => name.startsWith('.'));
  const idOf = async (name: string) =>
    (await world.sh('minirun images --no-trunc')).split('\n').find((line) => line.startsWith(`${name} `));
  /** Runs a shell line in a container. Fails unless it exits with 0. */
  const inside = async (image: string, script: string) => {
    const { code, stdout, stderr } = await world.run(['run', '--rm', image, 'bash', '-c', script], {
      env: noRegistry,
    });
    expect({ code, script, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, script, stderr: '' });
    return stdout;
  };
  const addressOf = async (name: string) => {
    const { stdout } = await world.run(['inspect', name]);
    return (JSON.parse(stdout) as Inspected[])[0]?.NetworkSettings.IPAddress as string;
  };

  test('busybox is built of this machine’s, the same every time', async () => {
    const first = await idOf('busybox');
    const again = () => world.run(['run', '--rm', '--network', 'none', '--pull=always', 'busybox', 'true']);
    for (const { code, stderr } of await Promise.all([again(), again()]))
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect((await idOf('busybox'))?.split(/\s+/)[2]).toBe(first?.split(/\s+/)[2] as string);
    expect(fs.readdirSync(path.join(images(), 'layers'))).toHaveLength(1);
    expect(leftovers()).toEqual([]);
  });

  test('alpine is a labelled stand-in where nothing can be fetched', async () => {
    const env = { ...noRegistry, MINIRUN_ALPINE_MIRROR: 'http://127.0.0.1:1' };
    const run = (...flags: string[]) =>
      world.run(['run', '--rm', '--network', 'none', ...flags, 'alpine', 'sh', '-c', 'true'], { env });
    for (const { code, stderr } of [await run(), await run()]) {
      expect(code).toBe(0);
      expect(stderr).toMatch(/alpine:latest is only a stand-in made of this machine's busybox \(.*connection refused/);
    }
    const real = await run('--pull=always');
    expect(real.code).toBe(125);
    expect(real.stderr).toMatch(/cannot get image "alpine": .*connection refused/);
    await world.sh('minirun rmi alpine');
  });

  test('an unknown name: the error names the built-in ones', async () => {
    const { code, stderr } = await world.run(['run', '--pull=missing', 'no/such-thing'], { env: noRegistry });
    expect(code).toBe(125);
    expect(stderr).toMatch(/cannot pull no\/such-thing:latest/);
    expect(stderr).toContain('alpine, busybox, debian, nettools');
  });

  const tools = {
    ip: '-V',
    bridge: '-V',
    ss: '-V',
    tc: '-V',
    ping: '-V',
    traceroute: '--version',
    tcpdump: '--version',
    nc: '-h',
    socat: '-V',
    curl: '--version',
    iperf3: '--version',
    dig: '-v',
    nslookup: '-version',
    iptables: '-V',
    bash: '--version',
  };
  describe.skipIf(skipOrFail(missingTool(...Object.keys(tools))))('nettools', () => {
    beforeAll(async () => {
      await world.run(['run', '--rm', '--network', 'none', 'nettools', 'true']);
      before = await world.snapshot();
    });

    test('every program of the host starts in it, and none is busybox, in sh neither', async () => {
      const script = Object.entries(tools)
        .map(([tool, flag]) => `echo "== ${tool}"; ${tool} ${flag} 2>&1 | head -n 2`)
        .join('\n');
      for (const shell of ['bash', 'sh']) {
        const { stdout } = await world.run(['run', '--rm', '--network', 'none', 'nettools', shell, '-c', script]);
        const answers = stdout.split('== ').slice(1);
        expect(answers.map((answer) => answer.split('\n')[0])).toEqual(Object.keys(tools));
        for (const answer of answers) {
          expect(answer).not.toMatch(/busybox|not found|error while loading|invalid option|unrecognized/i);
          expect(answer.split('\n').length).toBeGreaterThan(2);
        }
      }
      expect(await inside('nettools', 'busybox | head -1; vi --help 2>&1 | head -1')).toMatch(/BusyBox.*\nBusyBox/);
    });

    test('ping, traceroute, tcpdump and curl on a network', async () => {
      const server = await world.run(['run', '-d', '--name', 'server', 'nettools', 'sleep', '1000']);
      expect(server).toMatchObject({ code: 0 });
      const address = await addressOf('server');
      expect(await inside('nettools', `ping -c 1 -W 5 ${address}`)).toContain(' 0% packet loss');
      // Without any privilege: the program has kept its capability.
      const user = await world.run(['run', '--rm', '-u', '1000', 'nettools', 'ping', '-c', '1', '-W', '5', address]);
      expect(user).toMatchObject({ code: 0, stderr: '' });
      const hops = await inside('nettools', `traceroute -n -q 1 -w 5 ${internetAddress}`);
      expect(hops).toMatch(new RegExp(`\\n +2 +${internetAddress.replaceAll('.', '\\.')} `));
      const seen = await inside(
        'nettools',
        `ping -i 0.2 ${address} >/dev/null & timeout 20 tcpdump -c 1 -n -i eth0 icmp 2>/dev/null`,
      );
      expect(seen).toContain(`> ${address}: ICMP echo request`);
      world.internet.forgetRequests();
      await inside('nettools', `curl -sS --fail http://${internetAddress}/by-curl`);
      expect(world.internet.requests().map((request) => request.path)).toEqual(['/by-curl']);
    });

    test('nc and iperf3 between two containers; iptables in one', async () => {
      const listener = await world.spawn(['run', '--rm', '--name', 'listener', 'nettools', 'nc', '-nlv', '9000']);
      await listener.waitFor('Listening');
      await inside('nettools', `echo through nc | nc -N ${await addressOf('listener')} 9000`);
      expect((await listener.exit).stdout).toBe('through nc\n');
      const command = ['iperf3', '-s', '-1', '--forceflush'];
      const server = await world.spawn(['run', '--rm', '--name', 'iperf', 'nettools', ...command]);
      await server.waitFor('listening');
      expect(await inside('nettools', `iperf3 -c ${await addressOf('iperf')} -n 1M`)).toContain('iperf Done');
      expect((await server.exit).code).toBe(0);
      const script = 'iptables -A INPUT -p tcp -m tcp --dport 80 -j DROP && iptables-save';
      const rules = await world.run(['run', '--rm', '--cap-add', 'NET_ADMIN', 'nettools', 'sh', '-c', script]);
      expect(rules.stdout).toContain('-A INPUT -p tcp -m tcp --dport 80 -j DROP');
    });

    test('a program that this machine lacks is left out and named', async () => {
      const file = (await world.sh('readlink -f "$(command -v socat)"')).trim();
      await world.sh(`mount --bind /dev/null ${file}`);
      try {
        const args = ['run', '--rm', '--network', 'none', '--pull=always', 'nettools'];
        const { code, stdout, stderr } = await world.run([...args, 'bash', '-c', 'command -v socat || ip -V']);
        expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringMatching(/^ip utility/) });
        expect(stderr.trim().split('\n')).toHaveLength(1);
        expect(stderr).toMatch(/^nettools is without (\w+, )*socat, .*(apt-get install .*\bsocat|install them)/);
      } finally {
        await world.sh(`umount ${file}`);
      }
      const whole = await world.run(['run', '--rm', '--network', 'none', '--pull=always', 'nettools', 'socat', '-V']);
      expect(whole.code).toBe(0);
      await world.sh('minirun images --filter dangling=true -q | xargs -r minirun rmi').catch(() => {});
    });
  });

  describe.skipIf(skipOrFail(missingTool('mmdebstrap')))('debian', () => {
    test('a mirror that Debian has not signed is refused', async () => {
      // This server answers every path with a text of its own.
      const env = { ...noRegistry, http_proxy: `http://${internetAddress}` };
      const { code, stderr } = await world.run(['run', '--rm', '--network', 'none', 'debian', 'true'], { env });
      expect(code).toBe(125);
      expect(stderr).toMatch(/minirun: cannot get image "debian": .*mmdebstrap: .*(sign|NOSPLIT|InRelease)/i);
      expect(await idOf('debian')).toBeUndefined();
      expect(leftovers()).toEqual([]);
    });

    test('killed while it is built: nothing goes on, nothing stays mounted', async () => {
      const mirror = await world.internet.spawn(['nc', '-lk', '8080']);
      const env = { ...noRegistry, http_proxy: `http://${internetAddress}:8080` };
      const building = await world.spawn(['run', '--rm', '--network', 'none', 'debian', 'true'], { env });
      await mirror.waitFor('GET ');
      building.kill('SIGKILL');
      await building.exit;
      await world.sh('minirun system reconcile');
      // apt has the mirror's connection open until it is gone.
      await world.sh('until ! pgrep -x "mmdebstrap|apt-get|http" >/dev/null; do :; done', { timeout: 10_000 });
      await world.sh('minirun system reconcile');
      expect(leftovers()).toEqual([]);
      mirror.kill('SIGKILL');
      await mirror.exit;
    });

    test('is built of the packages of this machine’s mirror, and knows nothing of this machine', async () => {
      // The world has no way to a mirror. Building an image changes nothing outside of the state directory; the mounts
      // of this one command are its own all the same.
      execFileSync('unshare', ['--mount', '--', minirun, 'pull', '-q', 'debian:stable-slim'], {
        env: { ...process.env, ...noRegistry, MINIRUN_ROOT: world.root },
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: 200_000,
      });
      const run = async (script: string) => inside('debian:stable-slim', script);
      expect(await run('. /etc/os-release; echo $ID; apt-get --version | head -n 1')).toMatch(/^debian\napt \d/);
      expect(await run('dpkg --audit; dpkg -l apt | tail -n 1')).toMatch(/^ii +apt/);
      const [layer] = fs
        .readdirSync(path.join(images(), 'layers'))
        .map((name) => path.join(images(), 'layers', name))
        .filter((each) => fs.existsSync(path.join(each, 'etc/debian_version')));
      const find = (...args: string[]) => execFileSync('find', args, { cwd: layer, encoding: 'utf8' });
      for (const empty of ['dev', 'run', 'tmp', 'var/lib/apt/lists', 'var/cache/apt', 'usr/share/man', 'var/log/apt'])
        expect([empty, find(empty, '-mindepth', '1', '-not', '-type', 'd')]).toEqual([empty, '']);
      expect(find('etc/hostname', 'etc/resolv.conf', '-size', '+0')).toBe('');
      expect(find('etc', '-name', 'machine-id', '-o', '-name', '*mmdebstrap*')).toBe('');
      const sources = fs.readFileSync(path.join(layer as string, 'etc/apt/sources.list.d/debian.sources'), 'utf8');
      expect(sources).toMatch(
        /^Types: deb\nURIs: http.*\nSuites: [a-z]+( [a-z]+-updates)?\nComponents: main\nSigned-By: /,
      );
      expect(sources).not.toContain('stable');
      expect(fs.existsSync(path.join(layer as string, sources.match(/Signed-By: \/(.*)/)?.[1] as string))).toBe(true);
      expect(leftovers()).toEqual([]);
    }, 240_000);
  });
});
