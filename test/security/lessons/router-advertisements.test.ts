import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

// A container with NET_RAW, which all have, told its host to send all IPv6 traffic to it.
describe.skipIf(skipOrFail(missingWorld()))('CVE-2020-13401: router advertisements of a container', () => {
  let world: World;

  beforeAll(async () => {
    world = await createWorld();
    // The kernel heeds advertisements only where it does not forward itself.
    await world.sh(
      'sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv6.conf.default.accept_ra=1 net.ipv6.conf.all.accept_ra=1',
    );
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-a']);
    await world.destroy();
  });

  /** Sends an advertisement from an interface of a network namespace. */
  async function advertise(netns: string, ifname: string): Promise<void> {
    const script = path.resolve(import.meta.dir, '../../support/router-advertisement.ts');
    await world.sh(`ip netns exec ${netns} ${process.execPath} ${script} ${ifname}`);
  }
  const defaultRoutes = async () => world.sh('ip -6 route show default');

  test('one is heeded where nothing prevents it: this test’s own are valid', async () => {
    await world.sh(`ip netns add open; ip link add vopen type veth peer name eth0 netns open
      sysctl -qw net.ipv6.conf.vopen.accept_dad=0; ip netns exec open sysctl -qw net.ipv6.conf.eth0.accept_dad=0
      ip link set vopen up; ip -n open link set eth0 up`);
    for (let tries = 0; tries < 200 && (await defaultRoutes()) === ''; tries++) await advertise('open', 'eth0');
    expect(await defaultRoutes()).toContain('dev vopen');
    await world.sh('ip link del vopen; ip netns del open');
    expect(await defaultRoutes()).toBe('');
  });

  for (const [title, options] of [
    ['a network of IPv4 only', []],
    ['a network with IPv6', ['--ipv6']],
  ] as const) {
    test(`${title}: neither the host nor a neighbour gets a route`, async () => {
      const network = `ra${options.length}`;
      await world.run(['network', 'create', ...options, network]);
      for (const name of ['evil', 'neighbour']) {
        const words = ['run', '-d', '--name', `${name}-${network}`, '--network', network, 'busybox', 'sleep', '1000'];
        expect(await world.run(words)).toMatchObject({ code: 0, stderr: '' });
      }
      // Whatever state minirun has left: the host as a host, not as a router.
      await world.sh('sysctl -qw net.ipv6.conf.all.forwarding=0');
      const netns = path.basename((await world.run(['netns', `evil-${network}`])).stdout.trim());
      // With IPv6 off it has no address to send from, but an attacker needs none of the kernel's.
      for (let times = 0; times < 5; times++) await advertise(netns, 'eth0');
      expect(await defaultRoutes()).toBe('');
      const neighbour = path.basename((await world.run(['netns', `neighbour-${network}`])).stdout.trim());
      expect(await world.sh(`ip -n ${neighbour} -6 route show default proto ra`)).toBe('');
      const heeding = `for f in /proc/sys/net/ipv6/conf/*/accept_ra; do i=$(basename $(dirname $f)); case $i in
        all|default|lo|wan*|eth*) ;; *) [ $(cat $f) = 0 ] || [ $(cat $(dirname $f)/disable_ipv6) = 1 ] || [ -e /sys/class/net/$i/brport ] || echo $i;; esac; done`;
      expect(await world.sh(heeding)).toBe('');
    });
  }
});
