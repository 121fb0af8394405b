import { bytesBelow } from '../host/disk-usage.ts';
import { shownStatus } from './status.ts';
import { type Container, containerFiles, listContainers } from './store.ts';
import { listVolumes, volumeData } from './volume-store.ts';

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
  /** Nobody gave it a name. */
  anonymous: boolean;
  labels: Readonly<Record<string, string>>;
  /** Containers that have it. */
  links: number;
  /** Bytes; 0 for a directory that is not minirun's. */
  size: number;
}

/** What every volume takes of the disk, by name. */
export function volumeUsage(): VolumeUsage[] {
  return listVolumes().map(({ name, anonymous, labels, containers }) => ({
    name,
    anonymous,
    labels,
    links: containers.length,
    size: bytesBelow(volumeData(name)),
  }));
}
