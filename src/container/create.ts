import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { faultPoint, killPoint } from '../host/fault.ts';
import { which } from '../host/launch.ts';
import { smallMachine } from '../host/machine.ts';
import { bootId, selfRef } from '../host/process.ts';
import { randomHex } from '../host/random.ts';
import { removeTree } from '../host/remove-tree.ts';
import type { Image, ImageConfig, PullPolicy } from '../image/image.ts';
import type { Platform } from '../image/manifest.ts';
import type { OpenReport } from '../image/resolve.ts';
import { parseSubnet } from '../network/address.ts';
import { type Attachment, defaultNetworkName } from '../network/definition.ts';
import { hasIpv6 } from '../network/facts.ts';
import type { PortRequest } from '../network/ports.ts';
import { isOpenOutwards } from '../network/firewall.ts';
import { canonicalNetwork, parseAttachments } from '../network/options.ts';
import { listNetworks, readNetwork, requireNetwork } from '../network/store.ts';
import { writeJson } from '../state/json.ts';
import { settled } from '../state/lock.ts';
import { nameOfContainer } from '../state/names.ts';
import { paths } from '../state/paths.ts';
import { type ContainerState, type Definition, restingState } from './definition.ts';
import { recordContainer } from './events.ts';
import { deleteContainer } from './finish.ts';
import {
  checkHostname,
  checkName,
  checkGroup,
  checkUser,
  mergeEnv,
  parseAddHost,
  parseEnv,
  parseEnvFile,
  parseLabel,
  parseRestart,
  parseSignal,
  parseSysctl,
  parseUlimit,
} from './options.ts';
import type { HealthRequest } from './health-options.ts';
import type { LimitRequest, Limits } from './limits.ts';
import type { MountRequest } from './mounts.ts';
import type { OciSpec } from './oci.ts';
import { planSpec } from './spec.ts';
import { defaultUserns, isInHostUserNamespace, parseUserns } from './user-namespace.ts';
import { warningAboutNames } from './names.ts';
import { hasOwnNetwork } from './networking.ts';
import { forgetOwner, noteOwner } from './owners.ts';
import { adjustCapabilities } from './capabilities.ts';
import { resolveSecurity } from './security.ts';
import { parseSecurityOptions } from './security-options.ts';
import { thermalThrottlePaths } from './system-paths.ts';
import { openFilesHardLimit } from './start.ts';
import { containerFiles, findId, namePattern, readContainer, reserveName, writeState } from './store.ts';
import { readTextFile } from './text-file.ts';

/** What `run` and `create` take, as it was typed; docker's names. Lists are empty when an option was not given. */
export interface ContainerRequest {
  image?: string;
  command: string[];
  name?: string;
  env: string[];
  envFile: string[];
  volume: string[];
  mount: string[];
  tmpfs: string[];
  volumesFrom: string[];
  device: string[];
  shmSize?: string;
  workdir?: string;
  user?: string;
  groupAdd: string[];
  entrypoint?: string;
  hostname?: string;
  network: string[];
  ip?: string;
  ip6?: string;
  macAddress?: string;
  networkAlias: string[];
  publish: string[];
  publishAll: boolean;
  /** It passes packets on between its interfaces. */
  router: boolean;
  dns: string[];
  dnsSearch: string[];
  dnsOption: string[];
  addHost: string[];
  expose: string[];
  capAdd: string[];
  capDrop: string[];
  privileged: boolean;
  /** `auto`, `host`, a number of ids. */
  userns?: string;
  readOnly: boolean;
  init: boolean;
  stopSignal?: string;
  stopTimeout?: number;
  health: HealthRequest;
  ulimit: string[];
  /** Absent when it is not limited. */
  limits?: LimitRequest;
  sysctl: string[];
  label: string[];
  labelFile: string[];
  securityOpt: string[];
  pull: PullPolicy;
  rootfs?: string;
  /** The words of the command, as they came. */
  words?: string[];
  restart: string;
  autoRemove: boolean;
  tty: boolean;
  interactive: boolean;
  /** Notices for the user, a line each: progress, warnings. */
  notice: (line: string) => void;
  /** Shows how an image is fetched; opened only then. */
  openReport: OpenReport;
  /** What the image is to be for, if not for this machine. */
  platform?: string;
  /** The image's registry may speak plain HTTP or show a certificate that nobody vouches for. */
  insecure?: boolean;
}

