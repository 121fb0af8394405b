import stringWidth from 'string-width';
import { Template } from './template.ts';
import { headerFunctions } from './template-functions.ts';

/** One field of a listing. */
export interface Column<Row> {
  /** Docker's name for the field in `--format` templates and JSON, like `Names`. */
  readonly name: string;
  /** The title in the table, like `CONTAINER ID`. */
  readonly header: string;
  readonly value: (row: Row) => string;
  /** True for a field that the default table leaves out, while templates and JSON have it. */
  readonly hidden?: boolean;
}

// The numbers of Docker's tabwriter.NewWriter(output, 10, 1, 3, ' ', 0).
const NARROWEST = 10;
const GAP = 3;

/** Lines of cells as aligned text; every line ends in a newline, none in a space. */
function align(lines: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const cells of lines) {
    // The last cell of a line needs no room: nothing follows it.
    for (const [index, cell] of cells.slice(0, -1).entries()) {
      widths[index] = Math.max(widths[index] ?? NARROWEST, stringWidth(cell) + GAP);
    }
  }
  return lines
    .map((cells) =>
      cells.map((cell, index) => cell + ' '.repeat(Math.max(0, (widths[index] ?? 0) - stringWidth(cell)))),
    )
    .map((cells) => `${cells.join('').trimEnd()}\n`)
    .join('');
}

/**
 * Docker's table: a line of headers, then one line per row, columns left-aligned and three spaces apart, and none
 * narrower than ten. The text ends in a newline.
 */
export function renderTable<Row>(
  columns: readonly Pick<Column<Row>, 'header' | 'value'>[],
  rows: readonly Row[],
): string {
  return align([columns.map(({ header }) => header), ...rows.map((row) => columns.map(({ value }) => value(row)))]);
}

/** What a template sees as `.`: the columns by name, and the method `Label`. */
function templateData(
  names: readonly string[],
  valueOf: (name: string) => string,
  label: (key: string) => string,
): object {
  const data = {};
  // Getters, because a field may cost something to compute (a size), and most templates ask for a few only.
  for (const name of names) Object.defineProperty(data, name, { enumerable: true, get: () => valueOf(name) });
  return Object.defineProperty(data, 'Label', { value: label });
}

/** Without spaces at both ends; tabs and newlines there are part of the format. */
function trimSpaces(text: string): string {
  return text.replace(/^ +| +$/g, '');
}

/** The column title for `{{.Label "com.example.my-role"}}`: `my role`. */
function labelHeader(key: string): string {
  return (key.split('.').at(-1) ?? '').replaceAll(/[-_]/g, ' ');
}

/**
 * A listing in the form that `--format` asks for; every line ends in a newline.
 *
 * @param format undefined or `table`: the default table; `json`: an object per line; `table TEMPLATE`: a table of the
 *   template's fields; anything else: the template, once per row
 * @param labelsOf the labels of a row, for `{{.Label "key"}}`
 */
export function formatRows<Row>(
  format: string | undefined,
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  labelsOf: (row: Row) => Readonly<Record<string, string>> = () => ({}),
): string {
  const wanted = trimSpaces(format ?? '');
  if (wanted === '' || wanted === 'table') {
    return renderTable(
      columns.filter(({ hidden }) => hidden !== true),
      rows,
    );
  }
  // By name, as Docker sorts them in JSON.
  const byName = new Map(columns.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map((column) => [column.name, column]));
  const names = [...byName.keys()];
  const dataOf = (row: Row): object =>
    templateData(
      names,
      (name) => byName.get(name)?.value(row) ?? '',
      (key) => labelsOf(row)[key] ?? '',
    );

  if (wanted === 'json') return rows.map((row) => `${JSON.stringify(dataOf(row))}\n`).join('');
  const isTable = wanted.startsWith('table');
  const template = new Template(isTable ? trimSpaces(wanted.slice('table'.length)) : wanted);
  const lines = rows.map((row) => template.render(dataOf(row)));
  if (!isTable) return lines.map((line) => `${line}\n`).join('');
  const headers = templateData(names, (name) => byName.get(name)?.header ?? '', labelHeader);
  const text = [template.render(headers, headerFunctions), ...lines].join('\n');
  return align(text.split('\n').map((line) => line.split('\t')));
}
