import fs from 'node:fs';
import path from 'node:path';
import { daemonOf, endDaemon } from '../host/daemon.ts';
import { which } from '../host/launch.ts';
import { sha256 } from '../host/sha256.ts';
import type { DirectoryCommand, RemoveCommand, RunCommand, Step } from '../host/steps.ts';
import { stateRoot } from '../state/paths.ts';
import { blockOf, contains, parseAddress, parseSubnet, type Range } from './address.ts';
import { addressesOf, gatewayEndpoint, inOrder } from './attach.ts';
import type { Endpoint, NetworkDefinition } from './definition.ts';

/** Where a container's own name server listens; docker's address for the same thing. */
const ownNameServerAddress = '127.0.0.11';

/** Its real port: 53 stays free for a name server that the container itself may be. */
const ownNameServerPort = 20053;

/** What the planners need to know of the host. */
export interface NameFacts {
  /** Whether there is a dnsmasq to start. */
  dnsmasq: boolean;
  /** Whether somebody else listens on port 53 of every address, or of one of the network's. */
  portTaken: boolean;
  /** The host's list of name servers; absent where it has none. */
  resolvFile?: string;
}

/**
 * Not in the state directory: that is closed to all but root, and dnsmasq runs as nobody. Like the namespaces in /run/netns
 * it ends with the boot. The number keeps the state directories of one machine apart.
 */
function runtimeDirectory(): string {
  return `/run/minirun/${sha256(stateRoot()).toString('hex').slice(0, 12)}`;
}

/** Where the names of a network lie: one file for each of its containers. */
export function namesDirectory(network: string): string {
  return path.join(runtimeDirectory(), 'networks', network, 'hosts');
}

function networkPidFile(network: string): string {
  return path.join(runtimeDirectory(), 'networks', network, 'pid');
}

/** The pid file of a container's own name server. */
function ownPidFile(id: string): string {
  return path.join(runtimeDirectory(), 'containers', id);
}

/**
 * Whether another state directory of this machine has networks up: they share our chains and `ip_forward` with those of this one.
 *
 * @param network only one of that name
 */
export function isUpElsewhere(network?: string): boolean {
  const own = path.basename(runtimeDirectory());
  return entries('/run/minirun').some((each) => {
    const networks = each === own ? [] : entries(path.join('/run/minirun', each, 'networks'));
    return network === undefined ? networks.length > 0 : networks.includes(network);
  });
}

/** Whether a network's name server runs. */
export function hasNameServer(network: string): boolean {
  return daemonOf(networkPidFile(network)) !== undefined;
}

/** The bridge that a network's name server answers on. */
export function servedBridge(network: string): string | undefined {
  const server = daemonOf(networkPidFile(network));
  if (server === undefined) return undefined;
  try {
    return /\0--interface=([^\0]+)\0/.exec(fs.readFileSync(`/proc/${server.pid}/cmdline`, 'latin1'))?.[1];
  } catch {
    // It has just ended.
    return undefined;
  }
}

/** Ends a network's name server that has outlived its bridge: a new one is coming. */
export async function endNameServer(network: string): Promise<void> {
  await endDaemon(networkPidFile(network));
}

/** Ends a container's own name server, to be started anew for other networks or because none is needed any more. */
export async function endOwnNameServer(id: string): Promise<void> {
  await endDaemon(ownPidFile(id));
}

/** Whether a container's own name server runs. */
export function hasOwnNameServer(id: string): boolean {
  return daemonOf(ownPidFile(id)) !== undefined;
}

/** The host's addresses in a network on which its name server listens; none where the host is not in it. */
function nameServerAddresses({ driver, hostAddress, subnets }: NetworkDefinition): string[] {
  return driver === 'bridge' && hostAddress ? subnets.map(({ gateway }) => gateway) : [];
}

