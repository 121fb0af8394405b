/** As a shell tells of a program that SIGPIPE has ended. */
export const unreadCode = 128 + 13;

let isWatched = false;
let hasBeenUnread = false;

/**
 * Sees to it that a reader who goes away (`| head -1`) is no error: to be called before anything is printed. Making the stream takes a
 * millisecond, so `run` does without while it prints nothing itself.
 *
 * @param finishes whether the command then finishes what it is at; otherwise it ends
 */
export function watchStdout(finishes: boolean): void {
  if (isWatched) return;
  isWatched = true;
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    hasBeenUnread = true;
    if (error.code !== 'EPIPE' || !finishes) process.exit(unreadCode);
  });
}

/** Whether something was printed that nobody has read. */
export function isUnread(): boolean {
  return hasBeenUnread;
}
