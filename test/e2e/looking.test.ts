import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Running, type Snapshot, type World } from '../support/world.ts';

// left ── router ── right, by hand, so that what is shown is known to the last byte; near and shared in a network.
const wiring = `
ip link add eth0 address 02:00:00:00:01:01 netns left type veth peer name eth0 address 02:00:00:00:01:02 netns router
ip link add eth1 address 02:00:00:00:02:02 netns router type veth peer name eth0 address 02:00:00:00:02:01 netns right
for end in left:eth0:10.0.1.1/24:fd01::1/64 router:eth0:10.0.1.2/24:fd01::2/64 router:eth1:10.0.2.2/24:fd02::2/64 right:eth0:10.0.2.1/24:fd02::1/64; do
  name=\${end%%:*} rest=\${end#*:}; ifname=\${rest%%:*} rest=\${rest#*:}
  ip netns exec $name sysctl -qw net.ipv6.conf.$ifname.accept_dad=0 net.ipv6.conf.$ifname.disable_ipv6=0 net.ipv6.conf.all.forwarding=1
  ip -n $name addr add \${rest%%:*} dev $ifname
  ip -n $name addr add \${rest#*:} dev $ifname nodad
  ip -n $name link set $ifname up
done
ip -n left route add default via 10.0.1.2; ip -n left route add default via fd01::2
ip -n right route add default via 10.0.2.2; ip -n right route add default via fd02::2
`;

