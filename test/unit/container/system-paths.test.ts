import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type PathOptions, planPaths, thermalThrottlePaths } from '../../../src/container/system-paths.ts';

const throttle = '/sys/devices/system/cpu/cpu0/thermal_throttle';
const plan = (change: Partial<PathOptions> = {}) =>
  planPaths({ privileged: false, mask: [], unmask: [], thermalThrottle: [throttle], ...change });

describe('paths of the kernel', () => {
  test("docker's and podman's are hidden or read-only, and this machine's", () => {
    const { maskedPaths, readonlyPaths } = plan();
    expect(maskedPaths).toEqual([
      ...['acpi', 'asound', 'interrupts', 'kcore', 'keys', 'latency_stats', 'sched_debug', 'scsi', 'timer_list'].map(
        (name) => `/proc/${name}`,
      ),
      '/proc/timer_stats',
      '/sys/devices/virtual/powercap',
      '/sys/firmware',
      '/sys/fs/selinux',
      throttle,
    ]);
    expect(readonlyPaths).toEqual(['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']);
  });

  test('unmask takes paths out by name or pattern, of both lists', () => {
    const hidden = plan().maskedPaths;
    expect(plan({ unmask: ['ALL'] })).toEqual({ maskedPaths: [], readonlyPaths: [] });
    const one = plan({ unmask: ['/proc/acpi', '/proc/sys'] });
    expect(one.maskedPaths).toEqual(hidden.filter((place) => place !== '/proc/acpi'));
    expect(one.readonlyPaths).not.toContain('/proc/sys');
    const some = plan({ unmask: ['/proc/s*'] });
    expect(some.readonlyPaths).toEqual(['/proc/bus', '/proc/fs', '/proc/irq']);
    expect(some.maskedPaths).not.toContain('/proc/scsi');
    expect(some.maskedPaths).toContain('/sys/firmware');
    // A star ends at a slash.
    expect(plan({ unmask: ['/sys/*'] }).maskedPaths).toEqual(hidden.filter((place) => place !== '/sys/firmware'));
    expect(plan({ unmask: ['/sys/devices/system/cpu/cpu*/thermal_throttle'] }).maskedPaths).not.toContain(throttle);
    expect(plan({ unmask: ['/proc'] }).maskedPaths).toEqual(hidden);
  });

  test('mask adds paths, whatever else is said', () => {
    for (const change of [{}, { privileged: true }, { unmask: ['ALL', '/srv'] }])
      expect(plan({ mask: ['/srv', '/proc/acpi'], ...change }).maskedPaths.filter((place) => place === '/srv')).toEqual(
        ['/srv'],
      );
    expect(plan({ mask: ['/proc/acpi'] }).maskedPaths.filter((place) => place === '/proc/acpi')).toHaveLength(1);
  });

  test('nothing is hidden from a privileged container', () => {
    expect(plan({ privileged: true })).toEqual({ maskedPaths: [], readonlyPaths: [] });
  });
});

test('throttling: of each processor that reports it', () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-cpu-'));
  for (const place of [
    'cpu0/thermal_throttle',
    'cpu1/cache',
    'cpu12/thermal_throttle',
    'cpufreq/thermal_throttle',
    'cpuidle',
  ])
    fs.mkdirSync(path.join(directory, place), { recursive: true });
  expect(thermalThrottlePaths(directory).toSorted()).toEqual(
    ['cpu0', 'cpu12'].map((name) => `${directory}/${name}/thermal_throttle`),
  );
  fs.rmSync(directory, { recursive: true });
  expect(thermalThrottlePaths(directory)).toEqual([]);
});
