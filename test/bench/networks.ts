import path from 'node:path';
import { createWorld, hostAddress, internetAddress, type Machine, minirun, type World } from '../support/world.ts';
import { expectZero, image, type Peer, sleeper } from './peers.ts';

/** Where iperf3's server is, seen from its client; `published`: the client is outside, the server in the container. */
type Way = 'container → container' | 'container → host' | 'container → outside' | 'published port';

/** One tool's two containers, or what stands for them, in a world of its own. */
interface Site {
  name: 'minirun' | 'docker' | 'by hand';
  /** Command of the host that runs another one in the client's container. */
  client: string[];
  host: Machine;
  outside: Machine;
  /** What the client connects to. */
  server: string;
  gateway: string;
  published: boolean;
}

/** Of several runs, in the unit that its place says. */
interface Sample {
  median: number;
  all: number[];
}

export interface NetworkRatio {
  what: string;
  value: number;
  target: number;
  /** The value is to be the target at least, not at most. */
  atLeast?: boolean;
}

export interface NetworkFigures {
  /** Bits per second that arrived, by way and tool. */
  throughput: Record<string, Record<string, Sample>>;
  /** Seconds of one `run -d` and one `rm -f`, by the number of containers that stand on the network meanwhile. */
  attach: Record<string, Sample>;
  /** Seconds for 100 containers, by what is done and tool. */
  hundred: Record<string, Record<string, Sample>>;
}

const rounds = 7;
const iperfImage = 'bench-nettools';
/** The host's port that leads to the server's. */
const publishedPort = 5301;
const standing = [10, 100, 500];
const attachRounds = 15;
const hundred = 100;
const hundredRounds = 2;

/**
 * Traffic of containers, what it costs to come and go on a network that is full of others, and what a hundred at once
 * take: minirun, docker and what one types by hand, by turns, because a machine is not the same from one minute to the next.
 *
 * @param tarball root filesystem of the image that sleeps
 * @param docker undefined where it is not installed
 */
export async function measureNetworks(
  tarball: string,
  docker: Peer | undefined,
): Promise<{ figures: NetworkFigures; ratios: NetworkRatio[]; skipped: string[] }> {
  await using own = await createWorld({ cgroups: 'shared' });
  await using byHand = await createWorld({ cgroups: 'shared' });
  await expectZero(own.host, [minirun, 'import', tarball, image]);
  const skipped: string[] = [];
  const ratios: NetworkRatio[] = [];
  const canPublish = (await expectZero(own.host, [minirun, 'run', '--help'])).includes('--publish');
  if (!canPublish) skipped.push('published port: minirun run has no --publish');

  const rootfs = await exportNettools(own);
  const sites = [await minirunSite(own, canPublish), await handSite(byHand)];
  if (docker?.world !== undefined) sites.push(await dockerSite(docker, docker.world, rootfs));
  const throughput = await measureThroughput(sites, ratios);
  await expectZero(own.host, [minirun, 'rm', '-f', '-a']);
  if (docker !== undefined) await removeAllOf(docker);

  const attach = await measureAttach(own, ratios);
  const crowds = await measureHundred(own, docker, ratios);
  return { figures: { throughput, attach, hundred: crowds }, ratios, skipped };
}

/** The root filesystem of minirun's nettools image as an archive, for all who want to run this machine's iperf3. */
async function exportNettools(world: World): Promise<string> {
  const archive = path.join(world.directory, 'nettools.tar');
  await expectZero(world.host, [minirun, 'create', '--name', 'exported', 'nettools', 'true']);
  await expectZero(world.host, [minirun, 'export', '-o', archive, 'exported']);
  await expectZero(world.host, [minirun, 'rm', 'exported']);
  await expectZero(world.host, [minirun, 'import', archive, iperfImage]);
  return archive;
}

async function minirunSite(world: World, publish: boolean): Promise<Site> {
  const run = [minirun, 'run', '-d', '--name'];
  const options = publish ? ['-p', `${publishedPort}:5201`] : [];
  await expectZero(world.host, [...run, 'server', ...options, iperfImage, 'iperf3', '-s']);
  await expectZero(world.host, [...run, 'client', iperfImage, ...sleeper]);
  const [network] = JSON.parse(await expectZero(world.host, [minirun, 'inspect', 'server'])) as Inspected[];
  return {
    name: 'minirun',
    client: [minirun, 'exec', 'client'],
    ...(await placesOf(world, network)),
    published: publish,
  };
}

async function dockerSite(docker: Peer, world: World, archive: string): Promise<Site> {
  const client = docker.client ?? [];
  await expectZero(world.host, [...client, 'import', archive, iperfImage]);
  const run = [...client, 'run', '-d', '--name'];
  await expectZero(world.host, [...run, 'server', '-p', `${publishedPort}:5201`, iperfImage, 'iperf3', '-s']);
  await expectZero(world.host, [...run, 'client', iperfImage, ...sleeper]);
  const [network] = JSON.parse(await expectZero(world.host, [...client, 'inspect', 'server'])) as Inspected[];
  return {
    name: 'docker',
    client: [...client, 'exec', 'client'],
    ...(await placesOf(world, network)),
    published: true,
  };
}

