import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { Changes } from './changes.ts';
import { BackwardReader, type LogLine, LogReader, StreamLog } from './log-file.ts';
import { formatStamp, parseMoment, type Stamp, stampOf } from './log-stamp.ts';
import { reclaim } from './reconcile.ts';
import { isAtRest } from './status.ts';
import { containerFiles, isSettled, readState, requireContainer } from './store.ts';

/** What `logs` takes, as it was typed. */
export interface LogRequest {
  follow: boolean;
  timestamps: boolean;
  /** A number, or `all`. */
  tail: string;
  since?: string;
  until?: string;
}

/** Lines for one of the caller's streams. */
export interface LogPiece {
  stream: 'stdout' | 'stderr';
  bytes: Buffer;
}

interface Source {
  stream: LogPiece['stream'];
  log: StreamLog;
}

/** Milliseconds between two looks at a log of which nothing is heard. */
const patience = 500;

/** Milliseconds from the first word of something new to a look at it. */
const settling = 10;

/** Bytes after which a piece is full: a write for each line would take most of the time. */
const pieceSize = 65536;

/**
 * A container's log, both streams in the order of time. With `follow` it goes on until the container is at rest. Holds
 * a piece and a line of each stream in memory, however long the log is.
 */
export async function* readLog(reference: string, request: LogRequest): AsyncGenerator<LogPiece> {
  const now = Date.now();
  const since = request.since === undefined ? '' : parseMoment('--since', request.since, now);
  const until = request.until === undefined ? undefined : parseMoment('--until', request.until, now);
  const tail = parseTail(request.tail);
  const { definition } = requireContainer(reference);
  const { directory, log } = containerFiles(definition.id);
  const sources = sourcesOf(log);
  refuseWithoutStamps(definition.name, sources, request);

  const starts = startsOf(sources, tail);
  const readers = sources.map((source, index) => new LogReader(source.log, starts[index], since));
  const changes = request.follow ? new Changes(directory) : undefined;
  try {
    for (;;) {
      // Each as soon as it exists, and before the look: what comes after that is heard.
      for (const place of [log, ...sources.map((source) => source.log.place)]) changes?.watch(place);
      // The two loggers write one after the other what came at the same time: a moment puts that in order.
      if (request.follow) await new Promise((resolve) => setTimeout(resolve, settling));
      const ended = await hasEnded(definition.id);
      // The logger of a terminal is not waited for when the container ends: it gets a moment to write what it has.
      if (ended && request.follow && definition.tty) await new Promise((resolve) => setTimeout(resolve, 50));
      for (const reader of readers) {
        reader.refresh();
        if (ended) reader.finish();
      }
      yield* pieces(lines(sources, readers, since, until), request.timestamps);
      if (changes === undefined || ended || (until !== undefined && stampOf(Date.now()) > until)) return;
      await changes.next(patience);
    }
  } finally {
    changes?.end();
    for (const reader of readers) reader.close();
  }
}

/** What the readers have, in the order of time. */
function* lines(
  sources: readonly Source[],
  readers: readonly LogReader[],
  since: Stamp,
  until: Stamp | undefined,
): Generator<{ stream: LogPiece['stream']; line: LogLine }> {
  for (;;) {
    const index = earliest(readers);
    const reader = readers[index];
    const source = sources[index];
    const line = reader?.peek();
    if (reader === undefined || source === undefined || line === undefined) return;
    if (until !== undefined && line.stamp > until) return;
    reader.take();
    if (line.stamp >= since) yield { stream: source.stream, line };
  }
}

/** Puts neighbouring lines of a stream together. */
function* pieces(
  found: Iterable<{ stream: LogPiece['stream']; line: LogLine }>,
  timestamps: boolean,
): Generator<LogPiece> {
  let current: LogPiece['stream'] = 'stdout';
  let parts: Buffer[] = [];
  let size = 0;
  const filled = (): LogPiece => ({ stream: current, bytes: Buffer.concat(parts) });
  for (const { stream, line } of found) {
    if (size > 0 && (stream !== current || size >= pieceSize)) {
      yield filled();
      parts = [];
      size = 0;
    }
    current = stream;
    if (timestamps) parts.push(Buffer.from(`${formatStamp(line.stamp)} `));
    parts.push(line.text);
    size += line.text.length + 1;
  }
  if (size > 0) yield filled();
}

/** The plain file first: it is of a time when the machine had no logger, or all there is. */
function sourcesOf(directory: string): Source[] {
  return [
    { stream: 'stdout', log: new StreamLog(path.join(directory, 'plain'), false) },
    { stream: 'stdout', log: new StreamLog(path.join(directory, 'stdout'), true) },
    { stream: 'stderr', log: new StreamLog(path.join(directory, 'stderr'), true) },
  ];
}

function refuseWithoutStamps(name: string, sources: readonly Source[], { timestamps, since, until }: LogRequest): void {
  const option = timestamps
    ? '--timestamps'
    : since !== undefined
      ? '--since'
      : until !== undefined
        ? '--until'
        : undefined;
  if (option === undefined || !sources.some(({ log: { place, stamped } }) => !stamped && fs.existsSync(place))) return;
  throw new MinirunError(
    `cannot show the log of container "${name}" with ${option}`,
    'it was written as a plain file, without times, because this machine had no s6-log',
    'Install it (apt-get install s6): containers that are started from then on log times',
  );
}

function parseTail(text: string): number | undefined {
  // Docker takes a negative number for all, too.
  if (text === 'all' || /^-\d+$/.test(text)) return undefined;
  if (/^\d+$/.test(text)) return Number(text);
  throw new MinirunError(`invalid --tail "${text}"`, 'it is not a number', 'Give how many lines to show, or all');
}

/** Where each stream's reader begins, so that all together return the last so many lines. */
function startsOf(sources: readonly Source[], tail: number | undefined): ReturnType<BackwardReader['position']>[] {
  if (tail === undefined) return [];
  const readers = sources.map(({ log }) => new BackwardReader(log));
  try {
    for (let count = 0; count < tail; count++) {
      const latest = readers.reduce<{ reader: BackwardReader; stamp: Stamp } | undefined>((best, reader) => {
        const stamp = reader.peek();
        // Of two equal ones the later stream's goes, since forwards it comes last.
        return stamp !== undefined && (best === undefined || stamp >= best.stamp) ? { reader, stamp } : best;
      }, undefined);
      if (latest === undefined) break;
      latest.reader.take();
    }
    return readers.map((reader) => reader.position());
  } finally {
    for (const reader of readers) reader.close();
  }
}

/** Index of the reader whose next line is the earliest; of equal ones the first. */
function earliest(readers: readonly LogReader[]): number {
  let best = -1;
  let stamp = '';
  for (const [index, reader] of readers.entries()) {
    const line = reader.peek();
    if (line === undefined || (best >= 0 && line.stamp >= stamp)) continue;
    best = index;
    stamp = line.stamp;
  }
  return best;
}

/** Whether a container writes nothing any more; one whose minirun process was killed is brought to rest. */
async function hasEnded(id: string): Promise<boolean> {
  const state = readState(id);
  if (state === undefined || isAtRest(state)) return true;
  if (!isSettled(state)) await reclaim(id);
  return false;
}
