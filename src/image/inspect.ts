import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { readJson } from '../state/json.ts';
import { paths } from '../state/paths.ts';
import type { Image } from './image.ts';
import { findImage, listImages } from './store.ts';
import type { OciImageConfig } from './manifest.ts';

/** An image in docker's words and order, as `inspect` shows it; undefined when there is none of that name or id. */
export function describeImage(name: string): object | undefined {
  const image = findImageOrNothing(name);
  if (image === undefined) return undefined;
  const { id, config, layers } = image;
  const listings = listImages().filter((each) => each.id === id);
  const stored = readJson<OciImageConfig>(path.join(paths.images(), 'configs', `${id.slice('sha256:'.length)}.json`));
  const standIn = listings.find((each) => each.standIn !== undefined)?.standIn;
  return {
    Id: id,
    RepoTags: listings.flatMap(({ repository, tag }) =>
      repository === undefined || tag === undefined ? [] : [`${repository}:${tag}`],
    ),
    RepoDigests: listings.flatMap(({ repository, digest }) =>
      repository === undefined || digest === undefined ? [] : [`${repository}@${digest}`],
    ),
    Parent: '',
    Comment: stored?.history?.at(-1)?.comment ?? '',
    Created: stored?.created ?? listings[0]?.created ?? '',
    Author: '',
    ...(standIn === undefined ? {} : { StandIn: standIn }),
    Config: {
      User: config.User ?? '',
      ExposedPorts: config.ExposedPorts ?? null,
      Env: config.Env ?? null,
      Cmd: config.Cmd ?? null,
      Volumes: config.Volumes ?? null,
      WorkingDir: config.WorkingDir ?? '',
      Entrypoint: config.Entrypoint ?? null,
      Labels: config.Labels ?? null,
      StopSignal: config.StopSignal ?? '',
    },
    Architecture: stored?.architecture ?? '',
    Os: stored?.os ?? 'linux',
    Size: listings[0]?.size ?? 0,
    GraphDriver: { Name: 'overlay', Data: { LowerDir: layers.slice(1).join(':'), UpperDir: layers[0] ?? '' } },
    RootFS: { Type: 'layers', Layers: stored?.rootfs.diff_ids ?? [] },
    Metadata: { LastTagTime: '0001-01-01T00:00:00Z' },
  };
}

/** What cannot be an image's name is the name of none. */
function findImageOrNothing(name: string): Image | undefined {
  try {
    return findImage(name);
  } catch (error) {
    if (error instanceof MinirunError && !error.what.startsWith('ambiguous')) return undefined;
    throw error;
  }
}
