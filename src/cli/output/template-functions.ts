import { entriesOf, formatValue, isFields, isStruct, isTrue, typeName } from './template-values.ts';

/** A function that templates can call, and how many arguments it takes. */
export interface TemplateFunction {
  readonly least: number;
  readonly most: number;
  readonly call: (...args: unknown[]) => unknown;
}

/** A function's refusal of its arguments; the template reports it as `error calling NAME: …`. */
export class CallError extends Error {}

function takes(least: number, most: number, call: (...args: unknown[]) => unknown): TemplateFunction {
  return { least, most, call };
}

function text(value: unknown): string {
  if (typeof value === 'string') return value;
  throw new CallError(`wrong type for value; expected string; got ${typeName(value)}`);
}

function integer(value: unknown): number {
  if (typeof value === 'number' && Number.isInteger(value)) return value;
  throw new CallError(`wrong type for value; expected int; got ${typeName(value)}`);
}

function toJson(value: unknown): string {
  // Go writes maps sorted by key and structs as declared.
  const sortMaps = (_key: string, item: unknown): unknown =>
    isFields(item) && !isStruct(item) ? Object.fromEntries(entriesOf(item)) : item;
  return JSON.stringify(value, sortMaps) ?? 'null';
}

function position(length: number, key: unknown): number {
  const wanted = integer(key);
  if (wanted < 0 || wanted >= length) throw new CallError(`index out of range: ${wanted}`);
  return wanted;
}

function indexOnce(item: unknown, key: unknown): unknown {
  if (Array.isArray(item)) return item[position(item.length, key)] ?? null;
  if (typeof item === 'string') return item.charCodeAt(position(item.length, key));
  if (isFields(item)) {
    const name = text(key);
    if (Object.hasOwn(item, name)) return item[name] ?? null;
    // A missing key of a Go map gives the zero value of the map's values: '' for labels, nil for anything else.
    return Object.values(item).every((value) => typeof value === 'string') ? '' : null;
  }
  // nil is mostly an empty list here, such as the bindings of a port that is not published.
  if (typeof key === 'number' && (item === null || item === undefined)) return position(0, key);
  throw new CallError(item === null || item === undefined ? 'index of untyped nil' : `can't index ${typeName(item)}`);
}

function slice(item: unknown, from: unknown = 0, to?: unknown): unknown {
  if (!Array.isArray(item) && typeof item !== 'string')
    throw new CallError(`can't slice item of type ${typeName(item)}`);
  const start = integer(from);
  const end = to === undefined ? item.length : integer(to);
  if (start < 0 || end > item.length) throw new CallError(`index out of range: ${start < 0 ? start : end}`);
  if (start > end) throw new CallError(`invalid slice index: ${start} > ${end}`);
  return item.slice(start, end);
}

function length(value: unknown): number {
  if (value === null) return 0;
  if (typeof value === 'string') return Buffer.byteLength(value);
  if (Array.isArray(value)) return value.length;
  if (isFields(value)) return Object.keys(value).length;
  throw new CallError(`len of type ${typeName(value)}`);
}

function equal(a: unknown, b: unknown): boolean {
  if (typeof a === 'object' && a !== null) throw new CallError(`non-comparable type ${formatValue(a)}: ${typeName(a)}`);
  const absent = (value: unknown): boolean => value === null || value === undefined;
  if (absent(a) || absent(b)) return absent(a) && absent(b);
  if (typeof a !== typeof b) throw new CallError('incompatible types for comparison');
  return a === b;
}

function compare(a: unknown, b: unknown): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  if (typeof a === 'string' && typeof b === 'string') return a < b ? -1 : Number(a > b);
  throw new CallError(typeof a === typeof b ? 'invalid type for comparison' : 'incompatible types for comparison');
}

/** Values in a row as Go's Sprint writes them: a space between two of them when neither is a string. */
function print(values: readonly unknown[]): string {
  return values.reduce<string>((line, value, index) => {
    const spaced = index > 0 && typeof value !== 'string' && typeof values[index - 1] !== 'string';
    return line + (spaced ? ' ' : '') + formatValue(value);
  }, '');
}

