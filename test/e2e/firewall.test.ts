import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { Probe, type Target } from '../support/probe.ts';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, hostAddress, internetAddress, type World } from '../support/world.ts';

/** From where it is tried. The last three are containers, which use the host's address. */
const places = ['outside', 'loopback', 'host', 'same network', 'other network', 'itself'] as const;
type Place = (typeof places)[number];

/** What of the container is tried: its port, the address that is used, and from where somebody must answer. */
interface Row {
  port: number;
  /** The host's address, or its loopback address from the place `loopback`; or the container's own. */
  at: 'host' | 'container';
  /** The port of the container. */
  leadsTo: number;
  answers: Record<Place, boolean>;
}

const yes = true;
const no = false;

/**
 * The whole table. It holds for TCP and UDP, IPv4 and IPv6, both variants of iptables, and whatever another tool has made
 * of the policy of FORWARD.
 */
const table: Record<string, Row> = {
  'published on 0.0.0.0 and ::': {
    port: 8080,
    at: 'host',
    leadsTo: 80,
    answers: { outside: yes, loopback: yes, host: yes, 'same network': yes, 'other network': yes, itself: yes },
  },
  'published on 127.0.0.1 and ::1': {
    port: 8081,
    at: 'host',
    leadsTo: 81,
    answers: { outside: no, loopback: yes, host: no, 'same network': no, 'other network': no, itself: no },
  },
  'not published': {
    port: 82,
    at: 'host',
    leadsTo: 82,
    answers: { outside: no, loopback: no, host: no, 'same network': no, 'other network': no, itself: no },
  },
  // From outside by a route through the host. The place `loopback` makes no difference here.
  'not published, at its own address': {
    port: 82,
    at: 'container',
    leadsTo: 82,
    answers: { outside: no, loopback: yes, host: yes, 'same network': yes, 'other network': no, itself: yes },
  },
  'published on 127.0.0.1 and ::1, at its own address': {
    port: 81,
    at: 'container',
    leadsTo: 81,
    answers: { outside: no, loopback: yes, host: yes, 'same network': yes, 'other network': no, itself: yes },
  },
};

const hostAddress6 = '2001:db8::2';
const internetAddress6 = '2001:db8::1';

/** Rules as docker leaves them, with one container that publishes a port. */
const dockerRules = `*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8099 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
`;

/** Lines of iptables-save that another tool may have made: rules and chains with their table, and policies. */
function foreignRules(saved: string): string[] {
  let section = '';
  return saved.split('\n').flatMap((line) => {
    if (line.startsWith('*')) section = line;
    const isRule = line.startsWith('-') || (line.startsWith(':') && !line.includes(' ACCEPT '));
    return isRule && !line.includes('MINIRUN-') ? [`${section} ${line.replace(/ \[\d+:\d+\]$/, '')}`] : [];
  });
}

const variants = [
  // What a bridge passes on is shown to iptables too where the module br_netfilter is loaded, as docker used to do.
  { variant: 'nft', bridgeFilter: true },
  { variant: 'legacy', bridgeFilter: false },
] as const;

const reason =
  missingWorld() ??
  missingTool('conntrack', ...variants.flatMap(({ variant }) => [`iptables-${variant}`, `ip6tables-${variant}`]));

