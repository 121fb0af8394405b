import { MinirunError } from '../errors.ts';
import type { Image, PullPolicy } from './image.ts';
import { parseReference, shortName } from './reference.ts';
import type { Platform } from './manifest.ts';
import type { Report } from './progress.ts';
import type { Wanted } from './source.ts';
import { findImage } from './store.ts';

/** Opens what shows the progress: only when there is any, because showing it takes more code than finding an image. */
export type OpenReport = () => Promise<Report & { close?: () => void }>;

/**
 * The image that a name, an id or the beginning of an id stands for; made or fetched when the policy allows it. An image
 * that is here costs two small files to read.
 *
 * @throws MinirunError when it cannot be had
 */
export async function resolveImage(
  name: string,
  pull: PullPolicy,
  { openReport, ...wanted }: Omit<Wanted, 'report'> & { openReport: OpenReport },
): Promise<Image> {
  if (pull !== 'always') {
    const found = findImage(name);
    if (found !== undefined && (await isWanted(found, wanted))) return found;
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
  const report = await openReport();
  try {
    return await obtainImage(reference, { ...wanted, report, standIns: pull !== 'always' });
  } finally {
    report.close?.();
  }
}

/** Whether an image is for the platform that was asked for, if one was. */
async function isWanted(image: Image, { platform }: { platform?: Platform }): Promise<boolean> {
  if (platform === undefined) return true;
  const { isCompatible } = await import('./platform.ts');
  return isCompatible(image.platform, platform);
}
