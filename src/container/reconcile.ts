import fs from 'node:fs';
import path from 'node:path';
import { MinirunErrors, messageOf } from '../errors.ts';
import { bootId, isAlive } from '../host/process.ts';
import { removeTree } from '../host/remove-tree.ts';
import { claimAbandoned, type Lingering, lingerNetworks, notYetDue, tearDown } from '../network/lifecycle.ts';
import { sweepLinks } from '../network/link-store.ts';
import { listNetworks } from '../network/store.ts';
import { rotateEvents } from '../state/events.ts';
import { isAnythingDamaged, NewerState, soundFile } from '../state/files.ts';
import { sweepTemporaries } from '../state/json.ts';
import { sweepLocks } from '../state/lock.ts';
import { kinds } from '../state/migrations.ts';
import { paths, stateRoot } from '../state/paths.ts';
import type { ContainerState, Definition } from './definition.ts';
import { lingerArgv } from './argv.ts';
import { recordDestruction } from './events.ts';
import { definitionShape, stateShape } from './files.ts';
import { type Ending, finish } from './finish.ts';
import { beginIndex, suspects } from './owners.ts';
import { exitCodeOf } from './rebuild.ts';
import { containerFiles, containerIds, isSettled, readContainer, readState } from './store.ts';

/**
 * Takes back what processes that were killed have left: containers whose owner is dead, addresses, networks,
 * folders. Runs at the start of commands; with nothing to do it spawns nothing.
 *
 * @param looksAt every container's state, or the index of owners: one list instead of a file for each container
 * @param lingering what becomes of networks that are only kept up for a next container
 * @returns what could not be reclaimed, as messages
 */
export async function reconcile(
  lingering: Lingering = 'spared',
  looksAt: 'states' | 'index' = 'states',
): Promise<string[]> {
  const problems: string[] = [];
  const attempt = async (work: () => Promise<unknown>) => {
    try {
      await work();
    } catch (error) {
      if (error instanceof NewerState) throw error;
      problems.push(messageOf(error));
    }
  };
  sweepLocks(fs.readdirSync(stateRoot()));
  // A full disk is no reason to complain here: it loses events, which is said where they are described.
  await rotateEvents().catch(() => {});
  sweepTemporaries(paths.networks());
  sweepTemporaries(paths.links());
  sweepTemporaries(stateRoot());
  const entries = fs.readdirSync(paths.containers());
  for (const entry of entries) {
    const folder = path.join(paths.containers(), entry);
    if (entry.endsWith('.removing')) await attempt(async () => sweepHalfDeleted(folder));
    else if (entry.startsWith('.new-') && !creatorIsAlive(entry)) await attempt(async () => removeTree(folder));
  }
  const volumes = fs.readdirSync(paths.volumes());
  if (volumes.length > 0) await attempt(async () => (await import('./volume-store.ts')).sweepVolumes(volumes));
  if (fs.existsSync(paths.ids())) {
    const { sweepIds } = await import('./id-ranges.ts');
    await attempt(() => sweepIds((id) => fs.existsSync(containerFiles(id).directory)));
  }
  const ids = containerIds(entries);
  // A rename that was cut short, or the remains of one, leaves more names than containers.
  if (fs.readdirSync(paths.names()).length !== ids.length) {
    const { finishInterruptedRenames } = await import('./rename.ts');
    await attempt(finishInterruptedRenames);
  }
  const left = unsettled(ids, looksAt);
  listNetworks();
  // Before anything is made of what damaged files seem to say.
  if (isAnythingDamaged())
    await attempt(async () => problems.push(...(await (await import('./heal.ts')).settleDamage())));
  for (const id of left) await attempt(() => reclaim(id));
  if (listNetworks().some((network) => 'transient' in network)) {
    const { finishInterruptedChanges } = await import('../network/manage.ts');
    await attempt(finishInterruptedChanges);
  }
  await attempt(() => endAbandonedNetworks(lingering));
  if (lingering === 'due') await attempt(() => lingerNetworks(notYetDue(), lingerArgv()));
  return problems;
}

