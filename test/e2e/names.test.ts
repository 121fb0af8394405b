import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import {
  createWorld,
  expectNoLeak,
  internetAddress,
  type Running,
  type Snapshot,
  type World,
} from '../support/world.ts';

describe.skipIf(skipOrFail(missingWorld()))('names', () => {
  let world: World;
  let before: Snapshot;
  /** The name server of the outside, which the host's resolv.conf names. It prints every question. */
  let outside: Running;

  beforeAll(async () => {
    world = await createWorld();
    outside = await world.internet.spawn(
      [
        'dnsmasq',
        '--keep-in-foreground',
        '--conf-file=/dev/null',
        '--no-hosts',
        '--no-resolv',
        '--user=root',
        '--pid-file=',
        '--bind-interfaces',
        `--listen-address=${internetAddress}`,
        '--address=/outside.example/198.51.100.7',
        '--log-queries',
        '--log-facility=-',
      ],
      { timeout: 2 ** 31 - 1 },
    );
    await outside.waitFor('started');
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    before = await world.snapshot();
  });
  afterAll(async () => {
    await world.destroy();
  });

  /** Runs minirun and fails unless it succeeds. */
  const minirun = async (...args: string[]) => {
    const { code, stdout, stderr } = await world.run(args);
    expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
    return stdout;
  };
  const sleeper = (name: string, ...flags: string[]) =>
    minirun('run', '-d', '--name', name, ...flags, 'busybox', 'sleep', '1000');
  const addressOf = async (name: string, network = 'minirun0', field = 'IPAddress') => {
    const [inspected] = JSON.parse(await minirun('inspect', name)) as {
      NetworkSettings: { Networks: Record<string, Record<string, string>> };
    }[];
    return inspected?.NetworkSettings.Networks[network]?.[field] as string;
  };
  /** The answers that a container gets, in order; a server may be named. */
  const lookup = async (container: string, type: string, name: string, server = '') => {
    // An address is looked up backwards when no type is given.
    const flags = type === 'ptr' ? [] : [`-type=${type}`];
    const servers = server === '' ? [] : [server];
    const { stdout } = await world.run(['exec', container, 'timeout', '2', 'nslookup', ...flags, name, ...servers]);
    const answers = stdout.matchAll(/^(?:Name:.*\nAddress: |\S+\tname = )(\S+)$/gm);
    return [...answers].map((match) => match[1] as string).toSorted();
  };
  const resolvConf = (container: string) => minirun('exec', container, 'cat', '/etc/resolv.conf');
  const removeAll = async () => {
    await world.run(['rm', '-f', '-a']);
    await world.run(['network', 'prune', '-f']);
    await expectNoLeak(before, world);
  };

  afterEach(removeAll);

  test('by name, alias, host name, short id and name of the network, IPv4, IPv6 and backwards', async () => {
    await minirun('network', 'create', '--subnet', '10.44.0.0/24', '--subnet', 'fd44::/64', 'dual');
    const id = await sleeper('web', '--network', 'dual', '--network-alias', 'www', '--hostname', 'frontend');
    await sleeper('client', '--network', 'dual');
    const ipv4 = await addressOf('web', 'dual');
    const ipv6 = await addressOf('web', 'dual', 'GlobalIPv6Address');
    for (const name of ['web', 'WEB', 'www', 'frontend', 'web.dual', 'www.dual', id.slice(0, 12)]) {
      expect([name, await lookup('client', 'a', name)]).toEqual([name, [ipv4]]);
      expect([name, await lookup('client', 'aaaa', name)]).toEqual([name, [ipv6]]);
    }
    expect(await lookup('client', 'ptr', ipv4)).toEqual(['web']);
    expect(await lookup('client', 'ptr', ipv6)).toEqual(['web']);
    expect(await lookup('web', 'a', 'web')).toEqual([ipv4]);
    expect(await minirun('exec', 'client', 'ping', '-4', '-c', '1', 'web')).toContain(`PING web (${ipv4})`);
    expect(await resolvConf('client')).toBe('nameserver 10.44.0.1\nnameserver fd44::1\noptions ndots:0\n');
  });

  test('known before the command runs; forgotten when the container stops, is killed, renamed or removed', async () => {
    await sleeper('client');
    const early = await minirun('run', '--rm', '--name', 'early', 'busybox', 'nslookup', '-type=a', 'early');
    expect(early).toContain('Name:\tearly');
    expect(await lookup('client', 'a', 'early')).toEqual([]);

    await sleeper('one', '--stop-timeout', '0');
    const first = await addressOf('one');
    expect(await lookup('client', 'a', 'one')).toEqual([first]);
    await minirun('rename', 'one', 'uno');
    expect([await lookup('client', 'a', 'one'), await lookup('client', 'a', 'uno')]).toEqual([[], [first]]);
    await minirun('stop', 'uno');
    expect(await lookup('client', 'a', 'uno')).toEqual([]);
    expect(await lookup('client', 'ptr', first)).toEqual([]);
    await minirun('start', 'uno');
    expect(await lookup('client', 'a', 'uno')).toEqual([await addressOf('uno')]);

    const [inspected] = JSON.parse(await minirun('inspect', 'uno')) as { State: { Pid: number } }[];
    await world.sh(`kill -9 ${inspected?.State.Pid}`);
    await minirun('wait', 'uno');
    expect(await lookup('client', 'a', 'uno')).toEqual([]);
  });

  test('an alias of several containers stands for all of them', async () => {
    await sleeper('client');
    for (const name of ['p1', 'p2', 'p3']) await sleeper(name, '--network-alias', 'pool');
    const all = await Promise.all(['p1', 'p2', 'p3'].map((name) => addressOf(name)));
    expect(await lookup('client', 'a', 'pool')).toEqual(all.toSorted());
    await minirun('rm', '-f', 'p2');
    expect(await lookup('client', 'a', 'pool')).toEqual([all[0] as string, all[2] as string].toSorted());
  });

  test("outside names come from the host's name server, which never hears a container's", async () => {
    await sleeper('web');
    const heard = outside.output().length;
    const { stdout } = await world.run(['run', '--rm', 'busybox', 'nslookup', '-type=a', 'outside.example']);
    expect(stdout).toContain('Address: 198.51.100.7');
    expect(outside.output().slice(heard)).toContain('query[A] outside.example');
    const told = outside.output().length;
    for (const name of ['web', 'nobody', 'web.minirun0', 'nobody.minirun0', '10.90.0.77'])
      await world.run(['exec', 'web', 'nslookup', name]);
    // A question of its own at the end: everything before it has arrived by then.
    await world.run(['exec', 'web', 'nslookup', '-type=a', 'last.outside.example']);
    await outside.waitFor('query[A] last.outside.example', { from: told });
    expect(outside.output().slice(told)).not.toMatch(/web|nobody|90\.10\.in-addr/);
  });

  test('an internal network knows its containers and asks nobody', async () => {
    await minirun('network', 'create', '--internal', '--subnet', '10.45.0.0/24', 'closed');
    await sleeper('inside', '--network', 'closed');
    expect(await lookup('inside', 'a', 'inside.closed')).toEqual([await addressOf('inside', 'closed')]);
    const { stdout } = await world.run(['exec', 'inside', 'nslookup', 'outside.example']);
    expect(stdout).toContain('NXDOMAIN');
  });

  test('in several networks the names of each; connected and disconnected; others stay unknown', async () => {
    await minirun('network', 'create', '--subnet', '10.46.0.0/24', 'left');
    await minirun('network', 'create', '--subnet', '10.47.0.0/24', 'right');
    await sleeper('lone', '--network', 'left');
    await sleeper('rona', '--network', 'right');
    await sleeper('both', '--network', 'left', '--network', 'right');
    expect(await resolvConf('both')).toContain('nameserver 127.0.0.11\n');
    expect(await lookup('both', 'a', 'lone')).toEqual([await addressOf('lone', 'left')]);
    expect(await lookup('both', 'a', 'rona.right')).toEqual([await addressOf('rona', 'right')]);
    expect(await lookup('both', 'ptr', await addressOf('rona', 'right'))).toEqual(['rona']);
    expect(await lookup('both', 'a', 'outside.example')).toEqual(['198.51.100.7']);
    expect(await lookup('lone', 'a', 'both')).toEqual([await addressOf('both', 'left')]);
    expect(await lookup('lone', 'a', 'rona')).toEqual([]);
    // Not even from the other network's own name server.
    expect(await lookup('lone', 'a', 'rona', '10.47.0.1')).toEqual([]);

    await minirun('network', 'connect', '--alias', 'guest', 'right', 'lone');
    expect(await lookup('lone', 'a', 'rona')).toEqual([await addressOf('rona', 'right')]);
    expect(await lookup('rona', 'a', 'guest')).toEqual([await addressOf('lone', 'right')]);
    await minirun('network', 'disconnect', 'right', 'lone');
    expect(await lookup('lone', 'a', 'rona')).toEqual([]);
    expect(await lookup('rona', 'a', 'guest')).toEqual([]);
    expect(await resolvConf('lone')).toContain('nameserver 10.46.0.1\n');
  });

  test('--dns is asked for outside names; the container may be a name server itself; who shares its network asks as it does', async () => {
    await sleeper('web');
    await sleeper('client', '--dns', internetAddress);
    expect(await lookup('client', 'a', 'web')).toEqual([await addressOf('web')]);
    expect(await lookup('client', 'a', 'outside.example')).toEqual(['198.51.100.7']);
    // Both ways to ask lead to it, and port 53 is the container's.
    expect(await world.sh('ip netns exec client dig +short +tcp @127.0.0.11 web')).toBe(`${await addressOf('web')}\n`);
    await world.sh(
      'ip netns exec client busybox nc -l -p 53 </dev/null & pid=$!; until ip netns exec client ss -Hlnt sport = 53 | grep -q .; do kill -0 $pid; done; kill $pid',
    );
    const shared = await minirun(
      'run',
      '--rm',
      '--network',
      'container:client',
      'busybox',
      'nslookup',
      '-type=a',
      'web',
    );
    expect(shared).toContain(await addressOf('web'));
  });

  test('on a macvlan network, where the host is not', async () => {
    await minirun('network', 'create', '-d', 'macvlan', '--subnet', '203.0.113.0/24', '-o', 'parent=eth0', 'lan');
    await sleeper('ann', '--network', 'lan:ip=203.0.113.50');
    await sleeper('bob', '--network', 'lan:ip=203.0.113.51');
    expect(await lookup('ann', 'a', 'bob')).toEqual(['203.0.113.51']);
    expect(await lookup('bob', 'a', 'ann.lan')).toEqual(['203.0.113.50']);
  });

  test('fifty that start at once find each other', async () => {
    const names = Array.from({ length: 50 }, (_, index) => `n${index}`);
    await Promise.all(names.map((name) => sleeper(name)));
    const script = `for n in ${names.join(' ')}; do nslookup -type=a $n >/dev/null || echo no $n; done`;
    for (const name of ['n0', 'n23', 'n49']) expect(await minirun('exec', name, 'sh', '-c', script)).toBe('');
  }, 60_000);

  test("whatever the umask; with another server on port 53; after a name server's death", async () => {
    await world.sh('umask 077; minirun run -d --name web busybox sleep 1000');
    const address = await addressOf('web');
    expect(await lookup('web', 'a', 'web')).toEqual([address]);
    await world.sh(
      'pid=$(cat /run/minirun/*/networks/minirun0/pid); kill -9 $pid; while [ -d /proc/$pid ]; do :; done',
    );
    const ask = ['run', '--rm', 'busybox', 'nslookup', '-type=a', 'web'];
    expect(await minirun(...ask)).toContain(address);
    await minirun('network', 'reload');
    expect(await lookup('web', 'a', 'web')).toEqual([address]);
    await removeAll();

    const other = await world.host.spawn(
      ['dnsmasq', '-k', '--conf-file=/dev/null', '--pid-file=', '--user=root', '--log-facility=-'],
      { timeout: 2 ** 31 - 1 },
    );
    await other.waitFor('started');
    await sleeper('web');
    expect(await minirun(...ask)).toContain(await addressOf('web'));
    expect(await lookup('web', 'a', 'outside.example')).toEqual(['198.51.100.7']);
    other.kill();
    await other.exit;
  });

  test('without dnsmasq the names are kept in /etc/hosts, and a warning says what is missing', async () => {
    const binary = (await world.sh('command -v dnsmasq')).trim();
    await world.sh(`mount --bind /dev/null ${binary}`);
    try {
      const run = (name: string, ...command: string[]) =>
        world.run(['run', '-d', '--name', name, '--network-alias', `${name}-alias`, 'busybox', ...command]);
      const { stderr } = await run('first', 'sleep', '1000');
      expect(stderr.split('\n')).toHaveLength(2);
      expect(stderr).toMatch(/warning.*dnsmasq-base/);
      await Promise.all(['second', 'third', 'fourth'].map((name) => run(name, 'sleep', '1000')));
      expect(await resolvConf('first')).toBe(`nameserver ${internetAddress}\n`);
      for (const from of ['first', 'second', 'third', 'fourth']) {
        for (const to of ['first', 'second', 'third', 'fourth']) {
          const { stdout } = await world.run(['exec', from, 'ping', '-c', '1', to]);
          expect(stdout).toContain(`(${await addressOf(to)})`);
        }
      }
      expect(await minirun('exec', 'first', 'cat', '/etc/hosts')).toContain('fourth-alias');
      await world.run(['rm', '-f', 'fourth']);
      expect(await minirun('exec', 'first', 'cat', '/etc/hosts')).not.toContain('fourth');
    } finally {
      await world.sh(`umount ${binary}`);
    }
  });
});
