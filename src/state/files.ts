import { isUtf8 } from 'node:buffer';
import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import type { Kind } from './migrations.ts';
import { stateRoot } from './paths.ts';
import { salvage } from './salvage.ts';
import type { ObjectShape } from './shape.ts';

/** A newer minirun has written something that this one would misread. No part of a command goes on after it. */
export class NewerState extends MinirunError {}

/** A file of the state that is not what it has to be. */
export class Damage<T extends object = object> {
  constructor(
    readonly kind: Kind,
    readonly file: string,
    /** In words, behind the file's name: `is empty`. */
    readonly why: string,
    /** What of it can be read all the same. */
    readonly parts: Partial<T> = {},
    /** Looks once more; undefined when it is sound now, or gone. */
    readonly again: () => Damage | undefined,
  ) {}
}

/** Damaged files that were set aside because something was written in their place, until the user is told. */
export const takenAside: { damage: Damage; name: string | undefined }[] = [];

/** What this process has met, by file, until it is set aside (`container/heal.ts`). */
export const damaged = new Map<string, Damage>();

/** Whether there is something to be said and done. */
export function isAnythingDamaged(): boolean {
  return damaged.size > 0 || takenAside.length > 0;
}

/**
 * What a file says, made into the present schema; undefined when there is no such file. One that is damaged is noted, to be
 * set aside by whoever comes to it, and counts as missing unless `rebuild` makes something of what is left.
 *
 * @throws NewerState when a newer minirun wrote it
 */
export function readFile<T extends object>(
  kind: Kind,
  shape: ObjectShape<T>,
  file: string,
  rebuild?: (parts: Partial<T>) => T | undefined,
): T | undefined {
  const found = examine(kind, shape, file);
  if (!(found instanceof Damage)) return found;
  damaged.set(file, found);
  return rebuild?.(found.parts);
}

/** Notes a file that is sound in itself and wrong where it is, or that is missing. @param isSo whether that is still so */
export function noteDamage(kind: Kind, file: string, why: string, isSo: () => boolean, parts: object = {}): void {
  const damage: Damage = new Damage(kind, file, why, parts, () => (isSo() ? damage : undefined));
  damaged.set(file, damage);
}

/** The same for a look at a file of somebody else's, which is not noted. */
export function peekFile<T extends object>(kind: Kind, shape: ObjectShape<T>, file: string): Partial<T> | undefined {
  const found = examine(kind, shape, file);
  return found instanceof Damage ? found.parts : found;
}

/** The text of a file that is not JSON, whatever lies there; undefined when there is none to be had. */
export function textOf(file: string): string | undefined {
  const source = readText(file);
  return typeof source === 'string' ? source : undefined;
}

/** The object in a file, whatever it is; undefined when there is none. */
export function contentOf(file: string): object | undefined {
  const source = readText(file);
  if (typeof source !== 'string') return undefined;
  try {
    const content: unknown = JSON.parse(source);
    return typeof content === 'object' && content !== null ? content : undefined;
  } catch {
    return undefined;
  }
}

/** What a file says; undefined when it is damaged, too, which is not noted. */
export function soundFile<T extends object>(kind: Kind, shape: ObjectShape<T>, file: string): T | undefined {
  const found = examine(kind, shape, file);
  return found instanceof Damage ? undefined : found;
}

/** Looks at a file, twice when it is damaged: whoever writes one replaces it as a whole, so that no look finds half of it. */
export function examine<T extends object>(kind: Kind, shape: ObjectShape<T>, file: string): T | Damage<T> | undefined {
  const found = look(kind, shape, file);
  return found instanceof Damage ? look(kind, shape, file) : found;
}

/** The text of each file when it was last found to be sound. A network of 500 containers is read some times in a command. */
const sound = new WeakMap<object, Map<string, string>>();

function look<T extends object>(kind: Kind, shape: ObjectShape<T>, file: string): T | Damage<T> | undefined {
  const source = readText(file);
  if (source === undefined) return undefined;
  if (typeof source !== 'string') return damageOf(kind, shape, file, source.why);
  const known = sound.get(shape) ?? new Map<string, string>();
  if (known.get(file) === source) return migrated(kind, JSON.parse(source), file) as T;
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch {
    const why = source === '' ? 'is empty' : isTruncated(source) ? 'is cut off' : 'is not JSON';
    return damageOf(kind, shape, file, why, partsOf(kind, shape, file, salvage(source)));
  }
  try {
    value = migrated(kind, value, file);
  } catch (error) {
    if (error instanceof NewerState) throw error;
    return damageOf(kind, shape, file, 'is not what it says it is', shape.rest(value));
  }
  const wrong = shape.wrong(value);
  if (wrong === undefined) {
    sound.set(shape, known.set(file, source));
    return value as T;
  }
  const why = `is not of the right form (${wrong.replace(/^[.:] ?/, '')})`;
  return damageOf(kind, shape, file, why, shape.rest(value));
}

function damageOf<T extends object>(
  kind: Kind,
  shape: ObjectShape<T>,
  file: string,
  why: string,
  parts: Partial<T> = {},
): Damage<T> {
  return new Damage<T>(kind, file, why, parts, () => {
    const now = look(kind, shape, file);
    return now instanceof Damage ? now : undefined;
  });
}

