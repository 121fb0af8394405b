import fs from 'node:fs';
import path from 'node:path';
import { messageOf, MinirunError } from '../../errors.ts';
import { type Part, read } from './hierarchies.ts';
import type { Controller } from './resources.ts';
import { version1 } from './v1.ts';
import { version2 } from './v2.ts';
import type { CgroupVersion, Usage } from './version.ts';

/** How a hierarchy of that version is spoken to. */
export function versionOf({ version }: Pick<Part, 'version'>): CgroupVersion {
  return version === 1 ? version1 : version2;
}

/** The part of a cgroup that has a controller. */
export function partWith(parts: readonly Part[], controller: Controller): Part | undefined {
  return parts.find(({ controllers }) => controllers.includes(controller));
}

/** What a cgroup has used, from all of its parts. */
export function readUsage(parts: readonly Part[]): Usage {
  const usage: Usage = {};
  for (const part of parts) {
    const found = versionOf(part).usage(part.directory);
    for (const [key, value] of Object.entries(found))
      if (value !== undefined) usage[key as keyof Usage] = value as number;
  }
  return usage;
}

/** Moves a process with all its threads. One that has ended is left where it is. */
export function moveProcess(parts: readonly Part[], pid: number): void {
  for (const { directory } of parts) {
    try {
      fs.writeFileSync(`${directory}/cgroup.procs`, String(pid));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ESRCH') continue;
      throw new MinirunError(`cannot put process ${pid} into the cgroup ${directory}`, messageOf(error));
    }
  }
}

/** The processes in a cgroup and in those inside it. */
export function processesIn(directory: string): number[] {
  return treeOf(directory).flatMap((each) =>
    read(`${each}/cgroup.procs`)
      .split('\n')
      .filter((line) => line !== '')
      .map(Number),
  );
}

/** A cgroup and all inside it, outermost first: a container that may can make some. */
function treeOf(directory: string): string[] {
  let entries: fs.Dirent[] = [];
  try {
    entries = fs.readdirSync(directory, { withFileTypes: true });
  } catch {
    return [];
  }
  const inside = entries
    .filter((entry) => entry.isDirectory())
    .flatMap(({ name }) => treeOf(path.join(directory, name)));
  return [directory, ...inside];
}

/** Stops or continues all processes of a cgroup, if this directory is in the hierarchy that does so. */
export function setFrozen(directory: string, frozen: boolean): void {
  for (const { freezing } of [version1, version2]) {
    const file = `${directory}/${freezing.file}`;
    if (fs.existsSync(file)) fs.writeFileSync(file, frozen ? freezing.frozen : freezing.thawed);
  }
}

/** Lets all processes of a cgroup go on, also those that the container has stopped in cgroups of its own. */
export function thawTree(directory: string): void {
  for (const each of treeOf(directory)) {
    try {
      setFrozen(each, false);
    } catch (error) {
      // It has just gone.
      if (!['ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
}

/** Processes that the kernel has killed in a cgroup because its memory was used up; 0 where memory is not counted. */
export function oomKills(directory: string): number {
  return version1.oomKills(directory) + version2.oomKills(directory);
}

/** Milliseconds for which the processes of a cgroup may take to be gone. */
const patience = 3000;

/**
 * Removes a cgroup with all inside it, deepest first, as soon as the last process has left it. The kernel holds a cgroup busy
 * for a moment after that.
 *
 * @throws MinirunError when somebody stays in it
 */
export async function removeCgroup(directory: string): Promise<void> {
  const deadline = Date.now() + patience;
  for (let delay = 1; ; delay = Math.min(delay * 1.5, 20)) {
    thawTree(directory);
    if (removeNow(directory)) return;
    if (Date.now() > deadline) {
      const pids = processesIn(directory);
      throw new MinirunError(
        `cannot remove the cgroup ${directory}`,
        pids.length === 0 ? 'the kernel holds it busy' : `process ${pids.slice(0, 5).join(', ')} is in it`,
        pids.length === 0 ? undefined : 'End or move it',
      );
    }
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}

function removeNow(directory: string): boolean {
  for (const each of treeOf(directory).toReversed()) {
    try {
      fs.rmdirSync(each);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Not empty: something has just been made in it.
      if (code === 'EBUSY' || code === 'ENOTEMPTY') return false;
      if (code !== 'ENOENT') throw error;
    }
  }
  return true;
}
