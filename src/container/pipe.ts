import fs from 'node:fs';

/** The one thing of Bun that is used here, so that the library still loads in Node. */
interface PollingRuntime {
  Bun?: {
    file(fd: number): { stream(): AsyncIterable<Uint8Array> };
    stdin: { stream(): ReadableStream<Uint8Array> };
  };
}

/**
 * Reads a pipe to its end, without blocking a thread. In Bun, `fs.createReadStream` waits for a pipe in one of its few
 * threads (two or three on two cores), so that with stdout, stderr and a status pipe one would wait for the others.
 */
export async function* readPipe(fd: number): AsyncGenerator<Buffer> {
  const { Bun } = globalThis as PollingRuntime;
  if (Bun === undefined) {
    for await (const chunk of fs.createReadStream('', { fd })) yield chunk as Buffer;
    return;
  }
  try {
    for await (const chunk of Bun.file(fd).stream())
      yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  } finally {
    fs.closeSync(fd);
  }
}

/** This process's standard input, whatever it is, for one reader. */
export interface Input {
  /** The next bytes; undefined at the end, and after `stop`. */
  read(): Promise<Uint8Array | undefined>;
  stop(): void;
}

/**
 * Reads standard input. In Bun not by way of `process.stdin`: when that is paused because its reader is slow, it now and
 * then forgets to tell the end (Bun 1.4.5: one of twenty `cat file | minirun run -i … cat`).
 */
export function readInput(): Input {
  const { Bun } = globalThis as PollingRuntime;
  if (Bun === undefined) {
    const iterator = process.stdin[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    return {
      read: async () => ((await iterator.next()) as IteratorResult<Buffer, undefined>).value,
      stop: () => void process.stdin.destroy(),
    };
  }
  const reader = Bun.stdin.stream().getReader();
  return {
    read: async () => (await reader.read()).value,
    stop: () => void reader.cancel().catch(() => {}),
  };
}
