import { Readable, type Transform } from 'node:stream';
import zlib from 'node:zlib';
import { MinirunError, messageOf } from '../errors.ts';
import { filterThrough } from '../host/filter.ts';

/** How an archive may be compressed. `bzip2` and `xz` take a program of the host; layers never have them. */
export type CompressionName = 'gzip' | 'zstd' | 'bzip2' | 'xz' | 'none';

type Chunks = AsyncIterable<Uint8Array>;

interface Compression {
  name: CompressionName;
  /** How its data begins. */
  magic: number[];
  /** What it is when decompressed. Never a program or library of an image. */
  decompress(source: Chunks): AsyncIterable<Buffer>;
}

/** Large enough that the turns of the event loop do not count, small enough for the cache. */
const chunkSize = 1 << 18;

const compressions: Compression[] = [
  {
    name: 'gzip',
    magic: [0x1f, 0x8b],
    decompress: (source) => through(source, zlib.createGunzip({ chunkSize }), new GzipEnd()),
  },
  {
    name: 'zstd',
    magic: [0x28, 0xb5, 0x2f, 0xfd],
    decompress: (source) => through(source, zlib.createZstdDecompress({ chunkSize }), new ZstdFrames()),
  },
  { name: 'bzip2', magic: [0x42, 0x5a, 0x68], decompress: (source) => filtered('bzip2', source) },
  { name: 'xz', magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], decompress: (source) => filtered('xz', source) },
];

const longestMagic = Math.max(...compressions.map(({ magic }) => magic.length));

/**
 * What an archive holds, decompressed.
 *
 * @param as how it is compressed; by its first bytes when that is not said
 * @throws MinirunError while it is read, when it is damaged, cut off, or followed by something else
 */
export async function* decompressed(source: Chunks, as?: CompressionName): AsyncGenerator<Uint8Array> {
  const chunks = source[Symbol.asyncIterator]();
  let head: Uint8Array = Buffer.alloc(0);
  while (head.length < longestMagic) {
    const { done, value } = await chunks.next();
    if (done) break;
    head = head.length === 0 ? value : Buffer.concat([head, value]);
  }
  const whole = startingWith(head, chunks);
  const compression = compressions.find(({ name, magic }) =>
    as === undefined ? magic.every((byte, index) => head[index] === byte) : name === as,
  );
  if (compression === undefined) {
    yield* whole;
    return;
  }
  try {
    yield* compression.decompress(whole);
  } catch (error) {
    if (!(error instanceof CompressionError) && !isZlibError(error)) throw error;
    throw new MinirunError('cannot read the archive', `its ${compression.name} data is ${plainWords(error)}`);
  }
}

/** Whether an archive that begins so is not compressed. Too little of it to tell counts as if it were. */
export function isUncompressed(head: Uint8Array): boolean {
  if (head.length < longestMagic) return false;
  return !compressions.some(({ magic }) => magic.every((byte, index) => head[index] === byte));
}

/** The data is not what its format asks for. */
class CompressionError extends Error {}

function isZlibError(error: unknown): boolean {
  return /^(Z|ERR_ZLIB|ZSTD)_/.test(String((error as NodeJS.ErrnoException).code));
}

function plainWords(error: unknown): string {
  if (error instanceof CompressionError) return error.message;
  return (error as NodeJS.ErrnoException).code === 'Z_BUF_ERROR' ? 'cut off' : `damaged: ${messageOf(error)}`;
}

function filtered(tool: string, source: Chunks): AsyncIterable<Buffer> {
  return filterThrough(tool, ['-dc'], Readable.from(source, { objectMode: false, highWaterMark: 1 << 20 }));
}

/** What a decompressor does not check of its input. */
interface Check {
  take(chunk: Uint8Array): void;
  /** @param consumed bytes that the decompressor has taken @throws CompressionError */
  end(consumed: number): void;
}

/** Not a pipeline: that ends with the decompressor's output, and what then follows in the input matters here. */
async function* through(
  source: Chunks,
  transform: Transform & { bytesWritten: number },
  check: Check,
): AsyncGenerator<Buffer> {
  let failed: Error | undefined;
  const feeding = feed(source, transform, check).catch((error: unknown) => {
    failed = error as Error;
    transform.destroy(failed);
  });
  try {
    yield* transform as AsyncIterable<Buffer>;
    await feeding;
    if (failed !== undefined) throw failed;
    check.end(transform.bytesWritten);
  } finally {
    transform.destroy();
  }
}

