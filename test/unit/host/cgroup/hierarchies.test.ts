import { afterAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { oomKills, processesIn, readUsage, versionOf } from '../../../../src/host/cgroup/cgroup.ts';
import { readHierarchies, whyWithout } from '../../../../src/host/cgroup/hierarchies.ts';
import { version1 } from '../../../../src/host/cgroup/v1.ts';
import { version2, weightOfShares } from '../../../../src/host/cgroup/v2.ts';
// A container with -m 50m --cpus 0.5 --cpu-shares 512 --pids-limit 30 in a Debian 13 with systemd.
import debian from './debian-13.json' with { type: 'json' };

const made: string[] = [];
afterAll(() => {
  for (const directory of made) fs.rmSync(directory, { recursive: true, force: true });
});

/** A tree of files in a directory of its own. */
function tree(files: Readonly<Record<string, string>>): string {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-cgroup-'));
  made.push(root);
  for (const [file, content] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(root + file), { recursive: true });
    fs.writeFileSync(root + file, content);
  }
  return root;
}

const mount = (point: string, type: string, options: string) =>
  `31 23 0:29 / ${point} rw,relatime - ${type} ${type} ${options}\n`;
/** A machine with version 1 in several hierarchies, one of which has two controllers, and version 2 beside it. */
const hybrid = {
  '/proc/self/mountinfo':
    mount('/sys/fs/cgroup', 'tmpfs', 'rw') +
    mount('/sys/fs/cgroup/unified', 'cgroup2', 'rw') +
    mount('/sys/fs/cgroup/cpu,cpuacct', 'cgroup', 'rw,cpu,cpuacct') +
    mount('/sys/fs/cgroup/memory', 'cgroup', 'rw,memory') +
    mount('/sys/fs/cgroup/cpuset', 'cgroup', 'rw,cpuset') +
    mount('/sys/fs/cgroup/hidden', 'cgroup', 'rw,pids') +
    mount('/sys/fs/cgroup/systemd', 'cgroup', 'rw,xattr,name=systemd'),
  '/sys/fs/cgroup/unified/cgroup.procs': '1\n',
  '/sys/fs/cgroup/unified/cgroup.controllers': 'hugetlb\n',
  '/sys/fs/cgroup/cpu,cpuacct/cgroup.procs': '1\n',
  '/sys/fs/cgroup/memory/cgroup.procs': '1\n',
  '/sys/fs/cgroup/cpuset/cgroup.procs': '1\n',
  '/sys/fs/cgroup/cpuset/cpuset.cpus': '0-3\n',
  '/sys/fs/cgroup/cpuset/cpuset.mems': '0\n',
  '/sys/fs/cgroup/systemd/cgroup.procs': '1\n',
};

describe('version 2, as Debian 13 has it', () => {
  const root = tree(debian);
  const hierarchies = readHierarchies('/minirun', root);

  test('one hierarchy with everything', () => {
    expect(hierarchies).toHaveLength(1);
    expect(hierarchies[0]).toMatchObject({ version: 2, point: `${root}/sys/fs/cgroup`, problem: undefined });
    expect(hierarchies[0]?.controllers.toSorted()).toEqual([
      'cpu',
      'cpuacct',
      'cpuset',
      'freezer',
      'io',
      'memory',
      'pids',
    ]);
    for (const each of ['memory', 'cpu', 'pids', 'io', 'freezer'] as const)
      expect(whyWithout(hierarchies, each)).toBeUndefined();
  });

  test('what a container has used, and may', () => {
    const parent = `${root}/sys/fs/cgroup/minirun`;
    const id = fs.readdirSync(parent).find((entry) => /^[0-9a-f]{64}$/.test(entry)) as string;
    const directory = `${parent}/${id}`;
    const part = { version: 2 as const, controllers: hierarchies[0]?.controllers ?? [], directory };
    expect(readUsage([part])).toEqual({
      cpu: 20_640_384_000,
      memory: 1_998_848 - inactiveFile(`${directory}/memory.stat`),
      memoryLimit: 50 * 2 ** 20,
      read: 1_835_008,
      written: 0,
      pids: 1,
    });
    expect(versionOf(part).facts(directory)).toMatchObject({ countsSwap: true, weightFile: 'io.weight' });
    expect(versionOf(part).isFrozen(directory)).toBe(false);
    expect(processesIn(parent)).toEqual([367]);
    // In the one above it something has been killed.
    expect([oomKills(directory), oomKills(parent)]).toEqual([0, 1]);
  });

  test('a directory with processes of its own hands nothing on, the root of all excepted', () => {
    const inContainer = {
      '/proc/self/mountinfo': mount('/sys/fs/cgroup', 'cgroup2', 'rw'),
      '/sys/fs/cgroup/cgroup.controllers': 'cpu memory pids\n',
      '/sys/fs/cgroup/cgroup.subtree_control': 'pids\n',
      '/sys/fs/cgroup/cgroup.procs': '1\n',
    };
    expect(whyWithout(readHierarchies('/minirun', tree(inContainer)), 'memory')).toBeUndefined();
    const nested = readHierarchies(
      '/minirun',
      tree({ ...inContainer, '/sys/fs/cgroup/cgroup.events': 'populated 1\n' }),
    );
    expect(whyWithout(nested, 'memory')).toContain('has processes of its own');
    expect(whyWithout(nested, 'pids')).toBeUndefined();
    expect(whyWithout(nested, 'freezer')).toBeUndefined();
    expect(whyWithout(nested, 'io')).toContain('no cgroup hierarchy');
  });
});

