import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { removeTree } from '../host/executor.ts';
import { faultPoint } from '../host/fault.ts';
import { which } from '../host/launch.ts';
import { bootId, selfRef } from '../host/process.ts';
import type { Image, PullPolicy } from '../image/image.ts';
import { parseAddress } from '../network/address.ts';
import { defaultNetworkName } from '../network/definition.ts';
import { hasIpv6 } from '../network/facts.ts';
import { requireNetwork } from '../network/store.ts';
import { writeJson } from '../state/json.ts';
import { paths } from '../state/paths.ts';
import { type ContainerState, type Definition, restingState } from './definition.ts';
import { deleteContainer } from './finish.ts';
import {
  checkHostname,
  checkName,
  checkUser,
  mergeEnv,
  parseAddHost,
  parseEnv,
  parseEnvFile,
  parseLabel,
  parseMount,
  parseRestart,
  parseSecurityOptions,
  parseSignal,
  parseSysctl,
  parseTmpfs,
  parseUlimit,
  parseVolume,
} from './options.ts';
import type { OciMount, OciSpec } from './oci.ts';
import { planSpec } from './spec.ts';
import { openFilesHardLimit } from './start.ts';
import { containerFiles, findId, namePattern, reserveName, writeState } from './store.ts';
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
  workdir?: string;
  user?: string;
  entrypoint?: string;
  hostname?: string;
  network?: string;
  ip?: string;
  dns: string[];
  dnsSearch: string[];
  dnsOption: string[];
  addHost: string[];
  capAdd: string[];
  capDrop: string[];
  privileged: boolean;
  readOnly: boolean;
  init: boolean;
  stopSignal?: string;
  stopTimeout?: number;
  ulimit: string[];
  sysctl: string[];
  label: string[];
  labelFile: string[];
  securityOpt: string[];
  pull: PullPolicy;
  rootfs?: string;
  restart: string;
  autoRemove: boolean;
  tty: boolean;
  interactive: boolean;
  /** Notices for the user, a line each: progress, warnings. */
  notice: (line: string) => void;
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
  const id = randomBytes(32).toString('hex');
  const name = request.name === undefined ? undefined : checkName(request.name.replace(/^\//, ''), namePattern);
  const network = checkNetwork(request);
  const ownNetwork = network !== 'host' && !network.startsWith('container:');
  const mounts = checkedMounts(request);
  const security = parseSecurityOptions(request.securityOpt);
  const rlimits = request.ulimit.map(parseUlimit);
  const sysctl = Object.fromEntries(request.sysctl.map((text) => parseSysctl(text, ownNetwork)));
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
  const env = request.env.flatMap((text) => parseEnv(text, process.env) ?? []);
  if (request.hostname !== undefined) checkHostname(request.hostname);
  if (request.user !== undefined) checkUser(request.user);
  if (request.workdir !== undefined && !path.isAbsolute(request.workdir)) {
    throw new MinirunError(
      `invalid working directory "${request.workdir}"`,
      'it is not an absolute path',
      'Give -w a path that begins with /',
      { code: 125 },
    );
  }
  for (const server of request.dns) checkServer(server);
  const stopSignal = request.stopSignal === undefined ? undefined : parseSignal(request.stopSignal);
  const init = request.init ? staticInit() : undefined;
  const rootfs = request.rootfs === undefined ? undefined : checkRootfs(request.rootfs);

  const image = rootfs === undefined ? await imageOf(request) : undefined;
  const config = image?.config ?? {};
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
    schema: 1,
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
    address: request.ip,
    dns: request.dns,
    dnsSearch: request.dnsSearch,
    dnsOptions: request.dnsOption,
    addHosts,
    autoRemove: request.autoRemove,
    restart,
    stopSignal: stopSignal ?? parseSignal(config.StopSignal ?? 'TERM'),
    stopTimeout: request.stopTimeout ?? 10,
    tty: request.tty,
    openStdin: request.interactive,
    privileged: request.privileged,
    labels: { ...config.Labels, ...labels },
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
    cwd: request.workdir ?? (config.WorkingDir || '/'),
    user: request.user ?? config.User ?? '',
    tty: request.tty,
    capAdd: request.capAdd,
    capDrop: request.capDrop,
    privileged: request.privileged,
    noNewPrivileges: security.noNewPrivileges,
    seccomp: security.seccomp,
    rlimits,
    sysctl,
    mounts,
    etc: { hosts: files.hosts, hostname: files.hostname, resolvConf: files.resolvConf },
    init,
    labels: definition.labels,
    openFilesHard: openFilesHardLimit(),
    ownNetwork,
    ifnames: network === 'none' || !ownNetwork ? [] : ['eth0'],
    ipv6: hasIpv6(),
  });
  return { definition, spec };
}

