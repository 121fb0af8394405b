import fs from 'node:fs';
import type { Readable } from 'node:stream';
import { MinirunError, messageOf } from '../errors.ts';
import { architecture } from './architecture.ts';
import { parseChanges } from './changes.ts';
import type { Image } from './image.ts';
import { unpackLayer } from './layer.ts';
import { parseReference } from './reference.ts';
import { Staging } from './staging.ts';
import { sweepImages } from './collect.ts';
import { storeImage } from './store.ts';
import type { OciImageConfig } from './manifest.ts';

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
  const staging = new Staging();
  try {
    const directory = staging.newLayer();
    const { diffId, size, ended } = await unpackLayer(stream, directory);
    if (!ended)
      throw new MinirunError(
        `cannot import ${source}`,
        'it is cut off: the end mark of a tar archive is missing',
        'Make it anew',
      );
    const created = new Date().toISOString();
    const comment = message ?? `Imported from ${source}`;
    const imageConfig: OciImageConfig = {
      architecture: architecture(),
      os: 'linux',
      created,
      config,
      rootfs: { type: 'layers', diff_ids: [diffId] },
      history: [{ created, comment }],
    };
    return await storeImage({
      references: reference === undefined ? [] : [reference],
      config: JSON.stringify(imageConfig),
      layers: [{ diffId, size, directory }],
      staging,
    });
  } finally {
    staging.remove();
  }
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
