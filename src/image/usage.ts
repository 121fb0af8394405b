import { type Index, namesOf, findConfig, readIndex } from './index-file.ts';
import { familiarRepository, parseReference } from './reference.ts';

/** What one image takes of the disk, in bytes of files. */
export interface ImageUsage {
  id: string;
  /** `alpine`, `latest`; undefined for an image without a tag. */
  repository?: string;
  tag?: string;
  /** RFC 3339. */
  created: string;
  size: number;
  /** Of layers that other images have too. */
  shared: number;
  /** What would be freed if only this image went. */
  unique: number;
}

/** A compressed archive that is kept, so that its layer can be pushed and saved as it came. */
export interface ArchiveUsage {
  digest: string;
  diffId: string;
  mediaType: string;
  size: number;
}

/** Totals of one kind. Layers and archives that several images have count once. */
export interface Total {
  count: number;
  /** Those that a container uses. */
  active: number;
  size: number;
  /** What `image prune -a` would free. */
  reclaimable: number;
}

/** What the image store takes of the disk. */
export interface StoreUsage {
  images: ImageUsage[];
  archives: ArchiveUsage[];
  total: { images: Total; archives: Total };
}

/** @param isUsed whether a container uses the image with an id */
export function storeUsage(isUsed: (id: string) => boolean): StoreUsage {
  const index = readIndex();
  const ids = Object.keys(index.images);
  const layersOf = new Map(ids.map((id) => [id, [...new Set(findConfig(id)?.rootfs.diff_ids ?? [])]]));
  const owners = new Map<string, number>();
  for (const diffIds of layersOf.values())
    for (const diffId of diffIds) owners.set(diffId, (owners.get(diffId) ?? 0) + 1);
  const active = ids.filter(isUsed);
  const kept = new Set(active.flatMap((id) => layersOf.get(id) ?? []));
  const layers = Object.entries(index.layers);
  const free = layers.filter(([diffId]) => !kept.has(diffId));
  const archives = layers.flatMap(([diffId, { blob }]): ArchiveUsage[] =>
    blob === undefined ? [] : [{ digest: blob.digest, diffId, mediaType: blob.mediaType, size: blob.size }],
  );
  const freeArchives = archives.filter(({ diffId }) => !kept.has(diffId));
  return {
    images: ids
      .map((id) => usageOf(index, id, layersOf.get(id) ?? [], owners))
      .toSorted((a, b) => (a.created < b.created ? 1 : a.created > b.created ? -1 : 0)),
    archives: archives.toSorted((a, b) => b.size - a.size),
    total: {
      images: {
        count: ids.length,
        active: active.length,
        size: sum(layers.map(([, { size }]) => size)),
        reclaimable: sum(free.map(([, { size }]) => size)),
      },
      archives: {
        count: archives.length,
        active: archives.length - freeArchives.length,
        size: sum(archives.map(({ size }) => size)),
        reclaimable: sum(freeArchives.map(({ size }) => size)),
      },
    },
  };
}

function usageOf(
  index: Index,
  id: string,
  diffIds: readonly string[],
  owners: ReadonlyMap<string, number>,
): ImageUsage {
  const sizeOf = (each: readonly string[]) => sum(each.map((diffId) => index.layers[diffId]?.size ?? 0));
  const unique = sizeOf(diffIds.filter((diffId) => owners.get(diffId) === 1));
  const size = sizeOf(diffIds);
  const reference = namesOf(index, id)
    .map(parseReference)
    .find(({ tag }) => tag !== undefined);
  return {
    id,
    ...(reference === undefined ? {} : { repository: familiarRepository(reference), tag: reference.tag }),
    created: findConfig(id)?.created ?? index.images[id]?.stored ?? '',
    size,
    shared: size - unique,
    unique,
  };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);