const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Writes a container down: id and name are reserved at once or not at all.
 *
 * @param unborn `run` makes it; until its command begins it is not to outlive this process
 */
export function writeContainer({ definition, spec }: Draft, unborn: boolean): void {
  const { id, name } = definition;
  const self = selfRef();
  const making = path.join(paths.containers(), `.new-${self.pid}-${self.start}-${id.slice(0, 12)}`);
  const state: ContainerState = { ...restingState, status: 'creating', boot: bootId(), owner: self, unborn };
  try {
    fs.mkdirSync(making, { mode: 0o700 });
    writeJson(path.join(making, 'definition.json'), definition);
    writeJson(path.join(making, 'config.json'), spec);
    writeJson(path.join(making, 'state.json'), state, { durable: false });
    faultPoint('create.written');
    fs.renameSync(making, containerFiles(id).directory);
    faultPoint('create.listed');
    reserveName(name, id);
    faultPoint('create.named');
    if (!unborn) writeState(id, { ...state, status: 'created', owner: undefined });
  } catch (error) {
    removeTree(making);
    deleteContainer(id);
    throw error;
  }
}

async function imageOf(request: ContainerRequest): Promise<Image> {
  const { resolveImage } = await import('../image/resolve.ts');
  const image = await resolveImage(request.image ?? '', request.pull, request.notice);
  if (image.standIn !== undefined) request.notice(`warning: ${image.standIn}`);
  return image;
}

function checkedMounts(request: ContainerRequest): OciMount[] {
  const directory = process.cwd();
  const mounts = [
    ...request.volume.map((text) => parseVolume(text, directory)),
    ...request.mount.map((text) => parseMount(text, directory)),
    ...request.tmpfs.map(parseTmpfs),
  ];
  const seen = new Set<string>();
  for (const mount of mounts) {
    if (seen.has(mount.destination)) {
      throw new MinirunError(
        `duplicate mount point ${mount.destination}`,
        'two mounts name it',
        'Leave one of them out',
        { code: 125 },
      );
    }
    seen.add(mount.destination);
    if (mount.type === 'bind' && !fs.existsSync(mount.source)) {
      throw new MinirunError(
        `cannot mount ${mount.source}`,
        'there is no such file or directory on this machine',
        `Create it first: mkdir -p ${mount.source}`,
        { code: 125 },
      );
    }
  }
  return mounts;
}

function checkNetwork(request: ContainerRequest): string {
  const network =
    request.network === undefined || request.network === 'default' || request.network === 'bridge'
      ? defaultNetworkName
      : request.network;
  if (request.ip !== undefined) parseAddress(request.ip);
  const shared = network === 'host' || network.startsWith('container:');
  if (request.ip !== undefined && (shared || network === 'none')) {
    throw new MinirunError(
      `--ip does not go with --network ${network}`,
      'the container gets no address there',
      'Leave --ip out, or choose another network',
      { code: 125 },
    );
  }
  if (shared && request.hostname !== undefined && network !== 'host') {
    throw new MinirunError(
      '--hostname does not go with --network container:NAME',
      'both containers have one name in the network',
      'Leave -h out',
      { code: 125 },
    );
  }
  if (network.startsWith('container:')) {
    const other = network.slice('container:'.length);
    const id = findId(other);
    if (id === undefined)
      throw new MinirunError(
        `cannot join the network of container "${other}"`,
        'there is no such container',
        'See minirun ps',
        { code: 125 },
      );
    return `container:${id}`;
  }
  if (!shared && network !== 'none' && network !== defaultNetworkName) requireNetwork(network);
  return network;
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

/** A name nobody has, in docker's style. */
async function freeName(): Promise<string> {
  const { default: names } = await import('docker-names');
  for (let tries = 0; ; tries++) {
    const name = tries < 5 ? names.getRandomName() : `${names.getRandomName()}_${randomBytes(3).toString('hex')}`;
    if (findId(name) === undefined) return name;
  }
}
