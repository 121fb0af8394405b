import type { Part } from '../host/cgroup/hierarchies.ts';
import type { Controller } from '../host/cgroup/resources.ts';
import type { ProcessRef } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import type {
  Attachment,
  Driver,
  Endpoint,
  InterfaceAddress,
  NetworkRoute,
  PublishedPort,
} from '../network/definition.ts';
import { address, fileName, ifname, publishedPort, routeShape } from '../network/files.ts';
import type { PortRequest } from '../network/ports.ts';
import type { Route } from '../network/route.ts';
import { paths } from '../state/paths.ts';
import {
  absolutePath,
  anything,
  count,
  either,
  flag,
  listOf,
  mapOf,
  number,
  object,
  oneOf,
  optional,
  processShape,
  text,
  textLike,
  time,
  word,
  wordOf,
} from '../state/shape.ts';
import { stepsShape } from '../state/steps-shape.ts';
import type { ContainerState, Definition, HealthAction, RestartPolicy, Status, Volume } from './definition.ts';
import type { Health, HealthResult, HealthStatus } from './health-record.ts';
import type { VolumeRecord } from './volume-store.ts';
import type { OciMount, OciProcess, OciSpec, OciUser } from './oci.ts';
import type { IdRange } from './protocol.ts';

/** Files and folders of one container. */
export const containerFiles = (id: string) => {
  const directory = paths.container(id);
  // Not path.join: commands that look at every container call this for each.
  const file = (name: string) => `${directory}/${name}`;
  return {
    directory,
    definition: file('definition.json'),
    spec: file('config.json'),
    state: file('state.json'),
    steps: file('steps.json'),
    routes: file('routes.json'),
    renaming: file('renaming'),
    health: file('health.json'),
    healthPid: file('health.pid'),
    exit: file('exit'),
    unshareErrors: file('unshare.err'),
    removing: file('removing'),
    upper: file('upper'),
    work: file('work'),
    rootfs: file('rootfs'),
    /** Whom the files in `upper` belong to, when they had to be given to the ids of a user namespace. */
    owners: file('owners.json'),
    log: file('log'),
    hosts: file('hosts'),
    hostname: file('hostname'),
    resolvConf: file('resolv.conf'),
  };
};

/** What a container may be called: docker's rule. */
export const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

export const fullId = /^[0-9a-f]{64}$/;

const name = textLike(namePattern);
const networkName = textLike(fileName);
const protocol = wordOf<PublishedPort['protocol']>({ tcp: true, udp: true, sctp: true });
const words = listOf(text);

const attachment = object<Attachment>({
  network: networkName,
  ip: optional(address),
  ip6: optional(address),
  mac: optional(word),
  ifname: optional(ifname),
  aliases: words,
  gatewayPriority: number,
});

const portRequest = object<PortRequest>({
  hostIp: optional(address),
  hostPort: optional(either(count, listOf(count, { length: 2 }))),
  containerPort: count,
  protocol,
});

const volumeName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** `volume.json` */
export const volumeShape = object<VolumeRecord>({
  schema: oneOf(1),
  name: textLike(volumeName),
  created: time,
  labels: mapOf(text),
  options: mapOf(text),
  anonymous: flag,
  shared: optional(oneOf(true)),
});

/** `claim.json` of a volume */
export const volumeClaimShape = object<ProcessRef & { boot: string }>({ pid: count, start: count, boot: text });

/** `definition.json` */
export const definitionShape = object<Definition>({
  schema: oneOf(2),
  id: textLike(fullId),
  name,
  created: time,
  image: text,
  imageId: text,
  layers: listOf(absolutePath),
  rootfs: optional(absolutePath),
  entrypoint: words,
  command: words,
  network: textLike(/^(container:)?[a-zA-Z0-9][a-zA-Z0-9_.-]*$/),
  attachments: listOf(attachment),
  publish: optional(listOf(portRequest)),
  publishAll: optional(flag),
  dns: listOf(word),
  dnsSearch: listOf(word),
  dnsOptions: listOf(word),
  addHosts: listOf(listOf(word, { length: 2 })),
  autoRemove: flag,
  restart: object<RestartPolicy>({
    name: wordOf<RestartPolicy['name']>({ no: true, 'on-failure': true, always: true, 'unless-stopped': true }),
    maximum: count,
  }),
  stopSignal: count,
  stopTimeout: number,
  tty: flag,
  openStdin: flag,
  privileged: flag,
  userns: optional(object<NonNullable<Definition['userns']>>({ size: count, of: optional(textLike(fullId)) })),
  labels: mapOf(text),
  exposedPorts: optional(words),
  volumes: optional(
    listOf(
      object<Volume>({
        name: textLike(volumeName),
        destination: absolutePath,
        copy: flag,
        named: optional(oneOf(true)),
        from: optional(oneOf(true)),
        make: optional(object<NonNullable<Volume['make']>>({ options: mapOf(text), labels: mapOf(text) })),
      }),
    ),
  ),
  volumesFrom: optional(words),
  shmSize: optional(count),
  nanoCpus: optional(count),
  healthcheck: anything,
  healthOnFailure: optional(wordOf<HealthAction>({ kill: true, restart: true, stop: true })),
  typed: optional(object<NonNullable<Definition['typed']>>({ words, directory: absolutePath })),
  damaged: optional(flag),
});

