import fs from 'node:fs';
import path from 'node:path';
import type { Machine } from './machine.ts';

/** Everything that a command may leave behind, as sorted lists of readable lines. */
export type Snapshot = Record<
  | 'links'
  | 'routes'
  | 'netns'
  | 'mounts'
  | 'iptables'
  | 'ip6tables'
  | 'leases'
  | 'containers'
  | 'names'
  | 'volumes'
  | 'state'
  | 'run'
  | 'cgroups'
  | 'processes',
  string[]
>;

/** What of a machine and of the state directory `root` could leak. */
export async function takeSnapshot(host: Machine, root: string): Promise<Snapshot> {
  // First what other processes must be started for, so that they are gone when the processes are listed.
  const marker = '--------';
  const commands = ['ip -j -d link', 'ip route show table all', 'iptables-save', 'ip6tables-save'];
  const printed = await host.sh(commands.join(`; echo ${marker}; `));
  const [links = '[]', routes = '', rules = '', rules6 = ''] = printed.split(`${marker}\n`);
  return {
    links: (JSON.parse(links) as Link[]).map(describeLink).sort(),
    // An address of the kernel's own (fe80::) comes and goes with its link, some time after it.
    routes: lines(routes)
      .filter((line) => !/\bfe80:|\bff00::/.test(line))
      .map(withoutFlags)
      .sort(),
    netns: entries(host.path('/run/netns')),
    mounts: mounts(host, root),
    iptables: rulesOf(rules),
    ip6tables: rulesOf(rules6),
    leases: leases(path.join(root, 'networks')),
    containers: entries(path.join(root, 'containers')),
    names: entries(path.join(root, 'names')),
    volumes: entries(path.join(root, 'volumes')),
    // The default network's definition stays on file, so that addresses are not reused at once; its leases count above. So
    // does the AppArmor profile, where the machine has it: it stays loaded, too.
    state: [
      ...entries(root),
      ...entries(path.join(root, 'networks')).map((name) => `networks/${name}`),
      ...entries(path.join(root, 'links')).map((name) => `links/${name}`),
      ...entries(path.join(root, 'owners')).map((name) => `owners/${name}`),
    ].filter(
      (name) =>
        !['networks/minirun0.json', 'apparmor-minirun-default'].includes(name) && !name.startsWith('owners/boot-'),
    ),
    run: runtimeFiles(host.path('/run/minirun')),
    // The directory that holds those of containers stays: it has nothing of its own.
    cgroups: directories(host.path('/sys/fs/cgroup')).filter((each) => path.basename(each) !== 'minirun'),
    processes: processes(host),
  };
}

/** The differences of two snapshots, one a line: `+` for what is new. Empty when they are equal. */
function differences(before: Snapshot, after: Snapshot): string[] {
  const found: string[] = [];
  for (const kind of Object.keys(before) as (keyof Snapshot)[]) {
    const old = [...before[kind]];
    for (const entry of after[kind]) {
      const index = old.indexOf(entry);
      if (index >= 0) old.splice(index, 1);
      else found.push(`+ ${kind}: ${entry}`);
    }
    for (const entry of old) found.push(`- ${kind}: ${entry}`);
  }
  return found;
}

/**
 * Fails unless the world is again what it was. Looks repeatedly for some seconds, because the kernel removes the links
 * of a deleted namespace, and a supervisor tears down, after the command has ended.
 */
