import fs from 'node:fs';

/** As a shell tells of a program that SIGPIPE has ended. */
export const unreadCode = 128 + 13;

let finishing = false;
let hasBeenUnread = false;
let stream: typeof process.stdout | undefined;

/**
 * What happens when the reader goes away (`| head -1`), which is no error: to be said before anything is printed.
 *
 * @param finishes whether the command then finishes what it is at; otherwise it ends
 */
export function onUnread(finishes: boolean): void {
  finishing = finishes;
}

function unread({ code }: NodeJS.ErrnoException): void {
  hasBeenUnread = true;
  if (code !== 'EPIPE' || !finishing) process.exit(unreadCode);
}

/**
 * Standard output as a stream, for what is more than some text. To make it takes two milliseconds, as it brings all of
 * node:stream, so nobody else makes it. From then on `print` uses it too: everything comes in the order in which it was written.
 */
export function stdoutStream(): typeof process.stdout {
  if (stream === undefined) {
    stream = process.stdout;
    stream.on('error', unread);
  }
  return stream;
}

/** Prints a text, or bytes. */
export function print(text: string | Buffer): void {
  const rest = stream === undefined ? writeNow(Buffer.from(text)) : text;
  if (rest.length > 0) stdoutStream().write(rest);
}

/** @returns what of it has to wait: somebody may have made the pipe one that says so, and not wait itself */
function writeNow(bytes: Buffer): Buffer {
  let written = 0;
  try {
    while (written < bytes.length) written += fs.writeSync(1, bytes, written);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EAGAIN' && code !== 'EINTR') {
      unread(error as NodeJS.ErrnoException);
      return Buffer.alloc(0);
    }
  }
  return bytes.subarray(written);
}

/** Whether something was printed that nobody has read. */
export function isUnread(): boolean {
  return hasBeenUnread;
}