/** Reads what a network's name server depends on. */
export function readNameFacts(network: NetworkDefinition): NameFacts {
  const facts = { dnsmasq: which('dnsmasq') !== undefined, portTaken: isPortTaken(nameServerAddresses(network)) };
  try {
    // dnsmasq ends at once when the directory of the real file is missing.
    return { ...facts, resolvFile: fs.statSync('/etc/resolv.conf').isFile() ? '/etc/resolv.conf' : undefined };
  } catch {
    return facts;
  }
}

/** Whether a socket of the host has port 53 of all addresses or of one of these. */
function isPortTaken(addresses: readonly string[]): boolean {
  if (addresses.length === 0) return false;
  const wanted = new Set(['0.0.0.0', '::', ...addresses].map(inProc));
  return ['udp', 'tcp', 'udp6', 'tcp6'].some((table) => {
    let lines: string[];
    try {
      lines = fs.readFileSync(`/proc/self/net/${table}`, 'latin1').split('\n');
    } catch {
      return false;
    }
    return lines.some((line) => {
      const [address, port] = line.trim().split(/\s+/)[1]?.split(':') ?? [];
      return port === '0035' && wanted.has(address as string);
    });
  });
}

/** An address as /proc/net/udp has it: 32-bit words, each in the byte order of the machine (little-endian wherever Bun runs). */
function inProc(address: string): string {
  const { family, value } = parseAddress(address);
  const hex = value
    .toString(16)
    .toUpperCase()
    .padStart(family === 4 ? 8 : 32, '0');
  const words = hex.match(/.{8}/g) as string[];
  return words.map((word) => (word.match(/../g) as string[]).toReversed().join('')).join('');
}

/** Whether a network that is brought up with these facts has a name server. */
export function servesNames(network: NetworkDefinition, { dnsmasq, portTaken }: NameFacts): boolean {
  return dnsmasq && !portTaken && nameServerAddresses(network).length > 0;
}

/**
 * Steps that make the place for a network's names and start its name server, where it can have one. Pure.
 *
 * dnsmasq reads a file when it is closed after writing and forgets its names when it is deleted, before it looks at
 * the next query: whoever asks after the file was written gets the answer.
 */
export function planNameServer(network: NetworkDefinition, facts: NameFacts): Step[] {
  const { name, bridge, internal, subnets } = network;
  const directory = namesDirectory(name);
  const pidFile = networkPidFile(name);
  const place: Step = {
    id: 'names.dir',
    why: `The place for the names of network ${name}: each container writes a file like /etc/hosts there. Below /run, because the name server is not root and must read it.`,
    apply: makeDirectory(directory),
    undo: [{ tool: 'remove', path: path.dirname(directory) }, ...emptyPlaces()],
  };
  if (!servesNames(network, facts)) return [place];
  const zones = subnets.flatMap(({ subnet }) => reverseZones(parseSubnet(subnet)));
  return [
    place,
    {
      id: 'names.server',
      why: internal
        ? `A name server for the containers of ${name}. The network is internal: it asks nobody outside.`
        : `A name server for the containers of ${name}: it knows their names, and asks the host's name servers for others. It answers only what comes in through ${bridge}.`,
      apply: [
        {
          tool: 'daemon',
          optional: true,
          pidFile,
          argv: [
            ...dnsmasq(pidFile, [directory]),
            '--bind-dynamic',
            `--interface=${bridge}`,
            '--except-interface=lo',
            ...(internal
              ? ['--no-resolv', '--local=/#/']
              : [
                  ...(facts.resolvFile === undefined ? ['--no-resolv'] : [`--resolv-file=${facts.resolvFile}`]),
                  `--local=/${[...localDomain(name), ...zones].join('/')}/`,
                ]),
          ],
        },
      ],
      undo: [{ tool: 'end', pidFile }],
    },
  ];
}

/**
 * `web.lab1` is answered here even when the outside cannot be asked. But all top-level domains consist of letters:
 * a network called `dev` must not hide the real domain.
 */
function localDomain(network: string): string[] {
  return /^[a-z]+$/i.test(network) ? [] : [network];
}