const VERB = /%([-+ #0]*)(\d*)(?:\.(\d+))?([a-zA-Z%])/g;

/** Go's Sprintf, with the verbs that make sense for text, numbers and booleans. */
function printf(format: string, args: readonly unknown[]): string {
  let used = 0;
  const line = format.replace(
    VERB,
    (_all, flags: string, width: string, precision: string | undefined, verb: string) => {
      if (verb === '%') return '%';
      if (used >= args.length) return `%!${verb}(MISSING)`;
      const value = args[used];
      used += 1;
      const digits = precision === undefined ? undefined : Number(precision);
      const body = formatVerb(verb, value, digits) ?? `%!${verb}(${typeName(value)}=${formatValue(value)})`;
      const signed = flags.includes('+') && typeof value === 'number' && value >= 0 ? `+${body}` : body;
      if (flags.includes('-')) return signed.padEnd(Number(width));
      if (!flags.includes('0') || typeof value !== 'number') return signed.padStart(Number(width));
      const sign = /^[+-]?/.exec(signed)?.[0] ?? '';
      return sign + signed.slice(sign.length).padStart(Number(width) - sign.length, '0');
    },
  );
  const extra = args.slice(used).map((value) => `${typeName(value)}=${formatValue(value)}`);
  return extra.length > 0 ? `${line}%!(EXTRA ${extra.join(', ')})` : line;
}

/** One value in the form that a verb asks for; undefined when the verb does not fit the value. */
function formatVerb(verb: string, value: unknown, precision: number | undefined): string | undefined {
  switch (verb) {
    case 'v':
      return formatValue(value);
    case 's':
      if (typeof value === 'number' || typeof value === 'boolean') return undefined;
      return precision === undefined ? formatValue(value) : Array.from(formatValue(value)).slice(0, precision).join('');
    case 'q':
      return typeof value === 'string' ? JSON.stringify(value) : undefined;
    case 't':
      return typeof value === 'boolean' ? String(value) : undefined;
    case 'd':
      return Number.isInteger(value) ? String(value) : undefined;
    case 'f':
      return typeof value === 'number' ? value.toFixed(precision ?? 6) : undefined;
    case 'x':
    case 'X': {
      const hex = Number.isInteger(value)
        ? (value as number).toString(16)
        : typeof value === 'string'
          ? Buffer.from(value).toString('hex')
          : undefined;
      return verb === 'X' ? hex?.toUpperCase() : hex;
    }
    case 'T':
      return typeName(value);
    default:
      return undefined;
  }
}

const MANY = Number.POSITIVE_INFINITY;

/**
 * The functions of Docker's `--format` templates: Docker's own and Go's built-in ones.
 *
 * `and` and `or` are not among them: they stop at the first argument that decides, so the template evaluates them.
 */
export const templateFunctions: Readonly<Record<string, TemplateFunction>> = {
  not: takes(1, 1, (value) => !isTrue(value)),
  eq: takes(2, MANY, (first, ...others) => others.some((other) => equal(first, other))),
  ne: takes(2, 2, (a, b) => !equal(a, b)),
  lt: takes(2, 2, (a, b) => compare(a, b) < 0),
  le: takes(2, 2, (a, b) => compare(a, b) <= 0),
  gt: takes(2, 2, (a, b) => compare(a, b) > 0),
  ge: takes(2, 2, (a, b) => compare(a, b) >= 0),
  index: takes(1, MANY, (item, ...keys) => keys.reduce(indexOnce, item)),
  slice: takes(1, 3, slice),
  len: takes(1, 1, length),
  print: takes(0, MANY, (...values) => print(values)),
  println: takes(0, MANY, (...values) => `${values.map(formatValue).join(' ')}\n`),
  printf: takes(1, MANY, (format, ...values) => printf(text(format), values)),
  json: takes(1, 1, toJson),
  join: takes(2, 2, (list, separator) => {
    if (list !== null && !Array.isArray(list)) {
      throw new CallError(`wrong type for value; expected []string; got ${typeName(list)}`);
    }
    return (list ?? []).map(formatValue).join(text(separator));
  }),
  split: takes(2, 2, (value, separator) => text(value).split(text(separator))),
  upper: takes(1, 1, (value) => text(value).toUpperCase()),
  lower: takes(1, 1, (value) => text(value).toLowerCase()),
  title: takes(1, 1, (value) => text(value).replace(/(?<![\p{L}\p{N}_])\p{L}/gu, (letter) => letter.toUpperCase())),
  truncate: takes(2, 2, (value, most) => Array.from(text(value)).slice(0, integer(most)).join('')),
  pad: takes(3, 3, (value, before, after) =>
    text(value) === '' ? '' : ' '.repeat(integer(before)) + text(value) + ' '.repeat(integer(after)),
  ),
};

const unchanged = (arity: number): TemplateFunction => takes(arity, arity, (header) => header);

/** The functions for the header line of a `table` format: they keep the names of the columns as they are. */
export const headerFunctions: Readonly<Record<string, TemplateFunction>> = {
  ...templateFunctions,
  json: unchanged(1),
  join: unchanged(2),
  split: unchanged(2),
  upper: unchanged(1),
  lower: unchanged(1),
  title: unchanged(1),
  truncate: unchanged(2),
};
