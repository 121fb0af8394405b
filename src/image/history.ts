import { locate, noSuchImage, readConfig, readIndex } from './index-file.ts';
import type { HistoryEntry } from './manifest.ts';

/** One step in the making of an image. */
export interface HistoryRow {
  /** The image's, for its last step; the images in between are not kept. */
  id?: string;
  /** RFC 3339; undefined when the image does not say. */
  created?: string;
  createdBy: string;
  /** Bytes of all files of the layer; 0 when there is none. */
  size: number;
  comment: string;
}

/** How an image was made, the last step first. @throws MinirunError when it is not here */
export function imageHistory(name: string): HistoryRow[] {
  const index = readIndex();
  const id = locate(index, name)?.id;
  const config = id === undefined ? undefined : readConfig(id);
  if (id === undefined || config === undefined) throw noSuchImage(name, 'show the history of');
  const sizes = config.rootfs.diff_ids.map((diffId) => index.layers[diffId]?.size ?? 0);
  const history = config.history ?? [];
  const told = history.filter((entry) => entry.empty_layer !== true).length;
  // Some tools say nothing, or not of every layer.
  const untold = Array.from({ length: Math.max(0, sizes.length - told) }, (): HistoryEntry => ({}));
  let layer = 0;
  const rows = [...history, ...untold].map((entry): HistoryRow => {
    const { created, created_by: createdBy = '', comment = '' } = entry;
    return { created, createdBy, comment, size: entry.empty_layer === true ? 0 : (sizes[layer++] ?? 0) };
  });
  return rows.toReversed().map((row, position) => (position === 0 ? { ...row, id } : row));
}
