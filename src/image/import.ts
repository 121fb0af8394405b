import { createHash } from 'node:crypto';
import fs from 'node:fs';
import type { Readable } from 'node:stream';
import { MinirunError, messageOf } from '../errors.ts';
import { recordEvent } from '../state/events.ts';
import { buildImage } from './build.ts';
import { parseChanges } from './changes.ts';
import { isUncompressed } from './compression.ts';
import { imageEvent } from './events.ts';
import type { Image } from './image.ts';
import { unpackLayer } from './layer.ts';
import { blobOf, keeping } from './layer-archive.ts';
import { familiarName, parseReference } from './reference.ts';
import { sweepImages } from './collect.ts';

/**
 * Makes an image of one layer from an archive of a root filesystem: tar, plain or compressed.
 *
 * @param source a file, or `-` for standard input
 * @param name what to call it; without, the image has only its id
 * @param options.changes Dockerfile instructions for the image config, one each
 * @param options.message kept in the image's history
 */
export async function importTarball(
  source: string,
  name: string | undefined,
  { changes = [], message }: { changes?: readonly string[]; message?: string } = {},
): Promise<Image> {
  const reference = name === undefined ? undefined : parseReference(name);
  if (reference?.digest !== undefined) {
    throw new MinirunError(`cannot import as "${name}"`, 'a digest follows from the content', 'Give a name with a tag');
  }
  const config = parseChanges(changes);
  const stream = openArchive(source);
  await sweepImages();
  const image = await buildImage(
    { reference, config, created: new Date().toISOString(), comment: message ?? `Imported from ${source}` },
    async (directory, staging) => {
      const file = staging.file('archive.blob');
      const hash = createHash('sha256');
      let length = 0;
      let isPlain = false;
      const hashed = async function* (): AsyncGenerator<Uint8Array> {
        for await (const chunk of stream as AsyncIterable<Buffer>) {
          // The digest of what is not compressed is the diffID, which is computed anyway.
          if (length === 0) isPlain = isUncompressed(chunk);
          length += chunk.length;
          if (!isPlain) hash.update(chunk);
          yield chunk;
        }
      };
      const { ended, diffId, size } = await unpackLayer(keeping(hashed(), file), directory);
      if (!ended)
        throw new MinirunError(
          `cannot import ${source}`,
          'it is cut off: the end mark of a tar archive is missing',
          'Make it anew',
        );
      const digest = isPlain ? diffId : `sha256:${hash.digest('hex')}`;
      return { layer: { diffId, size, blob: await blobOf(file, { digest, size: length }) } };
    },
  );
  recordEvent(imageEvent('import', image.id, reference && familiarName(reference)));
  return image;
}

function openArchive(source: string): Readable {
  if (source === '-') {
    if (process.stdin.isTTY) {
      throw new MinirunError(
        'cannot import from standard input',
        'it is a terminal',
        'Name a file, or give the archive by < or |',
      );
    }
    return process.stdin;
  }
  let fd: number;
  try {
    fd = fs.openSync(source, 'r');
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : messageOf(error);
    throw new MinirunError(`cannot import ${source}`, why, 'Name a tar archive, or - for standard input');
  }
  if (fs.fstatSync(fd).isDirectory()) {
    fs.closeSync(fd);
    throw new MinirunError(
      `cannot import ${source}`,
      'it is a directory',
      `Run it as it is: minirun run --rootfs ${source}, or pack it: tar -C ${source} -c . | minirun import - NAME`,
    );
  }
  return fs.createReadStream(source, { fd, highWaterMark: 1 << 18 });
}
