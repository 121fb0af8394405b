import type { Attachment, Endpoint } from '../network/definition.ts';
import { readNetwork } from '../network/store.ts';
import { confinementOfExec } from './apparmor.ts';
import { adjustCapabilities } from './capabilities.ts';
import type { ContainerState, Definition } from './definition.ts';
import { idsOf } from './id-ranges.ts';
import { shownHealth } from './health.ts';
import { attachmentsOf } from './networking.ts';
import { isReadonly } from './mount-options.ts';
import { isUsers } from './mounts.ts';
import type { OciMount, OciSpec } from './oci.ts';
import { signalName } from './options.ts';
import { cgroupParent, usualShmSize } from './spec.ts';
import { shownStatus, statusWord } from './status.ts';
import { type Container, containerFiles, readSpec } from './store.ts';

/** Docker's time for what has not happened. */
const never = '0001-01-01T00:00:00Z';

/** A container in docker's words and order, as `inspect` shows it. */
export function describeContainer({ definition, state }: Container): object {
  const { id } = definition;
  const spec = readSpec(id);
  const files = containerFiles(id);
  const [program = '', ...args] = [...definition.entrypoint, ...definition.command];
  const mounts = spec.mounts.filter((mount) => isUsers(mount, files.directory));
  const exposed = definition.exposedPorts ?? [];
  const volumes = (definition.volumes ?? []).map(({ destination }) => destination);
  const status = statusWord(state);
  const running = shownStatus(state) === 'running';
  const health = shownHealth(definition, state);
  return {
    Id: id,
    Created: definition.created,
    Path: program,
    Args: args,
    State: {
      Status: status,
      Running: running,
      Paused: status === 'paused',
      Restarting: status === 'restarting',
      OOMKilled: state.oomKilled === true,
      Dead: false,
      Pid: running ? (state.init?.pid ?? 0) : 0,
      ExitCode: state.exitCode,
      Error: state.error,
      StartedAt: state.startedAt || never,
      FinishedAt: state.finishedAt || never,
      ...(health === undefined ? {} : { Health: health }),
    },
    Image: definition.imageId,
    ResolvConfPath: files.resolvConf,
    HostnamePath: files.hostname,
    HostsPath: files.hosts,
    LogPath: files.log,
    Name: `/${definition.name}`,
    RestartCount: state.restartCount,
    Driver: definition.rootfs === undefined ? 'overlay' : 'none',
    Platform: 'linux',
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: confinementOfExec(spec.process.apparmorProfile, definition.privileged) ?? '',
    ExecIDs: null,
    HostConfig: hostConfig({ definition, state }, spec, mounts),
    GraphDriver:
      definition.rootfs === undefined
        ? {
            Name: 'overlay',
            Data: {
              LowerDir: definition.layers.join(':'),
              MergedDir: files.rootfs,
              UpperDir: files.upper,
              WorkDir: files.work,
            },
          }
        : { Name: 'none', Data: null },
    Mounts: mounts.map((mount) => describeMount(mount, definition)),
    Config: {
      Hostname: spec.hostname,
      Domainname: '',
      User: spec.process.user.username,
      AttachStdin: false,
      AttachStdout: true,
      AttachStderr: true,
      ...(exposed.length > 0 ? { ExposedPorts: keysOf(exposed, {}) } : {}),
      Tty: definition.tty,
      OpenStdin: definition.openStdin,
      StdinOnce: false,
      Env: spec.process.env,
      Cmd: definition.command.length > 0 ? definition.command : null,
      ...(definition.healthcheck === undefined ? {} : { Healthcheck: definition.healthcheck }),
      ...(definition.healthOnFailure === undefined ? {} : { HealthcheckOnFailureAction: definition.healthOnFailure }),
      Image: definition.image,
      Volumes: volumes.length > 0 ? keysOf(volumes, {}) : null,
      WorkingDir: spec.process.cwd,
      Entrypoint: definition.entrypoint.length > 0 ? definition.entrypoint : null,
      OnBuild: null,
      Labels: definition.labels,
      StopSignal: signalName(definition.stopSignal),
      StopTimeout: definition.stopTimeout,
    },
    NetworkSettings: networkSettings({ definition, state }),
  };
}

/** A set as Go's JSON has it: the members as keys. */
function keysOf<T>(names: readonly string[], value: T): Record<string, T> {
  return Object.fromEntries(names.toSorted().map((name) => [name, value]));
}

function describeMount(mount: OciMount, { volumes = [] }: Definition): object {
  const { type, source, destination, options } = mount;
  const volume = volumes.find((each) => each.destination === destination);
  return {
    Type: volume === undefined ? type : 'volume',
    ...(volume === undefined ? {} : { Name: volume.name }),
    Source: type === 'bind' ? source : '',
    Destination: destination,
    ...(volume === undefined ? {} : { Driver: 'local' }),
    Mode: isReadonly(mount) ? 'ro' : '',
    RW: !isReadonly(mount),
    Propagation:
      volume === undefined ? (options.find((option) => /^r?(private|slave|shared)$/.test(option)) ?? '') : '',
  };
}

