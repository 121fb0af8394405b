import { styleText } from 'node:util';
import stringWidth from 'string-width';

/** What `util.styleText` takes; undefined for plain text. */
export type Style = Exclude<Parameters<typeof styleText>[0], readonly unknown[]> | undefined;

interface Cell {
  text: string;
  style: Style;
}

/** What stands for the lines of Unicode where there is ASCII only. */
const plainLines: Record<string, string> = {
  '─': '-',
  '═': '=',
  '╌': '-',
  '│': '|',
  '║': '|',
  '┆': ':',
  '┄': '.',
};

/** A drawing of characters that grows to the right and downwards. The column and row of its corner are 0. */
export class Canvas {
  private readonly rows: (Cell | undefined)[][] = [];

  /** Writes text from a place to the right, over what is there. */
  write(x: number, y: number, text: string, style?: Style): void {
    while (this.rows.length <= y) this.rows.push([]);
    const row = this.rows[y] as (Cell | undefined)[];
    let column = x;
    for (const character of text) {
      const width = stringWidth(character);
      if (width === 0) continue;
      row[column] = { text: character, style };
      // The second half of a wide character has no cell of its own.
      if (width === 2) row[column + 1] = { text: '', style };
      column += width;
    }
  }

  /** A line from one column to another, both included. */
  horizontal(from: number, to: number, y: number, character: string, style?: Style): void {
    if (to >= from) this.write(from, y, character.repeat(to - from + 1), style);
  }

  /** A line from one row to another, both included. */
  vertical(x: number, from: number, to: number, character: string, style?: Style): void {
    for (let y = from; y <= to; y++) this.write(x, y, character, style);
  }

  /** The drawing as lines, none of which ends in a space. */
  render({ color, ascii }: { color: boolean; ascii: boolean }): string {
    return this.rows.map((row) => `${renderRow(row, color, ascii)}\n`).join('');
  }
}

function renderRow(row: readonly (Cell | undefined)[], color: boolean, ascii: boolean): string {
  const runs: Cell[] = [];
  // Array.from also visits the holes.
  for (const cell of Array.from(row, (each) => each ?? { text: ' ', style: undefined })) {
    const text = ascii ? cell.text.replace(/[^ -~]/u, asciiFor) : cell.text;
    const last = runs.at(-1);
    if (last !== undefined && last.style === cell.style) last.text += text;
    else runs.push({ text, style: cell.style });
  }
  const last = runs.at(-1);
  if (last !== undefined && last.style === undefined) last.text = last.text.trimEnd();
  return runs
    .map(({ text, style }) => (color && style !== undefined ? styleText(style, text, { validateStream: false }) : text))
    .join('')
    .trimEnd();
}

function asciiFor(character: string): string {
  const isLine = /[\u2500-\u257f]/.test(character);
  return plainLines[character] ?? (isLine ? '+' : '?');
}
