import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { examine, Damage, damaged } from './files.ts';
import { writeJson } from './json.ts';
import { kinds } from './migrations.ts';
import { ensureStateRoot, paths, stateRoot } from './paths.ts';
import { count, object, oneOf, text } from './shape.ts';

/**
 * The state directory as a whole: `schema.json` in it. Each file has a schema of its own; this keeps an older minirun from what
 * it would misread although each file looks like its own (a container made of two files, a folder that it does not know).
 */
interface Marker {
  schema: 1;
  /** Of the newest minirun that has written here. */
  format: number;
  /** A minirun of an older format must not work here. */
  oldest: number;
  /** The version of the minirun that wrote this file, for messages. */
  by: string;
}

const markerShape = object<Marker>({ schema: oneOf(1), format: count, oldest: count, by: text });

/** The state directory as this minirun writes it. 1 is what had no `schema.json`. */
const format = 2;

/** The oldest format whose minirun does nothing wrong with what this one writes. */
const oldest = 2;

let ownVersion = '';

/** What the file says that this minirun writes. */
export function ownMarker(): Marker {
  return { schema: 1, format, oldest, by: ownVersion };
}

/**
 * Makes the state directory ready for a command.
 *
 * @param version of this minirun
 * @returns what the user should know, a line each
 * @throws MinirunError, before any effect, when a newer minirun has written it, or when somebody else could
 */
export async function openStateRoot(version: string): Promise<string[]> {
  ownVersion = version;
  const warnings = checkPlace();
  const marker = examine(kinds.marker, markerShape, paths.marker());
  if (marker instanceof Damage) damaged.set(paths.marker(), marker);
  else if (marker !== undefined) refuseNewer(marker);
  const strange = ensureStateRoot();
  if (strange !== undefined) {
    const place = path.join(stateRoot(), strange);
    throw unusable(`${place} is no directory`, `Move it away: mv ${place} ${place}.old`);
  }
  // One that is damaged is written when it has been set aside.
  if (marker === undefined || (!(marker instanceof Damage) && marker.format < format)) await mark();
  return warnings;
}

function refuseNewer({ oldest: least, by }: Marker): void {
  if (least <= format) return;
  throw unusable(
    `${paths.marker()} says that minirun ${by} has written it, in format ${least}, and this one knows ${format}`,
    'Use that minirun, or give this one a state directory of its own: --root DIR',
  );
}

/** Writes down that this minirun has been here. */
async function mark(): Promise<void> {
  const { withLock } = await import('./lock.ts');
  await withLock(() => {
    const now = examine(kinds.marker, markerShape, paths.marker());
    if (now instanceof Damage || (now !== undefined && now.format >= format)) return;
    writeJson(paths.marker(), { ...ownMarker(), oldest: Math.max(oldest, now?.oldest ?? 0) });
  });
}

/**
 * Looks who may write the state directory. With access to it one is root: its files name commands that are run to undo
 * something, and programs with the setuid bit lie in images (CVE-2021-41091).
 */
export function checkPlace(): string[] {
  const root = stateRoot();
  let stat: fs.Stats | undefined;
  try {
    stat = fs.statSync(root, { throwIfNoEntry: false });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === 'EACCES' ? 'it is in a directory that is closed to you' : `it cannot be looked at (${code})`;
    throw unusable(why, 'Choose another: --root DIR');
  }
  if (stat === undefined) {
    refuseOpenParent(existingPart(root));
    fs.mkdirSync(root, { recursive: true, mode: 0o700 });
    return [];
  }
  if (!stat.isDirectory()) throw unusable('it is no directory', 'Choose another: --root DIR');
  const own = process.geteuid?.() ?? stat.uid;
  if (stat.uid !== own) {
    throw unusable(
      `it belongs to user ${stat.uid}, and this is user ${own}`,
      `Choose another (--root DIR), or take it over: chown ${own} ${root}`,
    );
  }
  // Where it really lies: it may be reached by a link, which only whoever could replace that link can change.
  refuseOpenParent(path.dirname(root));
  if ((stat.mode & 0o077) === 0) return [];
  fs.chmodSync(root, stat.mode & 0o700);
  const mode = (stat.mode & 0o777).toString(8).padStart(4, '0');
  return [`${root} had mode ${mode}, so that other users could reach setuid files of images; it has 0700 now`];
}

/** In a directory that everybody may write, everybody may put another one in place of the state directory. */
function refuseOpenParent(parent: string): void {
  const { mode } = fs.statSync(parent);
  if ((mode & 0o002) === 0 || (mode & 0o1000) !== 0) return;
  throw unusable(
    `everybody may write to ${parent}, and so put another one in its place`,
    `Choose another (--root DIR), or forbid it: chmod o-w ${parent}`,
  );
}

function existingPart(place: string): string {
  let directory = path.dirname(place);
  while (!fs.existsSync(directory)) directory = path.dirname(directory);
  return directory;
}

function unusable(why: string, remedy: string): MinirunError {
  return new MinirunError(`cannot use the state directory ${stateRoot()}`, why, remedy, { code: 125 });
}
