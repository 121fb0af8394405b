import { MinirunError } from '../errors.ts';
import { readConfig, readIndex } from './index-file.ts';
import type { Image } from './image.ts';
import { findImage, listImages } from './store.ts';

/** An image in docker's words and order, as `inspect` shows it; undefined when there is none of that name or id. */
export function describeImage(name: string): object | undefined {
  const image = findImageOrNothing(name);
  if (image === undefined) return undefined;
  const { id, config, layers } = image;
  const listings = listImages().filter((each) => each.id === id);
  const stored = readConfig(id);
  const record = readIndex().images[id];
  const standIn = listings.find((each) => each.standIn !== undefined)?.standIn;
  const digests = listings.flatMap(({ repository, digest }) =>
    repository === undefined || digest === undefined ? [] : [`${repository}@${digest}`],
  );
  const comments = stored?.history?.flatMap(({ comment }) => comment ?? []) ?? [];
  return {
    Id: id,
    RepoTags: listings.flatMap(({ repository, tag }) =>
      repository === undefined || tag === undefined ? [] : [`${repository}:${tag}`],
    ),
    RepoDigests: [...new Set(digests)],
    Parent: '',
    Comment: comments.at(-1) ?? '',
    Created: stored?.created ?? '',
    Author: stored?.author ?? '',
    ...(standIn === undefined ? {} : { StandIn: standIn }),
    Config: {
      User: config.User ?? '',
      ...(config.ExposedPorts === undefined ? {} : { ExposedPorts: config.ExposedPorts }),
      Env: config.Env ?? null,
      Cmd: config.Cmd ?? null,
      ...(config.Healthcheck === undefined ? {} : { Healthcheck: config.Healthcheck }),
      Volumes: config.Volumes ?? null,
      WorkingDir: config.WorkingDir ?? '',
      Entrypoint: config.Entrypoint ?? null,
      OnBuild: config.OnBuild ?? null,
      Labels: config.Labels ?? null,
      ...(config.StopSignal === undefined ? {} : { StopSignal: config.StopSignal }),
      ...(config.Shell === undefined ? {} : { Shell: config.Shell }),
    },
    Architecture: stored?.architecture ?? '',
    ...(stored?.variant === undefined ? {} : { Variant: stored.variant }),
    Os: stored?.os ?? 'linux',
    Size: record?.size ?? 0,
    GraphDriver: { Name: 'overlay', Data: { LowerDir: layers.slice(1).join(':'), UpperDir: layers[0] ?? '' } },
    RootFS: { Type: 'layers', Layers: stored?.rootfs.diff_ids ?? [] },
    Metadata: { LastTagTime: '0001-01-01T00:00:00Z' },
    ...(record?.manifest === undefined ? {} : { Descriptor: record.manifest }),
  };
}

/** What cannot be an image's name is the name of none. */
function findImageOrNothing(name: string): Image | undefined {
  try {
    return findImage(name);
  } catch (error) {
    if (error instanceof MinirunError && error.what.startsWith('invalid image name')) return undefined;
    throw error;
  }
}
