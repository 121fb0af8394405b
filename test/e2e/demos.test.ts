import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { explainedNetwork } from '../support/explained.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { expectTranscript, inLab } from '../support/transcript.ts';
import { createWorld, expectNoLeak, internetAddress, minirun, type Snapshot, type World } from '../support/world.ts';

const directory = path.join(import.meta.dir, '../../docs/demos');
/** What the demos do to the network, as scripts. */
const scriptDirectory = path.join(import.meta.dir, '../../docs/explain');
const explaining = path.join(import.meta.dir, '../support/explaining-minirun.sh');
const scripts = fs
  .readdirSync(directory)
  .filter((name) => /^S\d\d-.*\.sh$/.test(name))
  .sort();
/** What a demo takes on its command line. */
const args: Record<string, string[]> = { S07: ['enp3s1f0'], S14: [internetAddress] };

/** An answer to `ping -c N ADDRESS`, from the packets that it lost. */
const reached = (address: string, count = 1) =>
  new RegExp(
    `--- ${address.replaceAll('.', '\\.')} ping statistics ---\n${count} packets transmitted, ${count} (packets )?received`,
  );

/** What the table of the scenarios wants to be seen, in the words of the real output. */
const observations: Record<string, readonly (string | RegExp | ((output: string) => void))[]> = {
  S01: [
    reached('10.0.1.1'),
    reached('10.0.2.1'),
    'Device "veth0" does not exist',
    'Device "veth1" does not exist',
    /exec ns1 ping -c 1 10\.0\.2\.1\nping: connect: Network is unreachable/,
    /exec ns2 ping -c 1 10\.0\.1\.1\nping: connect: Network is unreachable/,
  ],
  S02: [
    '10.0.2.1 dev veth0 src 10.0.1.1',
    '10.0.1.1 dev veth1 src 10.0.2.1',
    reached('10.0.2.1', 3),
    reached('10.0.1.1', 3),
  ],
  S03: [
    (output) => expect(output.match(/IP 10\.0\.2\.1 > 10\.0\.1\.1: ICMP echo request/g)).toHaveLength(10),
    (output) => expect(output.match(/IP 10\.0\.1\.1 > 10\.0\.2\.1: ICMP echo reply/g)).toHaveLength(10),
  ],
  S04: [
    /logs ns1\n(.*\n)*hello from ns2\n/,
    /Flags \[S\],.*\n.*Flags \[S\.\],.*\n.*Flags \[\.\],.*\n.*Flags \[P\.\],.* length 15\n/,
    /tcpdump -A.*\nhello from ns2\n/,
  ],
  S05: [
    /bridge0 .* 10\.13\.37\.1\/24/,
    /eth0@if\d+ .* 10\.13\.37\.2\/24/,
    / master bridge0 /,
    reached('10.13.37.2', 2),
    reached('10.13.37.1', 2),
  ],
  S06: [/traceroute to 10\.9\.9\.10 .*\n 1 {2}10\.13\.37\.2 .*\n 2 {2}10\.9\.9\.10 /],
  S07: [
    /addr show dev enp3s1f0\nenp3s1f0@.* 198\.51\.100\.7\/24/,
    reached('192.168.1.1'),
    (output) => {
      const [, moved = '', killed = '', removed = ''] = output.split(/enp3s1f0@\S+ +\w+ +198\.51\.100\.7\/24/);
      for (const part of [moved, killed]) expect(part).toContain('Device "enp3s1f0" does not exist');
      expect(moved).toContain('minirun kill foo');
      expect(killed).toContain('minirun rm -f foo');
      expect(removed.trim()).toBe('');
    },
  ],
  S08: [/\$ busybox nc .*\nOK\n/, /\$ minirun run --rm .*\nOK\n/],
  S09: [
    reached('10.0.0.20', 2),
    'IP 10.0.0.10 > 10.0.0.20: ICMP echo request',
    'IP 10.0.0.20 > 10.0.0.10: ICMP echo reply',
    /ip netns list\n\$ /,
    'Device "veth-1" does not exist',
  ],
  S10: [
    /link down host:ceth0\n.*\n172\.16\.0\.0\/12 dev veth0 proto kernel scope link src 172\.18\.0\.10 linkdown/,
    /link delete veth0\n.*\nDevice "ceth0" does not exist/,
  ],
  S11: [
    reached('172.18.0.20'),
    reached('172.18.0.10'),
    /ping -c 1 203\.0\.113\.2\nping: connect: Network is unreachable/,
  ],
  S12: [
    /minirun: cannot link .*two routes to one subnet.*minirun network create/,
    reached('172.18.0.10'),
    /172\.18\.0\.20 ping statistics ---\n1 packets transmitted, 0 received/,
    /172\.18\.0\.100 ping statistics ---\n1 packets transmitted, 0 received/,
    /route get 172\.18\.0\.20\n172\.18\.0\.20 dev veth0 /,
    /minirun: 172\.18\.0\.20 does not answer/,
  ],
  S13: [reached('172.18.0.20'), reached('172.18.0.10'), reached('172.18.0.1'), reached('203.0.113.2')],
  S14: [
    /203\.0\.113\.1 ping statistics ---\n1 packets transmitted, 0 received/,
    'IP 172.18.0.10 > 203.0.113.1: ICMP echo request',
    /ip_forward\n1\n/,
    '-s 172.16.0.0/12 ! -d 224.0.0.0/4 ! -o br0 -j MASQUERADE',
    reached('203.0.113.1'),
    'IP 203.0.113.2 > 203.0.113.1: ICMP echo request',
    'IP 203.0.113.1 > 203.0.113.2: ICMP echo reply',
  ],
  S15: [
    (output) => {
      const learnt = /172\.18\.0\.20 dev eth0 lladdr (\S+) REACHABLE/.exec(output)?.[1];
      expect(learnt).toBeDefined();
      expect(/^eth0 .* 172\.18\.0\.20\/12 +(\S+)/m.exec(output)?.[1]).toBe(learnt as string);
    },
  ],
  S16: [
    /exec net0 ps\n.*\n +1 root +tail -f \/dev\/null\n/,
    /--all ps\n.*\n +1 root +tail -f \/dev\/null\n/,
    /cat \/proc\/1\/comm\nsleep\n/,
    /uid_map\n +0 +0 +4294967295\n/,
  ],
  S17: ['ip netns add net0', /try\.sh\nexit code 0\nexit code 0\n/, /cat left\nlo .*\n\n/, /diff by-hand really\n$/],
};