interface Inspected {
  NetworkSettings: { Networks: Record<string, { IPAddress: string; Gateway: string }> };
}

async function placesOf(
  world: World,
  inspected: Inspected | undefined,
): Promise<Omit<Site, 'name' | 'client' | 'published'>> {
  const [network] = Object.values(inspected?.NetworkSettings.Networks ?? {});
  if (network === undefined) throw new Error('a container without a network');
  return { ...(await serve(world)), server: network.IPAddress, gateway: network.Gateway };
}

/** Two namespaces on a bridge, as few commands as it takes. */
async function handSite(world: World): Promise<Site> {
  await world.sh(`
    ip link add hand0 type bridge
    ip addr add 10.92.0.1/16 dev hand0
    ip link set hand0 up
    echo 1 > /proc/sys/net/ipv4/ip_forward
    iptables -t nat -A POSTROUTING -s 10.92.0.0/16 ! -o hand0 -j MASQUERADE
    iptables -t nat -A PREROUTING ! -i hand0 -p tcp --dport ${publishedPort} -j DNAT --to-destination 10.92.0.2:5201
    n=2
    for name in server client; do
      ip netns add $name
      ip link add $name type veth peer name eth0 netns $name
      ip link set $name master hand0 up
      ip -n $name link set lo up
      ip -n $name addr add 10.92.0.$n/16 dev eth0
      ip -n $name link set eth0 up
      ip -n $name route add default via 10.92.0.1
      n=$((n + 1))
    done
  `);
  await startServer(world.host, ['ip', 'netns', 'exec', 'server']);
  return {
    name: 'by hand',
    client: ['ip', 'netns', 'exec', 'client'],
    ...(await serve(world)),
    server: '10.92.0.2',
    gateway: '10.92.0.1',
    published: true,
  };
}

/** Servers on the host and outside. */
async function serve({ host, internet }: World): Promise<Pick<Site, 'host' | 'outside'>> {
  await startServer(host);
  await startServer(internet);
  return { host, outside: internet };
}

async function startServer(machine: Machine, within: readonly string[] = []): Promise<void> {
  const server = await machine.spawn([...within, 'iperf3', '-s', '--forceflush'], { timeout: 2 ** 31 - 1 });
  await server.waitFor('Server listening');
}

async function measureThroughput(
  sites: readonly Site[],
  ratios: NetworkRatio[],
): Promise<NetworkFigures['throughput']> {
  const ways: Way[] = ['container → container', 'container → host', 'container → outside', 'published port'];
  const found: NetworkFigures['throughput'] = {};
  for (const way of ways) {
    const able = sites.filter(({ published }) => published || way !== 'published port');
    const all = new Map<string, number[]>(able.map(({ name }) => [name, []]));
    for (let round = 0; round <= rounds; round++) {
      for (const site of able) {
        const bits = await transfer(site, way);
        // The first is a warm-up.
        if (round > 0) all.get(site.name)?.push(bits);
      }
    }
    const samples = Object.fromEntries([...all].map(([name, each]) => [name, sampleOf(each)]));
    found[way] = samples;
    print(`iperf3, ${way}, median of ${rounds}`, samples, (bits) => `${(bits / 1e9).toFixed(1)} Gbit/s`);
    for (const [other, target] of [
      ['docker', 0.95],
      ['by hand', 0.9],
    ] as const) {
      const [mine, base] = [samples.minirun, samples[other]];
      if (mine === undefined || base === undefined) continue;
      ratios.push({
        what: `${way}: minirun / ${other}`,
        value: medianRatio(mine.all, base.all),
        target,
        atLeast: true,
      });
    }
  }
  return found;
}

/** One second of one TCP connection. @returns bits per second that arrived */
async function transfer({ client, host, outside, server, gateway }: Site, way: Way): Promise<number> {
  const to = (address: string, ...options: string[]) => ['iperf3', '-c', address, '-t', '1', '-J', ...options];
  const output =
    way === 'published port'
      ? await expectZero(outside, to(hostAddress, '-p', String(publishedPort)))
      : await expectZero(host, [
          ...client,
          ...to(
            { 'container → container': server, 'container → host': gateway, 'container → outside': internetAddress }[
              way
            ],
          ),
        ]);
  return (JSON.parse(output) as { end: { sum_received: { bits_per_second: number } } }).end.sum_received
    .bits_per_second;
}