export async function expectNoLeak(
  before: Snapshot,
  world: { snapshot: () => Promise<Snapshot> },
  { timeout = 5000 }: { timeout?: number } = {},
): Promise<void> {
  const until = Date.now() + timeout;
  for (;;) {
    const found = differences(before, await world.snapshot());
    if (found.length === 0) return;
    if (Date.now() > until) throw new Error(`not as before (+ left behind, - lost):\n${found.join('\n')}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** What there is once the kernel has removed the links of namespaces that are gone: it takes its time under load. */
export async function settledSnapshot(world: { snapshot: () => Promise<Snapshot> }): Promise<Snapshot> {
  const deadline = Date.now() + 15_000;
  for (let before = await world.snapshot(); ; before = await world.snapshot()) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    const same = await expectNoLeak(before, world, { timeout: 0 }).then(
      () => true,
      () => false,
    );
    if (same || Date.now() > deadline) return before;
  }
}

interface Link {
  ifname: string;
  master?: string;
  linkinfo?: { info_kind?: string };
}

function describeLink(link: Link): string {
  const master = link.master === undefined ? '' : ` in ${link.master}`;
  return `${link.ifname} ${link.linkinfo?.info_kind ?? 'plain'}${master}`;
}

function withoutFlags(line: string): string {
  return line
    .replace(/\b(linkdown|dead)\b/g, '')
    .replace(/\s+/g, ' ')
    .trim();
}

/** Rules, chains of one's own and policies other than ACCEPT; no counters, no comments, no empty tables. */
function rulesOf(saved: string): string[] {
  const found: string[] = [];
  let table = '';
  for (const line of lines(saved)) {
    if (line.startsWith('*')) table = line.slice(1);
    else if (line.startsWith('-')) found.push(`${table} ${line}`);
    else if (line.startsWith(':') && !line.includes(' ACCEPT ')) found.push(`${table} ${line.replace(/ \[.*/, '')}`);
  }
  // Not sorted: the order of rules has a meaning.
  return found;
}

/** Mounts below the state directory and of network namespaces. */
function mounts(host: Machine, root: string): string[] {
  const found: string[] = [];
  for (const line of lines(read(host.path('/proc/1/mountinfo')))) {
    const point = line.split(' ')[4] ?? '';
    if (point.startsWith(`${root}/`) || point === root || point.startsWith('/run/netns')) {
      found.push(`${point} ${line.split(' - ')[1]?.split(' ')[0] ?? ''}`);
    }
  }
  return found.sort();
}

/** `network address` of every lease, whether the file holds an object or a list of them. */
function leases(directory: string): string[] {
  return entries(directory).flatMap((file) => {
    if (!file.endsWith('.json') || file.startsWith('.')) return [];
    let network: { leases?: unknown };
    try {
      network = JSON.parse(read(path.join(directory, file))) as { leases?: unknown };
    } catch {
      return [`${file}: unreadable`];
    }
    const held = network.leases ?? {};
    const keys = Array.isArray(held) ? held.map((lease) => JSON.stringify(lease)) : Object.keys(held);
    return keys.map((key) => `${path.basename(file, '.json')} ${key}`).sort();
  });
}

/** What is left of names and name servers: `networks/NAME…` and `containers/ID` below the number of a state directory. */
function runtimeFiles(directory: string): string[] {
  const places = directories(directory).flatMap((each) => [
    each,
    ...entries(path.join(directory, each)).map((name) => path.join(each, name)),
  ]);
  return [...new Set(places)].filter((each) => each.split('/').length > 2).sort();
}

/**
 * Every directory below one. For cgroups: those that were made in the world, whose cgroup file systems show a directory of
 * its own, empty at first.
 */
function directories(directory: string): string[] {
  const found: string[] = [];
  const walk = (relative: string): void => {
    let list: fs.Dirent[];
    try {
      list = fs.readdirSync(path.join(directory, relative), { withFileTypes: true });
    } catch {
      return;
    }
    for (const entry of list) {
      if (!entry.isDirectory()) continue;
      const child = path.join(relative, entry.name);
      found.push(child);
      walk(child);
    }
  };
  walk('');
  return found.sort();
}

/** Every process of the host but its first one. Zombies have ended. */
function processes(host: Machine): string[] {
  return fs
    .readdirSync(host.path('/proc'))
    .filter((name) => /^\d+$/.test(name) && name !== '1')
    .flatMap((pid) => {
      const stat = read(host.path(`/proc/${pid}/stat`));
      if (stat === '' || /\) [ZX] /.test(stat)) return [];
      const command = read(host.path(`/proc/${pid}/cmdline`))
        .replaceAll('\0', ' ')
        .trim();
      return [`${pid} ${command}`];
    })
    .sort();
}

function entries(directory: string): string[] {
  try {
    return fs.readdirSync(directory).sort();
  } catch {
    return [];
  }
}

function read(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}