describe.skipIf(skipOrFail(reason))('published ports', () => {
  describe.each(variants)('with iptables-$variant, bridges filtered: $bridgeFilter', ({ variant, bridgeFilter }) => {
    let world: World;
    let probes: Record<Place, Probe>;
    let own: { v4: string; v6: string };

    beforeAll(async () => {
      world = await createWorld();
      useVariant(world, variant);
      await world.host.sh(
        `
        iptables-restore --noflush
        ip addr add ${hostAddress6}/64 dev eth0 nodad
        for file in iptables ip6tables; do
          [ ! -e /proc/sys/net/bridge ] || echo ${bridgeFilter ? 1 : 0} >/proc/sys/net/bridge/bridge-nf-call-$file
        done
        minirun network create --ipv6 --subnet 10.77.0.0/24 --subnet fd00:77::/64 lab
        minirun network create --ipv6 --subnet 10.78.0.0/24 --subnet fd00:78::/64 else
        minirun run -d --name srv --network lab -p 8080:80 -p 8080:80/udp \\
          -p 127.0.0.1:8081:81 -p 127.0.0.1:8081:81/udp -p '[::1]:8081:81' -p '[::1]:8081:81/udp' busybox sleep 1000
        minirun run -d --name peer --network lab busybox sleep 1000
        minirun run -d --name stranger --network else busybox sleep 1000`,
        { input: dockerRules },
      );
      await world.internet.sh(`
        ip addr add ${internetAddress6}/64 dev eth0 nodad
        ip route add 10.77.0.0/24 via ${hostAddress}
        ip route add fd00:77::/64 via ${hostAddress6}`);
      const { stdout } = await world.run(['inspect', '--format', '{{json .NetworkSettings.Networks.lab}}', 'srv']);
      const { IPAddress, GlobalIPv6Address } = JSON.parse(stdout) as { IPAddress: string; GlobalIPv6Address: string };
      own = { v4: IPAddress, v6: GlobalIPv6Address };
      const [outside, loopback, host, same, other, itself] = await Promise.all([
        Probe.start(world.internet),
        Probe.start(world.host),
        Probe.start(world.host),
        Probe.start(world.host, 'peer'),
        Probe.start(world.host, 'stranger'),
        Probe.start(world.host, 'srv'),
      ]);
      probes = { outside, loopback, host, 'same network': same, 'other network': other, itself };
      await itself.serve('srv', [80, 81, 82]);
    });
    afterAll(async () => {
      await world?.destroy();
    });

    /** Tries every cell; those that are not as the table says, in words. */
    async function wrongCells(): Promise<string[]> {
      const found = await Promise.all(places.map((place) => wrongCellsFrom(place)));
      return found.flat();
    }

    async function wrongCellsFrom(place: Place): Promise<string[]> {
      const cells = Object.entries(table).flatMap(([what, row]) =>
        (['tcp', 'udp'] as const).flatMap((protocol) =>
          (['v4', 'v6'] as const).map((family) => {
            const loopback = family === 'v4' ? '127.0.0.1' : '::1';
            const onHost = place === 'loopback' ? loopback : family === 'v4' ? hostAddress : hostAddress6;
            const target: Target = { protocol, address: row.at === 'host' ? onHost : own[family], port: row.port };
            // See `planLoopback` in src/network/bridge.ts.
            const answers = row.answers[place] && !(target.address === '::1' && bridgeFilter);
            return { what, target, expected: answers ? `srv ${row.leadsTo}` : null };
          }),
        ),
      );
      const answers = await probes[place].ask(cells.map(({ target }) => target));
      return cells.flatMap(({ what, target: { protocol, address, port }, expected }, index) =>
        answers[index] === expected
          ? []
          : [`${what}: from ${place} to ${protocol} ${address} ${port}: ${answers[index]} instead of ${expected}`],
      );
    }

    const policy = (target: string) => world.host.sh(`iptables -P FORWARD ${target}; ip6tables -P FORWARD ${target}`);

    test('every cell with FORWARD ACCEPT', async () => {
      await policy('ACCEPT');
      expect(await wrongCells()).toEqual([]);
    });

    test('every cell with FORWARD DROP', async () => {
      await policy('DROP');
      expect(await wrongCells()).toEqual([]);
    });

    test('network reload restores every cell after somebody has flushed all rules', async () => {
      await policy('DROP');
      await world.host.sh('for tool in iptables ip6tables; do $tool -F; $tool -t nat -F; $tool -t raw -F; done');
      expect(await wrongCells()).not.toEqual([]);
      await world.sh('minirun network reload');
      expect(await wrongCells()).toEqual([]);
      await world.host.sh('iptables-restore', { input: dockerRules });
      await world.sh('minirun network reload');
      expect(await wrongCells()).toEqual([]);
    });

    test("another tool's rules stay as they are", async () => {
      const foreign = async () => foreignRules(await world.host.sh('iptables-save; ip6tables-save'));
      const before = await foreign();
      expect(before.join('\n')).toContain('-A DOCKER-USER -j RETURN');
      await world.sh('minirun run -d --name passing -p 8085:80 -p 8085:80/udp busybox sleep 1000');
      expect(await foreign()).toEqual(before);
      await world.sh('minirun rm -f passing; minirun network reload');
      expect(await foreign()).toEqual(before);
    });

    test('a packet from outside that names a loopback address does not get in', async () => {
      // A machine of the same wire can send anything: here with the loopback addresses taken off its own loopback.
      await world.internet.sh(`
        echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
        ip addr del 127.0.0.1/8 dev lo
        ip addr del ::1/128 dev lo
        ip route add 127.0.0.1 via ${hostAddress} src ${internetAddress}
        ip route add ::1 via ${hostAddress6} src ${internetAddress6}`);
      const forged = ['127.0.0.1', '::1'].flatMap((address) =>
        [8080, 8081].flatMap((port): Target[] => [
          { protocol: 'tcp', address, port },
          { protocol: 'udp', address, port },
        ]),
      );
      const nobody = forged.map(() => null);
      expect(await probes.outside.ask(forged)).toEqual(nobody);
      // The attack is a real one: without the rule it gets in.
      await world.host.sh('iptables -t raw -F MINIRUN-RAW');
      expect(await probes.outside.ask(forged)).toContain('srv 81');
      await world.sh('minirun network reload');
      expect(await probes.outside.ask(forged)).toEqual(nobody);
      await world.internet.sh(
        'ip route del 127.0.0.1; ip route del ::1; ip addr add 127.0.0.1/8 dev lo; ip addr add ::1/128 dev lo',
      );
    });

    test('whoever keeps sending UDP reaches the container that has the port now', async () => {
      const client = await Probe.start(world.internet);
      client.stream(hostAddress, 9053);
      for (const name of ['first', 'second']) {
        await world.sh(`minirun run -d --name ${name} -p 9053:53/udp busybox sleep 1000`);
        const server = await Probe.start(world.host, name);
        await server.serve(name, [53]);
        await client.answeredBy(name);
        await server.end();
        await world.sh(`minirun rm -f ${name}`);
      }
      await client.end();
    });

    test('a port that a container has, or a process of the host, is refused', async () => {
      const run = (port: string) => world.run(['run', '--rm', '--name', 'late', '-p', port, 'busybox', 'true']);
      const taken = await run('8080:80');
      expect(taken.code).toBe(125);
      expect(taken.stderr).toMatch(/^minirun: .*container srv has published it.*\n$/);
      expect(await probes.outside.ask([{ protocol: 'tcp', address: hostAddress, port: 8080 }])).toEqual(['srv 80']);
      await probes.host.listen({ protocol: 'tcp', address: '0.0.0.0', port: 8090 });
      await probes.host.listen({ protocol: 'udp', address: '127.0.0.1', port: 8091 });
      for (const port of ['8090:80', '127.0.0.1:8090:80', '8091:80/udp']) {
        const refused = await run(port);
        expect(refused.code).toBe(125);
        expect(refused.stderr).toContain('a process of this host listens there');
      }
      expect((await run('8091:80')).code).toBe(0);
      expect((await world.run(['ps', '-a', '--format', '{{.Names}}'])).stdout).not.toContain('late');
    });
  });
});

/** Puts one variant of iptables first in the PATH of all that runs on the host. */
function useVariant(world: World, variant: string): void {
  const directory = path.join(world.directory, 'tools');
  fs.mkdirSync(directory);
  for (const family of ['iptables', 'ip6tables']) {
    for (const end of ['', '-save', '-restore'])
      fs.symlinkSync(Bun.which(`${family}-${variant}${end}`) as string, path.join(directory, `${family}${end}`));
  }
  world.host.env.PATH = `${directory}:${world.host.env.PATH}`;
}