const interfaceAddress = object<InterfaceAddress>({ address, prefixLength: count, gateway: optional(address) });

const endpoint = object<Endpoint>({
  network: networkName,
  driver: wordOf<Driver>({ bridge: true, macvlan: true }),
  bridge: ifname,
  ifname,
  hostIfname: textLike(/^[^\s/:]{0,15}$/),
  ipv4: optional(interfaceAddress),
  ipv6: optional(interfaceAddress),
  routes: listOf(object<NetworkRoute>({ destination: word, gateway: address })),
  mac: word,
  mtu: count,
  aliases: words,
  gatewayPriority: number,
  alone: flag,
});

/** What is below a directory of this kind may be written to and removed. */
const cgroupDirectory = textLike(/^\/sys\/fs\/cgroup\/(?!(?:.*\/)?\.\.(?:\/|$))[^\0]*$/);
const cgroup = object<NonNullable<ContainerState['cgroup']>>({
  parts: listOf(
    object<Part>({
      version: oneOf(1, 2),
      controllers: listOf(
        wordOf<Controller>({
          memory: true,
          cpu: true,
          cpuacct: true,
          cpuset: true,
          pids: true,
          io: true,
          freezer: true,
        }),
      ),
      directory: cgroupDirectory,
    }),
  ),
  late: optional(oneOf(true)),
});

/** `state.json` */
export const stateShape = object<ContainerState>({
  schema: oneOf(2),
  status: wordOf<Status>({
    creating: true,
    created: true,
    starting: true,
    running: true,
    stopping: true,
    restarting: true,
    exited: true,
  }),
  boot: text,
  owner: optional(processShape),
  init: optional(processShape),
  netns: optional(name),
  endpoints: listOf(endpoint),
  cgroup: optional(cgroup),
  paused: optional(flag),
  oomKilled: optional(flag),
  ports: optional(listOf(publishedPort)),
  exitCode: number,
  startedAt: time,
  finishedAt: time,
  restartCount: count,
  restartDelay: number,
  stoppedByUser: flag,
  unborn: flag,
  keepsVolumes: optional(flag),
  unannounced: optional(flag),
  error: text,
});

const healthStatus = wordOf<HealthStatus>({ starting: true, healthy: true, unhealthy: true });

/** `health.json` */
export const healthShape = object<Health>({
  schema: oneOf(1),
  Status: healthStatus,
  FailingStreak: count,
  Log: listOf(object<HealthResult>({ Start: time, End: time, ExitCode: number, Output: text })),
  told: optional(healthStatus),
});

/** `steps.json`: what was, or was about to be, applied for the container. */
export interface StepsFile {
  schema: 2;
  steps: Step[];
}

export const stepsFileShape = object<StepsFile>({ schema: oneOf(2), steps: stepsShape });

/** `ids.json` of the state directory: which container has which ids of the host. */
export interface IdReservations {
  schema: 1;
  /** Id of the container → its ids. */
  held: Record<string, IdRange>;
}

const idRange = { uid: count, gid: count, size: count };

export const idReservationsShape = object<IdReservations>({
  schema: oneOf(1),
  held: mapOf(object<IdRange>(idRange), textLike(fullId)),
});

/** `owners.json` of a container. */
export interface OwnersFile extends IdRange {
  schema: 1;
}

export const ownersShape = object<OwnersFile>({ schema: oneOf(1), ...idRange });

/** `routes.json`: the routes that a container was given on request. */
export interface RoutesFile {
  schema: 1;
  routes: Route[];
}

export const routesFileShape = object<RoutesFile>({ schema: oneOf(1), routes: listOf(routeShape, { partly: true }) });

/** `renaming`: who is giving the container another name; void when that process is dead. */
export interface Renaming {
  schema: 1;
  by: ProcessRef;
  from: string;
  to: string;
}

export const renamingShape = object<Renaming>({ schema: oneOf(1), by: processShape, from: name, to: name });

/** What of `config.json` this side works with; the rest is for init. */
type SpecFile = Pick<OciSpec, 'ociVersion' | 'hostname' | 'root' | 'mounts' | 'annotations'> & {
  process: OciProcess;
  linux: Pick<OciSpec['linux'], 'cgroupsPath'>;
};

/** The fields of the process that are looked at here. */
const processFields = object<Pick<OciProcess, 'args' | 'env' | 'cwd' | 'terminal' | 'user'>>({
  args: words,
  env: words,
  cwd: text,
  terminal: flag,
  user: object<OciUser>({ username: text, additionalGroups: optional(words) }),
});

/** `config.json` */
export const specShape = object<SpecFile>({
  ociVersion: textLike(/^1\./),
  hostname: text,
  root: object<OciSpec['root']>({ path: absolutePath, readonly: flag }),
  mounts: listOf(
    object<OciMount>({ destination: text, type: text, source: text, options: words, subpath: optional(text) }),
  ),
  annotations: mapOf(text),
  process: processFields,
  linux: object<Pick<OciSpec['linux'], 'cgroupsPath'>>({ cgroupsPath: optional(absolutePath) }),
});