/** What one container more costs, with few and with many there; with few again in the end, in case the machine has changed. */
async function measureAttach(world: World, ratios: NetworkRatio[]): Promise<NetworkFigures['attach']> {
  const found: NetworkFigures['attach'] = {};
  const few: number[] = [];
  let there = 0;
  for (const count of [...standing, standing[0] as number]) {
    if (count < there) await world.sh('minirun rm -f $(minirun ps -aq --filter label=more) > /dev/null');
    else await startMany(world, count - there, there === 0 ? '' : '-l more');
    there = count;
    const seconds = await timeOneMore(world);
    if (count === standing[0]) few.push(...seconds);
    else found[count] = sampleOf(seconds);
  }
  await expectZero(world.host, [minirun, 'rm', '-f', '-a']);
  const samples = { [String(standing[0])]: sampleOf(few), ...found };
  print('run -d and rm -f of one more container', samples, (seconds) => `${(seconds * 1000).toFixed(1)} ms`, 'beside ');
  const [first, last] = [samples[String(standing[0])], samples[String(standing.at(-1))]];
  ratios.push({
    what: `attach and detach: beside ${standing.at(-1)} / beside ${standing[0]}`,
    value: (last?.median ?? 0) / (first?.median ?? 1),
    target: 1.3,
  });
  return samples;
}

async function timeOneMore(world: World): Promise<number[]> {
  const seconds: number[] = [];
  for (let round = 0; round <= attachRounds; round++) {
    const begin = performance.now();
    await expectZero(world.host, [minirun, 'run', '-d', '--name', 'more', image, ...sleeper]);
    await expectZero(world.host, [minirun, 'rm', '-f', 'more']);
    if (round > 0) seconds.push((performance.now() - begin) / 1000);
  }
  return seconds;
}

async function startMany(world: World, count: number, options: string): Promise<void> {
  await world.sh(`seq ${count} | xargs -P 4 -I{} minirun run -d ${options} ${image} ${sleeper.join(' ')} > /dev/null`, {
    timeout: 300_000,
  });
}

/** A hundred containers, one after the other and eight at a time, and all of them away again. */
async function measureHundred(
  world: World,
  docker: Peer | undefined,
  ratios: NetworkRatio[],
): Promise<NetworkFigures['hundred']> {
  const tools = [{ name: 'minirun', machine: world.host, detach: [minirun, 'run', '-d', image, ...sleeper] }];
  if (docker?.detach !== undefined) tools.push({ name: 'docker', machine: docker.machine, detach: docker.detach });
  const times = new Map<string, Map<string, number[]>>();
  const note = (what: string, tool: string, seconds: number): void => {
    const row = times.get(what) ?? new Map<string, number[]>();
    times.set(what, row.set(tool, [...(row.get(tool) ?? []), seconds]));
  };
  for (let round = 0; round < hundredRounds; round++) {
    for (const atOnce of [1, 8]) {
      for (const { name, machine, detach } of tools) {
        const begin = performance.now();
        await machine.sh(`seq ${hundred} | xargs -P ${atOnce} -I{} ${detach.join(' ')} > /dev/null`, {
          timeout: 300_000,
        });
        const up = performance.now();
        if (name === 'docker') await removeAllOf(docker as Peer);
        else await expectZero(machine, [minirun, 'rm', '-f', '-a']);
        note(`${hundred} up, ${atOnce} at a time`, name, (up - begin) / 1000);
        note(`${hundred} removed`, name, (performance.now() - up) / 1000);
      }
    }
  }
  const found: NetworkFigures['hundred'] = {};
  for (const [what, row] of times) {
    const samples = Object.fromEntries([...row].map(([name, each]) => [name, sampleOf(each)]));
    found[what] = samples;
    print(what, samples, (seconds) => `${seconds.toFixed(2)} s`);
    const [mine, base] = [samples.minirun, samples.docker];
    if (mine === undefined || base === undefined) continue;
    ratios.push({
      what: `${what}: minirun / docker`,
      value: mine.median / base.median,
      target: what.endsWith('removed') ? 0.2 : 0.33,
    });
  }
  return found;
}

/** `docker rm -f $(docker ps -aq)` */
async function removeAllOf({ machine, client = [] }: Peer): Promise<void> {
  const docker = client.join(' ');
  await machine.sh(`${docker} rm -f $(${docker} ps -aq) > /dev/null`, { timeout: 300_000 });
}

function sampleOf(all: readonly number[]): Sample {
  return { median: median(all), all: [...all] };
}

/** Of neighbours in time: what slows the machine down for a while slows both of a pair. */
function medianRatio(mine: readonly number[], base: readonly number[]): number {
  return median(mine.map((each, index) => each / (base[index] ?? Number.NaN)));
}

function median(all: readonly number[]): number {
  const sorted = all.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = Number.NaN, high = Number.NaN] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]];
  return (low + high) / 2;
}

function print(title: string, samples: Record<string, Sample>, format: (value: number) => string, before = ''): void {
  process.stdout.write(`\n${title}\n`);
  for (const [name, { median: middle, all }] of Object.entries(samples)) {
    const range = `${format(Math.min(...all))} … ${format(Math.max(...all))}`;
    process.stdout.write(`  ${`${before}${name}`.padEnd(32)} ${format(middle).padStart(12)}   ${range}\n`);
  }
}