/** What is common to all name servers. dnsmasq goes into the background when it is ready. */
function dnsmasq(pidFile: string, directories: readonly string[]): string[] {
  return [
    'dnsmasq',
    // Nothing of the host's own dnsmasq, nor of its /etc/hosts.
    '--conf-file=/dev/null',
    '--no-hosts',
    '--user=nobody',
    `--pid-file=${pidFile}`,
    ...directories.map((directory) => `--hostsdir=${directory}`),
    // A name without a dot is a container's or nobody's.
    '--domain-needed',
    // What does not exist yet may exist in a moment.
    '--no-negcache',
    // In the order of resolv.conf, as the host's own programs ask.
    '--strict-order',
  ];
}

/** What all networks share goes with the last of them. */
function emptyPlaces(): RemoveCommand[] {
  const own = runtimeDirectory();
  return [path.join(own, 'networks'), path.join(own, 'containers'), own, path.dirname(own)].map((each) => ({
    tool: 'remove',
    path: each,
    ifEmpty: true,
  }));
}

/** Each by itself, so that each is readable for nobody. */
function makeDirectory(directory: string): DirectoryCommand[] {
  const base = '/run/minirun';
  const below = path.relative(base, directory).split('/');
  return [base, ...below.map((_, index) => path.join(base, ...below.slice(0, index + 1)))].map((each) => ({
    tool: 'mkdir',
    path: each,
    mode: 0o755,
  }));
}

/** The zones of in-addr.arpa and ip6.arpa that make up a range: reverse look-ups of it are not for the outside. */
function reverseZones({ family, first, prefixLength }: Range): string[] {
  const [bits, digit, radix, origin] = family === 4 ? [32, 8, 10, 'in-addr.arpa'] : [128, 4, 16, 'ip6.arpa'];
  const kept = Math.ceil(prefixLength / digit);
  const count = 1 << (kept * digit - prefixLength);
  return Array.from({ length: count }, (_, index) => {
    const value = (first >> BigInt(bits - kept * digit)) + BigInt(index);
    const labels = Array.from({ length: kept }, (__, place) =>
      ((value >> BigInt(place * digit)) & ((1n << BigInt(digit)) - 1n)).toString(radix),
    );
    return [...labels, origin].join('.');
  });
}

/** Who is to be found. */
export interface Named {
  /** 64 hexadecimal digits. */
  id: string;
  name: string;
  hostname: string;
}

/** The lines of a container in a network's names: the first name of each is what its address is called. */
export function nameLines({ id, name, hostname }: Named, endpoint: Endpoint): string {
  const names = [...new Set([name, hostname, ...endpoint.aliases])];
  const words = [...new Set([...names, ...names.map((each) => `${each}.${endpoint.network}`), id.slice(0, 12)])];
  return addressesOf(endpoint)
    .map(({ address }) => `${address} ${words.join(' ')}\n`)
    .join('');
}

/** Steps that make a container known in its networks. Pure. */
export function planNames(container: Named, endpoints: readonly Endpoint[]): Step[] {
  return endpoints.map((endpoint) => {
    const directory = namesDirectory(endpoint.network);
    const file = path.join(directory, container.id);
    return {
      id: 'names.add',
      why: `The containers of ${endpoint.network} find ${container.name} by its names as soon as this file is written, and no more when it is deleted.`,
      apply: [
        // A network that an earlier minirun has made lacks it.
        ...makeDirectory(directory),
        { tool: 'file', path: file, content: nameLines(container, endpoint), mode: 0o644 },
      ],
      undo: [{ tool: 'remove', path: file }],
    };
  });
}

/** The step that makes a network forget a container. Pure. */
export function planNamesGone(id: string, network: string): Step {
  return {
    id: 'names.remove',
    why: `The containers of ${network} are not to find it any more.`,
    apply: [{ tool: 'remove', path: path.join(namesDirectory(network), id) }],
    undo: [],
  };
}

