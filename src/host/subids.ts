/** Ids outside that a user may use in a user namespace: one line of subuid(5). */
export interface SubordinateRange {
  start: number;
  count: number;
}

/** A line of /proc/PID/uid_map: user_namespaces(7). */
export interface IdMapping {
  inside: number;
  outside: number;
  count: number;
}

/**
 * The ranges of a user in the text of /etc/subuid or /etc/subgid, in the order of the file. Pure.
 *
 * @param user the lines begin with a login name or with a number, which is a user's also in subgid
 */
export function rangesOf(text: string, user: { name: string; uid: number }): SubordinateRange[] {
  return subordinateRanges(text).flatMap(({ owner, start, count }) =>
    owner === user.name || owner === String(user.uid) ? [{ start, count }] : [],
  );
}

/** The user as root, and the subordinate ids as 1, 2, … Pure. */
export function planMapping(own: number, ranges: readonly SubordinateRange[]): IdMapping[] {
  const mappings: IdMapping[] = [{ inside: 0, outside: own, count: 1 }];
  let inside = 1;
  for (const { start, count } of ranges) {
    mappings.push({ inside, outside: start, count });
    inside += count;
  }
  // UID_GID_MAP_MAX_EXTENTS is 340, five before Linux 4.15.
  return mappings.slice(0, 340);
}

/** What newuidmap(1) wants behind the pid. */
export function mappingArguments(mappings: readonly IdMapping[]): string[] {
  return mappings.flatMap(({ inside, outside, count }) => [inside, outside, count].map(String));
}

/** 65536 ids that are nobody's, for the remedy of a user who has none: `100000-165535`. Pure. */
export function freeRange(...texts: string[]): string {
  const end = Math.max(100_000, ...texts.flatMap(subordinateRanges).map(({ start, count }) => start + count));
  return `${end}-${end + 65_535}`;
}

/** All ranges in the text of subuid(5) or subgid(5), with the login name or the number of whose they are. Pure. */
export function subordinateRanges(text: string): ({ owner: string } & SubordinateRange)[] {
  return text.split('\n').flatMap((line) => {
    const [owner = '', start = '', count = ''] = line.trim().split(':');
    if (owner === '' || !/^\d+$/.test(start) || !/^\d+$/.test(count) || count === '0') return [];
    return [{ owner, start: Number(start), count: Number(count) }];
  });
}
