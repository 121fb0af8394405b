import stringWidth from 'string-width';
import type { LayerEvent, LayerPhase, Report } from '../../image/progress.ts';
import { printable } from './printable.ts';
import { humanSize } from './units.ts';

/** Where progress is shown: standard error, or a stand-in of a test's. */
export interface ProgressStream extends NodeJS.WritableStream {
  isTTY?: boolean;
  /** Of a terminal; absent or 0 where it does not know its size. */
  columns?: number;
  rows?: number;
}

/** Milliseconds between two redraws of the bars. */
const interval = 100;

/** Without a terminal these phases get a line; the others come and go. */
const told: ReadonlySet<LayerPhase> = new Set<LayerPhase>([
  'Pulling fs layer',
  'Already exists',
  'Retrying',
  'Pull complete',
  'Preparing',
  'Pushed',
  'Mounted',
  'Skipped',
]);

const finished: ReadonlySet<LayerPhase> = new Set<LayerPhase>([
  'Already exists',
  'Pull complete',
  'Pushed',
  'Mounted',
  'Skipped',
]);

/** Phases in which nothing happens yet. */
const idle: ReadonlySet<LayerPhase> = new Set<LayerPhase>(['Pulling fs layer', 'Waiting', 'Preparing']);

/** Phases of which it makes sense to say how far they are. */
const measured: ReadonlySet<LayerPhase> = new Set<LayerPhase>(['Downloading', 'Extracting', 'Pushing']);

/**
 * Shows what work on images reports: on a terminal a line with a bar for each layer, elsewhere a line for each thing
 * that happens, and nothing at all when `quiet`.
 *
 * @returns the report to hand on; `close` it in any case, it leaves the lines as they stand
 */
export function reportTo(
  stream: ProgressStream = process.stderr,
  { quiet = false }: { quiet?: boolean } = {},
): Required<Report> & { close(): void } {
  if (quiet) return { notice: () => {}, layer: () => {}, close: () => {} };
  return stream.isTTY === true ? new Bars(stream) : new Lines(stream);
}

/** One line for each thing that happens. */
class Lines implements Report {
  private readonly last = new Map<string, LayerPhase>();

  constructor(private readonly stream: ProgressStream) {}

  notice(line: string): void {
    this.stream.write(`${printable(line)}\n`);
  }

  layer(id: string, event: LayerEvent): void {
    // A countdown is one thing, and so is a download.
    if (this.last.get(id) === event.phase) return;
    this.last.set(id, event.phase);
    if (told.has(event.phase)) this.stream.write(`${layerLine(id, event)}\n`);
  }

  close(): void {}
}

type Display = ReturnType<typeof import('log-update')['createLogUpdate']>;

/** A line for each layer, redrawn in place a few times a second. The cursor stays visible below them. */
class Bars implements Report {
  private readonly layers = new Map<string, LayerEvent>();
  private display: Display | undefined;
  private timer: NodeJS.Timeout | undefined;
  private closed = false;

  constructor(private readonly stream: ProgressStream) {
    stream.on('resize', this.schedule);
  }

  notice(line: string): void {
    // What is said when all is done comes after the bars, as it happened.
    if ([...this.layers.values()].every(({ phase }) => finished.has(phase))) this.leave();
    // Above the bars, which are drawn anew below it.
    if (this.display === undefined) this.stream.write(`${printable(line)}\n`);
    else {
      this.display.persist(printable(line));
      this.draw();
    }
  }

  layer(id: string, event: LayerEvent): void {
    this.layers.set(id, event);
    this.schedule();
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.timer);
    this.stream.off('resize', this.schedule);
    this.leave();
  }

  /** Leaves the lines as they stand, for good. */
  private leave(): void {
    if (this.layers.size === 0) return;
    const lines = [...this.layers].map(([id, event]) => fitted(layerLine(id, event), this.columns)).join('\n');
    if (this.display === undefined) this.stream.write(`${lines}\n`);
    else this.display.persist(lines);
    this.layers.clear();
    this.display = undefined;
  }

  private readonly schedule = (): void => {
    if (this.timer !== undefined || this.closed || this.layers.size === 0) return;
    this.timer = setTimeout(() => void this.redraw(), interval);
    // The work keeps the process alive, and not its picture.
    this.timer.unref();
  };

  private async redraw(): Promise<void> {
    if (this.display === undefined) {
      // What is done before the first picture needs no library for it.
      const { createLogUpdate } = await import('log-update');
      this.display = createLogUpdate(this.stream, { showCursor: true });
    }
    this.timer = undefined;
    if (!this.closed) this.draw();
  }

  private draw(): void {
    const lines = linesThatFit(this.layers, { columns: this.columns, rows: this.stream.rows || 24 });
    if (lines.length > 0) this.display?.(lines.join('\n'));
  }

  private get columns(): number {
    return this.stream.columns || 80;
  }
}

/**
 * The lines of as many layers as a terminal has room for, above an empty last row for the cursor. Where some must be
 * left out, it is those that are done or wait, and the last line says how many.
 */
export function linesThatFit(
  layers: ReadonlyMap<string, LayerEvent>,
  { columns, rows }: { columns: number; rows: number },
): string[] {
  const all = [...layers];
  const room = Math.max(1, rows - 1);
  if (all.length <= room) return all.map(([id, event]) => withBar(id, event, columns));
  const rank = ({ phase }: LayerEvent) => (finished.has(phase) ? 2 : idle.has(phase) ? 1 : 0);
  const shown = new Set(all.toSorted(([, a], [, b]) => rank(a) - rank(b)).slice(0, room - 1));
  const hidden = all.filter((layer) => !shown.has(layer));
  const done = hidden.filter(([, { phase }]) => finished.has(phase)).length;
  return [
    ...all.filter((layer) => shown.has(layer)).map(([id, event]) => withBar(id, event, columns)),
    fitted(`(${hidden.length} more: ${done} done, ${hidden.length - done} to do)`, columns),
  ];
}

/** `3c8d1b2a4f5e: Retrying in 3 seconds` */
function layerLine(id: string, { phase, detail }: LayerEvent): string {
  return printable(`${id}: ${phase}${detail === undefined || detail === '' ? '' : ` ${detail}`}`);
}

/** Docker's line, `3c8d1b2a4f5e: Downloading [=====>   ]  12.3MB/45.6MB`, with as much of a bar as there is room for. */
function withBar(id: string, event: LayerEvent, columns: number): string {
  const line = layerLine(id, event);
  const { phase, current = 0, total = 0 } = event;
  if (!measured.has(phase) || (current <= 0 && total <= 0)) return fitted(line, columns);
  // More than all of it: the total that was announced is wrong.
  const isKnown = total > 0 && current <= total;
  const numbers = `${humanSize(current).padStart(8)}${isKnown ? `/${humanSize(total)}` : ''}`;
  const length = Math.min(50, columns - stringWidth(line) - numbers.length - ' [>] '.length);
  if (!isKnown || length < 10) return fitted(`${line} ${numbers.trim()}`, columns);
  const full = Math.floor((current / total) * length);
  return `${line} [${'='.repeat(full)}>${' '.repeat(length - full)}] ${numbers}`;
}

/** The beginning of a line that a terminal shows in one row. */
function fitted(line: string, columns: number): string {
  if (stringWidth(line) <= columns) return line;
  let text = '';
  for (const character of line) {
    if (stringWidth(text + character) > columns - 1) break;
    text += character;
  }
  return `${text}…`;
}