/**
 * Steps that start a name server inside a container's namespace, with the names of all its networks. Its port is not 53,
 * so that the container can be a name server itself; a rule leads queries there, as docker does. Pure.
 *
 * @param upstream who is asked for other names; nobody when empty
 * @param redirected whether the rules are there already
 */
export function planOwnNameServer(
  netns: string,
  id: string,
  endpoints: readonly Endpoint[],
  upstream: readonly string[],
  redirected = false,
): Step[] {
  const pidFile = ownPidFile(id);
  const directories = endpoints.map(({ network }) => namesDirectory(network));
  const at = `${ownNameServerAddress}:${ownNameServerPort}`;
  const redirect = (protocol: string): RunCommand => ({
    tool: 'run',
    netns,
    argv: `iptables -w -t nat -A OUTPUT -d ${ownNameServerAddress} -p ${protocol} --dport 53 -j DNAT --to-destination ${at}`.split(
      ' ',
    ),
  });
  return [
    {
      id: 'names.own',
      why: 'No single name server knows all names that this container is to find, so it has one of its own, inside its namespace.',
      apply: [
        ...makeDirectory(path.dirname(pidFile)),
        ...directories.flatMap(makeDirectory),
        {
          tool: 'daemon',
          netns,
          optional: true,
          pidFile,
          argv: [
            ...dnsmasq(pidFile, directories),
            '--bind-interfaces',
            `--listen-address=${ownNameServerAddress}`,
            `--port=${ownNameServerPort}`,
            '--no-resolv',
            ...(upstream.length === 0
              ? ['--local=/#/']
              : [...localOnly(endpoints), ...upstream.map((server) => `--server=${server}`)]),
          ],
        },
      ],
      undo: [{ tool: 'end', pidFile }],
    },
    ...(redirected
      ? []
      : [
          {
            id: 'names.port',
            why: `Queries to port 53 of ${ownNameServerAddress} reach it; port 53 itself stays free for the container. The rules go with the namespace.`,
            apply: [redirect('udp'), redirect('tcp')],
            undo: [],
          },
        ]),
  ];
}

/** What a container's name server asks nobody for: other names of its networks, and other addresses of their ranges. */
function localOnly(endpoints: readonly Endpoint[]): string[] {
  const zones = endpoints.flatMap((endpoint) => [
    ...localDomain(endpoint.network),
    ...addressesOf(endpoint).flatMap(({ address, prefixLength }) =>
      reverseZones(blockOf(parseAddress(address), prefixLength)),
    ),
  ]);
  return [`--local=/${[...new Set(zones)].join('/')}/`];
}

/** How a container finds names. */
export interface Resolution {
  /** The servers of its resolv.conf. */
  nameservers: string[];
  /** Whom its own name server asks; absent when it has none. */
  upstream?: string[];
  /** Nobody can be asked for the names of its networks: its /etc/hosts must have them. */
  inHostsFile: boolean;
}

/** A network of a container, and whether its name server runs or will. */
export interface NamedNetwork {
  network: NetworkDefinition;
  endpoint: Endpoint;
  served: boolean;
}

/**
 * How a container with these networks finds names. A container with one network asks that network's name server. One with
 * several, with `--dns`, or where the host is not (macvlan, a container as gateway) has a name server of its own. Pure.
 *
 * @param given `--dns`
 * @param usable those of the host's name servers that a container can reach
 * @param dnsmasq whether there is a dnsmasq to start
 */
export function resolutionOf(
  networks: readonly NamedNetwork[],
  given: readonly string[],
  usable: readonly string[],
  dnsmasq: boolean,
): Resolution {
  const outside = given.length > 0 ? [...given] : [...usable];
  const main = mainNetwork(networks);
  if (main === undefined) return { nameservers: outside, inHostsFile: false };
  if (!dnsmasq && !networks.every(({ served }) => served)) return { nameservers: outside, inHostsFile: true };
  const ofNetwork = main.served ? reachableServers(main) : [];
  if (networks.length === 1 && given.length === 0 && ofNetwork.length > 0)
    return { nameservers: ofNetwork, inHostsFile: false };
  const closed = given.length === 0 && networks.every(({ network }) => network.internal);
  const upstream = given.length > 0 ? [...given] : ofNetwork.length > 0 ? ofNetwork : outside;
  return { nameservers: [ownNameServerAddress], upstream: closed ? [] : upstream, inHostsFile: false };
}

