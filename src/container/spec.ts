import { sysctlName } from '../network/bridge.ts';
import type { Endpoint } from '../network/definition.ts';
import { adjustCapabilities, capabilityNames } from './capabilities.ts';
import type { Limits } from './limits.ts';
import type { OciDevice, OciLinux, OciMount, OciRlimit, OciSpec } from './oci.ts';
import { planPaths } from './system-paths.ts';

/** What of a command line and an image decides the spec; everything is resolved and checked. */
export interface SpecInput {
  id: string;
  hostname: string;
  rootfs: string;
  readonlyRootfs: boolean;
  args: string[];
  env: string[];
  cwd: string;
  user: string;
  /** `--group-add` */
  groups?: string[];
  tty: boolean;
  capAdd: string[];
  capDrop: string[];
  privileged: boolean;
  noNewPrivileges: boolean;
  seccomp: OciLinux['seccomp'];
  /** `--security-opt apparmor`. */
  apparmor?: string;
  /** `--security-opt mask` and `unmask`, and this machine's paths that need hiding. */
  mask: readonly string[];
  unmask: readonly string[];
  thermalThrottle: readonly string[];
  rlimits: OciRlimit[];
  limits?: Limits;
  sysctl: Record<string, string>;
  mounts: OciMount[];
  /** `--device`, beside those that every container has. */
  devices?: OciDevice[];
  /** Bytes of /dev/shm. */
  shmSize?: number;
  /** Host files that are mounted on /etc/hosts, /etc/hostname and /etc/resolv.conf. */
  etc: { hosts: string; hostname: string; resolvConf: string };
  /** Path of a static init to run as pid 1 (`--init`). */
  init?: string;
  labels: Record<string, string>;
  /** The calling process's hard limit of open files: minirun never raises one. */
  openFilesHard: number;
  /** The container shares another network namespace: its sysctls are not ours to set. */
  ownNetwork: boolean;
  /** Ids of its user namespace; undefined in the host's. */
  idCount?: number;
}

/** Bytes of /dev/shm where nothing else is asked for: docker's. */
export const usualShmSize = 64 * 2 ** 20;

const containerInit = '/sbin/minirun-init';

/** The nodes of /dev, besides the links, pts, mqueue and shm. */
export const defaultDevices: readonly OciDevice[] = (
  [
    ['/dev/null', 1, 3],
    ['/dev/zero', 1, 5],
    ['/dev/full', 1, 7],
    ['/dev/random', 1, 8],
    ['/dev/urandom', 1, 9],
    ['/dev/tty', 5, 0],
  ] as const
).map(([path, major, minor]) => ({ path, type: 'c' as const, major, minor, fileMode: 0o666 }));

function withDefaultDevices(given: readonly OciDevice[] = []): OciDevice[] {
  return [...defaultDevices.filter(({ path }) => !given.some((each) => each.path === path)), ...given];
}

/** The mounts that every container has, in order. */
function systemMounts({ privileged, shmSize = usualShmSize }: SpecInput): OciMount[] {
  const ro = privileged ? [] : ['ro'];
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev/shm',
      type: 'tmpfs',
      source: 'shm',
      options: [
        'nosuid',
        'noexec',
        'nodev',
        'mode=1777',
        shmSize % 1024 === 0 ? `size=${shmSize / 1024}k` : `size=${shmSize}`,
      ],
    },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', ...ro] },
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'noexec', 'nodev', ...ro] },
  ];
}

