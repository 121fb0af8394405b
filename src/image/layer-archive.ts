import { createHash, type Hash } from 'node:crypto';
import fs from 'node:fs';
import { isDiskFull, MinirunError } from '../errors.ts';
import { decompressed } from './compression.ts';
import { type Descriptor, mediaTypes } from './manifest.ts';

/** A layer's archive as the store keeps it. */
export interface LayerBlob {
  file: string;
  descriptor: Descriptor;
}

/** Writes a chunk to an open file. @throws MinirunError when the disk is full */
export function append(fd: number, chunk: Uint8Array): void {
  try {
    for (let written = 0; written < chunk.length; ) written += fs.writeSync(fd, chunk, written);
  } catch (error) {
    if (!isDiskFull(error)) throw error;
    throw new MinirunError(
      'cannot keep the archive',
      'no space left on the disk of the state directory',
      'Free some, for example by minirun image prune',
    );
  }
}

/** Passes chunks on and writes them to a new file. */
export async function* keeping(
  source: AsyncIterable<Uint8Array>,
  file: string,
  hash?: Hash,
): AsyncGenerator<Uint8Array> {
  const fd = fs.openSync(file, 'wx', 0o600);
  try {
    for await (const chunk of source) {
      hash?.update(chunk);
      append(fd, chunk);
      yield chunk;
    }
  } finally {
    fs.closeSync(fd);
  }
}

/** Writes a stream to a new file. @returns its SHA-256 digest and its bytes */
export async function writeHashed(
  source: AsyncIterable<Uint8Array>,
  file: string,
  signal?: AbortSignal,
): Promise<{ digest: string; size: number }> {
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of keeping(source, file, hash)) {
    signal?.throwIfAborted();
    size += chunk.length;
  }
  return { digest: `sha256:${hash.digest('hex')}`, size };
}

/**
 * A verified archive as a blob of the store: the file as it is, or, where no media type says how it is compressed (bzip2
 * and xz), what is in it.
 *
 * @param known its digest and size
 */
export async function blobOf(
  file: string,
  known: { digest: string; size: number },
  signal?: AbortSignal,
): Promise<LayerBlob> {
  const mediaType = typeByContent(file);
  if (mediaType !== undefined) return { file, descriptor: { mediaType, ...known } };
  const plain = `${file}.tar`;
  const found = await writeHashed(decompressed(fs.createReadStream(file, { highWaterMark: 1 << 20 })), plain, signal);
  return { file: plain, descriptor: { mediaType: mediaTypes.ociLayer, ...found } };
}

/** The media type of a layer that has come without one; undefined when there is none for how it is compressed. */
function typeByContent(file: string): string | undefined {
  const head = Buffer.alloc(6);
  const fd = fs.openSync(file, 'r');
  try {
    fs.readSync(fd, head);
  } finally {
    fs.closeSync(fd);
  }
  const magic = head.toString('latin1');
  if (magic.startsWith('\x1f\x8b')) return mediaTypes.ociLayerGzip;
  if (magic.startsWith('\x28\xb5\x2f\xfd')) return mediaTypes.ociLayerZstd;
  return magic.startsWith('BZh') || magic.startsWith('\xfd7zXZ') ? undefined : mediaTypes.ociLayer;
}
