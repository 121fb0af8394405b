/**
 * JavaScript values seen with Go's eyes: what a template finds true, how it prints a value, what it calls its type.
 *
 * `null` is Go's nil. `undefined` is a value that is not there at all, like a missing key of a map.
 */

/** A JSON object: Go's struct or map. */
export type Fields = Readonly<Record<string, unknown>>;

/** Whether the value is a JSON object. */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Whether a JSON object stands for a Go struct, which has a fixed set of fields, and not for a map.
 *
 * JSON does not tell the two apart, but the fields of Docker's structs all begin with a capital letter, and the keys of
 * its maps (labels, ports, network names, paths) hardly ever do.
 */
export function isStruct(fields: Fields): boolean {
  const names = Object.getOwnPropertyNames(fields);
  return names.length > 0 && names.every((name) => /^[A-Z]\w*$/.test(name));
}

/** Entries of an object in the order in which Go walks through them: maps by key, structs as declared. */
export function entriesOf(fields: Fields): [string, unknown][] {
  const entries = Object.entries(fields);
  return isStruct(fields) ? entries : entries.toSorted(([a], [b]) => (a < b ? -1 : 1));
}

/** Whether `if`, `with`, `and`, `or` and `not` take the value for true: it is not zero, empty or nil. */
export function isTrue(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (isFields(value)) return Object.keys(value).length > 0;
  return Boolean(value);
}

/** The value as Go's `%v` prints it. */
export function formatValue(value: unknown): string {
  if (value === undefined) return '<no value>';
  if (value === null) return '<nil>';
  if (Array.isArray(value)) return `[${value.map((item) => formatValue(item ?? null)).join(' ')}]`;
  if (isFields(value)) {
    const entries = entriesOf(value);
    if (isStruct(value)) return `{${entries.map(([, item]) => formatValue(item ?? null)).join(' ')}}`;
    return `map[${entries.map(([key, item]) => `${key}:${formatValue(item ?? null)}`).join(' ')}]`;
  }
  if (typeof value === 'string') return value;
  // Numbers and booleans, which look the same in JSON and in Go.
  return JSON.stringify(value);
}

/** The value's type in Go's words, for error messages. */
export function typeName(value: unknown): string {
  if (value === undefined || value === null) return 'nil';
  if (Array.isArray(value)) return 'slice';
  if (isFields(value)) return isStruct(value) ? 'struct' : 'map';
  if (typeof value === 'number') return Number.isInteger(value) ? 'int' : 'float64';
  if (typeof value === 'boolean') return 'bool';
  return typeof value;
}
