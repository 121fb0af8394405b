import { MinirunError } from '../errors.ts';
import type { Image, PullPolicy } from './image.ts';
import { parseReference, shortName } from './reference.ts';
import { findImage } from './store.ts';

/**
 * The image that a name, an id or the beginning of an id stands for; made or fetched when the policy allows it. An image
 * that is here costs two small files to read.
 *
 * @param notice takes a line about what is being done, for the user
 * @throws MinirunError when it cannot be had
 */
export async function resolveImage(name: string, pull: PullPolicy, notice: (line: string) => void): Promise<Image> {
  if (pull !== 'always') {
    const found = findImage(name);
    if (found !== undefined) return found;
  }
  const reference = parseReference(name);
  if (pull === 'never') {
    throw new MinirunError(
      `cannot find image "${shortName(reference)}"`,
      'it is not on this machine, and --pull=never forbids to get it',
      'Leave out --pull=never, or see minirun images for those that are here',
    );
  }
  const { obtainImage } = await import('./sources.ts');
  return obtainImage(reference, { standIns: pull !== 'always', notice });
}
