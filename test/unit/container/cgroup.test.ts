import { describe, expect, test } from 'bun:test';
import { partsIn, planCgroup, planLimits } from '../../../src/container/cgroup.ts';
import type { Hierarchy } from '../../../src/host/cgroup/hierarchies.ts';
import { commandText } from '../../../src/host/executor.ts';

const level = (directory: string, change: Partial<Hierarchy['levels'][number]> = {}) => ({
  directory,
  exists: true,
  enabled: [],
  occupied: false,
  cpus: '',
  mems: '',
  ...change,
});
const memory: Hierarchy = {
  version: 1,
  point: '/c/memory',
  controllers: ['memory'],
  levels: [level('/c/memory'), level('/c/memory/minirun', { exists: false })],
};
const cpuset: Hierarchy = {
  version: 1,
  point: '/c/cpuset',
  controllers: ['cpuset'],
  levels: [level('/c/cpuset', { cpus: '0-3', mems: '0' }), level('/c/cpuset/minirun', { exists: false })],
};
const unified: Hierarchy = {
  version: 2,
  point: '/c',
  controllers: ['cpu', 'memory', 'cpuacct', 'freezer'],
  levels: [level('/c', { enabled: ['cpu'] }), level('/c/minirun', { exists: false })],
};
const commands = (hierarchies: Hierarchy[], needed: Parameters<typeof planCgroup>[2] = []) =>
  planCgroup(hierarchies, 'ID', needed).apply.map(commandText);

describe('making a cgroup', () => {
  test('version 1: a directory in each hierarchy; a cpuset takes over what the one above has', () => {
    expect(commands([memory, cpuset])).toEqual([
      'mkdir -p /c/memory/minirun/ID',
      'mkdir -p /c/cpuset/minirun',
      'echo 0-3 >/c/cpuset/minirun/cpuset.cpus',
      'echo 0 >/c/cpuset/minirun/cpuset.mems',
      'mkdir -p /c/cpuset/minirun/ID',
      'echo 0-3 >/c/cpuset/minirun/ID/cpuset.cpus',
      'echo 0 >/c/cpuset/minirun/ID/cpuset.mems',
    ]);
    // What an administrator has set there is not touched, and goes on to the container.
    const narrow = {
      ...cpuset,
      levels: [...cpuset.levels.slice(0, 1), level('/c/cpuset/minirun', { cpus: '1', mems: '0' })],
    };
    expect(commands([narrow])).toEqual([
      'mkdir -p /c/cpuset/minirun/ID',
      'echo 1 >/c/cpuset/minirun/ID/cpuset.cpus',
      'echo 0 >/c/cpuset/minirun/ID/cpuset.mems',
    ]);
  });

  test('version 2: each level hands the controllers on; only what was asked for must succeed', () => {
    expect(commands([unified])).toEqual([
      'echo +memory >/c/cgroup.subtree_control',
      'mkdir -p /c/minirun',
      'echo +cpu >/c/minirun/cgroup.subtree_control',
      'echo +memory >/c/minirun/cgroup.subtree_control',
      'mkdir -p /c/minirun/ID',
    ]);
    const optional = planCgroup([unified], 'ID', ['memory']).apply.flatMap((command) =>
      command.tool === 'write' && command.optional ? [command.value] : [],
    );
    expect(optional).toEqual(['+cpu']);
  });

  test('version 2: a directory with processes of its own hands nothing on', () => {
    const occupied = { ...unified, levels: [level('/c', { enabled: ['cpu'], occupied: true }), level('/c/minirun')] };
    expect(commands([occupied])).not.toContain('echo +memory >/c/cgroup.subtree_control');
  });

  test('all of it is taken back; what cannot be written is left alone', () => {
    const { undo } = planCgroup([memory, unified], 'ID', []);
    expect(undo).toEqual([
      { tool: 'rmcgroup', path: '/c/memory/minirun/ID' },
      { tool: 'rmcgroup', path: '/c/minirun/ID' },
    ]);
    expect(partsIn([{ ...memory, problem: 'it is mounted read-only' }], 'ID')).toEqual([]);
    expect(commands([{ ...memory, problem: 'it is mounted read-only' }])).toEqual([]);
  });
});

describe('limits', () => {
  const parts = partsIn([memory, cpuset], 'ID');
  const facts = () => ({ countsSwap: true, swapLimit: Number.POSITIVE_INFINITY });
  const resources = { memory: { limit: 64, swap: 128 }, pids: { limit: 5 } };

  test('go into the hierarchy that has the controller', () => {
    expect(planLimits(parts, resources, facts)?.apply.map(commandText)).toEqual([
      'echo 64 >/c/memory/minirun/ID/memory.limit_in_bytes',
      'echo 128 >/c/memory/minirun/ID/memory.memsw.limit_in_bytes',
    ]);
    expect(planLimits(parts, {}, facts)).toBeUndefined();
  });

  test('of a running container are put back backwards when one is refused', () => {
    const undo = planLimits(parts, resources, facts, (file) => `old ${file.split('.')[1]}`)?.undo ?? [];
    expect(undo.map(commandText)).toEqual([
      'echo old memsw >/c/memory/minirun/ID/memory.memsw.limit_in_bytes',
      'echo old limit_in_bytes >/c/memory/minirun/ID/memory.limit_in_bytes',
    ]);
  });
});
