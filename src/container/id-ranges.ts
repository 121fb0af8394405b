import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { killPoint } from '../host/fault.ts';
import { subordinateRanges } from '../host/subids.ts';
import { readFile } from '../state/files.ts';
import { writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { kinds } from '../state/migrations.ts';
import { paths, stateRoot } from '../state/paths.ts';
import { type IdReservations, idReservationsShape } from './files.ts';
import type { IdRange } from './protocol.ts';
import { containerIds, isRunning, readContainer, readOwners } from './store.ts';
import { textOrEmpty } from '../host/text.ts';

/** `first` and the ids after it, `size` in all. */
interface Range {
  first: number;
  size: number;
}

/**
 * Where ids come from when /etc/subuid and /etc/subgid give nobody's to minirun. Nobody else hands these out: they are above
 * those of shadow's useradd (up to 600100000), of systemd-nspawn (up to 1879048191) and of sssd (up to 2000200000), and below
 * those of systemd that begin at 2147352576 (systemd.io/UIDS-GIDS), all of which fit in 31 bits.
 */
const region: Range = { first: 0x78000000, size: 0x07fe0000 };
const step = 65536;

/** The ids of a container; undefined when it has none. */
export function idsOf(container: string): IdRange | undefined {
  return readReservations().held[container];
}

/**
 * Reserves ids for a container until it is removed. What it has already it keeps.
 *
 * @param exists whether a container exists; the reservations of others are void
 * @param wanted those that its files belong to already
 * @throws MinirunError (125) when there are not so many free ones
 */
export async function reserveIds(
  container: string,
  size: number,
  exists: (container: string) => boolean,
  wanted?: IdRange,
): Promise<IdRange> {
  const own = idsOf(container);
  if (own !== undefined) return own;
  const pools = readPools();
  return withLock(() => {
    const reservations = readReservations();
    for (const id of Object.keys(reservations.held)) if (!exists(id)) delete reservations.held[id];
    const ids = wanted ?? chooseIds(size, Object.values(reservations.held), pools, slotOf(stateRoot()));
    reservations.held[container] = ids;
    write(reservations);
    killPoint('ids.reserved');
    return ids;
  });
}

/** The ids that a container would get now. Nothing is reserved. */
export function proposeIds(size: number): IdRange {
  return chooseIds(size, Object.values(readReservations().held), readPools(), slotOf(stateRoot()));
}

/** Gives back what a container has; none is no error. */
export async function releaseIds(container: string): Promise<void> {
  if (idsOf(container) === undefined) return;
  await withLock(() => {
    const reservations = readReservations();
    delete reservations.held[container];
    write(reservations);
    killPoint('ids.released');
  });
}

/** Gives back what containers have that are no more. */
export async function sweepIds(exists: (container: string) => boolean): Promise<void> {
  for (const id of Object.keys(readReservations().held)) if (!exists(id)) await releaseIds(id);
}

/** Not durable: with idmapped mounts no file has any of these ids as its owner. */
function write(reservations: IdReservations): void {
  if (Object.keys(reservations.held).length === 0) fs.rmSync(paths.ids(), { force: true });
  else writeJson(paths.ids(), reservations, { durable: false });
}

/** `ids.json` by what the containers say: those that run by the kernel, others by whom their files belong to. */
export function rebuiltIds(): IdReservations {
  const found = containerIds().flatMap((id): [string, IdRange][] => {
    const container = readContainer(id);
    if (container?.definition.userns === undefined || container.definition.userns.of !== undefined) return [];
    const ids = isRunning(container.state) ? idsOfProcess(container.state.init?.pid ?? 0) : readOwners(id);
    return ids === undefined ? [] : [[id, ids]];
  });
  return { schema: 1, held: Object.fromEntries(found) };
}

function idsOfProcess(pid: number): IdRange | undefined {
  const map = (kind: string) => textOrEmpty(`/proc/${pid}/${kind}_map`).trim().split(/\s+/).map(Number);
  const [, uid, size] = map('uid');
  const [, gid] = map('gid');
  return uid === undefined || gid === undefined || size === undefined ? undefined : { uid, gid, size };
}

function readReservations(): IdReservations {
  return readFile(kinds.ids, idReservationsShape, paths.ids(), rebuiltIds) ?? { schema: 1, held: {} };
}

/** Ids that may be handed out, and in the region of our own those that are somebody's. */
export interface Pool {
  own: Range[];
  others: Range[];
}

function readPools(): { uid: Pool; gid: Pool } {
  return {
    uid: parsePool(textOrEmpty('/etc/subuid'), textOrEmpty('/etc/passwd')),
    gid: parsePool(textOrEmpty('/etc/subgid'), textOrEmpty('/etc/group')),
  };
}

/**
 * @param subordinate text of subuid(5) or subgid(5): `NAME:FIRST:COUNT`. The entries of `minirun` are ours; without any,
 *   those of `containers`, which podman and cri-o take theirs from, too
 * @param accounts text of passwd(5) or group(5)
 */
export function parsePool(subordinate: string, accounts: string): Pool {
  const entries = subordinateRanges(subordinate).flatMap(({ owner, start, count }): (Range & { name: string })[] =>
    owner.startsWith('#') || start === 0 ? [] : [{ name: owner, first: start, size: count }],
  );
  const of = (name: string) => entries.filter((entry) => entry.name === name);
  const own = [of('minirun'), of('containers')].find((list) => list.length > 0);
  if (own !== undefined) return { own: own.map(({ first, size }) => ({ first, size })), others: [] };
  const single = accounts.split('\n').flatMap((line): Range[] => {
    const id = Number(line.split(':')[2]);
    return id >= region.first ? [{ first: id, size: 1 }] : [];
  });
  return { own: [region], others: [...entries.map(({ first, size }) => ({ first, size })), ...single] };
}

/** A place in the region that depends on the state directory: two of them on one machine seldom hand out the same. */
function slotOf(directory: string): number {
  let hash = 0;
  for (const byte of Buffer.from(directory)) hash = (Math.imul(hash, 31) + byte) >>> 0;
  return hash;
}

/**
 * The first free ids.
 *
 * @param slot any whole number: where to begin to look in the region of our own
 * @throws MinirunError (125) when there are not so many
 */
export function chooseIds(
  size: number,
  held: readonly IdRange[],
  pools: { uid: Pool; gid: Pool },
  slot: number,
): IdRange {
  const [uid, gid] = (['uid', 'gid'] as const).map((kind) =>
    findFree(
      size,
      held.map((ids) => ({ first: ids[kind], size: ids.size })),
      pools[kind],
      slot,
    ),
  );
  if (uid !== undefined && gid !== undefined) return { uid, gid, size };
  throw new MinirunError(
    `no ${size} ids are free for a user namespace`,
    'other containers have them',
    'Remove some, or give a larger range to "minirun" in /etc/subuid and /etc/subgid',
    { code: 125 },
  );
}

function findFree(size: number, held: readonly Range[], { own, others }: Pool, slot: number): number | undefined {
  const taken = [...held, ...others];
  const isFree = (first: number) =>
    !taken.some((range) => first < range.first + range.size && range.first < first + size);
  for (const pool of own) {
    const fits = (first: number) => first >= pool.first && first + size <= pool.first + pool.size;
    if (pool !== region) {
      const found = [pool.first, ...taken.map((range) => range.first + range.size)]
        .toSorted((a, b) => a - b)
        .find((first) => fits(first) && isFree(first));
      if (found !== undefined) return found;
      continue;
    }
    const slots = region.size / step;
    for (let tries = 0; tries < slots; tries++) {
      const first = region.first + ((slot + tries) % slots) * step;
      if (fits(first) && isFree(first)) return first;
    }
  }
  return undefined;
}
