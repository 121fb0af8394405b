import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { settledSnapshot } from '../support/leaks.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { Witness } from '../support/witness.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

/** `minirun system reconcile`: what somebody has broken is put back, what is nobody's goes, what is another's stays. */

interface Audited {
  kind: string;
  name: string;
  problem: string;
  remedy: string;
  result: string;
}

const sleeper = 'busybox sleep 1000';

describe.skipIf(skipOrFail(missingWorld()))('system reconcile', () => {
  let world: World;
  let witness: Witness;
  let clean: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    witness = await Witness.start(world);
    await world.sh('minirun run --rm busybox true; minirun system reconcile');
    clean = await settledSnapshot(world);
  }, 30_000);
  afterAll(() => world.destroy());

  const idOf = (name: string): string => fs.readlinkSync(path.join(world.root, 'names', name));

  /** Reconciles, and again: then there is nothing to do. @returns `kind name: problem` of what was mended */
  async function reconcile(): Promise<string[]> {
    const first = await world.run(['system', 'reconcile', '--format', 'json']);
    expect(first.stderr).toBe('');
    const found = JSON.parse(first.stdout) as Audited[];
    expect(found.filter(({ result }) => result !== 'done')).toEqual([]);
    expect(first.code).toBe(0);
    expect(await world.sh('minirun system reconcile')).toBe('nothing to mend\n');
    return found.map(({ kind, name, problem }) => `${kind} ${name}: ${problem}`).toSorted();
  }

  /** What is there but its processes: those of this look are among them. */
  async function inFact(): Promise<object> {
    const { processes: _processes, ...rest } = await world.snapshot();
    const rules = await world.sh('ip addr; ip -n victim addr; ip -n victim route; iptables-save | grep -v "^[#:]"');
    return { ...rest, rules: rules.replaceAll(/valid_lft .*/g, '').replaceAll(/\[\d+:\d+\]/g, '') };
  }

  test('all is well: it says so, and changes nothing', async () => {
    expect(await world.sh('minirun system reconcile')).toBe('nothing to mend\n');
    expect(await world.sh('minirun system reconcile --format json')).toBe('[]\n');
    await expectNoLeak(clean, world);
  });

  test('what live containers lack is put back, and a dry run only tells', async () => {
    await world.sh(`minirun network create --ipv6 --subnet 10.77.0.0/24 lab
      minirun run -d --name victim --network minirun0 --network lab -p 8080:80 ${sleeper}
      minirun run -d --name peer --network none ${sleeper}
      minirun link add --name cable --addr 10.9.0.1/24 --peer-addr 10.9.0.2/24 victim:eth7 peer:eth7
      minirun route add victim 192.0.2.0/24 via 10.9.0.2`);
    const before = await inFact();
    const address = (await world.sh("ip -n victim -4 -br addr show eth0 | awk '{print $3}'")).trim();
    const port = (await world.sh("ip -n victim -o link show eth0 | sed 's/.*@if\\([0-9]*\\):.*/\\1/'")).trim();
    const host = (await world.sh(`ip -o link | sed -n 's/^${port}: \\([^@]*\\)@.*/\\1/p'`)).trim();
    const lab = (await world.sh("ip -o route show 10.77.0.0/24 | sed 's/.*dev \\([^ ]*\\) .*/\\1/'")).trim();
    await world.sh(`
      ip addr del 10.77.0.1/24 dev ${lab}; echo 0 >/proc/sys/net/ipv4/ip_forward; ip link set ${host} nomaster
      iptables -D MINIRUN-FORWARD -i ${lab} -j ACCEPT
      iptables -t nat -D MINIRUN-DNAT -p tcp --dport 8080 -j DNAT --to-destination $(iptables -t nat -S MINIRUN-DNAT | sed -n 's/.*--dport 8080 .*--to-destination //p')
      ip -n victim addr del ${address} dev eth0; ip -n victim route del default 2>/dev/null || :; ip -n victim link del eth7
      umount /run/netns/peer; rm /run/netns/peer`);
    const broken = await world.sh('iptables-save | grep -c MINIRUN; ip addr | grep -c 10.77.0.1/ || :');
    const dry = await world.sh('minirun system reconcile --dry-run');
    expect(dry).toMatch(/^(\w+ [^\n]*: would be (put back|switched on|made again|named again|plugged in)\n)+$/);
    expect(await world.sh('iptables-save | grep -c MINIRUN; ip addr | grep -c 10.77.0.1/ || :')).toBe(broken);
    expect(await reconcile()).toEqual(
      [
        'container peer: its network namespace has no name any more',
        `container victim: ${host} is not plugged into ${lab}`,
        'container victim: 1 rule of its published ports missing',
        `container victim: eth0 lacks ${address}`,
        ...(dry.includes('default route') ? ['container victim: it has no default route (IPv4)'] : []),
        'host net.ipv4.ip_forward: it is off, and networks are up',
        'link cable: its cable is gone',
        'network lab: 1 firewall rule or chains are missing',
        `network lab: ${lab} lacks 10.77.0.1/24`,
        ...(dry.includes('its route to') ? ['container victim: its route to 192.0.2.0/24 is gone'] : []),
      ].toSorted(),
    );
    const after = (await inFact()) as { rules: string };
    for (const line of (before as { rules: string }).rules.split('\n').filter((each) => each.startsWith('-A')))
      expect(after.rules.split('\n')).toContain(line);
    await world.sh(`for to in 10.77.0.1 10.90.0.1 10.9.0.2; do ip netns exec victim ping -q -c 1 -W 1 $to >/dev/null; done
      ip netns exec peer true; ip -n victim route | grep -q ^192.0.2.0/24
      minirun rm -f victim peer; minirun network rm lab`);
    await expectNoLeak(clean, world);
    await witness.check();
  }, 30_000);

  test('a container whose folder was deleted by hand: nothing of it stays', async () => {
    await world.sh(`minirun run -d --name victim -p 8080:80 --dns 203.0.113.1 ${sleeper}`);
    fs.rmSync(path.join(world.root, 'containers', idOf('victim')), { recursive: true });
    const found = await reconcile();
    for (const what of [
      /^process \d+ \(supervisor\)/,
      /^process \d+ \(logger\)/,
      /^namespace victim/,
      /^address 10\.90/,
    ])
      expect(found.some((line) => what.test(line))).toBe(true);
    for (const what of [/^name victim: no container/, /^ports /, /^rule iptables -t nat MINIRUN-DNAT/, /^file .*hosts/])
      expect(found.some((line) => what.test(line))).toBe(true);
    await expectNoLeak(clean, world);
    await witness.check();
  }, 30_000);

  test('a network whose file was deleted by hand: its bridge, its rules, its name server', async () => {
    await world.sh('minirun network create --subnet 10.77.0.0/24 lab');
    fs.rmSync(path.join(world.root, 'networks/lab.json'));
    const found = await reconcile();
    const told = found.map((line) => line.replaceAll(/mr-\w+|\/run\/[^:]+/g, 'X'));
    expect(told.filter((line) => !line.startsWith('rule '))).toEqual([
      'folder X: network lab is gone',
      'interface X: network lab is gone',
      'process name server lab: its network is gone',
    ]);
    expect(told.length).toBeGreaterThan(6);
    await expectNoLeak(clean, world);
  }, 30_000);

  test('what is left over and what is there twice', async () => {
    const folder = path.join(world.root, 'containers', idOf('witness'));
    fs.writeFileSync(path.join(folder, '.state.json.999999999.0'), '{');
    fs.writeFileSync(path.join(world.root, 'owners', `${idOf('witness')}.999999999.1`), '');
    fs.mkdirSync(path.join(world.root, 'containers/.new-999999999-1-abc'));
    fs.mkdirSync(path.join(world.root, 'images/.staging-999999999-1-00000000-0'));
    fs.symlinkSync('f'.repeat(64), path.join(world.root, 'names/nobody'));
    const network = path.join(world.root, 'networks/minirun0.json');
    const text = fs.readFileSync(network, 'utf8');
    fs.writeFileSync(network, text.replace('"leases": {', `"leases": { "10.90.9.9": "${'e'.repeat(64)}",`));
    await world.sh(`ip link add mr0a5a0909 type veth peer name stray; ip link set mr0a5a0909 master minirun0
      iptables -A MINIRUN-FORWARD -i minirun0 -j ACCEPT
      iptables -t nat -A MINIRUN-DNAT -p tcp --dport 9 -j DNAT --to-destination 10.90.9.9:9`);
    expect((await reconcile()).map((line) => line.replaceAll(/[0-9a-f]{64}/g, 'ID'))).toEqual([
      'address 10.90.9.9: reserved in minirun0 for a container that is gone',
      'file containers/ID/.state.json.999999999.0: left by a process that was killed',
      'file owners/ID.999999999.1: left by a process that was killed',
      'folder containers/.new-999999999-1-abc: left by a process that was killed',
      'image images/.staging-999999999-1-00000000-0: left by a process that was killed',
      'interface mr0a5a0909: its container is gone',
      'name nobody: no container has it',
      'rule iptables -t filter MINIRUN-FORWARD -i minirun0 -j ACCEPT (twice): it is for nobody',
      'rule iptables -t nat MINIRUN-DNAT -p tcp -m tcp --dport 9 -j DNAT --to-destination 10.90.9.9:9: it is for nobody',
    ]);
    await expectNoLeak(clean, world);
    await witness.check();
  }, 30_000);

  test('what is not of minirun, or of another state directory, stays', async () => {
    const other = path.join(world.directory, 'other');
    const env = { MINIRUN_ROOT: other };
    await world.sh(`ip netns add foreign; ip link add mr0a5a0a0a type veth peer name foreign0
      iptables -N MINIRUN-USER 2>/dev/null || :; iptables -A MINIRUN-USER -s 192.0.2.1 -j DROP
      iptables -A MINIRUN-FORWARD -i mr-ffffffffffff -j ACCEPT; iptables -A FORWARD -s 192.0.2.2 -j DROP`);
    await world.sh(
      `minirun network create --subnet 10.78.0.0/24 lab; minirun run -d --name other --network lab -p 8081:80 ${sleeper}`,
      { env },
    );
    expect(await world.sh('minirun system reconcile')).toBe('nothing to mend\n');
    await world.sh(`ip netns exec other ping -q -c 1 -W 1 10.78.0.1 >/dev/null; ip netns exec foreign true
      ip link show mr0a5a0a0a >/dev/null; iptables -C MINIRUN-USER -s 192.0.2.1 -j DROP
      iptables -C MINIRUN-FORWARD -i mr-ffffffffffff -j ACCEPT; iptables -C FORWARD -s 192.0.2.2 -j DROP
      iptables -t nat -S MINIRUN-DNAT | grep -q 8081`);
    // And the default network of one is not taken by the other, nor are the chains that both use taken away.
    const refused = await world.run(['run', '--rm', 'busybox', 'true'], { env });
    expect(`${refused.code} ${refused.stderr}`).toMatch(/^125 minirun: cannot bring network "minirun0" up: [^\n]*\n$/);
    await witness.check();
    await world.sh('minirun rm -f other; minirun network rm lab', { env });
    await witness.check();
    await world.sh(`ip netns del foreign; ip link del mr0a5a0a0a; iptables -F MINIRUN-USER
      iptables -D MINIRUN-FORWARD -i mr-ffffffffffff -j ACCEPT; iptables -D FORWARD -s 192.0.2.2 -j DROP`);
    fs.rmSync(other, { recursive: true });
    await expectNoLeak(clean, world);
  }, 30_000);

  test('a live container whose record cannot be found is left alone', async () => {
    await world.sh(`minirun run -d --name victim ${sleeper}`);
    const file = path.join(world.root, 'containers', idOf('victim'), 'state.json');
    const { init } = JSON.parse(fs.readFileSync(file, 'utf8')) as { init: { pid: number } };
    fs.renameSync(file, `${file}.aside`);
    await world.run(['system', 'reconcile']);
    await world.sh(`kill -0 ${init.pid}; ip -n victim link show eth0 >/dev/null`);
    fs.renameSync(`${file}.aside`, file);
    await world.sh('minirun rm -f victim');
    await expectNoLeak(clean, world);
  }, 30_000);

  for (const [change, point] of [
    ['connect', 'connect.attached'],
    ['connect', 'ports.recorded'],
    ['connect', 'undo.port.publish'],
    ['disconnect', 'container.detach'],
    ['disconnect', 'disconnect.detached'],
    ['disconnect', 'ports.recorded'],
    ['disconnect', 'undo.port.publish'],
    ['disconnect', 'ports.moved'],
  ] as const) {
    test(`network ${change} killed at ${point}: published ports lead to the container`, async () => {
      const networks = change === 'connect' ? '--network minirun0' : '--network minirun0 --network aaa';
      await world.sh(
        `minirun network create --subnet 10.77.0.0/24 aaa; minirun run -d --name victim ${networks} -p 8080:80 ${sleeper}`,
      );
      const env = { MINIRUN_FAULT: `kill:${point}` };
      expect((await world.run(['network', change, 'aaa', 'victim'], { env })).stderr).toContain(`killed at ${point}`);
      await reconcile();
      // The one rule leads to an address that the container has.
      await world.sh(`to=$(iptables -t nat -S MINIRUN-DNAT | sed -n 's/.*--dport 8080 .*--to-destination \\(.*\\):80/\\1/p')
        ip -n victim -o addr | grep -q " $to/"
        [ ${change} = connect ] || ! ip -n victim -o addr | grep -q ' 10.77.0.'
        minirun rm -f victim; minirun network rm aaa`);
      await expectNoLeak(clean, world);
    }, 30_000);
  }

  for (const point of ['connect.leased', 'macvlan.add', 'container.addr', 'container.sysctl']) {
    test(`network connect to a macvlan killed at ${point}: nothing of it stays`, async () => {
      await world.sh(`ip link add wire type veth peer name wire1; ip link set wire up
        minirun network create -d macvlan --subnet 10.76.0.0/24 --gateway 10.76.0.1 -o parent=wire mac
        minirun run -d --name victim ${sleeper}`);
      const before = await world.sh('ip -n victim -br link');
      const env = { MINIRUN_FAULT: `kill:${point}` };
      const { stderr } = await world.run(['network', 'connect', 'mac', 'victim'], { env });
      expect(stderr).toContain(`killed at ${point}`);
      if (point !== 'connect.leased') expect(await world.sh('ip -n victim -br link')).not.toBe(before);
      expect(await reconcile()).toContain('container victim: it has an address of mac but is not in it');
      expect(await world.sh('ip -n victim -br link')).toBe(before);
      await world.sh('minirun rm -f victim; minirun network rm mac; ip link del wire');
      await expectNoLeak(clean, world);
    }, 30_000);
  }
});