/** The OCI runtime spec of a container. Pure: nothing is read, nothing is written. */
export function planSpec(input: SpecInput): OciSpec {
  const capabilities = input.privileged ? [...capabilityNames] : adjustCapabilities(input.capAdd, input.capDrop);
  const file = (source: string, destination: string): OciMount => ({
    destination,
    type: 'bind',
    source,
    options: ['rbind', 'rprivate'],
  });
  const shadowed = new Set(input.mounts.map((mount) => mount.destination));
  const isFree = ({ destination }: OciMount) => !shadowed.has(destination);
  const depth = ({ destination }: OciMount) => destination.split('/').length;
  const files = [
    file(input.etc.resolvConf, '/etc/resolv.conf'),
    file(input.etc.hostname, '/etc/hostname'),
    file(input.etc.hosts, '/etc/hosts'),
  ];
  const init =
    input.init === undefined
      ? []
      : [{ ...file(input.init, containerInit), options: ['bind', 'ro', 'nosuid', 'nodev'] }];
  return {
    ociVersion: '1.2.0',
    hostname: input.hostname,
    root: { path: input.rootfs, readonly: input.readonlyRootfs },
    process: {
      terminal: input.tty,
      user: { username: input.user, ...(input.groups?.length ? { additionalGroups: input.groups } : {}) },
      args: input.init === undefined ? input.args : [containerInit, '--', ...input.args],
      env: input.env,
      cwd: input.cwd,
      capabilities: {
        bounding: capabilities,
        effective: capabilities,
        permitted: capabilities,
        inheritable: [],
        ambient: [],
      },
      rlimits: withDefaultLimits(input.rlimits, input.openFilesHard),
      noNewPrivileges: input.noNewPrivileges,
      ...(input.apparmor === undefined ? {} : { apparmorProfile: input.apparmor }),
      ...(input.limits?.oomScoreAdj === undefined ? {} : { oomScoreAdj: input.limits.oomScoreAdj }),
    },
    // An outer place comes first, or it would hide what lies inside it: a volume on /etc, the file on /etc/hosts.
    mounts: [
      ...systemMounts(input).filter(isFree),
      ...[...[...files, ...init].filter(isFree), ...input.mounts].toSorted((a, b) => depth(a) - depth(b)),
    ],
    linux: {
      namespaces: [
        ...(['pid', 'mount', 'uts', 'ipc', 'cgroup', 'network'] as const),
        ...(input.idCount === undefined ? [] : (['user'] as const)),
      ].map((type) => ({ type })),
      sysctl: { ...(input.ownNetwork ? networkSysctls(input.idCount) : {}), ...input.sysctl },
      devices: withDefaultDevices(input.devices),
      ...planPaths(input),
      seccomp: input.seccomp,
      ...cgroupOf(input),
    },
    annotations: input.labels,
  };
}

/** Where cgroups of containers are, from the mount point, unless `--cgroup-parent` says otherwise. */
export const cgroupParent = '/minirun';

/**
 * A container that is not limited gets no cgroup of its own (docs/adr/0016), unless it may make cgroups: those are to be
 * inside its own.
 */
function cgroupOf({ id, limits, privileged }: SpecInput): Pick<OciSpec['linux'], 'cgroupsPath' | 'resources'> {
  const parent = limits?.cgroupParent ?? (privileged ? cgroupParent : undefined);
  if (parent === undefined) return {};
  const resources = limits?.resources;
  return { cgroupsPath: `${parent}/${id}`, ...(resources === undefined ? {} : { resources }) };
}

/** Ping without privileges, low ports without privileges: docker's settings. */
const networkSysctls = (groups = 2147483648): Record<string, string> => ({
  // Only groups that there are: a user namespace has fewer.
  'net.ipv4.ping_group_range': `0 ${groups - 1}`,
  'net.ipv4.ip_unprivileged_port_start': '0',
});

/**
 * What interfaces of a network are to be like, sane for containers and for labs. Init sets it once they are there, before
 * the user's own `--sysctl`.
 */
export function interfaceSysctls(
  endpoints: readonly Pick<Endpoint, 'ifname' | 'ipv6'>[],
  ipv6: boolean,
): Record<string, string> {
  const sysctls: Record<string, string> = {};
  for (const { ifname, ipv6: own } of endpoints) {
    const name = sysctlName(ifname);
    sysctls[`net.ipv4.conf.${name}.arp_notify`] = '1';
    sysctls[`net.ipv4.conf.${name}.rp_filter`] = '2';
    if (ipv6 && own === undefined) sysctls[`net.ipv6.conf.${name}.disable_ipv6`] = '1';
  }
  return sysctls;
}

/** Bun has raised the soft limit of open files to the hard one: put the usual 1024 back, as systemd gives services. */
function withDefaultLimits(given: readonly OciRlimit[], openFilesHard: number): OciRlimit[] {
  if (given.some((limit) => limit.type === 'RLIMIT_NOFILE')) return [...given];
  const hard = Math.min(openFilesHard, 524288);
  return [{ type: 'RLIMIT_NOFILE', soft: Math.min(1024, hard), hard }, ...given];
}
