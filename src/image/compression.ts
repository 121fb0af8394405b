import { pipeline, Readable } from 'node:stream';
import zlib from 'node:zlib';
import { MinirunError, messageOf } from '../errors.ts';
import { filterThrough } from '../host/filter.ts';

interface Compression {
  name: string;
  /** How its data begins. */
  magic: number[];
  /** The stream of what is compressed. Never a program or library of an image. */
  decompress(source: Readable): Readable;
}

const through = (source: Readable, transform: NodeJS.ReadWriteStream): Readable =>
  // The error of any part destroys the last one, and its reader sees it.
  pipeline(source, transform, () => {}) as unknown as Readable;

const compressions: Compression[] = [
  {
    name: 'gzip',
    magic: [0x1f, 0x8b],
    decompress: (source) => through(source, zlib.createGunzip({ chunkSize: 1 << 18 })),
  },
  {
    name: 'zstd',
    magic: [0x28, 0xb5, 0x2f, 0xfd],
    decompress: (source) => through(source, zlib.createZstdDecompress({ chunkSize: 1 << 18 })),
  },
  { name: 'bzip2', magic: [0x42, 0x5a, 0x68], decompress: (source) => filterThrough('bzip2', ['-dc'], source) },
  {
    name: 'xz',
    magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
    decompress: (source) => filterThrough('xz', ['-dc'], source),
  },
];

const longestMagic = Math.max(...compressions.map(({ magic }) => magic.length));

/** What a stream holds, decompressed when it begins like compressed data. @throws MinirunError, also while it is read */
export async function* decompressed(source: Readable): AsyncGenerator<Buffer> {
  const chunks = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let head = Buffer.alloc(0);
  while (head.length < longestMagic) {
    const { done, value } = await chunks.next();
    if (done) break;
    head = Buffer.concat([head, value]);
  }
  const whole = Readable.from(startingWith(head, chunks), { objectMode: false, highWaterMark: 1 << 20 });
  const compression = compressions.find(({ magic }) => magic.every((byte, index) => head[index] === byte));
  if (compression === undefined) {
    yield* whole as AsyncIterable<Buffer>;
    return;
  }
  try {
    yield* compression.decompress(whole) as AsyncIterable<Buffer>;
  } catch (error) {
    if (error instanceof MinirunError) throw error;
    throw new MinirunError('cannot read the archive', `its ${compression.name} data is damaged: ${messageOf(error)}`);
  }
}

async function* startingWith(head: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  if (head.length > 0) yield head;
  for (;;) {
    const { done, value } = await rest.next();
    if (done) return;
    yield value;
  }
}
