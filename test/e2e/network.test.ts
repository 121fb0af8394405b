import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import {
  createWorld,
  expectNoLeak,
  hostAddress,
  internetAddress,
  type Snapshot,
  type World,
} from '../support/world.ts';

interface Inspected {
  NetworkSettings: { IPAddress: string; Gateway: string; MacAddress: string };
}

describe.skipIf(skipOrFail(missingWorld()))('the default network', () => {
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

  const addressOf = async (name: string) => {
    const { stdout } = await world.run(['inspect', name]);
    return (JSON.parse(stdout) as Inspected[])[0]?.NetworkSettings.IPAddress as string;
  };
  const removeAll = async () => {
    await world.run(['rm', '-f', '-a']);
    await expectNoLeak(before, world);
  };

  test('a container reaches an outside server that has no route back, under the address of the host', async () => {
    world.internet.forgetRequests();
    const { code, stdout, stderr } = await world.run([
      'run',
      '--rm',
      'busybox',
      'wget',
      '-q',
      '-O',
      '-',
      `http://${internetAddress}/from-inside`,
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).not.toBe('');
    expect(world.internet.requests()).toEqual([{ address: hostAddress, path: '/from-inside' }]);
    await removeAll();
  });

  test('without the MASQUERADE rule the same request fails', async () => {
    await world.run(['run', '-d', '--name', 'client', 'busybox', 'sleep', '1000']);
    const request = (place: string) =>
      world.run(['exec', 'client', 'timeout', '2', 'wget', '-q', '-O', '-', `http://${internetAddress}/${place}`]);
    expect((await request('with')).code).toBe(0);
    await world.sh('iptables -t nat -F MINIRUN-POSTROUTING; conntrack -F 2>/dev/null || :');
    expect((await request('without')).code).not.toBe(0);
    expect(world.internet.requests().some(({ address, path }) => path === '/without' && address === hostAddress)).toBe(
      false,
    );
    await removeAll();
  });

  test('containers reach each other and the host reaches them, by address', async () => {
    for (const name of ['one', 'two']) {
      await world.run([
        'run',
        '-d',
        '--name',
        name,
        'busybox',
        'sh',
        '-c',
        `echo ${name} >/tmp/index.html; exec httpd -f -h /tmp`,
      ]);
    }
    const one = await addressOf('one');
    const two = await addressOf('two');
    expect(one).not.toBe(two);
    const answered = await world.run(['exec', 'one', 'wget', '-q', '-O', '-', `http://${two}/`]);
    expect(answered.stdout).toBe('two\n');
    expect(await world.sh(`busybox wget -q -O - http://${one}/; busybox wget -q -O - http://${two}/`)).toBe(
      'one\ntwo\n',
    );
    await removeAll();
  });

  test("a container works under another tool's FORWARD DROP, which stays as it was", async () => {
    await world.sh('iptables -P FORWARD DROP');
    await world.run([
      'run',
      '-d',
      '--name',
      'peer',
      'busybox',
      'sh',
      '-c',
      'echo peer >/tmp/index.html; exec httpd -f -h /tmp',
    ]);
    const outside = await world.run([
      'run',
      '--rm',
      'busybox',
      'wget',
      '-q',
      '-O',
      '-',
      `http://${internetAddress}/dropped`,
    ]);
    const inside = await world.run([
      'run',
      '--rm',
      'busybox',
      'wget',
      '-q',
      '-O',
      '-',
      `http://${await addressOf('peer')}/`,
    ]);
    expect([outside.code, inside.stdout]).toEqual([0, 'peer\n']);
    await world.run(['rm', '-f', '-a']);
    expect(await world.sh('iptables -S FORWARD')).toBe('-P FORWARD DROP\n');
    await world.sh('iptables -P FORWARD ACCEPT');
    await expectNoLeak(before, world);
  });

  test('rules of the user in MINIRUN-USER are obeyed and survive the network', async () => {
    await world.run(['run', '-d', '--name', 'first', 'busybox', 'sleep', '1000']);
    await world.sh(`iptables -A MINIRUN-USER -d ${internetAddress} -j REJECT`);
    const refused = await world.run([
      'exec',
      'first',
      'timeout',
      '5',
      'wget',
      '-q',
      '-O',
      '-',
      `http://${internetAddress}/refused`,
    ]);
    expect(refused.code).not.toBe(0);
    await world.run(['rm', '-f', '-a']);
    expect(await world.sh('iptables -S MINIRUN-USER')).toContain(`-A MINIRUN-USER -d ${internetAddress}/32 -j REJECT`);
    await world.run(['run', '-d', '--name', 'second', 'busybox', 'sleep', '1000']);
    const still = await world.run([
      'exec',
      'second',
      'timeout',
      '5',
      'wget',
      '-q',
      '-O',
      '-',
      `http://${internetAddress}/refused`,
    ]);
    expect(still.code).not.toBe(0);
    await world.sh('iptables -F MINIRUN-USER');
    await removeAll();
  });

  test('another range is chosen when the default one overlaps a route of the host', async () => {
    await world.sh('ip link add lab type bridge; ip link set lab up; ip addr add 10.90.7.1/24 dev lab');
    const { stdout } = await world.run(['run', '--rm', 'busybox', 'ip', '-4', 'addr', 'show', 'eth0']);
    expect(stdout).toContain('inet 10.91.');
    await world.sh('ip link del lab');
    await removeAll();
  });

  test('--ip is kept over a restart, and its network interface too', async () => {
    await world.run([
      'run',
      '-d',
      '--name',
      'fixed',
      '--ip',
      '10.91.3.4',
      '--stop-timeout',
      '0',
      'busybox',
      'sleep',
      '1000',
    ]);
    for (let round = 0; round < 2; round++) {
      expect(await addressOf('fixed')).toBe('10.91.3.4');
      expect((await world.run(['restart', 'fixed'])).code).toBe(0);
    }
    await removeAll();
  });

  test('tools of the host find the namespace under the name of the container', async () => {
    await world.run(['run', '-d', '--name', 'web', 'busybox', 'sleep', '1000']);
    expect(await world.sh('ip -n web -br link; ip netns exec web ip -br addr show eth0')).toContain('eth0');
    await removeAll();
  });

  test('a namespace of that name that is not ours is refused and left alone', async () => {
    await world.sh('ip netns add mine');
    const { code, stderr } = await world.run(['run', '--rm', '--name', 'mine', 'busybox', 'true']);
    expect(code).toBe(125);
    expect(stderr).toContain('ip netns del mine');
    expect(await world.sh('ip netns list')).toContain('mine');
    await world.sh('ip netns del mine');
    await removeAll();
  });

  test('ip_forward is switched off again when minirun had switched it on, and only then', async () => {
    const forwarding = async () => (await world.sh('cat /proc/sys/net/ipv4/ip_forward')).trim();
    for (const initial of ['0', '1']) {
      await world.sh(`echo ${initial} >/proc/sys/net/ipv4/ip_forward`);
      await world.run(['run', '-d', '--name', 'router', 'busybox', 'sleep', '1000']);
      expect(await forwarding()).toBe('1');
      await world.run(['rm', '-f', 'router']);
      expect(await forwarding()).toBe(initial);
    }
    await world.sh('echo 0 >/proc/sys/net/ipv4/ip_forward');
  });

  test('an idle network goes away by itself a moment after the last container in the foreground', async () => {
    await world.run(['run', '--rm', 'busybox', 'true']);
    await expectNoLeak(before, world);
  });
});
