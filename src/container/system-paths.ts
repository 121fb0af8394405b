import fs from 'node:fs';
import path from 'node:path';

/**
 * Files of the kernel that tell about the machine or act on it: docker's list (moby daemon/pkg/oci/defaults.go) and
 * podman's (containers-common pkg/config/default.go).
 */
const masked = [
  '/proc/acpi',
  '/proc/asound',
  // Times of key strokes and more: GHSA-6fw5-f8r9-fgfm.
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  // What the machine computes shows in its power: GHSA-jq35-85cj-fj4p.
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
  '/sys/fs/selinux',
];

const readonly = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

/** What decides which paths are hidden. */
export interface PathOptions {
  privileged: boolean;
  mask: readonly string[];
  unmask: readonly string[];
  /** Of this machine: `thermalThrottlePaths`. */
  thermalThrottle: readonly string[];
}

/**
 * The paths to hide and those to make read-only. A pattern's `*` does not match a slash, as podman has it. What is to be
 * hidden in addition is hidden in any case, also from a privileged container.
 */
export function planPaths({ privileged, mask, unmask, thermalThrottle }: PathOptions): {
  maskedPaths: string[];
  readonlyPaths: string[];
} {
  const stays = (place: string) =>
    !privileged && !unmask.some((pattern) => pattern === 'ALL' || path.posix.matchesGlob(place, pattern));
  return {
    maskedPaths: [...new Set([...[...masked, ...thermalThrottle].filter(stays), ...mask])],
    readonlyPaths: readonly.filter(stays),
  };
}

/**
 * The counters of each processor's throttling, in which the work of its neighbours shows (GHSA-6fw5-f8r9-fgfm). Only
 * machines whose processors report their temperature have them.
 */
export function thermalThrottlePaths(directory = '/sys/devices/system/cpu'): string[] {
  let entries: string[];
  try {
    entries = fs.readdirSync(directory);
  } catch {
    return [];
  }
  return entries
    .filter((name) => /^cpu\d+$/.test(name))
    .map((name) => `${directory}/${name}/thermal_throttle`)
    .filter((file) => fs.existsSync(file));
}
