import fs from 'node:fs';
import type { Compare } from '../container/protocol.ts';
import { send } from './channel.ts';
import { failure, InitError } from './failure.ts';
import * as libc from './libc.ts';
import { mountOverlay } from './overlay.ts';
import { isDirectory, isOpaque, isWhiteout, listIfThere, packerCapabilities, statIfThere } from './pack.ts';
import { reasonOf } from './unpack.ts';

/** Changes in a message; thousands of them are no rarity. */
const batch = 500;

/**
 * Tells what the upper directory of an overlay changes of what lies below it, and ends this process. Its root is an empty
 * place with both in it, so no link leads anywhere else.
 */
export function compare(request: Compare): never {
  try {
    libc.prctl(libc.PR.SET_PDEATHSIG, 9);
    enter(request);
    let found: string[] = [];
    const flush = () => {
      send({ type: 'changed', changes: found });
      found = [];
    };
    compareDirectories('', true, (kind, place) => {
      if (found.push(`${kind} ${place}`) >= batch) flush();
    });
    flush();
    send({ type: 'compared' });
    process.exit(0);
  } catch (error) {
    send(failure(error instanceof InitError ? error : new InitError('cannot compare', reasonOf(error))));
    process.exit(125);
  }
}

function enter({ directory, upper, lower }: Compare): void {
  const { BIND, REMOUNT, NODEV, NOSUID, NOEXEC, RDONLY } = libc.MS;
  const flags = NODEV | NOSUID | NOEXEC | RDONLY;
  const show = (source: string, place: string) => {
    libc.mount(source, place, '', BIND, '');
    libc.mount('', place, '', BIND | REMOUNT | flags, '');
  };
  libc.mount('tmpfs', directory, 'tmpfs', NODEV | NOSUID | NOEXEC, 'mode=700');
  const [above, below] = [`${directory}/upper`, `${directory}/lower`];
  for (const place of [above, below]) fs.mkdirSync(place);
  show(upper, above);
  const [only, ...others] = lower;
  // overlayfs wants two.
  if (only !== undefined && others.length === 0) show(only, below);
  else if (only !== undefined) mountOverlay(below, { lower }, flags);
  process.chdir(directory);
  libc.pivotRootHere();
  libc.setCapabilities(packerCapabilities, packerCapabilities, 0n);
}

/**
 * Goes through a directory of the upper one.
 *
 * @param place its name in the container, without a slash at its end
 * @param isMerged whether what is below it shows through
 */
function compareDirectories(
  place: string,
  isMerged: boolean,
  tell: (kind: 'A' | 'C' | 'D', place: string) => void,
): void {
  const [above, below] = [`/upper${place}`, `/lower${place}`];
  const names = listIfThere(above);
  if (isMerged && isOpaque(above)) {
    const kept = new Set(names);
    for (const name of listIfThere(below)) if (!kept.has(name)) tell('D', `${place}/${name}`);
  }
  for (const name of names) {
    const stat = statIfThere(`${above}/${name}`);
    if (stat === undefined) continue;
    const before = isMerged ? statIfThere(`${below}/${name}`) : undefined;
    if (isWhiteout(stat)) {
      if (before !== undefined) tell('D', `${place}/${name}`);
      continue;
    }
    tell(before === undefined ? 'A' : 'C', `${place}/${name}`);
    if (isDirectory(stat)) compareDirectories(`${place}/${name}`, before !== undefined && isDirectory(before), tell);
  }
}