describe.skipIf(skipOrFail(missingWorld()))('looking', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.sh('minirun run --rm --network none busybox true');
    before = await world.snapshot();
    for (const name of ['left', 'router', 'right'])
      await world.sh(`minirun run -d --name ${name} --network none --sysctl net.ipv4.ip_forward=1 busybox sleep 1000`);
    await world.sh(wiring);
    await world.sh('minirun run -d --name near busybox sleep 1000');
    await world.sh('minirun run -d --name shared --network container:near busybox sleep 1000');
    await world.sh('minirun run -d --name open --network host busybox sleep 1000');
    await world.sh('minirun create --name idle busybox true');
  });
  afterAll(async () => {
    await world.destroy();
  });

  const rows = async (...args: string[]) => {
    const { code, stdout, stderr } = await world.run([...args, '--format', 'json']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return stdout
      .trim()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, string>);
  };
  const file = (name: string) => path.join(world.directory, name);
  const ping = (count: number) => world.sh(`minirun exec left ping -c ${count} -i 0.01 10.0.2.1`);
  const capture = async (...args: string[]): Promise<Running> => {
    const running = await world.spawn(['capture', ...args]);
    await running.waitFor('listening on');
    return running;
  };
  const packetsOf = async (name: string) => (await world.sh(`tcpdump -t -n -r ${file(name)}`)).trim().split('\n');
  const capturing = () => world.sh('pgrep -cf "[t]cpdump -Z root" || :');

  test('every command wants a container that runs', async () => {
    for (const command of ['addr', 'neigh', 'netns', 'capture', 'trace']) {
      const rest = command === 'trace' ? ['10.0.0.1'] : [];
      const idle = await world.run([command, 'idle', ...rest]);
      expect(idle).toMatchObject({ code: 1, stdout: '' });
      expect(idle.stderr).toContain('it is not running (created)');
      const missing = await world.run([command, 'nobody', ...rest]);
      expect(missing).toMatchObject({ code: 1, stdout: '' });
      expect(missing.stderr).toContain('no container "nobody"');
    }
  });

  test('addr shows interfaces as the kernel has them, of the stack that a container shares too', async () => {
    const [lo, eth0] = await rows('addr', 'left');
    expect(lo).toMatchObject({ Interface: 'lo', Addresses: '127.0.0.1/8 ::1/128' });
    expect(eth0).toMatchObject({ Interface: 'eth0', MAC: '02:00:00:00:01:01', State: 'UP', MTU: '1500', Network: '' });
    expect(eth0?.Addresses).toStartWith('10.0.1.1/24 fd01::1/64');
    const near = await rows('addr', 'near');
    expect(near.find(({ Interface }) => Interface === 'eth0')?.Network).toBe('minirun0');
    const [, shared] = await rows('addr', 'shared');
    expect(shared?.Addresses).toBe(near[1]?.Addresses as string);
    // The kernel takes almost any name for an interface.
    await world.sh('name=$(printf "e\\033[31m\\"x"); ip -n right link add "$name" type veth peer name plain');
    const strange = await world.sh('minirun addr right');
    await world.sh('ip -n right link del plain');
    expect(strange).toContain('\ne?[31m"x ');
    expect(await rows('addr', 'open')).toEqual(await rows('addr', 'host'));
    expect(await world.sh('minirun addr right')).toMatch(
      /^INTERFACE +STATE +ADDRESSES +MAC +NETWORK\nlo .*\neth0 +UP +10\.0\.2\.1\/24 fd02::1\/64/,
    );
  });

  test('neigh names the container that has the address', async () => {
    await ping(1);
    await world.sh('minirun exec left ping -c 1 fd01::2');
    const found = await rows('neigh', 'left');
    expect(found.find(({ Address }) => Address === '10.0.1.2')).toEqual({
      Address: '10.0.1.2',
      Interface: 'eth0',
      MAC: '02:00:00:00:01:02',
      Name: 'router:eth0',
      State: 'REACHABLE',
    });
    expect(found.find(({ Address }) => Address === 'fd01::2')?.Name).toBe('router:eth0');
    // The same address with another hardware address is somebody else.
    await world.sh('ip -n right neigh replace 10.0.2.2 lladdr 02:00:00:00:09:09 dev eth0');
    expect((await rows('neigh', 'right')).find(({ Address }) => Address === '10.0.2.2')?.Name).toBe('');
    await world.sh('ip -n right neigh del 10.0.2.2 dev eth0');
    await world.sh('minirun exec near ping -c 1 203.0.113.1');
    expect((await rows('neigh', 'near')).map(({ Name }) => Name)).toContain('host:minirun0');
  });

  test('netns prints a path that nsenter and ip take, after a rename too', async () => {
    expect(await world.sh('minirun netns near; minirun netns shared; minirun netns host; minirun netns open')).toBe(
      '/run/netns/near\n/run/netns/near\n/proc/1/ns/net\n/proc/1/ns/net\n',
    );
    await world.sh('minirun rename near nearer');
    expect(await world.sh('minirun netns shared')).toBe('/run/netns/nearer\n');
    expect(await world.sh("minirun inspect -f '{{.NetworkSettings.SandboxKey}}' nearer")).toBe('/run/netns/nearer\n');
    const names = (await world.sh('minirun ps --format "{{.Names}}"')).trim().split('\n').toSorted();
    expect(names).toEqual(['left', 'nearer', 'open', 'right', 'router', 'shared']);
    for (const name of names) {
      const inside = await world.sh(`nsenter --net=$(minirun netns ${name}) readlink /proc/self/ns/net`);
      const pid = (await world.sh(`minirun inspect -f '{{.State.Pid}}' ${name}`)).trim();
      expect(inside).toBe(await world.sh(`readlink /proc/${pid}/ns/net`));
      if (!['open', 'shared'].includes(name))
        expect(await world.sh(`ip netns exec ${name} readlink /proc/self/ns/net`)).toBe(inside);
    }
    await world.sh('minirun rename nearer near');
  });

  test('trace shows the hops, who they are and the routes that led on', async () => {
    expect(
      (await rows('trace', 'left', 'right')).map(({ Time, ...rest }) => (Time === undefined ? undefined : rest)),
    ).toEqual([
      { Hop: '0', Address: '', Name: 'left', Route: '10.0.2.1 via 10.0.1.2 dev eth0 src 10.0.1.1' },
      { Hop: '1', Address: '10.0.1.2', Name: 'router:eth0', Route: '10.0.2.1 dev eth1 src 10.0.2.2' },
      { Hop: '2', Address: '10.0.2.1', Name: 'right:eth0', Route: '' },
    ]);
    // Of several addresses the one next to it.
    expect((await rows('trace', 'right', 'router')).map(({ Address }) => Address)).toEqual(['', '10.0.2.2']);
    expect((await rows('trace', 'left', 'fd02::1')).map(({ Name }) => Name)).toEqual([
      'left',
      'router:eth0',
      'right:eth0',
    ]);
    expect((await rows('trace', 'host', 'near')).map(({ Name }) => Name)).toEqual(['host', 'near:eth0']);
    expect((await rows('trace', 'shared', '203.0.113.1')).map(({ Name }) => Name)).toEqual([
      'shared',
      'host:minirun0',
      '',
    ]);
  });

  test('trace says why nothing arrives', async () => {
    const reason = async (change: string, back: string, ...args: string[]) => {
      await world.sh(change);
      const result = await world.run(['trace', ...args]);
      await world.sh(back);
      expect(result.code).toBe(1);
      return result.stderr;
    };
    const forward = (value: number) => `ip netns exec router sysctl -qw net.ipv4.ip_forward=${value}`;
    expect(await reason(forward(0), forward(1), 'left', 'right')).toContain('router does not forward packets');
    expect(
      await reason('ip -n right route del default', 'ip -n right route add default via 10.0.2.2', 'left', 'right'),
    ).toContain('packets arrive at right, which has no route back to 10.0.1.1');
    expect(await reason(':', ':', 'left', '10.0.1.77')).toContain('nobody answers for 10.0.1.77 at left:eth0');
    expect(
      await reason('ip -n left route del default', 'ip -n left route add default via 10.0.1.2', 'left', '10.0.2.1'),
    ).toContain('network is unreachable');
    const apart =
      'minirun network create --subnet 10.55.0.0/24 apart; minirun run -d --name far --network apart busybox sleep 1000';
    const together = 'minirun rm -f far; minirun network rm apart';
    expect(await reason(apart, together, 'near', 'far')).toContain('network "apart" is isolated');
    expect(await reason(':', ':', 'left', 'no.such.name.invalid')).toContain('neither a container nor a host');
  });

  test('capture writes what tcpdump reads, and ends after a number of packets', async () => {
    const running = await capture('left', '-w', file('one.pcap'), '-c', '4', 'icmp');
    await ping(2);
    const { code, stderr, stdout } = await running.exit;
    expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
    expect(stderr).toBe(
      'listening on left:eth0, link-type EN10MB (Ethernet), snapshot length 262144 bytes\n4 packets captured on left:eth0\n',
    );
    const packets = await packetsOf('one.pcap');
    expect(packets.map((line) => /echo (\w+)/.exec(line)?.[1])).toEqual(['request', 'reply', 'request', 'reply']);
  });

  test('several containers become one pcapng, in order, and nothing is lost when it is ended', async () => {
    const running = await capture('left', 'router:eth0', 'router:eth1', 'right', '-w', file('all'), '--', 'icmp');
    await ping(3);
    running.kill('SIGINT');
    const { code, stderr } = await running.exit;
    expect(code).toBe(0);
    const names = ['left:eth0', 'router:eth0', 'router:eth1', 'right:eth0'];
    expect(stderr.split('\n').slice(4, -1)).toEqual(names.map((name) => `6 packets captured on ${name}`));
    const directions = (await packetsOf('all')).map((line) => /echo (\w+)/.exec(line)?.[1]);
    const four = (word: string) => Array.from({ length: 4 }, () => word);
    expect(directions).toEqual([1, 2, 3].flatMap(() => [...four('request'), ...four('reply')]));
    const content = fs.readFileSync(file('all'));
    expect(content.readUInt32LE(0)).toBe(0x0a0d0d0a);
    for (const name of names) expect(content.includes(name)).toBe(true);
  });

  test('as text each line says where the packet was, and Ctrl-C ends it', async () => {
    const running = await world.spawn(['capture', 'left', 'right', '-c', '100', '--', 'icmp'], { tty: true });
    await running.waitFor('right:eth0, link-type');
    await ping(1);
    await running.waitFor(/left:eth0 .*echo reply/);
    running.write('\x03');
    const { code, stdout } = await running.exit;
    expect(code).toBe(0);
    const lines = stdout
      .replaceAll('\r', '')
      .split('\n')
      .filter((line) => line.includes('echo'));
    expect(lines.map((line) => /^(\S+) +[\d:.]+ IP .*echo (\w+)/.exec(line)?.slice(1).join(' '))).toEqual([
      'left:eth0 request',
      'right:eth0 request',
      'right:eth0 reply',
      'left:eth0 reply',
    ]);
  });

  test('-w - is a stream for another program; a reader that goes away ends it', async () => {
    const running = await world.host.spawn([
      'sh',
      '-c',
      'minirun capture left -w - -c 2 icmp | tcpdump -t -n -r - | cut -d" " -f1-3',
    ]);
    await running.waitFor('listening on');
    await ping(1);
    expect((await running.exit).stdout).toBe('IP 10.0.1.1 >\nIP 10.0.2.1 >\n');
    const head = await world.host.spawn(['sh', '-c', 'minirun capture left right -- icmp | head -n 1 | wc -l']);
    await head.waitFor('listening on');
    // It is noticed with the next packet.
    await world.sh('minirun exec left ping -c 12 -i 0.05 10.0.2.1');
    expect((await head.exit).stdout).toBe('1\n');
    expect(await capturing()).toBe('0\n');
  });

  test('nothing is written when it cannot begin', async () => {
    const cases: [string[], string][] = [
      [['left:eth7'], 'it has no interface "eth7"'],
      [['left', 'no', 'such', 'filter'], 'cannot capture "no such filter" on left:eth0'],
      [['left', 'left'], 'twice'],
      [['left', '-Q', 'up'], 'invalid --direction'],
      [['left', '-c', '0'], 'invalid --count'],
    ];
    for (const [args, message] of cases) {
      const { code, stderr } = await world.run(['capture', '-w', file('none.pcap'), ...args]);
      expect(code).toBe(1);
      expect(stderr).toContain(message);
      expect(stderr.trim().split('\n')).toHaveLength(1);
    }
    expect(fs.existsSync(file('none.pcap'))).toBe(false);
    const unwritable = await world.run(['capture', 'left', '-w', '/nowhere/x.pcap']);
    expect(unwritable).toMatchObject({ code: 1 });
    expect(unwritable.stderr).toContain('no such file or directory');
  });

  test('detached, it goes on alone, with one container as tcpdump and with several as minirun', async () => {
    for (const names of ['left', 'left right']) {
      const pid = Number(await world.sh(`minirun capture -d ${names} -w ${file('alone')} -- icmp`));
      await ping(1);
      await world.sh(`kill ${pid}; while kill -0 ${pid} 2>/dev/null; do sleep 0.01; done`, { timeout: 5000 });
      expect((await packetsOf('alone')).length).toBeGreaterThanOrEqual(names === 'left' ? 1 : 3);
    }
  });

  test('a capture ends with minirun, however that ends, and with its container', async () => {
    const killed = await capture('left', 'router', '-w', file('killed'));
    expect(await capturing()).toBe('2\n');
    killed.kill('SIGKILL');
    await killed.exit;
    await world.sh('while pgrep -f "[t]cpdump -Z root"; do sleep 0.01; done', { timeout: 5000 });

    await world.sh(`minirun capture -d shared -w ${file('shared')}; minirun capture -d near right -w ${file('near')}`);
    const running = await capture('near', '-w', file('near.pcap'));
    await world.sh('minirun rm -f near');
    expect(await running.exit).toMatchObject({ code: 0 });
    // What was in its network has ended with it; the other container's capture goes on.
    expect(await capturing()).toBe('1\n');
    await world.sh('minirun rm -f -a');
    await world.sh('while pgrep -f "[m]inirun.* capture "; do sleep 0.01; done', { timeout: 5000 });
    await expectNoLeak(before, world);
  });
});
