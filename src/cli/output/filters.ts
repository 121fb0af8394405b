import { MinirunError } from '../../errors.ts';

/** What one key of `--filter key=value` means for the objects of a listing. */
export interface Filter<Item> {
  /** Whether the item passes the filter with this value. */
  readonly matches: (item: Item, value: string) => boolean;
  /** True when every value given for the key must match; otherwise one of them is enough. */
  readonly every?: boolean;
  /** The only values that the key takes; left out when it takes any. */
  readonly values?: readonly string[];
}

/**
 * Reads repeated `--filter key=value` options into one predicate.
 *
 * Different keys must all match. Values of the same key are alternatives, unless the filter says `every`.
 * Keys are not case-sensitive, as in Docker.
 */
export function parseFilters<Item>(
  given: readonly string[],
  known: Readonly<Record<string, Filter<Item>>>,
): (item: Item) => boolean {
  const wanted = new Map<string, string[]>();
  for (const text of given) {
    // Docker ignores `--filter ''`, which scripts write as --filter "$FILTER".
    if (text === '') continue;
    const { key, value } = parseFilter(text, known);
    wanted.set(key, [...(wanted.get(key) ?? []), value]);
  }
  return (item) =>
    [...wanted].every(([key, values]) => {
      const filter = known[key];
      const matches = (value: string): boolean => filter?.matches(item, value) ?? false;
      return filter?.every === true ? values.every(matches) : values.some(matches);
    });
}

function parseFilter<Item>(
  text: string,
  known: Readonly<Record<string, Filter<Item>>>,
): { key: string; value: string } {
  const equals = text.indexOf('=');
  if (equals === -1) {
    throw new MinirunError(`invalid filter "${text}"`, 'it has no value', 'Write it as --filter KEY=VALUE');
  }
  const key = text.slice(0, equals).trim().toLowerCase();
  const value = text.slice(equals + 1).trim();
  const filter = Object.hasOwn(known, key) ? known[key] : undefined;
  if (filter === undefined) {
    const keys = Object.keys(known).toSorted().join(', ');
    throw new MinirunError(`invalid filter "${text}"`, `there is no key "${key}" here`, `Use one of: ${keys}`);
  }
  if (filter.values !== undefined && !filter.values.includes(value)) {
    const values = filter.values.join(', ');
    throw new MinirunError(`invalid filter "${text}"`, `${key} cannot be "${value}"`, `Use one of: ${values}`);
  }
  return { key, value };
}

/** The filter `label=KEY` or `label=KEY=VALUE`; several of them must all match, as in Docker. */
export function labelFilter<Item>(labelsOf: (item: Item) => Readonly<Record<string, string>>): Filter<Item> {
  return {
    every: true,
    matches(item, wanted) {
      const labels = labelsOf(item);
      const equals = wanted.indexOf('=');
      if (equals === -1) return Object.hasOwn(labels, wanted);
      const key = wanted.slice(0, equals);
      return Object.hasOwn(labels, key) && labels[key] === wanted.slice(equals + 1);
    },
  };
}

/** A filter whose value is a regular expression found anywhere in a text, as Docker's `name=` and `id=`. */
export function patternFilter<Item>(textOf: (item: Item) => string): Filter<Item> {
  return {
    matches(item, pattern) {
      const text = textOf(item);
      if (text === pattern) return true;
      try {
        return new RegExp(pattern, 'u').test(text);
      } catch {
        // Docker, too, takes a broken expression for one that matches nothing.
        return false;
      }
    },
  };
}
