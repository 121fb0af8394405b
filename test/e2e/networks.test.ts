import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, internetAddress, type Snapshot, type World } from '../support/world.ts';

/** An address of the internet machine, and one of the host's beside it. */
const internet6 = '2001:db8::1';
const host6 = '2001:db8::2';

interface Address {
  ifname: string;
  mtu: number;
  address: string;
  addr_info: { local: string; prefixlen: number; scope: string }[];
}

interface Route {
  dst: string;
  gateway?: string;
  dev: string;
}

describe.skipIf(skipOrFail(missingWorld()))('networks', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    await world.sh(`ip addr add ${host6}/64 dev eth0 nodad; ip -6 route add default via ${internet6}`);
    await world.internet.sh(`ip addr add ${internet6}/64 dev eth0 nodad`);
    before = await world.snapshot();
  });
  afterAll(async () => {
    await world.destroy();
  });

  // A test that fails must not spoil the next ones.
  afterEach(async () => {
    await world.run(['rm', '-f', '-a']);
    await world.run(['network', 'prune', '-f']);
  });

  /** Runs lines of minirun commands, each of which must succeed. */
  const minirun = async (...commands: string[]) =>
    world.sh(commands.map((command) => `minirun ${command} >/dev/null`).join('\n'));
  const sleeper = (name: string, flags: string) => `run -d --name ${name} ${flags} busybox sleep 1000`;
  const pings = async (from: string, to: string) =>
    (await world.host.run(['ip', 'netns', 'exec', from, 'ping', '-n', '-c', '1', '-W', '0.5', to])).code === 0;
  const interfaces = async (name: string) =>
    (JSON.parse(await world.sh(`ip -n ${name} -j addr`)) as Address[]).filter(({ ifname }) => ifname !== 'lo');
  /** `eth0 10.7.0.2/24 fd00:7::2/64`, one line for each interface; what the kernel itself gives is left out. */
  const addresses = async (name: string) =>
    (await interfaces(name)).map(({ ifname, addr_info: infos }) =>
      [
        ifname,
        ...infos.filter(({ scope }) => scope === 'global').map(({ local, prefixlen }) => `${local}/${prefixlen}`),
      ].join(' '),
    );
  const routes = async (name: string, family: 4 | 6 = 4) =>
    (JSON.parse(await world.sh(`ip -n ${name} -${family} -j route`)) as Route[])
      .filter(({ gateway }) => gateway !== undefined)
      .map(({ dst, gateway, dev }) => `${dst} via ${gateway} dev ${dev}`);
  /** Fails with that exit code, one line that says why, and no effect. */
  const refused = async (command: string, code: number, ...says: RegExp[]) => {
    const was = await world.snapshot();
    const result = await world.run(command.split(' '));
    expect(`${command}: ${result.code}`).toBe(`${command}: ${code}`);
    expect(result.stderr).toMatch(/^minirun: [^\n]*\n$/);
    for (const each of says) expect(result.stderr).toMatch(each);
    await expectNoLeak(was, world).catch((error: Error) => {
      throw new Error(`${command}\n${error.message}`);
    });
  };
  const cleared = async (...networks: string[]) => {
    await minirun('rm -f -a');
    if (networks.length > 0) await minirun(`network rm ${networks.join(' ')}`);
    await expectNoLeak(before, world);
  };

  test('ranges of both families, a part of one, kept addresses, MTU, routes: seen from inside', async () => {
    await minirun(
      'network create --subnet 10.50.0.0/24 --subnet 10.51.0.0/24 --subnet fd00:50::/64 --gateway 10.50.0.254 --ip-range 10.50.0.8/30 --aux-address printer=10.50.0.9 --opt mtu=1300 --label a=b --route 10.99.0.0/24,10.50.0.7 --route fd00:99::/64,fd00:50::7 lab',
      sleeper('one', '--network lab'),
      sleeper('two', '--network lab'),
    );
    expect(await addresses('one')).toEqual(['eth0 10.50.0.8/24 fd00:50::2/64']);
    expect(await addresses('two')).toEqual(['eth0 10.50.0.10/24 fd00:50::3/64']);
    expect((await interfaces('one'))[0]).toMatchObject({ mtu: 1300, address: '02:42:0a:32:00:08' });
    expect(await routes('one')).toEqual(['default via 10.50.0.254 dev eth0', '10.99.0.0/24 via 10.50.0.7 dev eth0']);
    expect((await routes('one', 6)).toSorted()).toEqual([
      'default via fd00:50::1 dev eth0',
      'fd00:99::/64 via fd00:50::7 dev eth0',
    ]);
    // The second range once the part of the first is used up.
    await minirun(sleeper('three', '--network lab'), sleeper('four', '--network lab'));
    expect(await addresses('four')).toEqual(['eth0 10.51.0.1/24 fd00:50::5/64'.replace('51.0.1', '51.0.2')]);
    expect(await routes('four')).toContain('default via 10.51.0.1 dev eth0');
    for (const peer of ['10.50.0.10', 'fd00:50::3', '10.51.0.2', internetAddress, internet6])
      expect(`${peer} ${await pings('one', peer)}`).toBe(`${peer} true`);
    const inspected = JSON.parse(await world.sh('minirun network inspect lab')) as object[];
    expect(inspected[0]).toMatchObject({
      EnableIPv6: true,
      Labels: { a: 'b' },
      Options: { 'com.docker.network.driver.mtu': '1300' },
      IPAM: {
        Config: [
          {
            Subnet: '10.50.0.0/24',
            Gateway: '10.50.0.254',
            IPRange: '10.50.0.8/30',
            AuxiliaryAddresses: { printer: '10.50.0.9' },
          },
          { Subnet: '10.51.0.0/24', Gateway: '10.51.0.1' },
          { Subnet: 'fd00:50::/64', Gateway: 'fd00:50::1' },
        ],
      },
    });
    await cleared('lab');
  });

  test('the first packet of a container arrives, of IPv4 and of IPv6: nothing has to warm up', async () => {
    await minirun('network create --subnet 10.50.0.0/24 --subnet fd00:50::/64 lab', sleeper('peer', '--network lab'));
    for (let round = 0; round < 3; round++) {
      for (const [ping, targets] of [
        ['ping', ['10.50.0.2', internetAddress]],
        ['ping -6', ['fd00:50::2', internet6]],
      ] as const) {
        for (const target of targets) await minirun(`run --rm --network lab busybox ${ping} -c 1 -W 1 ${target}`);
      }
    }
    await cleared('lab');
  });

  test('--ipv6 alone: a private range of its own; the default network has no IPv6', async () => {
    await minirun('network create --ipv6 lab', sleeper('one', '--network lab'), sleeper('other', ''));
    expect((await addresses('one'))[0]).toMatch(/^eth0 10\.1\d\d\.0\.2\/24 fd[0-9a-f:]+::2\/64$/);
    expect((await interfaces('other'))[0]?.addr_info).toHaveLength(1);
    await cleared('lab');
  });

  test('internal: each other and the host, but no way out and none in', async () => {
    await minirun(
      'network create --internal --subnet 10.50.0.0/24 --subnet fd00:50::/64 lab',
      'network create --subnet 10.51.0.0/24 other',
      sleeper('one', '--network lab'),
      sleeper('two', '--network lab'),
      sleeper('far', '--network other'),
    );
    expect([await routes('one'), await routes('one', 6)]).toEqual([[], []]);
    for (const peer of ['10.50.0.3', 'fd00:50::3', '10.50.0.1']) expect(await pings('one', peer)).toBe(true);
    // Not even when it helps itself to a route.
    await world.sh(
      'ip -n one route add default via 10.50.0.1; ip -n one route add default via fd00:50::1; ip -n far route add 10.50.0.0/24 via 10.51.0.1',
    );
    const answers = [
      pings('one', internetAddress),
      pings('one', internet6),
      pings('one', '10.51.0.2'),
      pings('far', '10.50.0.2'),
    ];
    expect(await Promise.all(answers)).toEqual([false, false, false, false]);
    await cleared('lab', 'other');
  });

  test('masquerade=false: others need a route; isolation lets those in that --isolate=false lets in', async () => {
    await minirun(
      'network create --subnet 10.50.0.0/24 --opt masquerade=false closed',
      'network create --subnet 10.51.0.0/24 --opt masquerade=false --isolate=false open',
      sleeper('one', '--network closed'),
      sleeper('two', '--network open'),
    );
    expect([await pings('one', internetAddress), await pings('two', internetAddress)]).toEqual([false, false]);
    await world.internet.sh('ip route add 10.50.0.0/15 via 203.0.113.2');
    expect([await pings('one', internetAddress), await pings('two', internetAddress)]).toEqual([true, true]);
    const reaches = async (address: string) =>
      (await world.internet.run(['ping', '-n', '-c', '1', '-W', '1', address])).code === 0;
    expect([await reaches('10.50.0.2'), await reaches('10.51.0.2')]).toEqual([false, true]);
    await world.internet.sh('ip route del 10.50.0.0/15');
    await cleared('closed', 'open');
  });

  test('icc=false: not each other, neither directly nor by way of the gateway; all else works', async () => {
    await minirun(
      'network create --subnet 10.50.0.0/24 --subnet fd00:50::/64 --opt icc=false lab',
      sleeper('one', '--network lab'),
      sleeper('two', '--network lab'),
    );
    for (const peer of ['10.50.0.1', 'fd00:50::1', internetAddress, internet6])
      expect(`${peer} ${await pings('one', peer)}`).toBe(`${peer} true`);
    for (const peer of ['10.50.0.3', 'fd00:50::3']) expect(`${peer} ${await pings('one', peer)}`).toBe(`${peer} false`);
    await world.sh(
      'ip -n one route add 10.50.0.3 via 10.50.0.1; ip -n two route add 10.50.0.2 via 10.50.0.1; ip -n one route add fd00:50::3 via fd00:50::1; ip -n two route add fd00:50::2 via fd00:50::1',
    );
    for (const peer of ['10.50.0.3', 'fd00:50::3']) expect(`${peer} ${await pings('one', peer)}`).toBe(`${peer} false`);
    await cleared('lab');
  });

  test('networks do not reach each other; --isolate=false opens one, --route to another one direction', async () => {
    const ranges = (n: number) => `--subnet 10.5${n}.0.0/24 --subnet fd00:5${n}::/64`;
    await minirun(
      `network create ${ranges(0)} closed`,
      `network create ${ranges(1)} --isolate=false open`,
      `network create ${ranges(2)} --route 10.50.0.0/24,10.52.0.1 --route fd00:50::/64,fd00:52::1 friend`,
      sleeper('one', '--network closed'),
      sleeper('two', '--network open'),
      sleeper('three', '--network friend'),
    );
    const expected = {
      'one 2': true,
      'one 3': false,
      'two 1': false,
      'two 3': false,
      'three 1': true,
      'three 2': true,
    };
    const seen: Record<string, boolean> = {};
    for (const [index, from] of ['one', 'two', 'three'].entries()) {
      for (const to of [1, 2, 3].filter((n) => n !== index + 1)) {
        const answers = await Promise.all([pings(from, `10.5${to - 1}.0.2`), pings(from, `fd00:5${to - 1}::2`)]);
        expect(`${from} ${to}: ${answers[0]}`).toBe(`${from} ${to}: ${answers[1]}`);
        seen[`${from} ${to}`] = answers[0];
      }
    }
    expect(seen).toEqual(expected);
    await cleared('closed', 'open', 'friend');
  });

  test('macvlan: a card of its own on the wire of the host', async () => {
    await minirun(
      'network create -d macvlan --subnet 203.0.113.0/24 --gateway 203.0.113.1 --opt parent=eth0 --ip-range 203.0.113.64/26 wire',
      sleeper('one', '--network wire'),
      sleeper('two', '--network wire --mac-address 02:00:00:00:00:77'),
    );
    expect(await addresses('one')).toEqual(['eth0 203.0.113.64/24']);
    expect(await pings('one', internetAddress)).toBe(true);
    expect(await pings('two', '203.0.113.64')).toBe(true);
    expect(await pings('two', internetAddress)).toBe(true);
    const neighbours = await world.internet.sh('ip neigh');
    expect(neighbours).toMatch(/^203\.0\.113\.64 dev eth0 lladdr 02:42:cb:00:71:40 /m);
    expect(neighbours).toMatch(/^203\.0\.113\.65 dev eth0 lladdr 02:00:00:00:00:77 /m);
    await cleared('wire');
  });

  test('host and none are listed as docker lists them, and stay as they are', async () => {
    await minirun('network create -d bridge --label x=1 lab');
    const list = async (flags: string) =>
      (await world.sh(`minirun network ls ${flags} | grep -v minirun0`)).trim().split('\n');
    expect(await list(`--format '{{.Name}} {{.Driver}} {{.Scope}}'`)).toEqual([
      'host host local',
      'lab bridge local',
      'none null local',
    ]);
    expect(await list(`--filter type=builtin --format '{{.Name}}'`)).toEqual(['host', 'none']);
    expect(await list(`--filter type=custom --format '{{.Name}}'`)).toEqual(['lab']);
    expect(await list(`--filter driver=null --format '{{.Name}}'`)).toEqual(['none']);
    expect(await list(`--filter label=x --format '{{.Name}}'`)).toEqual(['lab']);
    expect((await list('-q'))[0]).toMatch(/^[0-9a-f]{12}$/);
    expect(JSON.parse(await world.sh('minirun network inspect none host'))).toMatchObject([
      { Name: 'none', Driver: 'null', IPAM: { Config: [] }, Options: {}, Containers: {} },
      { Name: 'host', Driver: 'host' },
    ]);
    await minirun(sleeper('one', '--network lab'));
    for (const name of ['none', 'host']) {
      await refused(`network rm ${name}`, 1, /always there/);
      await refused(`network connect ${name} one`, 1, new RegExp(`minirun run --network ${name}`));
      await refused(`network create ${name}`, 1, /a network of that name/);
      await refused(`network create -d ${name} other`, 1, new RegExp(`minirun run --network ${name}`));
    }
    await minirun('network prune -f');
    expect(await list(`--format '{{.Name}}'`)).toEqual(['host', 'lab', 'none']);
    await refused('network rm lab', 1, /one is in it.*minirun stop one/);
    await minirun('rm -f one', 'network prune -f');
    expect(await list(`--format '{{.Name}}'`)).toEqual(['host', 'none']);
    await cleared();
  });

  test('interfaces by priority, then by name; fixed addresses and names outlive stop and start', async () => {
    await minirun(
      'network create --subnet 10.50.0.0/24 --subnet fd00:50::/64 net',
      'network create --subnet 10.51.0.0/24 net.a',
      'network create --subnet 10.52.0.0/24 z',
      sleeper(
        'one',
        '--stop-timeout 0 --network z:gw_priority=1 --network net.a:ifname=lan0,mac=02:00:00:00:00:0a --network net --network-alias q --ip 10.52.0.77',
      ),
      sleeper('fixed', '--network net --ip 10.50.0.99 --ip6 fd00:50::99 --mac-address 02:00:00:00:00:99'),
    );
    for (const round of ['run', 'start']) {
      expect(`${round} ${(await addresses('one')).join(', ')}`).toMatch(
        /^\w+ eth0 10\.52\.0\.77\/24, eth1 10\.50\.0\.\d+\/24 fd00:50::\d\/64, lan0 10\.51\.0\.\d+\/24$/,
      );
      expect((await interfaces('one')).find(({ ifname }) => ifname === 'lan0')?.address).toBe('02:00:00:00:00:0a');
      expect(await routes('one')).toEqual(['default via 10.52.0.1 dev eth0']);
      // The first has no IPv6: its default route goes through the next one that has.
      expect(await routes('one', 6)).toEqual(['default via fd00:50::1 dev eth1']);
      expect(await addresses('fixed')).toEqual(['eth0 10.50.0.99/24 fd00:50::99/64']);
      expect((await interfaces('fixed'))[0]?.address).toBe('02:00:00:00:00:99');
      expect(await pings('one', 'fd00:50::99')).toBe(true);
      if (round === 'run') await minirun('restart -t 0 one', 'stop -t 0 fixed', 'start fixed');
    }
    // By their whole names only: `net` is not the beginning of `net.a`.
    await minirun('rm -f one', 'network rm net.a', 'network inspect net');
    await cleared('net', 'z');
  });

  test('connect and disconnect, running and at rest', async () => {
    await minirun(
      'network create --subnet 10.50.0.0/24 --subnet fd00:50::/64 lab',
      'network create --subnet 10.51.0.0/24 --opt mtu=1400 other',
      sleeper('one', '--stop-timeout 0 --network lab'),
      sleeper('peer', '--network other'),
      'network connect --ip 10.51.0.50 --mac-address 02:00:00:00:00:50 --gw-priority 1 other one',
    );
    const connected = ['eth0 10.50.0.2/24 fd00:50::2/64', 'eth1 10.51.0.50/24'];
    expect(await addresses('one')).toEqual(connected);
    expect((await interfaces('one'))[1]).toMatchObject({ mtu: 1400, address: '02:00:00:00:00:50' });
    expect(await routes('one')).toEqual(['default via 10.51.0.1 dev eth1']);
    for (const peer of ['10.51.0.2', internetAddress]) expect(await pings('one', peer)).toBe(true);
    await refused('network connect other one', 1, /it is in that network/);
    await refused('network connect --ifname eth0 minirun0 one', 1, /it has an interface eth0/);

    // The priority decides after a start, for the order of interfaces, too.
    await minirun('restart -t 0 one');
    expect(await addresses('one')).toEqual(['eth0 10.51.0.50/24', 'eth1 10.50.0.3/24 fd00:50::3/64']);

    await minirun('network disconnect other one');
    expect(await addresses('one')).toEqual(['eth1 10.50.0.3/24 fd00:50::3/64']);
    expect(await routes('one')).toEqual(['default via 10.50.0.1 dev eth1']);
    expect(await pings('one', internetAddress)).toBe(true);
    await refused('network disconnect other one', 1, /it is not in that network/);
    await minirun('network disconnect lab one');
    expect(await addresses('one')).toEqual([]);
    await minirun('restart -t 0 one');
    expect(await addresses('one')).toEqual([]);

    // At rest it takes effect with the next start. The default network comes and goes with it.
    await minirun('stop one', 'network connect --ifname lan0 lab one', 'network connect bridge one', 'start one');
    expect((await addresses('one')).map((line) => line.split(' ')[0] as string)).toEqual(['lan0', 'eth0']);
    await minirun('network disconnect minirun0 one');
    expect(await world.sh('ip -br link')).not.toContain('minirun0');

    // A network that has gone does not keep a container from starting.
    await minirun('stop one', 'network rm lab');
    await refused('start one', 1, /no network "lab"/);
    await minirun('network disconnect lab one', 'start one');
    expect(await addresses('one')).toEqual([]);

    await minirun(sleeper('onhost', '--network host'), sleeper('guest', '--network container:one'));
    await refused('network connect other onhost', 1, /it uses the host's network/);
    await refused('network connect other guest', 1, /it uses another container's network/);
    await minirun(sleeper('lonely', '--network none'), 'network connect other lonely');
    expect(await addresses('lonely')).toEqual(['eth0 10.51.0.3/24']);
    expect(await pings('lonely', '10.51.0.2')).toBe(true);
    await cleared('other');
  });

  for (const variant of ['nft', 'legacy'] as const) {
    test(`reload brings everything back after it has been taken away (iptables-${variant})`, async () => {
      const env = variant === 'nft' ? {} : { PATH: `${world.directory}/legacy:${world.host.env.PATH}` };
      if (variant === 'legacy')
        await world.sh(
          'mkdir legacy; for each in iptables ip6tables; do for end in "" -save -restore; do ln -s /usr/sbin/xtables-legacy-multi legacy/$each$end; done; done',
        );
      const run = async (script: string) => world.sh(script, { env });
      await run(
        `iptables -N OTHER; iptables -A OTHER -j RETURN; iptables -t nat -A POSTROUTING -s 192.0.2.7 -j ACCEPT`,
      );
      await run(`
        minirun network create --subnet 10.50.0.0/24 --subnet fd00:50::/64 --opt icc=false lab >/dev/null
        minirun ${sleeper('one', '--network lab')} >/dev/null
        minirun ${sleeper('apart', '--network lab')} >/dev/null
        minirun ${sleeper('two', '')} >/dev/null
        minirun ${sleeper('three', '')} >/dev/null`);
      const rules = async () =>
        (await run('iptables-save; ip6tables-save'))
          .split('\n')
          .filter((line) => !line.startsWith('#'))
          .map((line) => line.replace(/ ?\[\d+:\d+\]/, ''));
      const ours = async () => (await rules()).filter((line) => line.includes('MINIRUN')).toSorted();
      const [two = '', three = ''] = await Promise.all(
        ['two', 'three'].map(async (name) => (await addresses(name))[0]?.match(/ ([\d.]+)/)?.[1]),
      );
      const works = async () => {
        const cells: [string, string, boolean][] = [
          ['one', internetAddress, true],
          ['one', internet6, true],
          ['one', two, false],
          ['one', '10.50.0.3', false],
          ['two', three, true],
          ['two', internetAddress, true],
          ['two', '10.50.0.2', false],
        ];
        const seen = cells.map(async ([from, to]) => [from, to, await pings(from, to)]);
        expect(await Promise.all(seen)).toEqual(cells);
      };
      await works();
      const whole = await ours();
      expect(await run('minirun network reload')).toBe('lab\nminirun0\n');
      expect(await ours()).toEqual(whole);
      const foreign = (await rules()).filter((line) => !line.includes('MINIRUN'));
      for (const damage of [
        'for t in iptables ip6tables; do for each in filter nat; do $t -t $each -F; $t -t $each -X 2>/dev/null || :; done; done; iptables -N OTHER; iptables -A OTHER -j RETURN; iptables -t nat -A POSTROUTING -s 192.0.2.7 -j ACCEPT; iptables -t raw -F; iptables -t raw -X',
        'iptables -F MINIRUN-FORWARD; iptables -t nat -F MINIRUN-POSTROUTING; ip6tables -D FORWARD -j MINIRUN-FORWARD',
        'iptables -D MINIRUN-FORWARD -j MINIRUN-ISOLATE; iptables -D MINIRUN-FORWARD -j MINIRUN-USER',
        "for each in $(ls /sys/class/net | grep -E '^(mr-|minirun0)'); do ip link del $each; done",
      ]) {
        await run(damage);
        await run('minirun network reload');
        expect(await ours()).toEqual(whole);
        expect((await rules()).filter((line) => !line.includes('MINIRUN'))).toEqual(foreign);
        await works();
      }
      await run('minirun rm -f -a >/dev/null; minirun network rm lab >/dev/null');
      await run('iptables -t nat -D POSTROUTING -s 192.0.2.7 -j ACCEPT; iptables -F OTHER; iptables -X OTHER');
      expect(await ours()).toEqual([]);
      if (variant === 'legacy')
        await run(
          'for each in filter nat raw; do for t in iptables ip6tables; do $t -t $each -S >/dev/null; done; done',
        );
      await world.sh('rm -rf legacy');
      await expectNoLeak(before, world);
    }, 30_000);
  }

  describe('routers', () => {
    test('a container between two networks routes, and traceroute shows it', async () => {
      await minirun(
        'network create --subnet 10.50.0.0/24 left',
        'network create --subnet 10.51.0.0/24 right',
        sleeper(
          'router',
          '--router --network left:ip=10.50.0.77 --network right:ip=10.51.0.77 --sysctl net.ipv4.conf.eth0.send_redirects=0',
        ),
        sleeper('ll', '--network left'),
        sleeper('rr', '--network right'),
      );
      expect(await world.sh('minirun exec router cat /proc/sys/net/ipv4/conf/eth0/send_redirects')).toBe('0\n');
      expect(await pings('ll', '10.51.0.2')).toBe(false);
      await world.sh('ip -n ll route add 10.51.0.0/24 via 10.50.0.77; ip -n rr route add 10.50.0.0/24 via 10.51.0.77');
      expect(await pings('ll', '10.51.0.2')).toBe(true);
      const hops = (await world.sh('ip netns exec ll traceroute -n -q 1 -w 1 -m 4 10.51.0.2')).trim().split('\n');
      expect(hops.slice(1).map((line) => line.trim().split(/\s+/).slice(0, 2).join(' '))).toEqual([
        '1 10.50.0.77',
        '2 10.51.0.2',
      ]);
      // Without forwarding the same container passes nothing on.
      await minirun('rm -f router', sleeper('router', '--network left:ip=10.50.0.77 --network right:ip=10.51.0.77'));
      expect(await pings('ll', '10.51.0.2')).toBe(false);
      await cleared('left', 'right');
    });

    test('a container is the gateway of a network', async () => {
      await minirun(
        'network create --subnet 10.50.0.0/24 --opt inhibit_ipv4=true lab',
        'network create --subnet 10.51.0.0/24 outer',
        sleeper('gate', '--router --network outer:gw_priority=1 --network lab:ip=10.50.0.1'),
        sleeper('one', '--network lab'),
      );
      expect(await world.sh('ip -4 -br addr')).not.toContain('10.50.0');
      expect(await addresses('gate')).toEqual(['eth0 10.51.0.2/24', 'eth1 10.50.0.1/24']);
      expect(await routes('gate')).toEqual(['default via 10.51.0.1 dev eth0']);
      expect(await routes('one')).toEqual(['default via 10.50.0.1 dev eth0']);
      expect(await pings('one', '10.51.0.2')).toBe(true);
      await world.sh('ip netns exec gate iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE');
      const hops = await world.sh(`ip netns exec one traceroute -n -q 1 -w 1 -m 4 ${internetAddress}`);
      expect(hops).toMatch(/ 1 {2}10\.50\.0\.1 .*\n 2 {2}10\.51\.0\.1 .*\n 3 {2}203\.0\.113\.1 /);
      await cleared('lab', 'outer');
    });
  });

  describe('mistakes', () => {
    test('of network create', async () => {
      await minirun('network create --subnet 10.50.0.0/24 --subnet fd00:50::/64 --opt bridge=br-lab lab');
      const create = async (flags: string, ...says: RegExp[]) => refused(`network create ${flags}`, 1, ...says);
      await create('--subnet 10.50.0.128/25 x', /10\.50\.0\.128\/25 overlaps 10\.50\.0\.0\/24 of network "lab"/);
      await create('--subnet 10.60.0.0/24 --subnet fd00:50::/48 x', /overlaps fd00:50::\/64 of network "lab"/);
      await create('--subnet 203.0.0.0/16 x', /overlaps the host's route 203\.0\.113\.0\/24 dev eth0/);
      await create('--subnet 2001:db8::/32 x', /overlaps the host's route 2001:db8::\/64 dev eth0/);
      await create('--subnet 10.60.0.0/24 --subnet 10.60.0.0/25 x', /10\.60\.0\.0\/25 overlaps 10\.60\.0\.0\/24/);
      await create('--subnet 10.60.0.5/24 x', /Give 10\.60\.0\.0\/24/);
      await create(
        '--subnet 10.60.0.0/24 --gateway 10.61.0.1 x',
        /--gateway 10\.61\.0\.1/,
        /Choose one in 10\.60\.0\.0\/24/,
      );
      await create('--subnet 10.60.0.0/24 --gateway 10.60.0.255 x', /not a host address/, /such as 10\.60\.0\.1/);
      await create('--subnet 10.60.0.0/24 --gateway 10.60.0.1 --gateway 10.60.0.2 x', /two gateways/);
      await create('--gateway 10.60.0.1 x', /--gateway needs a --subnet/);
      await create('--subnet 10.60.0.0/24 --ip-range 10.61.0.0/28 x', /--ip-range 10\.61\.0\.0\/28/);
      await create('--subnet 10.60.0.0/24 --aux-address p=10.61.0.9 x', /--aux-address 10\.61\.0\.9/);
      await create('--subnet 10.60.0.0/24 --aux-address 10.60.0.9 x', /NAME=ADDRESS/);
      await create('--subnet 10.60.0.0/24 --route 10.70.0.0/24,10.61.0.1 x', /cannot reach the gateway 10\.61\.0\.1/);
      await create('--subnet 10.60.0.0/24 --route fd00::/64,10.60.0.7 x', /mixes IPv4 and IPv6/);
      await create('--opt bridge=br-lab x', /network "lab" has the bridge br-lab/);
      await create('--opt bridge=eth0 x', /the host has an interface eth0/);
      await create('--opt bridge=a-bridge-too-long x', /at most 15 characters/);
      await create('-d macvlan --subnet 10.60.0.0/24 x', /--opt parent=eth0/);
      await create('-d macvlan --subnet 10.60.0.0/24 --opt parent=eth9 x', /no interface eth9/);
      await create('-d macvlan --opt parent=eth0 x', /--subnet RANGE --gateway ROUTER/);
      await create('lab', /there is one of that name/, /minirun network rm lab/);
      for (const name of ['.x', 'a/b', '-', 'bridge', 'container', 'minirun0']) await create(`-- ${name}`, /name/);
      // Two at once: one of them gets it.
      const both = await Promise.all(
        [0, 1].map(() => world.run(['network', 'create', '--subnet', '10.61.0.0/24', 'twin'])),
      );
      expect(both.filter(({ code }) => code === 0)).toHaveLength(1);
      expect(both.map(({ stderr }) => stderr).join('')).toMatch(/there is one of that name|overlaps/);
      await cleared('lab', 'twin');
    });

    test('of run and connect', async () => {
      await minirun(
        'network create --subnet 10.50.0.0/29 --aux-address printer=10.50.0.5 lab',
        'network create --subnet fd00:60::/64 six',
        sleeper('holder', '--network lab --ip 10.50.0.3'),
        sleeper('other', '--network none'),
      );
      const run = async (flags: string, ...says: RegExp[]) => refused(`run --rm ${flags} busybox true`, 125, ...says);
      const connect = async (flags: string, ...says: RegExp[]) => refused(`network connect ${flags}`, 1, ...says);
      const both = async (field: string, value: string, ...says: RegExp[]) => {
        await run(`--network lab --${field} ${value}`, ...says);
        await connect(`--${field} ${value} lab other`, ...says);
      };
      await both('ip', '10.50.0.3', /container holder has it/);
      await both('ip', '10.50.0.1', /it is the gateway of network "lab"/);
      await both('ip', '10.50.0.5', /it is the reserved address "printer" of network "lab"/);
      await both('ip', '10.50.0.7', /broadcast address/);
      await both('ip', '10.51.0.3', /outside 10\.50\.0\.0\/29/, /such as 10\.50\.0\.[2-6]/);
      await both('ip', 'ten', /not an IPv4 address/);
      await both('ip6', 'fd00::2', /network "lab" has no IPv6 subnet/);
      await both('mac-address', '01:00:5e:00:00:01', /no single interface can have it/);
      await run('--network six --ip 10.50.0.4', /network "six" has no IPv4 subnet/);
      await run('--network nowhere', /no network "nowhere"/, /minirun network create nowhere/);
      await run('--network lab --network lab', /named twice/);
      await run('--network lab --network none', /does not go with other networks/);
      await run('--network lab:ifname=far-too-long-name', /at most 15 characters/);
      await run('--network lab:ifname=lan --network six:ifname=lan', /two interfaces cannot have one name/);
      await connect('nowhere other', /no network "nowhere"/);
      await connect('lab nobody', /no container "nobody"/);
      await connect('--ifname a/b lab other', /at most 15 characters/);
      // The address is taken when it is wanted again: the definition stays, and says so.
      await minirun('stop -t 0 holder', sleeper('thief', '--network lab --ip 10.50.0.3'));
      await refused('start holder', 1, /container thief has it/);
      // All of a /29: five, less the reserved one.
      await minirun(...['p1', 'p2', 'p3'].map((name) => sleeper(name, '--network lab')));
      await run('--network lab', /no address left in network "lab": all of 10\.50\.0\.0\/29/);
      await cleared('lab', 'six');
    });
  });
});
