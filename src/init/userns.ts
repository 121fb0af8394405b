import fs from 'node:fs';

let known: { uid: IdRange[]; gid: IdRange[] } | undefined;

/** The ids of this process's user namespace, as they are when this is loaded. */
function maps(): { uid: IdRange[]; gid: IdRange[] } {
  known ??= { uid: readMap('/proc/self/uid_map'), gid: readMap('/proc/self/gid_map') };
  return known;
}

interface IdRange {
  inside: number;
  count: number;
}

/** Lines of a map of ids, as user_namespaces(7) has them; none where there is no proc. */
function readMap(file: string): IdRange[] {
  let text: string;
  try {
    text = fs.readFileSync(file, 'latin1');
  } catch {
    return [];
  }
  return text
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([inside = 0, , count = 0]) => ({ inside, count }));
}

/** All ids there are: the map of the machine's first user namespace. */
const everything = 4294967295;

/**
 * Whether this process is in a user namespace in which it was made root: what the first one's root may do beyond that (make
 * devices, attributes called `trusted.`) it may not. Read at once: helpers change to a root without a /proc.
 */
export const inUserNamespace = maps().uid.some(({ count }) => count < everything);

/** What overlayfs's own attributes begin with: with `userxattr` it uses those that need no privilege. */
export const overlayAttributes = inUserNamespace ? 'user.overlay.' : 'trusted.overlay.';

/** The highest group id that this user namespace has, at most 2147483647. */
export function highestGroup(): number {
  const ends = maps().gid.map(({ inside, count }) => inside + count - 1);
  return Math.min(2147483647, ...(ends.length === 0 ? [] : [Math.max(...ends)]));
}

/** Whether there is an id: a user namespace has only those that were given to it. */
export function hasId(kind: 'uid' | 'gid', id: number): boolean {
  return !inUserNamespace || maps()[kind].some(({ inside, count }) => id >= inside && id < inside + count);
}
