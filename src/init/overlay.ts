import { MS, mount } from './libc.ts';

/** Directories of an overlay, topmost first; without `upper` and `work` nothing can be changed. */
export interface Overlay {
  lower: readonly string[];
  upper?: string;
  work?: string;
}

/** Mounts an overlay on a directory. */
export function mountOverlay(target: string, { lower, upper, work }: Overlay, flags = 0): void {
  const options = [`lowerdir=${lower.map(escaped).join(':')}`];
  if (upper !== undefined && work !== undefined) options.push(`upperdir=${escaped(upper)}`, `workdir=${escaped(work)}`);
  mount('overlay', target, 'overlay', MS.NODEV | flags, options.join(','));
}

/** overlayfs ends a directory at a colon or a comma unless it is escaped. */
function escaped(directory: string): string {
  return directory.replace(/[\\:,]/g, (character) => `\\${character}`);
}