describe('several hierarchies', () => {
  test('each controller comes from one; what is hidden is not there', () => {
    const root = tree(hybrid);
    const found = readHierarchies('/minirun', root).map(({ version, point, controllers }) => [
      version,
      path.basename(point),
      controllers.join(),
    ]);
    expect(found).toEqual([
      [1, 'cpu,cpuacct', 'cpu,cpuacct'],
      [1, 'memory', 'memory'],
      [1, 'cpuset', 'cpuset'],
      [2, 'unified', 'freezer'],
    ]);
    expect(whyWithout(readHierarchies('/minirun', root), 'pids')).toContain('no cgroup hierarchy');
  });

  test('a machine without any', () => {
    const none = readHierarchies('/minirun', tree({ '/proc/self/mountinfo': '' }));
    expect(none).toEqual([]);
    expect(whyWithout(none, 'memory')).toBe('no cgroup file system is mounted below /sys/fs/cgroup');
  });
});

describe('limits as files', () => {
  const facts = { countsSwap: true, weightFile: undefined, swapLimit: Number.POSITIVE_INFINITY };
  const lines = (list: { file: string; value: string }[]) => list.map(({ file, value }) => `${file} ${value}`);
  const all = {
    memory: { limit: 100, swap: 300, reservation: 50 },
    cpu: { shares: 512, quota: 50_000, period: 100_000, cpus: '0-1', mems: '0' },
    pids: { limit: 20 },
    blockIO: { weight: 300 },
  };

  test('version 1', () => {
    expect(lines(version1.settings(all, { ...facts, weightFile: 'blkio.bfq.weight' }))).toEqual([
      'memory.limit_in_bytes 100',
      'memory.memsw.limit_in_bytes 300',
      'memory.soft_limit_in_bytes 50',
      'cpu.shares 512',
      'cpu.cfs_period_us 100000',
      'cpu.cfs_quota_us 50000',
      'cpuset.cpus 0-1',
      'cpuset.mems 0',
      'pids.max 20',
      'blkio.bfq.weight 300',
    ]);
    expect(lines(version1.settings({ pids: { limit: -1 } }, facts))).toEqual(['pids.max max']);
    expect(lines(version1.settings({ memory: { disableOOMKiller: true } }, facts))).toEqual(['memory.oom_control 1']);
  });

  test('version 1: memory is never to exceed memory and swap together on the way', () => {
    const order = (swapLimit: number) =>
      version1.settings({ memory: { limit: 100, swap: 150 } }, { ...facts, swapLimit }).map(({ value }) => value);
    expect(order(80)).toEqual(['150', '100']);
    expect(order(100)).toEqual(['100', '150']);
    expect(order(1000)).toEqual(['100', '150']);
    const uncounted = version1.settings({ memory: { limit: 100, swap: 150 } }, { ...facts, countsSwap: false });
    expect(lines(uncounted)).toEqual(['memory.limit_in_bytes 100']);
  });

  test('version 2: swap by itself, a weight for shares, quota and period in one', () => {
    expect(lines(version2.settings(all, { ...facts, weightFile: 'io.weight' }))).toEqual([
      'memory.max 100',
      'memory.swap.max 200',
      'memory.low 50',
      'cpu.weight 59',
      'cpu.max 50000 100000',
      'cpuset.cpus 0-1',
      'cpuset.mems 0',
      'pids.max 20',
      'io.weight default 2930',
    ]);
    const none = { memory: { limit: 100, swap: -1 }, cpu: { quota: -1 }, pids: { limit: -1 } };
    expect(lines(version2.settings(none, facts))).toEqual([
      'memory.max 100',
      'memory.swap.max max',
      'cpu.max max 100000',
      'pids.max max',
    ]);
    expect(lines(version2.settings({ blockIO: { weight: 300 } }, { ...facts, weightFile: 'io.bfq.weight' }))).toEqual([
      'io.bfq.weight default 300',
    ]);
  });

  test('shares become weights: the ends and the usual values meet', () => {
    expect([0, 2, 1024, 262_144].map(weightOfShares)).toEqual([1, 1, 100, 10_000]);
    const weights = [2, 10, 100, 512, 1024, 2048, 10_000, 100_000, 262_144].map(weightOfShares);
    expect(weights).toEqual(weights.toSorted((a, b) => a - b));
  });
});

function inactiveFile(file: string): number {
  return Number(/^inactive_file (\d+)$/m.exec(fs.readFileSync(file, 'utf8'))?.[1]);
}
