import fs from 'node:fs';
import { packLayer } from '../image/pack.ts';
import { containerFiles, isRunning, readOwners, requireContainer } from './store.ts';

/**
 * The whole file system of a container as a tar archive, with extended attributes. As docker's it has nothing of
 * volumes and of what the kernel shows below /proc, /sys and /dev, only the directories.
 *
 * A container that runs goes on: what it changes meanwhile may be in the archive or not.
 *
 * @throws MinirunError when there is no such container, or while it is read
 */
export function exportContainer(reference: string): AsyncGenerator<Buffer> {
  const container = requireContainer(reference);
  const { id, rootfs, userns } = container.definition;
  const { status, init } = container.state;
  if (status === 'running' && init !== undefined && isRunning(container.state))
    return packLayer('/', { process: { ...init, inUserNamespace: userns !== undefined } });
  if (rootfs !== undefined) return packLayer(rootfs);
  const files = containerFiles(id);
  // One that was never started has no folders yet.
  for (const folder of [files.upper, files.rootfs]) fs.mkdirSync(folder, { recursive: true, mode: 0o755 });
  return packLayer(files.rootfs, {
    overlay: { lower: [files.upper, ...container.definition.layers] },
    owners: readOwners(id),
  });
}