function hostConfig({ definition }: Container, spec: OciSpec, mounts: readonly OciMount[]): object {
  const usual = adjustCapabilities([], []);
  const given = spec.process.capabilities.bounding;
  const binds = mounts
    .filter(({ type }) => type === 'bind')
    .flatMap((mount) => {
      const volume = definition.volumes?.find((each) => each.destination === mount.destination);
      if (volume !== undefined && volume.named !== true) return [];
      return `${volume?.name ?? mount.source}:${mount.destination}${isReadonly(mount) ? ':ro' : ''}`;
    });
  const tmpfs = mounts
    .filter(({ type }) => type === 'tmpfs')
    .map(({ destination, options }) => [destination, options.join(',')]);
  const none = <T>(list: readonly T[]) => (list.length > 0 ? list : null);
  return {
    Binds: none(binds),
    ContainerIDFile: '',
    LogConfig: { Type: 's6-log', Config: {} },
    NetworkMode: definition.network,
    PortBindings: portBindings(definition),
    RestartPolicy: { Name: definition.restart.name, MaximumRetryCount: definition.restart.maximum },
    AutoRemove: definition.autoRemove,
    CapAdd: definition.privileged ? null : none(given.filter((name) => !usual.includes(name))),
    CapDrop: definition.privileged ? null : none(usual.filter((name) => !given.includes(name))),
    VolumesFrom: definition.volumesFrom ?? null,
    CgroupnsMode: 'private',
    Dns: definition.dns,
    DnsOptions: definition.dnsOptions,
    DnsSearch: definition.dnsSearch,
    GroupAdd: spec.process.user.additionalGroups ?? null,
    ExtraHosts: none(definition.addHosts.map(([address, name]) => `${name}:${address}`)),
    IpcMode: 'private',
    OomScoreAdj: spec.process.oomScoreAdj ?? 0,
    PidMode: '',
    Privileged: definition.privileged,
    PublishAllPorts: definition.publishAll === true,
    ReadonlyRootfs: spec.root.readonly,
    SecurityOpt: none([
      ...(spec.process.noNewPrivileges ? ['no-new-privileges'] : []),
      ...(spec.process.apparmorProfile === undefined ? [] : [`apparmor=${spec.process.apparmorProfile}`]),
      ...seccompOption(spec.linux.seccomp, definition.privileged),
    ]),
    ...(tmpfs.length > 0 ? { Tmpfs: Object.fromEntries(tmpfs) as Record<string, string> } : {}),
    UTSMode: '',
    ShmSize: definition.shmSize ?? usualShmSize,
    Devices: spec.linux.devices.flatMap(({ path: place, hostPath }) =>
      hostPath === undefined ? [] : { PathOnHost: hostPath, PathInContainer: place, CgroupPermissions: 'rwm' },
    ),
    ...userNamespace(definition),
    ...limitsOf(definition, spec),
    Sysctls: spec.linux.sysctl,
    Ulimits: spec.process.rlimits.map(({ type, soft, hard }) => ({
      Name: type.slice('RLIMIT_'.length).toLowerCase(),
      Hard: hard,
      Soft: soft,
    })),
    MaskedPaths: spec.linux.maskedPaths,
    ReadonlyPaths: spec.linux.readonlyPaths,
    Init: spec.process.args[0] === '/sbin/minirun-init',
  };
}

/** Docker shows a profile's content, for its file may be gone or another one. */
function seccompOption(seccomp: OciSpec['linux']['seccomp'], privileged: boolean): string[] {
  if (seccomp === (privileged ? 'unconfined' : 'default')) return [];
  return [`seccomp=${typeof seccomp === 'string' ? seccomp : JSON.stringify(seccomp)}`];
}

/** Docker's word, and podman's for the ids: first inside, first outside, how many. */
function userNamespace({ id, userns }: Definition): object {
  if (userns === undefined) return { UsernsMode: 'host' };
  const ids = idsOf(userns.of ?? id);
  const mode =
    userns.of === undefined ? (userns.size === 65536 ? 'auto' : `auto:size=${userns.size}`) : `container:${userns.of}`;
  if (ids === undefined) return { UsernsMode: mode };
  return {
    UsernsMode: mode,
    IDMappings: { UidMap: [`0:${ids.uid}:${ids.size}`], GidMap: [`0:${ids.gid}:${ids.size}`] },
  };
}