async function feed(source: Chunks, transform: Transform, check: Check): Promise<void> {
  for await (const chunk of source) {
    check.take(chunk);
    if (transform.destroyed) {
      // Its reader has had enough, or it has failed; but at its own end the rest is still to be checked.
      if (!transform.readableEnded) return;
    } else if (!transform.readableEnded && !transform.write(chunk)) await drained(transform);
  }
  if (!transform.destroyed) transform.end();
}

/** Resolves when a stream takes more, or never will. */
async function drained(stream: Transform): Promise<void> {
  return new Promise((resolve) => {
    const events = ['drain', 'close', 'error', 'end'];
    const done = () => {
      for (const event of events) stream.off(event, done);
      resolve();
    };
    for (const event of events) stream.on(event, done);
  });
}

/** zlib is content with anything after the last member. Only zeros may follow: tapes and some tools fill up with them. */
class GzipEnd implements Check {
  private length = 0;
  /** Offset behind the last byte that is not zero. */
  private meaningful = 0;

  take(chunk: Uint8Array): void {
    for (let index = chunk.length; index > 0; index--) {
      if (chunk[index - 1] === 0) continue;
      this.meaningful = this.length + index;
      break;
    }
    this.length += chunk.length;
  }

  end(consumed: number): void {
    if (this.meaningful > consumed) throw new CompressionError('followed by something that is no gzip data');
  }
}

/** Follows the frames and blocks of zstd data (RFC 8878): the decompressor takes any end for the end. */
class ZstdFrames implements Check {
  private state: 'magic' | 'descriptor' | 'block' | 'skippable' = 'magic';
  /** Bytes of the field that is being read. */
  private readonly field: number[] = [];
  /** Bytes to pass over before the next field. */
  private skip = 0;
  private hasChecksum = false;

  take(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.skip > 0) {
        const count = Math.min(this.skip, chunk.length - at);
        this.skip -= count;
        at += count;
        continue;
      }
      this.field.push(chunk[at++] as number);
      const needed = { magic: 4, descriptor: 1, block: 3, skippable: 4 }[this.state];
      if (this.field.length === needed) this.finishField();
    }
  }

  end(): void {
    if (this.state !== 'magic' || this.field.length > 0 || this.skip > 0) throw new CompressionError('cut off');
  }

  private finishField(): void {
    const value = this.field.reduce((sum, byte, index) => sum + byte * 2 ** (8 * index), 0);
    this.field.length = 0;
    switch (this.state) {
      case 'magic':
        if (value === 0xfd2fb528) this.state = 'descriptor';
        else if (value >= 0x184d2a50 && value <= 0x184d2a5f) this.state = 'skippable';
        else throw new CompressionError('followed by something that is no zstd data');
        break;
      case 'skippable':
        this.skip = value;
        this.state = 'magic';
        break;
      case 'descriptor': {
        const isSingle = (value & 0x20) !== 0;
        const sizes = [isSingle ? 1 : 0, 2, 4, 8];
        this.hasChecksum = (value & 4) !== 0;
        this.skip = (isSingle ? 0 : 1) + ([0, 1, 2, 4][value & 3] as number) + (sizes[value >> 6] as number);
        this.state = 'block';
        break;
      }
      case 'block':
        // One byte that is repeated, or as many as it says.
        this.skip = ((value >> 1) & 3) === 1 ? 1 : value >> 3;
        if ((value & 1) === 0) break;
        if (this.hasChecksum) this.skip += 4;
        this.state = 'magic';
    }
  }
}

async function* startingWith(head: Uint8Array, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    if (head.length > 0) yield head;
    for (;;) {
      const { done, value } = await rest.next();
      if (done) return;
      yield value;
    }
  } finally {
    // Not awaited: a source that has nothing to give must not hold up who wants nothing more of it.
    void Promise.resolve(rest.return?.()).catch(() => {});
  }
}
