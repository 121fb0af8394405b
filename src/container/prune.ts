import { MinirunError } from '../errors.ts';
import { bytesBelow } from '../host/disk-usage.ts';
import { removeContainer } from './remove.ts';
import { isAtRest } from './status.ts';
import { containerFiles, listContainers } from './store.ts';
import { type VolumeUsage, volumeUsage } from './usage.ts';
import { removeVolume } from './volume-store.ts';

/** Something that was removed and the bytes that went with it, or why it was not. */
type Pruned = { name: string; size: number } | MinirunError;

/** Removes the containers that do not run. Their volumes stay. */
export async function* pruneContainers(): AsyncGenerator<Pruned> {
  for (const { definition, state } of listContainers()) {
    if (!isAtRest(state)) continue;
    const size = bytesBelow(containerFiles(definition.id).upper);
    try {
      await removeContainer(definition.id, { force: false, volumes: false });
      yield { name: definition.id, size };
    } catch (error) {
      // Somebody has started or removed it just now.
      if (!(error instanceof MinirunError)) throw error;
      yield error;
    }
  }
}

/**
 * Removes the volumes that no container has, running or not.
 *
 * @param isWanted which of them: docker takes those without a name of their own
 */
export async function* pruneVolumes(
  isWanted: (volume: VolumeUsage) => boolean = ({ anonymous }) => anonymous,
): AsyncGenerator<Pruned> {
  for (const volume of volumeUsage()) {
    if (volume.links > 0 || !isWanted(volume)) continue;
    try {
      await removeVolume(volume.name);
      yield { name: volume.name, size: volume.size };
    } catch (error) {
      if (!(error instanceof MinirunError)) throw error;
      yield error;
    }
  }
}
