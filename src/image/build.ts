import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { architecture } from './architecture.ts';
import type { Image, ImageConfig } from './image.ts';
import type { OciImageConfig } from './manifest.ts';
import { packLayer } from './pack.ts';
import type { Reference } from './reference.ts';
import { Staging } from './staging.ts';
import { type StagedLayer, storeImage } from './store.ts';

/** What is said of an image that is made on this machine. */
export interface Description {
  /** Without, the image has only its id. */
  reference?: Reference;
  config: ImageConfig;
  /** RFC 3339. Without it the same content gives the same id every time. */
  created?: string;
  /** For the image's history, as the image-spec has it. */
  createdBy?: string;
  comment?: string;
}

/** What whoever filled the directory knows about it. */
interface Filled {
  /** Of the archive that it was unpacked from; otherwise it follows from the content. */
  layer?: Omit<StagedLayer, 'directory'>;
  /** RFC 3339, when it is only known afterwards. */
  created?: string;
}

/**
 * Makes an image of one layer: `fill` puts a root filesystem into a directory, which is then taken into the store.
 *
 * Where `fill` names no archive, everything that it made anew gets one fixed time, so that the same content is the same
 * layer: the time of `created`, or 1970. What it copied with its time keeps that.
 *
 * @param fill takes an empty directory, and a staging directory for files that do not belong into the image
 */
export async function buildImage(
  { reference, config, created, createdBy, comment }: Description,
  fill: (directory: string, staging: Staging) => Promise<Filled | void> | Filled | void,
): Promise<Image> {
  const staging = new Staging();
  try {
    const directory = staging.newLayer();
    const begin = Date.now();
    const filled = (await fill(directory, staging)) ?? {};
    const time = filled.created ?? created;
    if (filled.layer === undefined) setTimes(directory, begin, new Date(time ?? 0));
    const layer = filled.layer ?? (await measure(directory));
    const imageConfig: OciImageConfig = {
      architecture: architecture(),
      os: 'linux',
      ...(time === undefined ? {} : { created: time }),
      config,
      rootfs: { type: 'layers', diff_ids: [layer.diffId] },
      history: [
        {
          ...(time === undefined ? {} : { created: time }),
          ...(createdBy === undefined ? {} : { created_by: createdBy }),
          ...(comment === undefined ? {} : { comment }),
        },
      ],
    };
    return await storeImage({
      references: reference === undefined ? [] : [reference],
      config: JSON.stringify(imageConfig),
      layers: [{ ...layer, directory }],
      staging,
    });
  } finally {
    staging.remove();
  }
}

/** The digest of a layer as an archive, and the bytes of all files in it. */
async function measure(directory: string): Promise<{ diffId: string; size: number }> {
  const hash = createHash('sha256');
  for await (const chunk of packLayer(directory)) hash.update(chunk);
  return { diffId: `sha256:${hash.digest('hex')}`, size: sizeOf(directory) };
}

/** Gives everything that is not older than `begin` a fixed time. */
function setTimes(file: string, begin: number, time: Date): void {
  const stat = fs.lstatSync(file);
  if (stat.isDirectory()) for (const entry of fs.readdirSync(file)) setTimes(path.join(file, entry), begin, time);
  // The file system's clock may be a tick behind.
  if (stat.mtimeMs >= begin - 1000) fs.lutimesSync(file, time, time);
}

function sizeOf(root: string): number {
  const seen = new Set<number>();
  const visit = (file: string): number => {
    const stat = fs.lstatSync(file);
    if (stat.isDirectory()) return fs.readdirSync(file).reduce((sum, entry) => sum + visit(path.join(file, entry)), 0);
    if (!stat.isFile() || seen.has(stat.ino)) return 0;
    seen.add(stat.ino);
    return stat.size;
  };
  return visit(root);
}
