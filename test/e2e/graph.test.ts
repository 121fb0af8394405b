import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import type { Topology } from '../../src/network/topology.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, hostAddress, internetAddress, type World } from '../support/world.ts';
import { xmlElements } from '../support/xml.ts';

describe.skipIf(skipOrFail(missingWorld()))('network graph', () => {
  let world: World;

  const graph = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await world.run(['network', 'graph', ...args]);
    expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
    return stdout;
  };
  const topology = async (...args: string[]) => JSON.parse(await graph('--format', 'json', ...args)) as Topology;

  // Two networks, a container on each, a router between them, and a cable between the two containers. What minirun did
  // not make itself is made by hand: the kernel knows it as well.
  beforeAll(async () => {
    world = await createWorld();
    await world.sh(`
      minirun network create --subnet 10.1.0.0/24 --opt bridge=front0 front
      minirun network create --subnet 10.2.0.0/24 --opt bridge=back0 back
      minirun run -d --name web --network front --ip 10.1.0.10 -p 127.0.0.1:8080:80 busybox sleep 1000
      minirun run -d --name db --network back --ip 10.2.0.10 busybox sleep 1000
      minirun run -d --name router --network front --ip 10.1.0.9 busybox sleep 1000
      minirun run -d --name sidecar --network container:web busybox sleep 1000
      minirun run -d --name exporter --network host busybox sleep 1000
      minirun run --name done --network back busybox true
      ip link add vrouter type veth peer name eth1 netns router
      ip link set vrouter master back0 up
      ip -n router addr add 10.2.0.9/24 dev eth1
      ip -n router link set eth1 up
      ip netns exec router sysctl -qw net.ipv4.ip_forward=1
      ip -n db route add 10.1.0.0/24 via 10.2.0.9
      ip -n web link add cable0 type veth peer name cable1 netns db
      ip -n web addr add 10.9.0.1/30 dev cable0
      ip -n web addr add fd09::1/64 dev cable0 nodad
      ip -n db addr add 10.9.0.2/30 dev cable1
      ip -n web link set cable0 up
      ip -n db link set cable1 up
      tc -n web qdisc add dev cable0 root tbf rate 10mbit burst 32kbit latency 50ms
      ip -n db link add up0 type veth peer name down0 netns 1
      ip addr add 172.18.0.10/12 dev down0
    `);
  });
  afterAll(async () => {
    await world.destroy();
  });

  test('the topology is what the kernel has: whose interface is plugged in where, cables, routes', async () => {
    const { host, networks, containers, links } = await topology();
    expect(host.interfaces).toEqual([{ ifname: 'eth0', addresses: [`${hostAddress}/24`], uplink: true }]);
    expect(host.routes).toEqual([`default via ${internetAddress} dev eth0`]);
    expect(networks.map(({ name, bridge, hostAddresses, up }) => ({ name, bridge, hostAddresses, up }))).toEqual([
      { name: 'back', bridge: 'back0', hostAddresses: ['10.2.0.1/24'], up: true },
      { name: 'front', bridge: 'front0', hostAddresses: ['10.1.0.1/24'], up: true },
    ]);
    expect(containers.map(({ name, shares }) => [name, shares])).toEqual([
      ['db', undefined],
      ['exporter', {}],
      ['router', undefined],
      ['sidecar', { container: 'web' }],
      ['web', undefined],
    ]);
    const plugged = containers.map(({ name, interfaces }) => [
      name,
      interfaces.map(({ ifname, addresses, network }) => [ifname, network, ...addresses].join(' ')),
    ]);
    expect(Object.fromEntries(plugged)).toEqual({
      db: ['eth0 back 10.2.0.10/24', 'cable1  10.9.0.2/30', 'up0 '],
      exporter: [],
      router: ['eth0 front 10.1.0.9/24', 'eth1 back 10.2.0.9/24'],
      sidecar: [],
      web: ['eth0 front 10.1.0.10/24', 'cable0  10.9.0.1/30 fd09::1/64'],
    });
    const router = containers.find(({ name }) => name === 'router');
    expect(router?.router).toBe(true);
    expect(router?.interfaces[1]?.hostIfname).toBe('vrouter');
    expect(containers.find(({ name }) => name === 'db')?.routes.toSorted()).toEqual([
      '10.1.0.0/24 via 10.2.0.9 dev eth0',
      'default via 10.2.0.1 dev eth0',
    ]);
    expect(containers.find(({ name }) => name === 'web')?.ports).toEqual(['127.0.0.1:8080->80/tcp']);
    expect(links).toEqual([
      {
        ends: [
          { container: 'db', ifname: 'cable1', addresses: ['10.9.0.2/30'] },
          { container: 'web', ifname: 'cable0', addresses: ['10.9.0.1/30', 'fd09::1/64'] },
        ],
        shaping: 'rate 10mbit',
        up: true,
      },
      {
        ends: [
          { container: 'db', ifname: 'up0', addresses: [] },
          { ifname: 'down0', addresses: ['172.18.0.10/12'] },
        ],
        shaping: '',
        up: false,
      },
    ]);
  });

  test('every format has all names and addresses', async () => {
    const words =
      `front back 10.1.0.0/24 10.2.0.0/24 10.1.0.1/24 10.2.0.1/24 ${hostAddress}/24 web db router sidecar exporter
      10.1.0.10/24 10.2.0.10/24 10.1.0.9/24 10.2.0.9/24 cable0 cable1 10.9.0.1/30 10.9.0.2/30 fd09::1/64 down0
      172.18.0.10/12 10mbit 10.1.0.0/24 10.2.0.9 127.0.0.1:8080`.split(/\s+/);
    for (const format of ['ascii', 'mermaid', 'dot', 'svg']) {
      const picture = await graph('--format', format);
      expect({ format, missing: words.filter((word) => !picture.includes(word)) }).toEqual({ format, missing: [] });
      expect(picture).not.toContain('done');
    }
    expect(xmlElements(await graph('--format', 'svg'))[0]).toBe('svg');
    expect(await graph('--all')).toContain('done  exited');
  });

  test('a file’s ending chooses its format, and what a picture is about can be named', async () => {
    const file = path.join(world.directory, 'picture.svg');
    expect(await graph('-o', file)).toBe('');
    expect(fs.readFileSync(file, 'utf8')).toBe(await graph('--format', 'svg'));
    const names = ({ containers }: Topology) => containers.map(({ name }) => name);
    expect(names(await topology('front'))).toEqual(['router', 'sidecar', 'web']);
    expect(names(await topology('sidecar', 'db'))).toEqual(['db', 'sidecar', 'web']);
    expect(names(await topology('done'))).toEqual(['done']);
  });

  test('the picture keeps to the width, and to ASCII where the locale is not UTF-8', async () => {
    const picture = await world.sh('COLUMNS=72 minirun network graph; LC_ALL=C minirun network graph');
    const [boxes = '', plain = ''] = picture.split(/(?=^ outside$)/m);
    expect(boxes).toContain('╭');
    expect(Math.max(...boxes.split('\n').map((line) => line.length))).toBeLessThanOrEqual(72);
    expect(plain).toMatch(/^[\n -~]+$/);
  });

  test('what is wrong is said before anything else', async () => {
    const failure = async (...args: string[]) => {
      const { code, stdout, stderr } = await world.run(['network', 'graph', ...args]);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      return stderr;
    };
    expect(await failure('nosuch')).toContain('no network or container "nosuch"');
    expect(await failure('--format', 'png')).toContain('invalid --format "png"');
    expect(await failure('-o', '/nosuch/file')).toContain('cannot write /nosuch/file');
  });

  test('looking changes nothing, also while containers come and go', async () => {
    const before = await world.snapshot();
    const coming = Array.from({ length: 6 }, () => world.run(['run', '--rm', '--network', 'front', 'busybox', 'true']));
    for (let round = 0; round < 8; round++) await graph('--format', 'mermaid');
    expect((await Promise.all(coming)).map(({ code }) => code)).toEqual([0, 0, 0, 0, 0, 0]);
    await expectNoLeak(before, world);
  });
});
