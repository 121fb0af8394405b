import fs from 'node:fs';
import path from 'node:path';
import { paths } from './paths.ts';

/** What an event is about: docker's types. */
export type EventType = 'container' | 'image' | 'network' | 'volume';

/** Something that has happened. */
export interface Event {
  type: EventType;
  /** Docker's word for it: `start`, `die`, `health_status: healthy`. */
  action: string;
  /** The whole id; the name of what has none (an image's name, a volume's). */
  id: string;
  /** Docker's: `name`, `image`, `exitCode`, labels. */
  attributes?: Readonly<Record<string, string>>;
}

/** An event as it stands in the file, one JSON object a line. */
export interface RecordedEvent extends Required<Event> {
  schema: 1;
  /** Nanoseconds since 1970, in decimal: too many for a number. */
  time: string;
}

/** How every line begins: after one that was cut short by a full disk, the next event follows on the same line. */
const lineBeginning = '{"schema":1,"time":';

/** Bytes after which a new file is begun; the one before is kept, and the one before that goes. */
const fileSize = 4_000_000;

/** The events, newest last; the older half of them. */
export const eventFiles = () => ({
  current: path.join(paths.events(), 'current'),
  previous: path.join(paths.events(), 'previous'),
});

const { O_WRONLY, O_CREAT, O_APPEND, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
/** No command waits for whoever might read a FIFO that somebody has put there. */
const appending = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK;

/** Writes an event down, for `minirun events`. Call it when the thing has happened. Never throws. */
export function recordEvent(event: Event): void {
  recordEvents([event]);
}

/**
 * Writes events down that belong together: all of them by one write, so that whoever is killed leaves all or none.
 *
 * A line more or less is no reason for a command to fail: a disk that is full loses events. Not durable either.
 */
export function recordEvents(events: readonly Event[]): void {
  if (events.length === 0) return;
  try {
    const time = `${Date.now()}000000`;
    const text = events
      .map(({ type, action, id, attributes = {} }) =>
        JSON.stringify({ schema: 1, time, type, action, id, attributes } satisfies RecordedEvent),
      )
      .join('\n');
    // O_APPEND and one write(2): of two processes that write at once, one comes after the other.
    const fd = fs.openSync(eventFiles().current, appending, 0o600);
    try {
      fs.writeSync(fd, `${text}\n`);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    // The disk is full, or the state directory has just been removed.
  }
}

/**
 * Begins a new file when the present one is full. Every command looks when it begins, which costs one stat(2).
 * Whoever writes or reads the old file goes on with it under its other name.
 */
export async function rotateEvents(): Promise<void> {
  if (!isFull()) return;
  const { withLock } = await import('./lock.ts');
  await withLock(() => {
    if (isFull()) fs.renameSync(eventFiles().current, eventFiles().previous);
  });
}

function isFull(): boolean {
  return (fs.statSync(eventFiles().current, { throwIfNoEntry: false })?.size ?? 0) > fileSize;
}

/**
 * The last of these that was recorded about something: how whoever goes on with the work of a killed process learns what
 * that has told already. Looks backwards from the end, and reads only lines in which the id stands.
 *
 * @param actions `start`, `die`
 * @param container only those of a network with this container
 */
export function lastRecorded(id: string, actions: readonly string[], container?: string): RecordedEvent | undefined {
  const { current, previous } = eventFiles();
  for (const file of [current, previous]) {
    let text: string;
    try {
      text = fs.readFileSync(file, 'utf8');
    } catch {
      continue;
    }
    const mark = `"id":${JSON.stringify(id)}`;
    for (let at = text.lastIndexOf(mark); at >= 0; at = at === 0 ? -1 : text.lastIndexOf(mark, at - 1)) {
      const end = text.indexOf('\n', at);
      const line = text.slice(text.lastIndexOf('\n', at) + 1, end < 0 ? undefined : end);
      const event = parseEvent(line);
      const isAbout = event?.id === id && (container === undefined || event.attributes.container === container);
      if (isAbout && actions.includes(event.action)) return event;
    }
  }
  return undefined;
}

/** Records an event unless the last of `actions` that was recorded about the same is this one. */
export function recordOnce(event: Event, actions: readonly string[]): void {
  if (lastRecorded(event.id, actions)?.action !== event.action) recordEvent(event);
}

/** The event on a line; undefined for a line that was cut short (a power cut), or of another minirun. */
export function parseEvent(line: string): RecordedEvent | undefined {
  const begin = line.lastIndexOf(lineBeginning);
  if (begin < 0) return undefined;
  try {
    const event = JSON.parse(line.slice(begin)) as Partial<RecordedEvent>;
    const isWhole =
      /^\d+$/.test(String(event.time)) &&
      [event.type, event.action, event.id].every((each) => typeof each === 'string') &&
      typeof event.attributes === 'object' &&
      event.attributes !== null;
    return isWhole ? (event as RecordedEvent) : undefined;
  } catch {
    return undefined;
  }
}