function partsOf<T>(kind: Kind, shape: ObjectShape<T>, file: string, value: unknown): Partial<T> {
  if (value === undefined) return {};
  try {
    return shape.rest(migrated(kind, value, file));
  } catch {
    return {};
  }
}

/** JSON ends with what it begins with. */
function isTruncated(source: string): boolean {
  const whole = source.trim();
  return /^[{[]/.test(whole) && !/[}\]]$/.test(whole);
}

/**
 * Brings JSON to the schema of this minirun, one step after the other.
 *
 * @throws NewerState when a newer minirun wrote it
 */
export function migrated(kind: Kind, value: unknown, file: string): unknown {
  if (kind.isUnmarked) return value;
  if ((value as { schema?: unknown } | null)?.schema === kind.schema) return value;
  const schema = schemaOf(value);
  if (schema === undefined) throw new TypeError('no schema');
  if (schema > kind.schema) {
    throw new NewerState(
      `cannot read ${file}`,
      `this state was written by a newer minirun (schema ${schema} of a ${kind.name}, and this one knows ${kind.schema})`,
      'Use that minirun, or give this one a state directory of its own: --root DIR',
    );
  }
  let migrating = value;
  for (const migrate of kind.migrations.slice(schema - 1)) migrating = migrate(migrating);
  return { ...(migrating as object), schema: kind.schema };
}

/** A file without one is of the first schema; undefined for what is none. */
function schemaOf(value: unknown): number | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { schema = 1 } = value as { schema?: unknown };
  return Number.isSafeInteger(schema) && (schema as number) >= 1 ? (schema as number) : undefined;
}

/** Why there is no text to be had. */
class Unreadable {
  constructor(readonly why: string) {}
}

const chunk = Buffer.allocUnsafe(65_536);

/** Bytes; beyond that no file of ours. */
const largest = 64 * 2 ** 20;

/** Not to follow a link, and not to wait for whoever might write into a FIFO. */
const flags = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY;

/** The text of a file of whatever sort. Without a look at what it is: almost always it is what it has to be. */
function readText(file: string): string | Unreadable | undefined {
  let fd: number;
  try {
    fd = fs.openSync(file, flags);
  } catch (error) {
    return unreadable(file, error);
  }
  try {
    const length = fs.readSync(fd, chunk, 0, chunk.length, null);
    if (length === 0 || length === chunk.length) return readUnusual(fd);
    const source = chunk.toString('utf8', 0, length);
    return source.includes('\uFFFD') ? decoded(chunk.subarray(0, length)) : source;
  } catch (error) {
    return unreadable(file, error);
  } finally {
    fs.closeSync(fd);
  }
}

function readUnusual(fd: number): string | Unreadable {
  const stat = fs.fstatSync(fd);
  if (!stat.isFile()) return new Unreadable(`is ${sortOf(stat)}`);
  if (stat.size > largest) return new Unreadable(`has ${stat.size} bytes`);
  const content = Buffer.allocUnsafe(stat.size);
  let length = 0;
  for (let more = -1; more !== 0 && length < content.length; length += more)
    more = fs.readSync(fd, content, length, content.length - length, length);
  return decoded(content.subarray(0, length));
}

function decoded(content: Buffer): string | Unreadable {
  const source = content.toString('utf8');
  return source.includes('\uFFFD') && !isUtf8(content) ? new Unreadable('is not UTF-8') : source;
}

/** What an error of opening or reading means. @throws the error where that says nothing of the file */
function unreadable(file: string, error: unknown): Unreadable | undefined {
  const { code = '' } = error as NodeJS.ErrnoException;
  // The folder is no folder: what was to be in it is not there.
  if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
  const stat = fs.lstatSync(file, { throwIfNoEntry: false });
  if (stat !== undefined && !stat.isFile()) return new Unreadable(`is ${sortOf(stat)}`);
  if (['EIO', 'EACCES', 'EPERM', 'EUCLEAN', 'EBADMSG'].includes(code))
    return new Unreadable(`cannot be read (${code})`);
  throw error;
}

function sortOf(stat: fs.Stats): string {
  if (stat.isDirectory()) return 'a directory';
  if (stat.isSymbolicLink()) return 'a symbolic link';
  if (stat.isFIFO()) return 'a FIFO';
  return stat.isSocket() ? 'a socket' : 'a device';
}

/** A file as messages name it. */
export function shownFile(file: string): string {
  const below = path.relative(stateRoot(), file);
  return below.startsWith('..') ? file : below;
}

/**
 * Moves a damaged file out of the way of the one that is to take its place: `NAME.damaged-TIME`. Under the lock, or by whoever
 * alone may write it.
 *
 * @returns the new name
 */
export function setAside(file: string): string | undefined {
  const damage = damaged.get(file);
  const name = moveAside(file);
  damaged.delete(file);
  if (damage !== undefined) takenAside.push({ damage, name });
  return name;
}

function moveAside(file: string): string | undefined {
  const time = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '');
  for (let number = 0; ; number++) {
    const aside = `${file}.damaged-${time}${number === 0 ? '' : `-${number}`}`;
    if (fs.lstatSync(aside, { throwIfNoEntry: false }) !== undefined) continue;
    try {
      fs.renameSync(file, aside);
      return path.basename(aside);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }
}
