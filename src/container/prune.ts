import { MinirunError } from '../errors.ts';
import { bytesBelow } from '../host/disk-usage.ts';
import { removeContainer } from './remove.ts';
import { isAtRest } from './status.ts';
import { containerFiles, listContainers } from './store.ts';
import { volumeUsage } from './usage.ts';
import { removeVolume } from './volumes.ts';

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

/** Removes the volumes that no container has. */
export async function* pruneVolumes(): AsyncGenerator<Pruned> {
  for (const { name, links, size } of volumeUsage()) {
    if (links > 0) continue;
    try {
      removeVolume(name);
      yield { name, size };
    } catch (error) {
      if (!(error instanceof MinirunError)) throw error;
      yield error;
    }
  }
}
