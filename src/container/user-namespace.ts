import { MinirunError } from '../errors.ts';

/** What a container has without `--userns`: `auto` or `host` (docs/adr/0014). */
export const defaultUserns: string = 'host';

/** As many as images expect: all of 16 bits, with `nobody` (65534). */
const usualSize = 65536;

/** The group `tty` (5) of terminals must be among them. */
const leastSize = 6;
const largestSize = 1 << 24;

/**
 * `auto`, `auto:size=N` (podman's), `N`: a user namespace of so many ids. `host`: none.
 *
 * @returns how many ids; undefined for the host's own
 * @throws MinirunError for anything else
 */
export function parseUserns(text: string): number | undefined {
  if (text === 'host') return undefined;
  if (text === 'auto') return usualSize;
  const size = Number(/^(?:auto:size=)?(\d+)$/.exec(text)?.[1] ?? Number.NaN);
  if (size >= leastSize && size <= largestSize) return size;
  throw new MinirunError(
    `invalid --userns "${text}"`,
    Number.isNaN(size) ? 'it is no user namespace that minirun can make' : 'that is no useful number of ids',
    `Give auto, host, or a number of ids from ${leastSize} to ${largestSize}`,
    { code: 125 },
  );
}

/** Lines of uid_map or gid_map: first id inside, first id outside, how many (user_namespaces(7)). */
export function idMap(first: number, size: number): string {
  return `0 ${first} ${size}\n`;
}
