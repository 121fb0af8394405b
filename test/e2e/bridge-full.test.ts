import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { settledSnapshot } from '../support/leaks.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

/** A Linux bridge takes 1023 ports (BR_PORT_BITS in net/bridge/br_private.h); then the kernel says EXFULL. */
const portsOfBridge = 1023;
const serve = (name: string) => ['sh', '-c', `echo ${name} >/tmp/index.html; exec httpd -f -p 80 -h /tmp`];

describe.skipIf(skipOrFail(missingWorld()))('a bridge that has no port left', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    before = await settledSnapshot(world);
  }, 30_000);
  afterAll(() => world.destroy());

  const ports = async (bridge: string) => Number(await world.sh(`ls /sys/class/net/${bridge}/brif | wc -l`));

  /** Plugs cables into a bridge whose other ends are all in one namespace `sink`: deleting that deletes them all at once. */
  async function fill(bridge: string, wanted: number): Promise<void> {
    await world.sh(
      `ip netns add sink
      for i in $(seq ${wanted - (await ports(bridge))}); do
        echo "link add fill$i type veth peer name eth$i netns sink"
        echo "link set fill$i master ${bridge} up"
      done | ip -batch -`,
      { timeout: 30_000 },
    );
    expect(await ports(bridge)).toBe(wanted);
  }

  async function drain(): Promise<void> {
    await world.sh('ip netns del sink; while [ -e /sys/class/net/fill1 ]; do sleep 0.05; done');
  }

  /** What a container gets from another one of the same network. */
  async function ask(from: string, to: string): Promise<string> {
    const [inspected] = JSON.parse(await world.sh(`minirun inspect ${to}`)) as {
      NetworkSettings: { Networks: Record<string, { IPAddress: string }> };
    }[];
    const address = Object.values(inspected?.NetworkSettings.Networks ?? {})[0]?.IPAddress;
    return world.sh(`minirun exec ${from} wget -q -O - http://${address}/`);
  }

  test('the 1023rd port is a container that works, the 1024th is refused with the reason, and leaves nothing', async () => {
    expect((await world.run(['run', '-d', '--name', 'first', 'busybox', ...serve('first')])).code).toBe(0);
    await fill('minirun0', portsOfBridge - 1);
    expect((await world.run(['run', '-d', '--name', 'last', 'busybox', ...serve('last')])).code).toBe(0);
    expect(await ports('minirun0')).toBe(portsOfBridge);
    expect([await ask('first', 'last'), await ask('last', 'first')]).toEqual(['last\n', 'first\n']);

    const full = await settledSnapshot(world);
    for (const options of [['-d'], ['--rm']]) {
      const { code, stdout, stderr } = await world.run([
        'run',
        ...options,
        '--name',
        'refused',
        'busybox',
        'sleep',
        '1000',
      ]);
      expect({ code, stdout }).toEqual({ code: 125, stdout: '' });
      expect(stderr).toMatch(/^minirun: [^\n]*a Linux bridge takes 1023 ports and this one has them all[^\n]*\n$/);
      expect(stderr).toContain('another network');
      expect(stderr).not.toMatch(/Exchange full|EXFULL|errno|RTNETLINK/i);
      await expectNoLeak(full, world);
    }
    expect([await ask('first', 'last'), await ask('last', 'first')]).toEqual(['last\n', 'first\n']);

    // As the message says; and with a port free again the same container starts.
    await world.sh('minirun network create other; minirun run --rm --network other busybox true');
    // The kernel takes a port away some time after its container's namespace.
    await world.sh(
      `minirun rm -f last; while [ "$(ls /sys/class/net/minirun0/brif | wc -l)" -ge ${portsOfBridge} ]; do :; done`,
    );
    expect((await world.run(['run', '-d', '--name', 'refused', 'busybox', ...serve('refused')])).code).toBe(0);
    expect(await ask('first', 'refused')).toBe('refused\n');
    await drain();
    await world.sh('minirun rm -f -a; minirun network rm other');
    await expectNoLeak(before, world);
  }, 30_000);

  test('a container that exists is refused by start as well, stays as it was, and starts when there is a port', async () => {
    await world.sh('minirun run -d --name first busybox sleep 1000; minirun create --name waiting busybox sleep 1000');
    await fill('minirun0', portsOfBridge);
    const { code, stderr } = await world.run(['start', 'waiting']);
    expect(code).not.toBe(0);
    expect(stderr).toContain('a Linux bridge takes 1023 ports and this one has them all');
    expect(await world.sh('minirun ps -a --filter name=waiting --format "{{.State}}"; ip netns list')).toMatch(
      /^created\n(?!.*waiting)/s,
    );
    await world.sh('ip link del fill1; minirun start waiting; minirun exec waiting ping -c 1 -W 5 10.90.0.1');
    await world.sh('ip netns del sink; while [ -e /sys/class/net/fill2 ]; do sleep 0.05; done; minirun rm -f -a');
    await expectNoLeak(before, world);
  }, 30_000);
});