/** A container as it is going to be; nothing of it exists yet. */
export interface Draft {
  definition: Definition;
  spec: OciSpec;
}

/**
 * Checks a request and makes a container of it on paper. Every bad combination is refused here, before any effect;
 * only an image may be fetched, when everything else is right.
 */
export async function draftContainer(request: ContainerRequest): Promise<Draft> {
  const id = randomHex(32);
  const name = request.name === undefined ? undefined : checkName(request.name.replace(/^\//, ''), namePattern);
  const { network, attachments } = checkNetworks(request);
  const ownNetwork = hasOwnNetwork({ network });
  const planned = mountsAnything(request) ? await planMounts(request) : undefined;
  const shmSize =
    request.shmSize === undefined ? undefined : (await import('./mount-options.ts')).parseShmSize(request.shmSize);
  const options = parseSecurityOptions(request.securityOpt);
  const capabilities = adjustCapabilities(request.capAdd, request.capDrop);
  const userns = usernsOf(request.userns, network);
  if (userns !== undefined) planned?.refusePropagation();
  const rlimits = request.ulimit.map(parseUlimit);
  const limits = await checkedLimits(request);
  const sysctl = Object.fromEntries([
    ...(request.router ? forwarding(ownNetwork) : []),
    ...request.sysctl.map((text) => parseSysctl(text, ownNetwork)),
  ]);
  const restart = parseRestart(request.restart);
  if (request.autoRemove && restart.name !== 'no') {
    throw new MinirunError(
      '--rm and --restart exclude each other',
      'a container that is removed cannot be started again',
      'Leave one of them out',
      { code: 125 },
    );
  }
  const labels = Object.fromEntries(
    [...request.labelFile.flatMap((file) => readLines('--label-file', file)), ...request.label].map(parseLabel),
  );
  const addHosts = request.addHost.map(parseAddHost);
  const envFiles = request.envFile.flatMap((file) => parseEnvFile(readTextFile('--env-file', file), process.env));
  const env = request.env.map((text) => parseEnv(text, process.env));
  if (request.hostname !== undefined) checkHostname(request.hostname);
  if (request.user !== undefined) checkUser(request.user);
  request.groupAdd.forEach(checkGroup);
  if (request.workdir !== undefined && !path.isAbsolute(request.workdir)) {
    throw new MinirunError(
      `invalid working directory "${request.workdir}"`,
      'it is not an absolute path',
      'Give -w a path that begins with /',
      { code: 125 },
    );
  }
  for (const server of request.dns) checkServer(server);
  const exposed = await parseExpose(request.expose);
  const publish = await parsePublished(request, attachments);
  const stopSignal = request.stopSignal === undefined ? undefined : parseSignal(request.stopSignal);
  const init = request.init ? staticInit() : undefined;
  const rootfs = request.rootfs === undefined ? undefined : checkRootfs(request.rootfs);
  const security = await resolveSecurity(options, { capabilities, privileged: request.privileged }, request.notice);
  // Before the image is fetched; then again with what it says.
  await healthOf(request.health);

  const image = rootfs === undefined ? await imageOf(request) : undefined;
  if (image !== undefined && image.layers.length > mostLayers) {
    throw new MinirunError(
      `cannot run image "${request.image}"`,
      `it has ${image.layers.length} layers, and overlayfs takes ${mostLayers}`,
      'Build it anew with fewer',
      { code: 125 },
    );
  }
  const config = image?.config ?? {};
  const { healthcheck, action: healthOnFailure } = await healthOf(request.health, config);
  const imageVolumes = Object.keys(config.Volumes ?? {});
  const { mounts, volumes, devices } =
    planned === undefined && imageVolumes.length === 0
      ? { mounts: [], volumes: [], devices: [] }
      : (planned ?? (await planMounts(request))).complete(imageVolumes, request.image);
  const entrypoint =
    request.entrypoint === undefined
      ? (config.Entrypoint ?? [])
      : request.entrypoint === ''
        ? []
        : [request.entrypoint];
  const usesImageCommand = request.command.length === 0 && request.entrypoint === undefined;
  const command = usesImageCommand ? (config.Cmd ?? []) : request.command;
  if (entrypoint.length + command.length === 0) {
    throw new MinirunError(
      'no command to run',
      'neither the command line nor the image names one',
      `Add one: minirun run ${request.image ?? `--rootfs ${rootfs}`} sh`,
      { code: 125 },
    );
  }
  const hostname =
    request.hostname ??
    (network === 'host' ? readTextFile('hostname', '/proc/sys/kernel/hostname').trim() : id.slice(0, 12));
  const definition: Definition = {
    schema: 2,
    id,
    name: name ?? (await freeName()),
    created: new Date().toISOString(),
    image: rootfs ?? (request.image as string),
    imageId: image?.id ?? '',
    layers: image?.layers ?? [],
    rootfs,
    entrypoint,
    command,
    network,
    attachments,
    ...(publish.length > 0 ? { publish } : {}),
    ...(request.publishAll ? { publishAll: true } : {}),
    dns: request.dns,
    dnsSearch: request.dnsSearch,
    dnsOptions: request.dnsOption,
    addHosts,
    autoRemove: request.autoRemove,
    restart,
    stopSignal: stopSignal ?? stopSignalOf(config, request.image),
    stopTimeout: request.stopTimeout ?? 10,
    tty: request.tty,
    openStdin: request.interactive,
    privileged: request.privileged,
    ...(userns === undefined ? {} : { userns }),
    labels: { ...config.Labels, ...labels },
    exposedPorts: [...new Set([...Object.keys(config.ExposedPorts ?? {}), ...exposed])],
    volumes,
    ...(request.volumesFrom.length > 0 ? { volumesFrom: request.volumesFrom } : {}),
    ...(shmSize === undefined ? {} : { shmSize }),
    ...(limits.nanoCpus === undefined ? {} : { nanoCpus: limits.nanoCpus }),
    healthcheck,
    ...(request.words === undefined ? {} : { typed: { words: request.words, directory: process.cwd() } }),
    healthOnFailure,
  };
  const files = containerFiles(id);
  const spec = planSpec({
    id,
    hostname,
    rootfs: rootfs ?? files.rootfs,
    readonlyRootfs: request.readOnly,
    args: [...entrypoint, ...command],
    env: mergeEnv(
      [`PATH=${defaultPath}`, `HOSTNAME=${hostname}`],
      request.tty ? ['TERM=xterm'] : [],
      config.Env ?? [],
      envFiles,
      env,
    ),
    cwd: request.workdir ?? path.posix.resolve('/', config.WorkingDir ?? ''),
    user: request.user || config.User || '',
    groups: request.groupAdd,
    tty: request.tty,
    capAdd: request.capAdd,
    capDrop: request.capDrop,
    privileged: request.privileged,
    ...options,
    ...security,
    thermalThrottle: thermalThrottlePaths(),
    rlimits,
    limits,
    sysctl,
    mounts,
    devices,
    shmSize,
    etc: { hosts: files.hosts, hostname: files.hostname, resolvConf: files.resolvConf },
    init,
    labels: definition.labels,
    openFilesHard: openFilesHardLimit(),
    ownNetwork,
    idCount: userns?.size,
  });
  const warning = warningAboutNames(definition);
  if (warning !== undefined) request.notice(`warning: ${warning}`);
  return { definition, spec };
}

const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Writes a container down: id and name are reserved at once or not at all. Then its volumes are made, which its
 * definition names already.
 *
 * @param unborn `run` makes it; until its command begins it is not to outlive this process
 */
export async function writeContainer({ definition, spec }: Draft, unborn: boolean): Promise<void> {
  const { id, name } = definition;
  const self = selfRef();
  const making = path.join(paths.containers(), `.new-${self.pid}-${self.start}-${id.slice(0, 12)}`);
  const state: ContainerState = {
    ...restingState,
    status: 'creating',
    boot: bootId(),
    owner: self,
    unborn,
    unannounced: true,
  };
  try {
    fs.mkdirSync(making, { mode: 0o700 });
    writeJson(path.join(making, 'definition.json'), definition);
    writeJson(path.join(making, 'config.json'), spec);
    writeJson(path.join(making, 'state.json'), state, { durable: false });
    noteOwner(id, state);
    faultPoint('create.written');
    fs.renameSync(making, containerFiles(id).directory);
    faultPoint('create.listed');
    reserveName(name, id);
    faultPoint('create.named');
    await requireImage(definition);
    if (definition.volumes?.length) await (await import('./volumes.ts')).makeVolumes(definition);
    if (definition.userns !== undefined) await (await import('./in-user-namespace.ts')).idsFor(definition);
    recordContainer(definition, 'create');
    killPoint('create.announced');
    // One that `run` makes is announced as soon as its start is written down.
    if (!unborn) writeState(id, { ...state, status: 'created', owner: undefined, unannounced: undefined });
  } catch (error) {
    removeTree(making);
    await deleteContainer(id);
    forgetOwner(id);
    throw error;
  }
}

/**
 * `rmi` may have taken the image away since it was looked up. It looks for containers in a critical section: one that had
 * begun before this container was listed has ended when this goes on, and each later one sees the container.
 */
async function requireImage({ image, imageId, layers, rootfs }: Definition): Promise<void> {
  if (rootfs !== undefined) return;
  await settled();
  const { readIndex } = await import('../image/index-file.ts');
  if (readIndex().images[imageId] !== undefined && layers.every((layer) => fs.existsSync(layer))) return;
  throw new MinirunError(`cannot use image "${image}"`, 'it has just been removed by another process', 'Try again', {
    code: 125,
  });
}

/** overlayfs takes so many directories: OVL_MAX_STACK of the kernel. */
const mostLayers = 500;

/** The limits that were asked for, which this machine can keep. */
async function checkedLimits({ limits: given, notice }: ContainerRequest): Promise<Limits> {
  if (given === undefined) return {};
  const { checkLimits, parseLimits } = await import('./limits.ts');
  const limits = parseLimits(given);
  for (const warning of checkLimits(limits)) notice(`warning: ${warning}`);
  return limits;
}

async function parseExpose(texts: readonly string[]): Promise<string[]> {
  if (texts.length === 0) return [];
  const { portsOf } = await import('../image/ports.ts');
  return texts.flatMap((text) => {
    const ports = portsOf(text);
    if (ports !== undefined) return ports;
    throw new MinirunError(
      `invalid --expose "${text}"`,
      'it is not of the form PORT[-PORT][/tcp|udp|sctp]',
      'For example --expose 8080 or --expose 53/udp',
      { code: 125 },
    );
  });
}

function stopSignalOf({ StopSignal: signal }: ImageConfig, image = ''): number {
  try {
    return parseSignal(signal || 'TERM');
  } catch {
    throw new MinirunError(
      `cannot use the stop signal "${signal}" of image "${image}"`,
      'Linux has none of that name',
      'Give another one with --stop-signal',
      { code: 125 },
    );
  }
}

/** `--platform`, read only when it is given. */
async function parsedPlatform(text: string | undefined): Promise<Platform | undefined> {
  if (text === undefined) return undefined;
  const { parsePlatform } = await import('../image/platform.ts');
  return parsePlatform(text);
}

async function imageOf(request: ContainerRequest): Promise<Image> {
  const { resolveImage } = await import('../image/resolve.ts');
  const image = await resolveImage(request.image ?? '', request.pull, {
    platform: await parsedPlatform(request.platform),
    insecure: request.insecure,
    openReport: request.openReport,
  });
  if (image.standIn !== undefined) request.notice(`warning: ${image.standIn}`);
  return image;
}

/** `-p` as far as it makes sense for these networks. */
async function parsePublished(
  { publish, publishAll, network, notice }: ContainerRequest,
  attachments: readonly Attachment[],
): Promise<PortRequest[]> {
  if (publish.length === 0 && !publishAll) return [];
  const { parsePublish } = await import('../network/ports.ts');
  const { checkHostIps } = await import('../network/port-store.ts');
  const requests = publish.flatMap(parsePublish);
  const { checkForwardable } = await import('./forward.ts');
  if (!checkForwardable(requests)) checkHostIps(requests);
  if (attachments.some((each) => each.network === defaultNetworkName || isOpenOutwards(requireNetwork(each.network))))
    return requests;
  if (network[0] === 'none' || network[0] === 'host') {
    notice(
      `warning: published ports mean nothing with --network ${network[0]}: the container ${network[0] === 'host' ? "has the host's ports" : 'cannot be reached'}`,
    );
    return [];
  }
  throw new MinirunError(
    'cannot publish ports',
    attachments.length === 0
      ? "the container shares another's network"
      : 'all of its networks are internal, or of another wire than the host’s',
    attachments.length === 0 ? 'Publish them on that container' : 'Give it a bridge network that is not internal',
    { code: 125 },
  );
}

/** `--router`: settings that make a container pass packets on. */
function forwarding(ownNetwork: boolean): [string, string][] {
  if (!ownNetwork) {
    throw new MinirunError(
      '--router needs a network of its own',
      "the container shares another's, whose settings it would change",
      'Leave it out, or give the container a network',
      { code: 125 },
    );
  }
  const keys = ['net.ipv4.ip_forward', ...(hasIpv6() ? ['net.ipv6.conf.all.forwarding'] : [])];
  return keys.map((key) => [key, '1']);
}

/** The networks that were asked for, all of which exist. */
function checkNetworks(request: ContainerRequest): { network: string; attachments: Attachment[] } {
  const given = request.network.length > 0 ? request.network : [defaultNetworkName];
  const alone = given.find((text) => text === 'none' || text === 'host' || text.startsWith('container:'));
  if (alone !== undefined) return { network: checkAlone(alone, given, request), attachments: [] };
  const attachments = parseAttachments({ ...request, network: given }, networkNameOf);
  for (const { network, ip, ip6, aliases: _aliases } of attachments) {
    if (network === defaultNetworkName) continue;
    const { subnets } = requireNetwork(network);
    for (const [address, family] of [
      [ip, 4],
      [ip6, 6],
    ] as const) {
      if (address === undefined || subnets.some(({ subnet }) => parseSubnet(subnet).family === family)) continue;
      throw new MinirunError(
        `cannot use address ${address}`,
        `network "${network}" has no IPv${family} subnet`,
        'Choose another network, or leave the address out',
        { code: 125 },
      );
    }
  }
  return { network: (attachments[0] as Attachment).network, attachments };
}

/** The name of the network that a name, an id or the beginning of one stands for. */
function networkNameOf(text: string): string {
  const name = canonicalNetwork(text);
  if (name === defaultNetworkName || !/^[0-9a-f]{4,64}$/.test(name) || readNetwork(name) !== undefined) return name;
  const [found, ...others] = listNetworks().filter(({ id }) => id.startsWith(name));
  return found === undefined || others.length > 0 ? name : found.name;
}

/** `none`, `host`, `container:NAME`, with which nothing else goes. */
function checkAlone(network: string, given: readonly string[], request: ContainerRequest): string {
  const refuse = (what: string, why: string, remedy: string) => new MinirunError(what, why, remedy, { code: 125 });
  if (given.length > 1)
    throw refuse(
      `--network ${network} does not go with other networks`,
      'it stands for all there is to have',
      'Leave the others out',
    );
  const options: [string, boolean][] = [
    ['--ip', request.ip !== undefined],
    ['--ip6', request.ip6 !== undefined],
    ['--mac-address', request.macAddress !== undefined],
    ['--network-alias', request.networkAlias.length > 0],
  ];
  const option = options.find(([, used]) => used)?.[0];
  if (option !== undefined)
    throw refuse(
      `${option} does not go with --network ${network}`,
      'the container gets no address there',
      `Leave ${option} out, or choose another network`,
    );
  if (!network.startsWith('container:')) return network;
  if (request.hostname !== undefined)
    throw refuse(
      '--hostname does not go with --network container:NAME',
      'both containers have one name in the network',
      'Leave -h out',
    );
  const other = network.slice('container:'.length);
  const id = findId(other);
  if (id === undefined)
    throw refuse(`cannot join the network of container "${other}"`, 'there is no such container', 'See minirun ps');
  return `container:${id}`;
}

function checkServer(server: string): void {
  if (/^[0-9a-fA-F:.]+$/.test(server)) return;
  throw new MinirunError(`invalid --dns "${server}"`, 'it is not an address', 'Give the address of a DNS server', {
    code: 125,
  });
}

function checkRootfs(directory: string): string {
  const absolute = path.resolve(directory);
  if (fs.statSync(absolute, { throwIfNoEntry: false })?.isDirectory()) return absolute;
  throw new MinirunError(
    `cannot use ${absolute} as a root filesystem`,
    'there is no such directory',
    'Unpack one there first',
    { code: 125 },
  );
}

/** A static program that reaps and forwards signals as pid 1. */
function staticInit(): string {
  const found = ['tini-static', 'catatonit', 'docker-init']
    .map((name) => which(name))
    .find((file) => file !== undefined);
  if (found !== undefined) return found;
  throw new MinirunError(
    'cannot use --init',
    'this machine has no static init (tini-static, catatonit)',
    'Install one: apt-get install tini',
    { code: 125 },
  );
}

function readLines(option: string, file: string): string[] {
  return readTextFile(option, file)
    .split(/\r?\n/)
    .filter((line) => line.trim() !== '' && !line.startsWith('#'));
}

// What most containers have nothing of is loaded for the others only: each start would take the time for it.

function mountsAnything({ volume, mount, tmpfs, volumesFrom, device }: MountRequest): boolean {
  return [volume, mount, tmpfs, volumesFrom, device].some((list) => list.length > 0);
}

async function planMounts(request: ContainerRequest) {
  return (await import('./mounts.ts')).planMounts(request, process.cwd());
}

/**
 * What is to be checked of a container's health, and what to do when it is not well.
 *
 * @param config of the image; absent while it is not known: what was typed is checked for itself
 */
async function healthOf(
  request: HealthRequest,
  config?: ImageConfig,
): Promise<Pick<Definition, 'healthcheck'> & { action?: Definition['healthOnFailure'] }> {
  const { none, ...given } = request;
  const isGiven = none || Object.values(given).some((value) => value !== undefined);
  if (!isGiven && config?.Healthcheck === undefined) return {};
  const { healthActionOf, healthcheckOf } = await import('./health-options.ts');
  const healthcheck = healthcheckOf(request, config?.Healthcheck);
  if (config === undefined) return { healthcheck };
  const { checkCommand } = await import('./health.ts');
  return { healthcheck, action: healthActionOf(request, checkCommand({ healthcheck }) !== undefined) };
}

/**
 * The user namespace of a container. Who shares the network of another container shares its user namespace, too: a network
 * namespace belongs to one, and nobody else's root may do anything in it.
 */
function usernsOf(text: string | undefined, network: string): Definition['userns'] {
  // Without root all of them are in one, and the user has no further ids.
  if (smallMachine() !== undefined && parseUserns(text ?? 'host') === undefined) return undefined;
  if (smallMachine() !== undefined)
    throw new MinirunError(
      `cannot use --userns ${text}`,
      'without root all containers are in one user namespace already',
      'Leave it out',
      { code: 125 },
    );
  const size = parseUserns(text ?? defaultUserns);
  if (size === undefined && text === undefined && !network.startsWith('container:')) return undefined;
  // Without root, all of minirun is in a user namespace already; it has no ids to give away, and no right to map owners.
  if (size !== undefined && !isInHostUserNamespace()) {
    if (text === undefined) return undefined;
    throw new MinirunError(
      `cannot make a user namespace (--userns ${text})`,
      'minirun itself is in one, in which its root is nobody on the host already',
      'Leave --userns out',
      { code: 125 },
    );
  }
  if (!network.startsWith('container:') || text === 'host') return size === undefined ? undefined : { size };
  const other = network.slice('container:'.length);
  const theirs = readContainer(other)?.definition.userns;
  if (theirs !== undefined && (text === undefined || size === theirs.size))
    return { size: theirs.size, of: theirs.of ?? other };
  if (text === undefined) return undefined;
  throw new MinirunError(
    `--userns ${text} does not go with --network container:${nameOfContainer(other)}`,
    theirs === undefined
      ? 'that container is in the user namespace of the host, and its network belongs to that'
      : `that container's user namespace has ${theirs.size} ids`,
    'Leave --userns out: who shares a network shares the user namespace',
    { code: 125 },
  );
}

/** A name nobody has, in docker's style. */
async function freeName(): Promise<string> {
  const { default: names } = await import('docker-names');
  for (let tries = 0; ; tries++) {
    const name = tries < 5 ? names.getRandomName() : `${names.getRandomName()}_${randomHex(3)}`;
    if (findId(name) === undefined) return name;
  }
}
