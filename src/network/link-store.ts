import fs from 'node:fs';
import { MinirunError, MinirunErrors } from '../errors.ts';
import { applySteps, undoSteps } from '../host/executor.ts';
import { faultPoint, killPoint } from '../host/fault.ts';
import { bootId, endOrphans, isAlive, selfRef } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { contentOf, noteDamage, peekFile, readFile } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { kinds } from '../state/migrations.ts';
import { paths } from '../state/paths.ts';
import {
  type Change,
  changeShape,
  type Contents,
  fileName,
  type HostRoute,
  type HostRoutes,
  hostRoutesShape,
  linkShape,
} from './files.ts';
import type { Link } from './link.ts';

/** Reads a link as it is true in this boot; undefined when there is none of that name. */
export function readLink(name: string): Link | undefined {
  const file = paths.link(name);
  const link = readFile(kinds.link, linkShape, file);
  if (link === undefined) return undefined;
  if (link.name !== name) {
    noteDamage(
      kinds.link,
      file,
      'is that of another link',
      () => peekFile(kinds.link, linkShape, file)?.name === link.name,
    );
    return undefined;
  }
  return link.boot === bootId() ? link : resting(link);
}

/** A link of which nothing is on the host. */
function resting(link: Link): Link {
  const [a, b] = link.ends.map((end) => ({ ...end, netns: undefined }));
  return { ...link, ends: [a, b] as Link['ends'], applied: [], boot: bootId() };
}

/** All links, by name. Cheap when there are none. */
export function listLinks(): Link[] {
  let files: string[];
  try {
    files = fs.readdirSync(paths.links());
  } catch {
    // A state directory of an older minirun.
    return [];
  }
  return files
    .filter((file) => file.endsWith('.json') && fileName.test(file))
    .toSorted()
    .flatMap((file) => readLink(file.slice(0, -'.json'.length)) ?? []);
}

/** The links that a container has an end of. */
export function linksOf(container: string): Link[] {
  return listLinks().filter(({ ends }) => ends.some((end) => end.container === container));
}

/** The routes of the host that were made on request and are still there. */
export function readHostRoutes(): HostRoute[] {
  const file = hostRoutes();
  if (file === undefined || file.boot !== bootId()) return [];
  return file.routes.filter(({ route, ifindex }) => route.dev !== undefined && ifindexOf(route.dev) === ifindex);
}

function hostRoutes(): HostRoutes | undefined {
  return readFile(kinds.hostRoutes, hostRoutesShape, paths.hostRoutes());
}

/** The number of an interface of the host; undefined when there is none of that name. */
export function ifindexOf(ifname: string): number | undefined {
  try {
    return Number(fs.readFileSync(`/sys/class/net/${ifname}/ifindex`, 'latin1'));
  } catch {
    return undefined;
  }
}

/** What `hostRoutes` is to hold; null for nothing, which needs no file. */
export function hostRoutesFile(routes: HostRoute[]): HostRoutes | null {
  return routes.length === 0 ? null : { schema: 1, boot: bootId(), routes };
}

/** Forgets routes of the host that have gone with their interface. Cheap when there are none. */
async function forgetGoneRoutes(): Promise<void> {
  const file = hostRoutes();
  if (file === undefined || file.routes.length === readHostRoutes().length) return;
  await withLock(() => writeOrRemove(paths.hostRoutes(), hostRoutesFile(readHostRoutes())));
}

/** What is being done now. A change that cannot be read as a whole is that of nobody, to be taken back as far as it says how. */
function readChange(): Change | undefined {
  const rest = (parts: Partial<Change>): Change => ({
    schema: 1,
    by: { pid: 0, start: 0 },
    boot: bootId(),
    undo: [],
    restore: [],
    ...parts,
  });
  return readFile(kinds.changing, changeShape, paths.changing(), rest);
}

/** A change as its maker states it. */
export interface Plan {
  /** Steps that are about to be applied; those to be undone, when it is to take something away. */
  steps: Step[];
  /** What the files are to hold while the steps are being applied, and afterwards. */
  write?: Contents;
  /** What the files are to hold after it has been undone; what they hold now, when absent. */
  restore?: Contents;
}

/** Changes of this process wait for each other here, those of other processes at the file. */
let turn: Promise<void> = Promise.resolve();

/**
 * Changes links or routes: writes down what is about to be applied, and applies it. When that fails it is undone at once,
 * and when this process is killed, by the next minirun command.
 *
 * @param prepare called under the lock, when nobody else changes links or routes; undefined when there is nothing to do
 * @returns whether there was something to do
 */
