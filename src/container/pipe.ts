import fs from 'node:fs';

/** The one thing of Bun that is used here, so that the library still loads in Node. */
interface PollingRuntime {
  Bun?: { file(fd: number): { stream(): AsyncIterable<Uint8Array> } };
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