/** Docker's names; 0 is no limit. */
function limitsOf({ id, nanoCpus }: Definition, { linux: { resources = {}, cgroupsPath = '' } }: OciSpec): object {
  const { memory, cpu, pids, blockIO } = resources;
  return {
    CpuShares: cpu?.shares ?? 0,
    Memory: memory?.limit ?? 0,
    NanoCpus: nanoCpus ?? 0,
    CgroupParent: cgroupsPath === `${cgroupParent}/${id}` ? '' : cgroupsPath.replace(`/${id}`, ''),
    BlkioWeight: blockIO?.weight ?? 0,
    CpuPeriod: nanoCpus === undefined ? (cpu?.period ?? 0) : 0,
    CpuQuota: nanoCpus === undefined ? (cpu?.quota ?? 0) : 0,
    CpusetCpus: cpu?.cpus ?? '',
    CpusetMems: cpu?.mems ?? '',
    MemoryReservation: memory?.reservation ?? 0,
    MemorySwap: memory?.swap ?? 0,
    OomKillDisable: memory?.disableOOMKiller === true,
    PidsLimit: pids === undefined || pids.limit < 0 ? null : pids.limit,
  };
}

/** Docker's form of `-p`: `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`. */
function portBindings({ publish = [] }: Definition): object {
  return bindings(
    publish.map(({ containerPort, protocol, hostIp = '', hostPort = '' }) => ({
      port: `${containerPort}/${protocol}`,
      HostIp: hostIp,
      HostPort: Array.isArray(hostPort) ? hostPort.join('-') : String(hostPort),
    })),
  );
}

function portsInUse({ exposedPorts = [] }: Definition, { ports = [] }: ContainerState): object {
  const published = ports.map(({ containerPort, protocol, hostIp, hostPort }) => ({
    port: `${containerPort}/${protocol}`,
    HostIp: hostIp,
    HostPort: String(hostPort),
  }));
  return { ...keysOf(exposedPorts, null), ...bindings(published) };
}

function bindings(list: readonly { port: string; HostIp: string; HostPort: string }[]): Record<string, object[]> {
  const found: Record<string, object[]> = {};
  for (const { port, ...place } of list) (found[port] ??= []).push(place);
  return found;
}

function networkSettings({ definition, state }: Container): object {
  const { network } = definition;
  const first = state.endpoints[0];
  // At rest it has no address, but the networks it will be in are shown.
  const attachments = attachmentsOf(definition);
  const known = state.endpoints.map(({ network: name }) => name);
  const names = [...known, ...attachments.map(({ network: name }) => name).filter((name) => !known.includes(name))];
  const networks = names.map((name): [string, object] => [
    name,
    endpointSettings(
      name,
      attachments.find((each) => each.network === name),
      state.endpoints.find((each) => each.network === name),
    ),
  ]);
  if (networks.length === 0 && (network === 'none' || network === 'host'))
    networks.push([network, endpointSettings(network, undefined)]);
  return {
    Bridge: '',
    SandboxID: '',
    SandboxKey: state.netns === undefined ? '' : `/run/netns/${state.netns}`,
    Ports: shownStatus(state) === 'running' ? portsInUse(definition, state) : {},
    EndpointID: '',
    Gateway: first?.ipv4?.gateway ?? '',
    GlobalIPv6Address: first?.ipv6?.address ?? '',
    GlobalIPv6PrefixLen: first?.ipv6?.prefixLength ?? 0,
    IPAddress: first?.ipv4?.address ?? '',
    IPPrefixLen: first?.ipv4?.prefixLength ?? 0,
    IPv6Gateway: first?.ipv6?.gateway ?? '',
    MacAddress: first?.mac ?? '',
    Networks: Object.fromEntries(networks),
  };
}

function endpointSettings(name: string, wanted: Attachment | undefined, endpoint?: Endpoint): object {
  const { ip, ip6, aliases = [], mac, gatewayPriority = 0 } = wanted ?? {};
  const config = {
    ...(ip === undefined ? {} : { IPv4Address: ip }),
    ...(ip6 === undefined ? {} : { IPv6Address: ip6 }),
  };
  return {
    IPAMConfig: Object.keys(config).length === 0 ? null : config,
    Links: null,
    Aliases: aliases.length > 0 ? aliases : null,
    MacAddress: endpoint?.mac ?? mac ?? '',
    GwPriority: gatewayPriority,
    NetworkID: ['none', 'host'].includes(name) ? '' : (readNetwork(name)?.id ?? ''),
    EndpointID: '',
    Gateway: endpoint?.ipv4?.gateway ?? '',
    IPAddress: endpoint?.ipv4?.address ?? '',
    IPPrefixLen: endpoint?.ipv4?.prefixLength ?? 0,
    IPv6Gateway: endpoint?.ipv6?.gateway ?? '',
    GlobalIPv6Address: endpoint?.ipv6?.address ?? '',
    GlobalIPv6PrefixLen: endpoint?.ipv6?.prefixLength ?? 0,
    DNSNames: null,
    InterfaceName: endpoint?.ifname ?? '',
  };
}
