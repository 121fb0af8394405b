import fs from 'node:fs';
import os from 'node:os';
import { readHierarchies, whyWithout } from '../host/cgroup/hierarchies.ts';
import type { Controller } from '../host/cgroup/resources.ts';
import { runTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { type Check, isRoot, missing, ok, warning } from './check.ts';
import { asRoot } from './packages.ts';

/** openat2 and pidfd_getfd came with 5.6, close_range's CLOEXEC with 5.11, mount_setattr with 5.12. */
const oldestKernel: [number, number] = [5, 12];

/** What limits, `stats` and `pause` rely on. */
const controllers: readonly Controller[] = ['memory', 'cpu', 'cpuset', 'pids', 'io', 'freezer'];

/** As in `container/spec.ts`. */
const cgroupParent = '/minirun';

const namespaces = ['net', 'pid', 'mnt', 'uts', 'ipc', 'cgroup'];

export function checkRoot(): Check {
  if (isRoot()) return ok('root');
  return warning('root', 'not root: what only root may try was left out', 'sudo minirun doctor');
}

/** What the running kernel is and has, from /proc. */
export function checkKernel(): Check[] {
  return [checkVersion(), checkNamespaces(), checkCgroups(), checkSeccomp()];
}

function checkVersion(): Check {
  const release = os.release();
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  const [wantedMajor, wantedMinor] = oldestKernel;
  if (major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)) return ok('kernel', `Linux ${release}`);
  const wanted = oldestKernel.join('.');
  return missing(
    'kernel',
    `Linux ${release} is too old: openat2, close_range and mount_setattr need ${wanted}`,
    `boot Linux ${wanted} or newer`,
  );
}

function checkNamespaces(): Check {
  const absent = namespaces.filter((name) => !fs.existsSync(`/proc/self/ns/${name}`));
  if (absent.length === 0) return ok('namespaces', namespaces.join(' '));
  return missing('namespaces', `this kernel has no ${absent.join(', ')} namespaces`, 'boot a kernel that has them');
}

function checkCgroups(): Check {
  const hierarchies = readHierarchies(cgroupParent);
  const versions = [...new Set(hierarchies.map(({ version }) => version))].join(' and ');
  if (versions === '')
    return warning('cgroup', 'no cgroup file system is mounted', asRoot('mount -t cgroup2 none /sys/fs/cgroup'));
  const reasons = new Map<string, string[]>();
  for (const each of controllers) {
    const why = whyWithout(hierarchies, each);
    if (why !== undefined) reasons.set(why, [...(reasons.get(why) ?? []), each]);
  }
  if (reasons.size === 0) return ok('cgroup', `version ${versions}: ${controllers.join(' ')}`);
  const lacking = [...reasons].map(([why, names]) => `${names.join(', ')} (${why})`);
  const had = controllers.filter((each) => whyWithout(hierarchies, each) === undefined).join(' ') || 'none';
  const remedy = isRoot() ? 'mount or delegate them: docs/limits.md' : 'sudo minirun doctor';
  return warning('cgroup', `version ${versions}: ${had}; no ${lacking.join(', no ')}`, remedy);
}

function checkSeccomp(): Check {
  if (fs.existsSync('/proc/sys/kernel/seccomp/actions_avail')) return ok('seccomp', 'with filters');
  return missing(
    'seccomp',
    'this kernel has no filters of system calls',
    'boot one that has, or run with --security-opt seccomp=unconfined',
  );
}

interface Kind {
  name: string;
  /** What is lost without it; absent when nothing works without it. */
  without?: string;
  probe: string;
}

const kinds: Kind[] = [
  { name: 'veth', probe: 'ip link add p0 type veth peer name p1' },
  { name: 'bridge', probe: 'ip link add p2 type bridge' },
  {
    name: 'macvlan',
    probe: 'ip link add p3 link p0 type macvlan',
    without: 'no containers directly in the host’s LAN',
  },
  {
    name: 'vxlan',
    probe: 'ip link add p4 type vxlan id 1 dstport 4789 dev lo',
    without: 'no networks across several machines',
  },
  { name: 'dummy', probe: 'ip link add p5 type dummy', without: 'no interfaces that lead nowhere, for labs' },
  {
    name: 'netem',
    probe: 'tc qdisc add dev lo root netem delay 1ms',
    without: 'delay, loss and rate of links cannot be imitated',
  },
];

/**
 * Tries each kind of network device in a network namespace that ends with the probe. A kernel that has the kind as a
 * module loads that, as it would for a container; nothing else of the machine changes.
 */
export async function checkDevices(): Promise<Check[]> {
  const tools = ['unshare', 'ip', 'sh'].every((tool) => which(tool) !== undefined);
  if (!isRoot() || !tools) return kinds.map((kind) => deviceWithoutProbe(kind, tools));
  const script = kinds.map(({ name, probe }) => `if e=$(${probe} 2>&1); then echo ${name}; else echo ${name} "$e"; fi`);
  const { exitCode, stdout, stderr } = await runTool('unshare', ['--net', 'sh', '-c', script.join('\n')]);
  if (exitCode !== 0) {
    return [
      missing(
        'network namespace',
        `cannot make one: ${stderr.trim()}`,
        'allow namespaces: see the sandbox that this runs in',
      ),
    ];
  }
  const lines = stdout.split('\n');
  return kinds.map((kind) => {
    const line = lines.find((each) => each.split(' ')[0] === kind.name);
    return line === kind.name ? ok(kind.name) : absentDevice(kind);
  });
}

function absentDevice({ name, without }: Kind): Check {
  const found = name === 'netem' && which('tc') === undefined ? 'this machine has no tc' : `this kernel has no ${name}`;
  if (without === undefined)
    return missing(name, found, `boot a kernel with ${name}, or ${asRoot(`modprobe ${name}`)}`);
  return warning(name, `${found}: ${without}`);
}

function deviceWithoutProbe(kind: Kind, tools: boolean): Check {
  const modules = `/lib/modules/${os.release()}/modules.builtin`;
  const read = (file: string) => (fs.existsSync(file) ? fs.readFileSync(file, 'latin1') : '');
  const known = `${read(modules)}${read(modules.replace('builtin', 'dep'))}`;
  const file = kind.name === 'netem' ? 'sch_netem' : kind.name;
  if (fs.existsSync(`/sys/module/${file}`) || known.includes(`/${file}.ko`)) return ok(kind.name, 'as a module');
  return warning(kind.name, 'not tried', tools ? 'sudo minirun doctor' : 'install the missing tools first');
}
