import { bytesBelow } from '../host/disk-usage.ts';
import { shownStatus } from './status.ts';
import { type Container, containerFiles, listContainers } from './store.ts';
import { listVolumes } from './volumes.ts';

/** What a container takes of the disk: the files it has written, not those of its image. */
export interface ContainerUsage {
  container: Container;
  /** Bytes. */
  size: number;
  isRunning: boolean;
}

/** What every container takes of the disk, the newest first. */
export function containerUsage(): ContainerUsage[] {
  return listContainers().map((container) => ({
    container,
    size: bytesBelow(containerFiles(container.definition.id).upper),
    isRunning: ['running', 'restarting'].includes(shownStatus(container.state)),
  }));
}

/** What a volume takes of the disk. */
export interface VolumeUsage {
  name: string;
  /** Containers that have it. */
  links: number;
  /** Bytes. */
  size: number;
}

/** What every volume takes of the disk, by name. */
export function volumeUsage(): VolumeUsage[] {
  return listVolumes()
    .map(({ name, directory, container }) => ({
      name,
      links: container === undefined ? 0 : 1,
      size: bytesBelow(directory),
    }))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
}
