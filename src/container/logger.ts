import { which } from '../host/launch.ts';

/**
 * Ends a stream in the log: written after the last byte, because s6-log drops a last line without a newline. Whoever
 * reads the log takes it off again and knows whether there was one.
 */
export const streamEnd = '\u0004minirun\u0004';

/** Size in bytes of one log file and the number of old ones that are kept, per stream: about 120 MB in all. */
const fileSize = 20_000_000;
const fileCount = 5;

/** The command that keeps a stream's log in `directory`: lines of any length, TAI64N timestamps, bounded in size. */
export function loggerArgv(directory: string): string[] | undefined {
  const program = which('s6-log');
  if (program === undefined) return undefined;
  return [program, '-b', '-l', '0', '--', `n${fileCount}`, `s${fileSize}`, 't', directory];
}
