import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, internetAddress, type World } from '../support/world.ts';

/** What `ip -j` and `iptables-save` show, without what differs between any two runs: indices, times, counters. */
async function networkView(world: World, netns: string): Promise<unknown> {
  const volatile = new Set([
    'ifindex',
    'link_index',
    'stats',
    'stats64',
    'valid_life_time',
    'preferred_life_time',
    'link_netnsid',
    'group',
  ]);
  const tidy = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(tidy);
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(
      Object.entries(value).flatMap(([key, each]) => (volatile.has(key) ? [] : [[key, tidy(each)]])),
    );
  };
  const view: Record<string, unknown> = {};
  for (const place of ['', `-n ${netns} `]) {
    for (const object of ['addr', 'route', 'link']) {
      const rows = JSON.parse((await world.sh(`ip ${place}-j ${object}`)) || '[]') as { ifname?: string }[];
      // The world's own cable to the internet has a random MAC.
      view[`${place}${object}`] = tidy(
        rows.filter((row) => !/^(wan|uplink|inet|eth0w|world)/.test(row.ifname ?? '') || place !== ''),
      );
    }
  }
  view.rules = (await world.sh('iptables-save'))
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.replace(/\[\d+:\d+\]/, ''));
  return view;
}

describe.skipIf(skipOrFail(missingWorld()))('--explain', () => {
  let real: World;
  let byHand: World;

  beforeAll(async () => {
    [real, byHand] = await Promise.all([createWorld(), createWorld()]);
    for (const world of [real, byHand]) await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
  });
  afterEach(async () => {
    for (const world of [real, byHand]) {
      await world.run(['rm', '-f', '-a']);
      await world.run(['network', 'prune', '-f']);
    }
  });
  afterAll(async () => {
    await Promise.all([real.destroy(), byHand.destroy()]);
  });

  const wanOf = async (world: World) =>
    (JSON.parse(await world.sh('ip -j route get 203.0.113.1')) as { dev: string }[])[0]?.dev as string;

  test('the script of run builds what a real run builds, and takes it back without a trace', async () => {
    const flags = ['run', '-d', '--name', 'web'];
    const command = ['busybox', 'sh', '-c', 'echo $HOSTNAME >/tmp/index.html; exec httpd -f -h /tmp'];
    const before = await byHand.snapshot();
    const script = await byHand.run([...flags, '--explain', ...command]);
    expect(script).toMatchObject({ code: 0, stderr: '' });
    await expectNoLeak(before, byHand);

    await real.run([...flags, ...command]);
    await byHand.sh('cat >script; sh script add', { input: script.stdout });
    const dev = await wanOf(real);
    const without = (view: unknown) =>
      JSON.parse(
        JSON.stringify(view, (_, value: unknown) =>
          Array.isArray(value)
            ? value.filter(
                (row) =>
                  (row as { ifname?: string; dev?: string } | null)?.ifname !== dev &&
                  (row as { dev?: string } | null)?.dev !== dev,
              )
            : value,
        ),
      ) as unknown;
    expect(without(await networkView(byHand, 'web'))).toEqual(without(await networkView(real, 'web')));

    // The process of the script serves, and reaches the outside through NAT.
    const answer = 'for i in $(seq 50); do busybox wget -q -O - http://10.90.0.2/ && exit 0; sleep 0.1; done; exit 1';
    expect((await byHand.sh(answer)).trim()).toMatch(/^[0-9a-f]{12}$/);
    await byHand.sh(`ip netns exec web busybox wget -q -O - http://${internetAddress}/by-hand`);

    await byHand.sh('sh script delete && sh script delete');
    await byHand.sh('rm script');
    await expectNoLeak(before, byHand);
    await real.run(['rm', '-f', '-a']);
  });

  test('beside a live container the script leaves the network of that one alone', async () => {
    const before = await real.snapshot();
    await real.run(['run', '-d', '--name', 'witness', 'busybox', 'sleep', '1000']);
    const lived = await real.snapshot();
    const { stdout } = await real.run(['run', '-d', '--name', 'guest', '--explain', 'busybox', 'sleep', '1000']);
    await real.sh('cat >script; sh script add; ip -n guest -br addr show eth0', { input: stdout });
    expect(await real.sh('ip -n guest -br addr show eth0')).toContain('10.90.');
    await real.sh('sh script delete; sh script delete; rm script');
    await expectNoLeak(lived, real);
    expect((await real.run(['exec', 'witness', 'ping', '-c', '1', '-W', '2', '10.90.0.1'])).code).toBe(0);
    await real.run(['rm', '-f', '-a']);
    await expectNoLeak(before, real);
  });

  test('the script of rm takes down what a real run has built', async () => {
    const before = await real.snapshot();
    await real.run(['run', '-d', '--name', 'old', 'busybox', 'sleep', '1000']);
    const { stdout, code } = await real.run(['rm', '--explain', 'old']);
    expect(code).toBe(0);
    await real.sh('cat >script; sh script delete; sh script delete; rm script', { input: stdout });
    expect(await real.sh('ip netns list')).not.toContain('old');
    // The state still says that there is such a container: the next command sees that it is gone.
    await real.run(['rm', '-f', '-a']);
    await expectNoLeak(before, real);
  });

  test('the script of network create builds the bridge and the rules', async () => {
    const { stdout, code } = await real.run([
      'network',
      'create',
      '--subnet',
      '10.20.0.0/24',
      '--opt',
      'bridge=lab0',
      '--explain',
      'lab',
    ]);
    expect(code).toBe(0);
    const before = await byHand.snapshot();
    await byHand.sh('cat >script; sh script add', { input: stdout });
    await real.run(['network', 'create', '--subnet', '10.20.0.0/24', '--opt', 'bridge=lab0', 'lab']);
    for (const show of ['ip -br addr show lab0', 'iptables -S', 'iptables -t nat -S'])
      expect(await byHand.sh(show)).toBe(await real.sh(show));
    await byHand.sh('sh script delete; sh script delete; rm script');
    await expectNoLeak(before, byHand);
    await real.run(['network', 'rm', 'lab']);
  });

  test('a network of both families with every option, and a container in it and in the default one', async () => {
    const create =
      'network create --subnet 10.20.0.0/24 --subnet fd00:20::/64 --gateway 10.20.0.254 --ip-range 10.20.0.8/29 --route 10.21.0.0/24,10.20.0.254 --opt bridge=lab0 --opt mtu=1300 --opt icc=false --opt masquerade=false lab';
    const run = 'run -d --name web --network lab:gw_priority=1 --network minirun0:ip=10.90.7.7 busybox sleep 1000';
    const explained = async (command: string) =>
      (await byHand.run(command.replace(/ (lab|busybox .*)$/, ' --explain $1').split(' '))).stdout;
    const before = await byHand.snapshot();
    await real.sh(`minirun ${create}; minirun ${run}`);
    await byHand.sh('cat >create', { input: await explained(create) });
    // The container's script needs a network to be in: what minirun has written down of it, without what it has made.
    await byHand.sh(`sh create delete; minirun ${create}`);
    await byHand.sh('cat >script', { input: await explained(run) });
    await byHand.sh('sh create delete; sh create delete; sh create add');
    const made = await byHand.snapshot();
    await byHand.sh('sh script add');
    const show = [
      '-br addr show lab0',
      '-br addr show minirun0',
      '-n web -br addr',
      '-n web route',
      '-n web -6 route',
      '-d link show mr0a140008 | grep -o "mtu [0-9]*\\|isolated on"',
    ].map((command) => `ip ${command}`);
    // The process sets what its interfaces are like by itself.
    await byHand.sh('for i in $(seq 50); do [ $(ip -n web addr | grep -c fe80) = 1 ] && exit; sleep 0.1; done; exit 1');
    const view = async (world: World) => {
      const shown = await Promise.all(show.map((command) => world.sh(command)));
      const rules = (await world.sh('iptables-save; ip6tables-save')).split('\n');
      // The order in which the two networks were made differs.
      const own = rules.filter((line) => line.startsWith('-A') && line.includes('MINIRUN')).toSorted();
      return [shown.map((text) => text.replace(/@if\d+| +$/gm, '').replace(/ +/g, ' ')), own];
    };
    expect(await view(byHand)).toEqual(await view(real));
    expect(
      (await byHand.host.run(['ip', 'netns', 'exec', 'web', 'ping', '-c', '1', '-W', '1', 'fd00:20::1'])).code,
    ).toBe(0);
    // The container goes, the network that somebody has created stays.
    await byHand.sh('sh script delete; sh script delete');
    await expectNoLeak(made, byHand);
    await byHand.sh('minirun network rm lab; sh create delete; rm create script');
    await expectNoLeak(before, byHand);
    await real.sh('minirun rm -f web; minirun network rm lab');
  });

  test('the script of rm takes down a container that has joined a further network since', async () => {
    const before = await real.snapshot();
    await real.sh('minirun network create --ipv6 lab; minirun run -d --name old busybox sleep 1000');
    await real.sh('minirun network connect lab old; minirun rm --explain old >script');
    expect(await real.sh('ip -n old -br link show eth1')).toContain('UP');
    await real.sh('sh script delete; sh script delete; rm script');
    expect(await real.sh('ip netns list')).not.toContain('old');
    await real.sh('minirun system reconcile; minirun network rm lab');
    await real.run(['rm', '-f', '-a']);
    await expectNoLeak(before, real);
  });

  test('explaining changes nothing', async () => {
    const before = await real.snapshot();
    for (const args of [
      ['run', '--explain', 'busybox'],
      ['run', '--rm', '--explain', 'busybox', 'sh'],
    ]) {
      expect((await real.run(args)).stdout).toStartWith('#!/bin/sh');
    }
    await expectNoLeak(before, real);
  });
});