export async function applyChange(prepare: () => Plan | undefined): Promise<boolean> {
  return inTurn(prepare, async ({ steps }) => {
    let left: Step[] = [];
    try {
      faultPoint('link.recorded');
      await applySteps(steps, {
        left: (rest) => {
          left = rest;
        },
      });
      left = steps;
      faultPoint('link.applied');
      await withLock(() => fs.rmSync(paths.changing(), { force: true }));
    } catch (error) {
      await takeBack(left);
      throw error;
    }
    killPoint('link.committed');
  });
}

/**
 * Takes something of links or routes away: undoes the steps that made it. When this process is killed, the next command
 * goes on with it.
 */
export async function undoChange(prepare: () => Plan | undefined): Promise<boolean> {
  return inTurn(prepare, async ({ steps }) => {
    faultPoint('link.recorded');
    await takeBack(steps);
  });
}

async function inTurn(prepare: () => Plan | undefined, work: (plan: Plan) => Promise<void>): Promise<boolean> {
  const before = turn;
  let done = () => {};
  turn = new Promise<void>((resolve) => {
    done = resolve;
  });
  await before;
  try {
    for (let delay = 1; ; delay = Math.min(delay * 1.5, 20)) {
      const outcome = await withLock(() => attempt(prepare));
      if (outcome === 'nothing') return false;
      if (outcome === 'abandoned') await takeBack();
      else if (outcome === 'busy') await new Promise((resolve) => setTimeout(resolve, delay));
      else {
        await work(outcome);
        return true;
      }
    }
  } finally {
    done();
  }
}

function attempt(prepare: () => Plan | undefined): Plan | 'nothing' | 'abandoned' | 'busy' {
  const current = readChange();
  if (current !== undefined) {
    // One of this process would have been waited for: this is what it could not take back.
    if (current.boot === bootId() && isAlive(current.by) && current.by.pid !== process.pid) return 'busy';
    if (current.boot === bootId()) endOrphans(current.by);
    writeJson(paths.changing(), { ...current, by: selfRef() }, { durable: false });
    return 'abandoned';
  }
  const plan = prepare();
  if (plan === undefined) return 'nothing';
  const write = plan.write ?? [];
  const change: Change = {
    schema: 1,
    by: selfRef(),
    boot: bootId(),
    undo: plan.steps,
    restore: plan.restore ?? write.map(([file]) => [file, contentOf(file) ?? null]),
  };
  writeJson(paths.changing(), change, { durable: write.length > 0 });
  try {
    for (const [file, value] of write) writeOrRemove(file, value);
  } catch (error) {
    // Nothing has been applied yet.
    putBack(change);
    throw error;
  }
  return plan;
}

/** Undoes the change that is written down. @param steps of it, those that are to be undone; all when absent */
async function takeBack(steps?: readonly Step[]): Promise<void> {
  const change = readChange();
  if (change === undefined) return;
  const errors = change.boot === bootId() ? await undoSteps(steps ?? change.undo) : [];
  if (errors.length > 0)
    throw new MinirunErrors('cannot take all of a link back', errors, 'The next minirun command tries again');
  faultPoint('link.undone');
  await withLock(() => putBack(change));
}

/** Under the lock. */
function putBack({ restore }: Change): void {
  for (const [file, value] of restore) writeOrRemove(file, value);
  killPoint('link.restored');
  fs.rmSync(paths.changing(), { force: true });
}

function writeOrRemove(file: string, value: object | null): void {
  if (value === null) return fs.rmSync(file, { force: true });
  try {
    writeJson(file, value);
  } catch (error) {
    // The container that it is about has just been removed.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/**
 * Takes back what killed processes have left of links and routes. With nothing to do it reads one small file per link.
 *
 * @param exists whether there is such a container
 */
export async function sweepLinks(exists: (container: string) => boolean): Promise<void> {
  if (isInterruptedChange()) await applyChange(() => undefined);
  await forgetGoneRoutes();
  const isOrphan = ({ ends }: Link) => ends.some(({ container }) => container !== undefined && !exists(container));
  for (const { name } of listLinks().filter(isOrphan)) await deleteLink(name);
}

/** Whether a process that was changing links or routes has been killed at it. */
export function isInterruptedChange(): boolean {
  const change = readChange();
  return change !== undefined && (change.boot !== bootId() || !isAlive(change.by));
}

/** Takes a link away, with what of it is on the host. */
export async function deleteLink(name: string): Promise<void> {
  await undoChange(() => {
    const link = readLink(name);
    return link && { steps: link.applied, restore: [[paths.link(name), null]] };
  });
}

/** Deletes the files of a container's links; it has been taken down, so nothing of them is on the host. */
export function forgetLinksOf(container: string): void {
  for (const { name } of linksOf(container)) fs.rmSync(paths.link(name), { force: true });
}

/** The link of that name. @throws MinirunError when there is none */
export function requireLink(name: string): Link {
  const link = readLink(name);
  if (link !== undefined) return link;
  throw new MinirunError(`no link "${name}"`, 'none has that name', 'See minirun link ls for those there are');
}
