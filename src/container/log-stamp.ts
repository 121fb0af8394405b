import { MinirunError } from '../errors.ts';
import { parseDuration } from './duration.ts';

/**
 * TAI64N: seconds of atomic time since 1970 plus 2^62, then nanoseconds, as 24 hexadecimal digits. What is later is
 * also greater as text, so stamps are compared as they stand.
 */
export type Stamp = string;

const epoch = 2n ** 62n;

/**
 * Atomic time is 37 seconds ahead of UTC since 2017, and skalibs, of which s6-log is made, counts leap seconds. None
 * has been added since, and the world has agreed to add no more.
 */
const leapSeconds = 37n;

/** Stamp of a moment in milliseconds since 1970; the part below a millisecond is kept. */
export function stampOf(milliseconds: number): Stamp {
  const nanoseconds = BigInt(Math.round(milliseconds * 1000)) * 1000n;
  const seconds = nanoseconds / 1_000_000_000n;
  const rest = nanoseconds % 1_000_000_000n;
  return (epoch + leapSeconds + seconds).toString(16).padStart(16, '0') + rest.toString(16).padStart(8, '0');
}

/** Nanoseconds since 1970. */
export function nanosecondsOf(stamp: Stamp): bigint {
  const seconds = BigInt(`0x${stamp.slice(0, 16)}`) - epoch - leapSeconds;
  return seconds * 1_000_000_000n + BigInt(Number.parseInt(stamp.slice(16), 16));
}

/** The stamp in RFC 3339 with nine digits, as docker prints it: `2026-01-02T15:04:05.123456789Z`. */
export function formatStamp(stamp: Stamp): string {
  const seconds = BigInt(`0x${stamp.slice(0, 16)}`) - epoch - leapSeconds;
  const nanoseconds = Number.parseInt(stamp.slice(16), 16);
  return `${new Date(Number(seconds) * 1000).toISOString().slice(0, 19)}.${String(nanoseconds).padStart(9, '0')}Z`;
}

/**
 * A moment as `--since` and `--until` take it: RFC 3339 (also only the date, also without a zone, which then is this
 * machine's), seconds since 1970, or a Go duration like `1h30m`, counted back from now.
 *
 * @throws MinirunError for anything else
 */
export function parseMoment(option: string, text: string, now: number): Stamp {
  const milliseconds = momentOf(text, now);
  if (milliseconds !== undefined && milliseconds >= 0) return stampOf(milliseconds);
  throw new MinirunError(
    `invalid ${option} "${text}"`,
    'it is no point in time',
    'Give a time like 2026-01-02T15:04:05Z, seconds since 1970, or a duration like 10m',
  );
}

function momentOf(text: string, now: number): number | undefined {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const duration = parseDuration(text);
  if (duration !== undefined) return now - duration;
  if (!/^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?$/.test(text)) return undefined;
  // A date alone would be UTC to JavaScript, and local time to docker.
  const parsed = Date.parse(text.includes('T') ? text : `${text}T00:00:00`);
  return Number.isNaN(parsed) ? undefined : parsed;
}
