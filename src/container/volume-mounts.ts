import fs from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { applySteps, undoSteps } from '../host/executor.ts';
import { faultPoint } from '../host/fault.ts';
import { bootId, isAlive, type ProcessRef, selfRef } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { peekFile } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { kinds } from '../state/migrations.ts';
import { paths } from '../state/paths.ts';
import { volumeClaimShape } from './files.ts';
import type { Definition } from './definition.ts';
import { mountHolding } from './propagation.ts';
import { isMountedBySomebody, readVolume, tmpfsOf, volumeData } from './volume-store.ts';

/**
 * Volumes that are a tmpfs: mounted on this machine while a container with them is not at rest, so that all of these share
 * it, and what is in it goes with the last of them. The kernel knows what is mounted; nothing else keeps note of it.
 */

/** Mounts what a container that is being started needs and nobody has mounted yet. Pure steps, applied here. */
export async function mountVolumes(definition: Definition): Promise<void> {
  for (const { name, options } of tmpfsVolumes(definition)) {
    await whileClaimed(name, async () => {
      if (!isMounted(name)) await applySteps([planTmpfs(name, options)]);
    });
  }
}

/** Takes away what only this container had. */
export async function unmountVolumes(definition: Definition): Promise<Error[]> {
  const errors: Error[] = [];
  for (const { name, options } of tmpfsVolumes(definition)) {
    await whileClaimed(name, async () => {
      if (!isMounted(name) || isMountedBySomebody(name, definition.id)) return;
      errors.push(...(await undoSteps([planTmpfs(name, options)])));
    });
  }
  return errors;
}

function tmpfsVolumes({ volumes = [] }: Definition): { name: string; options: string[] }[] {
  const names = new Set(volumes.flatMap(({ name, named }) => (named === true ? name : [])));
  return [...names].flatMap((name) => {
    const record = readVolume(name);
    const options = record === undefined ? undefined : tmpfsOf(record);
    return options === undefined ? [] : [{ name, options }];
  });
}

/** Pure. */
function planTmpfs(name: string, options: readonly string[]): Step {
  const place = volumeData(name);
  return {
    id: 'volume.tmpfs',
    why: `Volume ${name} is in memory: a tmpfs that all containers with it have mounted, until the last of them has ended.`,
    apply: [
      { tool: 'run', argv: ['mount', '-t', 'tmpfs', '-o', ['nosuid', 'nodev', ...options].join(','), 'tmpfs', place] },
    ],
    undo: [{ tool: 'run', argv: ['umount', '-l', place] }],
  };
}

function isMounted(name: string): boolean {
  const place = fs.realpathSync(volumeData(name));
  return mountHolding(place, fs.readFileSync('/proc/self/mountinfo', 'utf8')).place === place;
}

interface Claim extends ProcessRef {
  boot: string;
}

const claimFile = (name: string) => `${paths.volume(name)}/claim.json`;

/** Does something about a volume that no other process is to do at once; that of a process that has died is void. */
async function whileClaimed(name: string, work: () => Promise<void>): Promise<void> {
  const file = claimFile(name);
  while (!(await withLock(() => take(file)))) await delay(5);
  faultPoint('volume.claimed');
  try {
    await work();
    faultPoint('volume.mounts');
  } finally {
    fs.rmSync(file, { force: true });
  }
}

function take(file: string): boolean {
  const claim = peekFile(kinds.claim, volumeClaimShape, file);
  if (claim !== undefined && claim.boot === bootId() && isAlive({ pid: claim.pid ?? 0, start: claim.start ?? 0 }))
    return false;
  writeJson(file, { ...selfRef(), boot: bootId() } satisfies Claim, { durable: false });
  return true;
}