/** The network that the default route goes through, or the first. */
function mainNetwork(networks: readonly NamedNetwork[]): NamedNetwork | undefined {
  const endpoints = networks.map(({ endpoint }) => endpoint);
  const main = gatewayEndpoint(endpoints, 'ipv4') ?? gatewayEndpoint(endpoints, 'ipv6') ?? inOrder(endpoints)[0];
  return networks.find(({ endpoint }) => endpoint === main);
}

/** The host's addresses in the ranges in which the container has its own, IPv4 first. */
function reachableServers({ network, endpoint }: NamedNetwork): string[] {
  const own = addressesOf(endpoint).map(({ address }) => parseAddress(address));
  return network.subnets
    .filter(({ subnet }) => own.some((address) => contains(parseSubnet(subnet), address)))
    .map(({ gateway }) => gateway)
    .filter((gateway) => nameServerAddresses(network).includes(gateway));
}

/** The names of all networks, each: container id → its lines. */
export function allNames(): Map<string, string>[] {
  return entries(path.join(runtimeDirectory(), 'networks')).map((network) => namesOf(network));
}

/** What a container's file of names says, independently of the records: whose addresses and which namespace they are. */
export interface NameFile {
  file: string;
  network: string;
  container: string;
  addresses: string[];
  /** The container's name, which is that of its namespace. */
  name?: string;
}

/** Every file of names of this state directory. */
export function nameFiles(): NameFile[] {
  return entries(path.join(runtimeDirectory(), 'networks')).flatMap((network) =>
    [...namesOf(network)].map(([container, text]): NameFile => {
      const lines = text.split('\n').filter((line) => line !== '');
      return {
        file: path.join(namesDirectory(network), container),
        network,
        container,
        addresses: lines.map((line) => line.split(' ')[0] as string),
        name: lines[0]?.split(' ')[1],
      };
    }),
  );
}

/** The networks of this state directory that have a place for names, and the bridge on which each one's name server listens. */
export function networksWithNames(): { network: string; directory: string; bridge?: string }[] {
  return entries(path.join(runtimeDirectory(), 'networks')).map((network) => {
    const directory = path.join(runtimeDirectory(), 'networks', network);
    const server = daemonOf(networkPidFile(network));
    const words = server === undefined ? [] : fs.readFileSync(`/proc/${server.pid}/cmdline`, 'utf8').split('\0');
    const bridge = words.find((word) => word.startsWith('--interface='))?.slice('--interface='.length);
    return { network, directory, bridge };
  });
}

/** The name servers that have been started for this state directory, and whom for: the name of a network, the id of a container. */
export function nameServers(): { kind: 'network' | 'container'; of: string; pidFile: string }[] {
  const own = entries(path.join(runtimeDirectory(), 'containers')).map((id) => ({
    kind: 'container' as const,
    of: id,
    pidFile: ownPidFile(id),
  }));
  const networks = entries(path.join(runtimeDirectory(), 'networks')).flatMap((network) =>
    fs.existsSync(networkPidFile(network))
      ? [{ kind: 'network' as const, of: network, pidFile: networkPidFile(network) }]
      : [],
  );
  return [...networks, ...own];
}

function namesOf(network: string): Map<string, string> {
  const directory = namesDirectory(network);
  const found = entries(directory).flatMap((id): [string, string][] => {
    try {
      return [[id, fs.readFileSync(path.join(directory, id), 'utf8')]];
    } catch {
      // It has gone meanwhile.
      return [];
    }
  });
  return new Map(found);
}

function entries(directory: string): string[] {
  try {
    return fs.readdirSync(directory).toSorted();
  } catch {
    return [];
  }
}
