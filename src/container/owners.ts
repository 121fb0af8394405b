import fs from 'node:fs';
import { bootId, isAlive, isTaken } from '../host/process.ts';
import { Damage, examine } from '../state/files.ts';
import { kinds } from '../state/migrations.ts';
import { paths } from '../state/paths.ts';
import type { ContainerState } from './definition.ts';
import { containerFiles, stateShape } from './files.ts';

/**
 * An index of the owners of containers: empty files named `ID.PID.START`, one for each container that is not at rest. With it,
 * looking whether somebody has died takes a list of one directory instead of a file for each container. It is a hint,
 * never the truth: an entry is made before the state that it is about is written, and removed after that of the next, so
 * that a killed process leaves one too many and never one too few.
 */
export function entryOf(id: string, { status, owner }: ContainerState): string | undefined {
  if (status === 'created' || status === 'exited' || owner === undefined) return undefined;
  return `${id}.${owner.pid}.${owner.start}`;
}

/** To be called before a state is written, or a container listed. */
export function noteOwner(id: string, state: ContainerState): void {
  const entry = entryOf(id, state);
  if (entry !== undefined) fs.writeFileSync(paths.owner(entry), '');
}

/**
 * To be called when `before` is not the container's state any more.
 *
 * @param now what it is; absent when the container is gone
 */
export function forgetOwner(id: string, before?: ContainerState, now?: ContainerState): void {
  const entry = before && entryOf(id, before);
  const right = now && entryOf(id, now);
  if (right !== undefined) {
    if (entry !== undefined && entry !== right) fs.rmSync(paths.owner(entry), { force: true });
    return;
  }
  // At rest it has none, nor what a process has noted that was killed before it wrote its state.
  for (const each of fs.readdirSync(paths.owners()))
    if (each.startsWith(`${id}.`)) fs.rmSync(paths.owner(each), { force: true });
}

const entryPattern = /^([0-9a-f]{64})\.(\d+)\.(\d+)$/;

/** So many processes are looked at one by one; of more, only whether there is one with that pid. */
const preciseUpTo = 64;

/**
 * The containers whose owner may have died, by the index. Beyond some number a process that has got a dead owner's pid
 * passes for it, until a command comes that looks at every state.
 *
 * @returns undefined when the index is not of this boot: then all have to be looked at, and `beginIndex` called
 */
export function suspects(): string[] | undefined {
  const entries = fs.readdirSync(paths.owners());
  if (!entries.includes(bootMark())) return undefined;
  const found = entries.flatMap((entry) => {
    const [, id = '', pid, start] = entryPattern.exec(entry) ?? [];
    return id === '' ? [] : [{ entry, id, pid: Number(pid), start: Number(start) }];
  });
  const dead = found.filter((each) => !(found.length > preciseUpTo ? isTaken(each.pid) : isAlive(each)));
  for (const { id, entry } of dead) {
    // Left by a process that was killed: the state has got on, or the container is gone.
    const { directory, state: file } = containerFiles(id);
    const state = examine(kinds.state, stateShape, file);
    // Where the state is damaged, its owner stands here only.
    if (state instanceof Damage || (state === undefined && fs.existsSync(directory))) continue;
    if (state === undefined || entryOf(id, state) !== entry) fs.rmSync(paths.owner(entry), { force: true });
  }
  return [...new Set(dead.map(({ id }) => id))];
}

/** Makes an index of these states, in place of that of another boot or none. */
export function beginIndex(states: ReadonlyMap<string, ContainerState>): void {
  for (const entry of fs.readdirSync(paths.owners()))
    if (entry.startsWith('boot-')) fs.rmSync(paths.owner(entry), { force: true });
  for (const [id, state] of states) noteOwner(id, state);
  fs.writeFileSync(paths.owner(bootMark()), '');
}

function bootMark(): string {
  return `boot-${bootId()}`;
}