/** The containers that nobody answers for. */
function unsettled(ids: readonly string[], looksAt: 'states' | 'index'): string[] {
  const suspected = suspects();
  const states = new Map<string, ContainerState>();
  for (const id of looksAt === 'index' ? (suspected ?? ids) : ids) {
    const state = readState(id);
    if (state !== undefined) states.set(id, state);
  }
  if (suspected === undefined) beginIndex(states);
  return [...states].flatMap(([id, state]) => (isSettled(state) ? [] : [id]));
}

/** Takes down networks that are idle, or that a killed process has left half up or half down, and links of nobody. */
export async function endAbandonedNetworks(lingering: Lingering): Promise<void> {
  const exists = (id: string) => fs.existsSync(containerFiles(id).directory);
  await sweepLinks(exists);
  const departure = await claimAbandoned(lingering, () => containerIds());
  if (departure.goingDown.length === 0) return;
  const errors = await tearDown(departure);
  if (errors.length > 0) throw new MinirunErrors('cannot take all of an idle network down', errors);
}

/** What a command does at its end after which nothing is to be left: not even a network that waits for a next container. */
export async function leaveNothing(): Promise<void> {
  await endAbandonedNetworks('all');
  // Who waited to start a container or to take a network down has been ended, maybe just when it made itself a lock.
  sweepLocks(fs.readdirSync(stateRoot()));
}

/** Goes on with a deletion that was cut short, unless its process is still at it. */
function sweepHalfDeleted(directory: string): void {
  if (!isHalfDeleted(directory)) return;
  // It may have been killed before it told of it. Whoever deletes tells first.
  const definition = soundFile(kinds.definition, definitionShape, path.join(directory, 'definition.json'));
  if (definition !== undefined) recordDestruction(definition, stateIn(directory), true);
  removeTree(directory);
}

/** Whether the process that was deleting this folder has been killed at it. */
export function isHalfDeleted(directory: string): boolean {
  const state = stateIn(directory);
  return state?.boot !== bootId() || !isAlive(state.owner);
}

function stateIn(directory: string): ContainerState | undefined {
  return soundFile(kinds.state, stateShape, path.join(directory, 'state.json'));
}

/** Folders being made carry their maker's pid: `.new-PID-START-…`. */
export function creatorIsAlive(entry: string): boolean {
  const [, pid, start] = entry.split('-');
  return isAlive({ pid: Number(pid), start: Number(start) });
}

/** Brings one container whose owner is dead to rest: removed if it never came to life or was to remove itself. */
export async function reclaim(id: string): Promise<void> {
  const container = readContainer(id);
  if (container === undefined) return;
  const { definition, state } = container;
  sweepTemporaries(containerFiles(id).directory);
  await finish(id, endingOf(state, recordedEnding(id)), restOf(definition, state));
}

/**
 * How a container ended whose owner is dead. An init that finds minirun dead before it became the command gives up with
 * 125, which is no code of the command's. Pure.
 */
function endingOf({ status }: ContainerState, recorded: Ending | undefined): Ending {
  const hasGivenUp = status === 'starting' && recorded?.exitCode === 125;
  if (recorded !== undefined && !hasGivenUp) return recorded;
  return { exitCode: 137, error: 'its minirun process was killed' };
}

/** What becomes of a container that somebody else has to bring to rest. Pure. */
function restOf(definition: Definition, state: ContainerState): 'removed' | 'created' | 'exited' {
  if (state.status === 'creating' || state.unborn || definition.autoRemove) return 'removed';
  return state.startedAt === '' ? 'created' : 'exited';
}

/** Exit code and time that the supervisor wrote down. */
export function recordedEnding(id: string): { exitCode: number; finishedAt: string } | undefined {
  const { exit } = containerFiles(id);
  const exitCode = exitCodeOf(exit);
  const finishedAt = fs.statSync(exit, { throwIfNoEntry: false })?.mtime.toISOString();
  return exitCode === undefined || finishedAt === undefined ? undefined : { exitCode, finishedAt };
}