/** What the scripts must have built, for some of them. */
const checks: Record<string, string> = {
  S02: 'ip netns exec ns1 ping -q -c 1 -W 5 10.0.2.1',
  S06: 'traceroute -n -m 5 10.9.9.10 | grep "2  10.9.9.10"',
  S09: 'ip netns exec ns-1 ping -q -c 1 -W 5 10.0.0.20',
  S13: 'ip netns exec net0 ping -q -c 1 -W 5 172.18.0.20; ip netns exec net1 ping -q -c 1 -W 5 172.18.0.1',
};

describe.skipIf(skipOrFail(missingWorld()))('the demos', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    for (const image of ['busybox', 'nettools']) await world.run(['run', '--rm', '--network', 'none', image, 'true']);
    before = await world.snapshot();
  });
  afterAll(async () => world.destroy());

  /** An interface of the host that nobody needs, with somebody behind it; S7 moves it. */
  const addInterface = async () => {
    execFileSync('nsenter', [
      `--net=/proc/${world.host.pid}/ns/net`,
      ...'ip link add enp3s1f0 type veth peer name lan netns'.split(' '),
      String(world.internet.pid),
    ]);
    await world.internet.sh('ip addr add 192.168.1.1/24 dev lan; ip link set lan up');
    await world.sh('ip addr add 198.51.100.7/24 dev enp3s1f0; ip link set enp3s1f0 up');
    return world.snapshot();
  };

  const demo = (name: string) => ['sh', path.join(directory, name), ...(args[name.slice(0, 3)] ?? [])];

  test('there is one for each scenario', () => {
    const wanted = Array.from({ length: 17 }, (_, index) => `S${String(index + 1).padStart(2, '0')}`);
    expect(scripts.map((name) => name.slice(0, 3))).toEqual(wanted);
    expect(Object.keys(observations)).toEqual(wanted);
  });

  for (const name of scripts) {
    const file = path.join(directory, name.replace(/sh$/, 'out'));
    const code = fs.readFileSync(path.join(directory, name), 'utf8').split('\n');

    test(`${name} prints what is expected, and leaves nothing behind`, async () => {
      expect(code.filter((line) => !/^\s*(#|$)/.test(line)).length).toBeLessThanOrEqual(25);
      const clean = name.startsWith('S07') ? await addInterface() : before;
      const explained = path.join(world.directory, name);
      fs.mkdirSync(explained);
      const result = await world.host.run(inLab(demo(name)), {
        env: { MINIRUN: explaining, REAL_MINIRUN: minirun, EXPLAIN_DIR: explained },
      });
      expect({ code: result.code, errors: result.stderr }, result.stdout).toEqual({ code: 0, errors: '' });
      await expectNoLeak(clean, world);
      if (clean !== before) await world.sh('ip link del enp3s1f0');
      expectTranscript(file, result.stdout);
      expectTranscript(path.join(scriptDirectory, name), explainedNetwork(name.slice(0, -3), explained));
      for (const seen of observations[name.slice(0, 3)] ?? []) {
        if (typeof seen === 'function') seen(result.stdout);
        else if (typeof seen === 'string') expect(result.stdout).toContain(seen);
        else expect(result.stdout).toMatch(seen);
      }
    });
  }

  for (const name of scripts) {
    test(`explain/${name} builds it in an empty namespace, and takes it away`, async () => {
      const script = path.join(scriptDirectory, name);
      const printed = await world.sh(`unshare --net --mount --fork sh -euc '
        mount -t tmpfs tmpfs /run; mkdir /run/netns; mount -t sysfs sysfs /sys
        ip link set lo up
        # What S7 moves.
        ip link add enp3s1f0 type veth peer name lan
        sh ${script} add
        ${checks[name.slice(0, 3)] ?? ''}
        sh ${script} delete; sh ${script} delete
        ip link del enp3s1f0
        echo left: $(ip -o link | cut -d : -f 2) $(ip netns list) $(iptables-save | grep -e -A)'`);
      expect(printed).toEndWith('left: lo\n');
    });
  }

  for (const [name, moment] of [
    ['S14-masquerade.sh', /exec net0 ping/],
    ['S06-routing-container.sh', /minirun run -d --name bar/],
  ] as const) {
    test(`Ctrl-C in the middle of ${name} takes everything down`, async () => {
      const running = await world.host.spawn(demo(name), { tty: true });
      await running.waitFor(moment);
      running.write('\x03');
      expect((await running.exit).code).toBe(130);
      await expectNoLeak(before, world);
    });
  }

  test('a demo that fails takes everything down', async () => {
    const result = await world.host.run(['sh', path.join(directory, 'S07-host-interface.sh'), 'nosuch0']);
    expect(result.code).not.toBe(0);
    expect(result.stdout).toContain('nosuch0');
    await expectNoLeak(before, world);
  });

  test('a demo does not touch what has one of its names already', async () => {
    await world.run(['run', '-d', '--name', 'bar', '--network', 'none', 'busybox', 'sleep', '100']);
    const result = await world.host.run(demo('S08-server.sh'));
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toContain('"bar"');
    expect((await world.run(['inspect', '-f', '{{.State.Status}}', 'bar'])).stdout).toBe('running\n');
    await world.run(['rm', '-f', 'bar']);
    await expectNoLeak(before, world);
  });

  test('MINIRUN says which minirun a demo takes', async () => {
    await world.sh(`ln -s ${minirun} another`);
    const result = await world.host.run(demo('S10-cable-on-the-host.sh'), {
      env: { MINIRUN: './another', PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    });
    expect(result.code).toBe(0);
    await expectNoLeak(before, world);
  });
});
