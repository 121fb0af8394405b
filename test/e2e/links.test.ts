import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

interface State {
  status: string;
  owner: { pid: number };
  init: { pid: number };
}

/** Cables between containers and the host, interfaces of the host in containers, and routes. */
describe.skipIf(skipOrFail(missingWorld() ?? missingTool('tc', 'traceroute', 'ping')))('links', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    // A card of the machine: its other end is in a namespace of its own, whose address answers.
    await world.sh(`
      minirun run --rm --network none busybox true
      ip netns add wire
      ip link add name enp3s1 type veth peer name far netns wire
      ip -n wire addr add 192.0.2.1/24 dev far
      ip -n wire addr add 2001:db8::1/64 dev far nodad
      ip -n wire link set far up
      ip link set enp3s1 mtu 1450 up
      ip addr add 192.0.2.5/24 brd + dev enp3s1
      ip addr add 2001:db8::5/64 dev enp3s1 nodad
      ip route add default via 192.0.2.1 dev enp3s1 metric 50
      ip route add 198.51.100.0/24 via 192.0.2.1
      ip route add 2001:db8:7::/48 via 2001:db8::1`);
    before = await world.snapshot();
  }, 30_000);
  afterAll(() => world.destroy());

  /** Starts containers with no network but the loopback interface. */
  const start = async (...names: string[]) => {
    for (const name of names) await world.sh(`minirun run -d --name ${name} --network none busybox sleep 1000`);
  };
  afterEach(async () => {
    await world.sh('minirun rm -f -a; for l in $(minirun link ls -q); do minirun link rm $l; done');
    await expectNoLeak(before, world);
  });
  const ping = async (from: string, to: string) => {
    const place = from === 'host' ? '' : `minirun exec ${from} busybox `;
    const { code } = await world.host.run(['sh', '-c', `${place}ping -c 1 -W 1 ${to}`]);
    return code === 0;
  };
  const refused = async (command: string) => {
    const { code, stderr, stdout } = await world.run(command.split(' '));
    expect(`${command}: ${code} ${stdout}`).toBe(`${command}: 1 `);
    expect(stderr).toMatch(/^minirun: [^\n]*\n$/);
    return stderr;
  };
  const states = () => world.sh('minirun link ls --format "{{.Name}} {{.State}}"');

  test('S1, S2: two containers, one cable, two subnets; routes; all of it is back after a restart', async () => {
    await start('foo', 'bar');
    expect(await world.sh('minirun link add foo:eth1 bar:eth1 --addr 10.0.1.1/24 --peer-addr 10.0.2.1/24')).toBe(
      'foo-bar\n',
    );
    expect(await ping('foo', '10.0.1.1')).toBe(true);
    expect(await ping('bar', '127.0.0.1')).toBe(true);
    const unreachable = await world.run(['exec', 'foo', 'ping', '-c', '1', '10.0.2.1']);
    expect(unreachable.stderr).toContain('Network is unreachable');
    expect(await world.sh('ip -o addr; ip route')).not.toMatch(/eth1|10\.0\.[12]\./);

    await world.sh('minirun route add foo 10.0.2.0/24 dev eth1; minirun route add bar 10.0.1.0/24 dev eth1');
    expect(await world.sh('ip -n foo route get 10.0.2.1')).toStartWith('10.0.2.1 dev eth1 src 10.0.1.1');
    for (const restarted of ['', 'foo', 'bar', 'foo bar']) {
      if (restarted !== '') await world.sh(`minirun restart -t 0 ${restarted}`);
      expect([restarted, await ping('foo', '10.0.2.1'), await ping('bar', '10.0.1.1')]).toEqual([
        restarted,
        true,
        true,
      ]);
    }
    // With one end gone the other goes, and waits.
    await world.sh('minirun stop -t 0 foo');
    expect(await states()).toBe('foo-bar waiting\n');
    expect(await world.sh('ip -n bar -o link')).not.toContain('eth1');
    await world.sh('minirun rename foo baz; minirun start baz; minirun rename baz foo');
    expect([await states(), await ping('bar', '10.0.1.1')]).toEqual(['foo-bar up\n', true]);
    await world.sh('minirun rm -f foo');
    expect(await world.sh('minirun link ls -q; ip -n bar -o link')).not.toMatch(/foo|eth1/);
  }, 30_000);

  test('the link is there before the command runs, and its settings obey --sysctl', async () => {
    const script = 'ip -o -4 addr show eth1; ip route; cat /proc/sys/net/ipv4/conf/eth1/send_redirects; sleep 1000';
    await start('peer');
    for (const network of ['none', 'minirun0']) {
      await world.sh(
        `minirun create --name foo --network ${network} --sysctl net.ipv4.conf.eth1.send_redirects=0 busybox sh -c "${script}"`,
      );
      await world.sh(`
        minirun link add foo:eth1 peer:eth1 --addr 10.1.0.1/24 --peer-addr 10.1.0.2/24 --addr fd00:1::1/64 --peer-addr fd00:1::2/64
        minirun route add foo 10.8.0.0/16 via 10.1.0.2
        minirun route add foo default via 10.1.0.2
        minirun route add foo fd00:8::/64 via fd00:1::2
        minirun start foo`);
      const running = await world.spawn(['logs', '-f', 'foo']);
      await running.waitFor(/^0$/m);
      running.kill();
      // A default route of its own takes the place of the network's.
      expect(running.output()).toMatch(/default via 10\.1\.0\.2 dev eth1/);
      expect(running.output()).not.toContain('default via 10.90');
      expect(running.output()).toMatch(/inet 10\.1\.0\.1\/24[\s\S]*10\.8\.0\.0\/16 via 10\.1\.0\.2 dev eth1/);
      expect(await ping('foo', 'fd00:1::2')).toBe(true);
      expect(await world.sh('ip -n foo -6 route')).toContain('fd00:8::/64 via fd00:1::2 dev eth1');
      await world.sh('minirun rm -f foo');
    }
  }, 30_000);

  test('S6: a container that forwards between a network and a cable, a route of the host, two hops', async () => {
    await world.sh(`
      minirun network create --subnet 10.13.37.0/24 lab
      minirun run -d --name foo --network lab --ip 10.13.37.2 --sysctl net.ipv4.ip_forward=1 busybox sleep 1000
      minirun run -d --name bar --network none busybox sleep 1000
      minirun link add foo:eth1 bar:eth0 --addr 10.9.9.9/30 --peer-addr 10.9.9.10/30
      minirun route add bar default via 10.9.9.9
      minirun route add host 10.9.9.8/30 via 10.13.37.2`);
    const hops = async () =>
      (await world.sh('traceroute -n -q 1 -w 2 -m 5 10.9.9.10'))
        .split('\n')
        .slice(1)
        .flatMap((line) => line.trim().split(/\s+/)[1] ?? []);
    expect(await hops()).toEqual(['10.13.37.2', '10.9.9.10']);
    await world.sh('minirun restart -t 0 foo');
    expect(await hops()).toEqual(['10.13.37.2', '10.9.9.10']);
    expect(await world.sh('minirun route ls host --format "{{.Destination}} {{.Gateway}}"')).toContain(
      '10.9.9.8/30 10.13.37.2',
    );
    const [first] = (await world.sh('minirun route ls bar --format json')).split('\n');
    expect(JSON.parse(first as string)).toMatchObject({
      Destination: 'default',
      Gateway: '10.9.9.9',
      Interface: 'eth0',
    });
    expect(await refused('route del host 203.0.113.0/24')).toContain('ip route del 203.0.113.0/24');
    await world.sh('minirun route del host 10.9.9.8/30; minirun route del bar default');
    expect(await world.sh('ip route; ip -n bar route')).not.toMatch(/10\.9\.9\.8\/30 via|default via 10\.9/);
    // A route goes with the network whose gateway it has.
    await world.sh('minirun route add host 10.9.9.8/30 via 10.13.37.2; minirun rm -f -a; minirun network rm lab');
    await world.sh('minirun ps');
  }, 30_000);

  test('S9: one subnet, a cable; rm leaves nothing', async () => {
    await start('one', 'two');
    await world.sh('minirun link add one:eth0 two:eth0 --addr 10.0.0.10/16 --peer-addr 10.0.0.20/16 --name cable');
    expect([await ping('one', '10.0.0.20'), await ping('two', '10.0.0.10')]).toEqual([true, true]);
    await world.sh('minirun link down cable');
    expect([await states(), await ping('one', '10.0.0.20')]).toEqual(['cable down\n', false]);
    await world.sh('minirun link up cable');
    expect(await ping('one', '10.0.0.20')).toBe(true);
    await world.sh('minirun link rm one:eth0');
    expect(await world.sh('ip -n one -o link; ip -n two -o link; minirun link ls -q')).not.toMatch(/eth0|cable/);
  });

  test('S10: both ends on the host; the derived route says linkdown; deleting one end removes the other', async () => {
    await world.sh('minirun link add host:veth0 host:veth1 --addr 172.18.0.10/12 --peer-addr 172.18.0.20/12');
    await world.sh('minirun link down host:veth1');
    const { Flags, Source } = JSON.parse(
      (await world.sh('minirun route ls host --format json')).split('\n').find((line) => line.includes('veth0')) ??
        '{}',
    ) as Record<string, string>;
    expect([Flags, Source]).toEqual(['linkdown', '172.18.0.10']);
    await world.sh('ip link del veth0');
    expect(await world.sh('ip -o link; ip route')).not.toMatch(/veth1|172\./);
    expect(await states()).toBe('veth0-veth1 gone\n');
    await world.sh('minirun link up veth0-veth1');
    expect(await states()).toBe('veth0-veth1 up\n');
    await world.sh('minirun link rm veth0-veth1');
  });

  test('S11, S12: a cable to the host; a second one in the same subnet is refused, and fails when forced', async () => {
    await start('c1', 'c2');
    await world.sh('minirun link add c1:ceth0 host:veth0 --addr 172.18.0.20/12 --peer-addr 172.18.0.10/12');
    expect([await ping('host', '172.18.0.20'), await ping('c1', '172.18.0.10')]).toEqual([true, true]);
    expect((await world.run(['exec', 'c1', 'ping', '-c', '1', '203.0.113.2'])).stderr).toContain('unreachable');
    const second = 'link add c2:ceth1 host:veth1 --addr 172.18.0.40/12 --peer-addr 172.18.0.30/12';
    const why = await refused(second);
    expect(why).toContain('the host has 172.16.0.0/12 on veth0 already, from link "c1-host"');
    expect(why).toContain('minirun network create --subnet 172.16.0.0/12');
    await world.sh(`minirun ${second} --force`);
    expect([await ping('host', '172.18.0.20'), await ping('host', '172.18.0.40')]).toEqual([true, false]);
    expect(await world.sh('ip route')).toMatch(/172.16.0.0\/12 dev veth0[\s\S]*172.16.0.0\/12 dev veth1/);
  });

  test('mistakes are refused before anything happens, with the command that is right', async () => {
    await start('web', 'db');
    await world.sh('minirun run -d --name shared --network container:web busybox sleep 1000');
    await world.sh('minirun run -d --name bare --network host busybox sleep 1000');
    await world.sh('minirun link add web:eth1 db:eth1 --addr 10.1.1.1/24 --peer-addr 10.1.1.2/24');
    const clean = await world.snapshot();
    const cases: [string, string][] = [
      ['link add web:averylonginterface db:eth2', 'the kernel takes 15 at most'],
      ['link add web:a/b db:eth2', 'invalid interface name'],
      ['link add web:lo db:eth2', 'invalid interface name'],
      ['link add web db:eth2', 'CONTAINER:INTERFACE'],
      ['link add web:eth1 db:eth2', 'has an interface eth1 already. Choose another name, such as eth0'],
      ['link add host:eth0 db:eth2', 'the host has an interface eth0 already'],
      ['link add web:eth2 web:eth2', 'the same interface'],
      ['link add nobody:eth1 db:eth2', 'no container "nobody"'],
      ['link add bare:eth1 db:eth2', 'it has the network of the host'],
      ['link add shared:eth1 db:eth2', 'it has the network of container'],
      ['link add web:eth2 db:eth2 --addr 10.2.0.1', 'the prefix length is missing'],
      ['link add web:eth2 db:eth2 --addr 10.2.0.0/24', 'such as 10.2.0.1/24'],
      ['link add web:eth2 db:eth2 --addr 10.2.0.255/24', 'broadcast'],
      ['link add web:eth2 db:eth2 --addr 10.2.0.1/24 --peer-addr 10.2.0.1/24', 'both ends would have 10.2.0.1'],
      ['link add web:eth2 db:eth2 --addr 10.1.1.7/24', 'overlaps the route that container "web" has'],
      ['link add web:eth2 host:veth0 --peer-addr 203.0.113.9/24', 'overlaps the route that the host has'],
      ['link add web:eth2 db:eth2 --mtu 60', 'must be between 68'],
      ['link add web:eth2 db:eth2 --mtu 1000 --addr fd00::1/64', 'IPv6 needs 1280'],
      ['link add web:eth2 db:eth2 --mac 01:00:00:00:00:01', 'address of a group'],
      ['link add web:eth2 db:eth2 --rate fast', 'invalid --rate'],
      ['link add web:eth2 db:eth2 --name web-db', 'there is one of that name'],
      ['link add web:eth2 phys:enp9', 'the host has no interface enp9'],
      ['link add web:eth2 phys:enp3s1', 'the default route of the host leads over enp3s1'],
      ['link add host:veth0 phys:enp3s1', 'moves into a container'],
      ['link rm nothing', 'no link "nothing"'],
      ['route add web default via 10.7.0.1', 'Its neighbours are in 10.1.1.0/24 (eth1)'],
      ['route add web default via 10.1.1.1', '10.1.1.1 is container "web" itself'],
      ['route add web 10.7.0.3/16 via 10.1.1.2', 'Give 10.7.0.0/16'],
      ['route add web 10.7.0.0/16 dev eth7', 'It has eth1'],
      ['route add web 10.1.1.0/24 via 10.1.1.2', 'has a route to 10.1.1.0/24 already'],
      ['route add web fd00::/64 via 10.1.1.2', 'is IPv6'],
      ['route add host 10.7.0.0/16 via 10.6.0.1', 'the host does not reach 10.6.0.1 directly'],
      ['route add bare default via 10.1.1.2', 'it has the network of the host'],
      ['route del web default', 'has none'],
    ];
    for (const [command, message] of cases) expect(await refused(command)).toContain(message);
    await world.sh('minirun route add web default via 10.1.1.2');
    const twice = await refused('route add web default via 10.1.1.2');
    expect(twice).toContain('minirun route del web default');
    expect(twice).toContain('metric 100');
    await world.sh('minirun route add web default via 10.1.1.2 metric 100');
    await expectNoLeak(clean, world);
  }, 30_000);

  test('--rate is done by tbf at both ends, comes back, and is taken away; without netem it is said what is missing', async () => {
    await start('one', 'two');
    await world.sh('minirun link add one:eth0 two:eth0 --rate 10mbit --mtu 1400 --mac 02:00:00:00:00:01');
    const qdiscs = async () =>
      (await world.sh('for n in one two; do tc -n $n -j qdisc show dev eth0; done'))
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { kind: string; options: { rate?: number } }[])[0]);
    const tbf = { kind: 'tbf', options: { rate: 1_250_000 } };
    expect(await qdiscs()).toMatchObject([tbf, tbf]);
    await world.sh('minirun restart -t 0 two');
    expect(await qdiscs()).toMatchObject([tbf, tbf]);
    expect(await world.sh('ip -n one link show eth0; ip -n two link show eth0')).toMatch(
      /mtu 1400[\s\S]*02:00:00:00:00:01[\s\S]*mtu 1400/,
    );
    expect(await world.sh('minirun link ls --format "{{.Shaping}} {{.MTU}}"')).toBe('rate 10mbit 1400\n');
    await world.sh('minirun link set one:eth0 --rate 512kbit --mtu 1300');
    expect(await qdiscs()).toMatchObject([{ options: { rate: 64_000 } }, { options: { rate: 64_000 } }]);
    const netem =
      (await world.host.run(['unshare', '-n', 'tc', 'qdisc', 'add', 'dev', 'lo', 'root', 'netem'])).code === 0;
    const delayed = await world.run(['link', 'set', 'one-two', '--delay', '20ms', '--loss', '1%']);
    if (netem) {
      expect(delayed.code).toBe(0);
      expect(await qdiscs()).toMatchObject([{ kind: 'netem' }, { kind: 'netem' }]);
    } else {
      expect(delayed.stderr).toMatch(/cannot do --delay and --loss: this kernel \(.*\) has no netem.*--rate only/);
      expect(await qdiscs()).toMatchObject([{ options: { rate: 64_000 } }, { options: { rate: 64_000 } }]);
    }
    await world.sh('minirun link set one-two --rate none --delay none --loss none');
    expect(await qdiscs()).not.toMatchObject([{ kind: 'tbf' }, { kind: 'tbf' }]);
    expect(await world.sh('ip -n two link show eth0')).toContain('mtu 1300');
  });

  test('--explain prints a script that does the same', async () => {
    const command =
      'minirun link add foo:eth1 bar:eth1 --addr 10.0.1.1/24 --addr fd00:1::1/64 --peer-addr 10.0.2.1/24 --rate 1mbit';
    await world.sh('minirun create --name foo --network none busybox true');
    await world.sh('minirun create --name bar --network none busybox true');
    const script = await world.sh(`${command} --explain`);
    expect(await world.sh('minirun link ls -q')).toBe('');
    const look = 'for n in foo bar; do ip -n $n -o addr show eth1; tc -n $n qdisc show dev eth1; done';
    const normal = (text: string) =>
      text
        .split('\n')
        .filter((line) => !line.includes('fe80'))
        .map((line) => line.replace(/^\d+: |qdisc (\w+) \S+|tentative/g, '$1').replace(/\s+/g, ' '))
        .join('\n');
    await start('other');
    await world.sh('minirun rm -f foo bar');
    await start('foo', 'bar');
    const file = path.join(world.directory, 'link.sh');
    fs.writeFileSync(file, script);
    const shown = await world.sh(`sh ${file} add; ${look}`);
    await world.sh(`sh ${file} delete; sh ${file} delete`);
    expect(await world.sh('ip -n foo -o link; ip -n bar -o link')).not.toContain('eth1');
    expect(normal(await world.sh(`${command} >&2; ${look}`))).toBe(normal(shown));
    expect(await world.sh('minirun route add foo default via 10.0.1.2 --explain')).toContain(
      'ip -n foo route add default via 10.0.1.2 dev eth1\n',
    );
  });

  describe('S7: an interface of the host in a container', () => {
    const add = 'minirun link add foo:eth1 phys:enp3s1 --addr 192.0.2.7/24 --mtu 1400 --mac 02:00:00:00:00:07 --force';
    const look = async () => {
      const printed = await world.sh(
        'ip -o addr show dev enp3s1 scope global; ip -o link show enp3s1; ip route show dev enp3s1; ip -6 route show dev enp3s1; ip -n wire -o link',
      );
      return printed
        .replace(/^\d+: |@if\d+|@\w+|linkdown|altname \S+|link-netns(id)? \S+/gm, '')
        .replace(/ +/g, ' ')
        .split('\n')
        .filter((line) => !line.startsWith('fe80'));
    };
    /** The routes come back before the peer knows of the carrier. */
    const isBack = async (was: string[]) => {
      const deadline = Date.now() + 5000;
      while (Date.now() < deadline && JSON.stringify(await look()) !== JSON.stringify(was))
        await new Promise((resolve) => setTimeout(resolve, 20));
      expect(await look()).toEqual(was);
    };
    const isIn = async () => {
      expect(await world.sh('ip -o link')).not.toContain('enp3s1');
      expect(await ping('foo', '192.0.2.1')).toBe(true);
      expect(await world.sh('ip -n foo route; ip -n foo -o link show eth1')).toMatch(
        /default via 192.0.2.1 dev eth1[\s\S]*mtu 1400[\s\S]*02:00:00:00:00:07/,
      );
    };
    const stateOf = (): State =>
      JSON.parse(
        fs.readFileSync(
          path.join(world.root, 'containers', fs.readlinkSync(path.join(world.root, 'names/foo')), 'state.json'),
          'utf8',
        ),
      ) as State;

    test('it is back after stop, link rm, rm, kill -9 of everything, and whatever the container has called it', async () => {
      const was = await look();
      await world.sh('minirun run -d --name foo --network none --cap-add NET_ADMIN busybox sleep 1000');
      await world.sh(`${add}; minirun route add foo default via 192.0.2.1`);
      await isIn();
      await world.sh('minirun stop -t 0 foo');
      await isBack(was);
      await world.sh('minirun start foo');
      await isIn();
      await world.sh('minirun exec foo ip link set dev eth1 down; minirun exec foo ip link set dev eth1 name wan');
      await world.sh('minirun link rm enp3s1');
      await isBack(was);
      await world.sh(`${add}; minirun route ls foo`);
      await isIn();
      const { owner, init } = stateOf();
      const parent = (await world.sh(`cut -d ' ' -f 4 /proc/${init.pid}/stat`)).trim();
      await world.kill(owner.pid, Number(parent), init.pid);
      await world.sh('minirun ps');
      await isBack(was);
      await world.sh('minirun start foo');
      await isIn();
      await world.sh('minirun rm -f foo');
      await isBack(was);
    }, 30_000);

    test('it is back after a start that has failed, and after the command itself has ended', async () => {
      const was = await look();
      await world.sh('minirun create --name foo --network none busybox /missing');
      await world.sh(add);
      expect((await world.run(['start', 'foo'])).code).not.toBe(0);
      await isBack(was);
      await world.sh('minirun rm foo; minirun create --name foo --network none busybox true');
      await world.sh(`${add}; minirun start foo; minirun wait foo`);
      await isBack(was);
      await world.sh('minirun create --name bar --network none busybox true; minirun link add bar:eth1 host:veth0');
      await world.sh('ip link add name veth0 type veth peer name veth9');
      const taken = await world.run(['start', 'bar']);
      expect(taken.stderr).toContain('the host has an interface veth0 already');
      expect(await world.sh('ip link show veth0')).toContain('veth9');
      await world.sh('ip link del veth0');
    });
  });

  describe('killed at every boundary', () => {
    /** A supervisor may be taking a container down meanwhile. */
    const settled = async () => {
      const file = path.join(world.root, 'changing.json');
      for (let tries = 0; tries < 500 && fs.existsSync(file); tries++)
        await new Promise((resolve) => setTimeout(resolve, 10));
      expect(fs.existsSync(file)).toBe(false);
    };

    const commands: [string, string | undefined, string][] = [
      ['link add', undefined, 'link add foo:eth1 host:veth0 --addr 10.1.0.1/24 --peer-addr 10.1.0.2/24 --rate 1mbit'],
      ['link add of an interface', undefined, 'link add foo:eth1 phys:enp3s1 --addr 192.0.2.7/24 --force'],
      ['link rm', 'link add foo:eth1 host:veth0 --name foo-host', 'link rm foo-host'],
      ['link set', 'link add foo:eth1 host:veth0 --rate 1mbit', 'link set foo-host --rate 2mbit --mtu 1300'],
      ['route add', 'link add foo:eth1 host:veth0 --peer-addr 10.1.0.2/24', 'route add host 10.5.0.0/16 via 10.1.0.7'],
      ['start', 'stop -t 0 foo; minirun link add foo:eth1 phys:enp3s1 --force --name foo-host', 'start foo'],
    ];
    for (const mode of ['kill', 'fail']) {
      test(`${mode}: the next command takes it all back`, async () => {
        await start('foo');
        const clean = await world.snapshot();
        const counts: string[] = [];
        for (const [name, first, command] of commands) {
          // A start has many boundaries that have nothing to do with links: every fifth is looked at.
          const stride = name === 'start' ? 5 : 1;
          for (let boundary = 1; ; boundary += stride) {
            if (first !== undefined) await world.sh(`minirun ${first} >/dev/null`);
            const { stderr, code } = await world.run(command.split(' '), {
              env: { MINIRUN_FAULT: `${mode}:${boundary}` },
            });
            const injected = stderr.includes(mode === 'kill' ? 'killed at' : 'injected fault');
            if (!injected) expect(`${name} ${boundary} ${code} ${stderr}`).toBe(`${name} ${boundary} 0 `);
            try {
              // What makes something is undone at once, what takes something away is gone on with.
              if (mode === 'kill' || name === 'link rm') await world.sh('minirun ps >/dev/null');
              await settled();
              if (name === 'link set') {
                const now = await world.sh('minirun link ls --format "{{.Shaping}}{{.MTU}}"; tc qdisc show dev veth0');
                const done = /^rate 2mbit1300\n.*rate 2Mbit/.test(now);
                if (!done || mode === 'fail')
                  expect(now).toMatch(injected ? /^rate 1mbit\n.*rate 1Mbit/ : /^rate 2mbit1300/);
              }
              if (name === 'start') await world.sh('minirun rm -f foo');
              const left = fs.readdirSync(path.join(world.root, 'links')).map((file) => file.replace('.json', ''));
              if (left.length > 0) await world.sh(`minirun link rm ${left.join(' ')}; minirun ps >/dev/null`);
              await expectNoLeak(name === 'start' ? before : clean, world);
              if (name === 'start') await start('foo');
              else expect(await world.sh('ip -n foo -o link')).not.toContain('eth1');
            } catch (error) {
              throw new Error(`${name}, ${mode}:${boundary}: ${stderr}\n${(error as Error).message}`, { cause: error });
            }
            if (injected) continue;
            expect(boundary).toBeGreaterThan(3);
            counts.push(`${name} ${boundary - 1}`);
            break;
          }
        }
        process.stderr.write(`${mode}: ${counts.join(', ')}\n`);
      }, 180_000);
    }
  });
});
