import fs from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { eventFiles, parseEvent, type RecordedEvent } from '../state/events.ts';
import { paths } from '../state/paths.ts';
import { Changes } from './changes.ts';

/** Milliseconds between two looks when nothing is heard: what inotify misses is late, not lost. */
const patience = 2000;

/** Bytes that are read at once. */
const pieceSize = 1 << 16;

/** Which events are wanted, by their time in nanoseconds since 1970. */
export interface EventPeriod {
  /** From then on; from now on when absent. */
  since?: bigint;
  /** Up to then; without end when absent. */
  until?: bigint;
}

/**
 * What has happened, in the order in which it was written down, and what happens from now on until `until` or the signal.
 * Nothing is missed in between, also when a new file is begun. Holds one piece of a file in memory.
 */
export async function* readEvents(period: EventPeriod, signal: AbortSignal): AsyncGenerator<RecordedEvent> {
  const { since, until } = period;
  const changes = new Changes(paths.events());
  const wake = () => changes.notice();
  signal.addEventListener('abort', wake);
  const reader = new EventReader(since === undefined);
  try {
    for (;;) {
      // Looked at before the files: an event of an earlier time is in them by then.
      const now = BigInt(Date.now()) * 1_000_000n;
      for (const event of reader.read()) {
        const time = BigInt(event.time);
        if ((since === undefined || time >= since) && (until === undefined || time <= until)) yield event;
        if (signal.aborted) return;
      }
      if (signal.aborted || (until !== undefined && now > until)) return;
      const left = until === undefined ? patience : Number((until - now) / 1_000_000n) + 1;
      await changes.next(Math.min(patience, left));
    }
  } finally {
    signal.removeEventListener('abort', wake);
    changes.end();
    reader.close();
  }
}

/** Reads both files on, over and over, and follows when the present one becomes the previous one. */
class EventReader {
  /** Oldest first. The one before the present is kept open: somebody may just be writing his last event into it. */
  private files: EventFile[] = [];

  /** @param atEnd whether what is there already is left out */
  constructor(private atEnd: boolean) {}

  *read(): Generator<RecordedEvent> {
    this.open();
    this.atEnd = false;
    for (const file of this.files) yield* file.read();
  }

  close(): void {
    for (const file of this.files) file.close();
  }

  /**
   * Finds the files by what they are, not by their names, which change while this looks: the present one first, so that
   * it is not missed when it becomes the previous one just then.
   */
  private open(): void {
    const { current, previous } = eventFiles();
    const found = [EventFile.open(current), EventFile.open(previous)].toReversed();
    for (const file of found) {
      if (file === undefined) continue;
      if (this.files.some((each) => each.is(file))) {
        file.close();
        continue;
      }
      if (this.atEnd) file.skip();
      this.files.push(file);
    }
    // More than two are not there: the oldest has been read to its end long since.
    while (this.files.length > 3) this.files.shift()?.close();
  }
}

class EventFile {
  private offset = 0;
  private rest = '';
  private readonly decoder = new StringDecoder('utf8');

  private constructor(
    private readonly fd: number,
    private readonly stat: fs.Stats,
  ) {}

  static open(name: string): EventFile | undefined {
    try {
      const fd = fs.openSync(name, 'r');
      const stat = fs.fstatSync(fd);
      if (stat.isFile()) return new EventFile(fd, stat);
      fs.closeSync(fd);
      return undefined;
    } catch {
      // There were no events yet, or only of one file.
      return undefined;
    }
  }

  is({ stat }: EventFile): boolean {
    return this.stat.ino === stat.ino && this.stat.dev === stat.dev;
  }

  skip(): void {
    this.offset = this.stat.size;
  }

  *read(): Generator<RecordedEvent> {
    const buffer = Buffer.allocUnsafe(pieceSize);
    for (;;) {
      const length = fs.readSync(this.fd, buffer, 0, buffer.length, this.offset);
      if (length === 0) return;
      this.offset += length;
      const lines = (this.rest + this.decoder.write(buffer.subarray(0, length))).split('\n');
      this.rest = lines.pop() ?? '';
      for (const line of lines) {
        const event = parseEvent(line);
        if (event !== undefined) yield event;
      }
    }
  }

  close(): void {
    fs.closeSync(this.fd);
  }
}
