import { MinirunError } from '../errors.ts';
import type { Image } from './image.ts';
import type { Platform } from './manifest.ts';
import type { Report } from './progress.ts';
import type { Reference } from './reference.ts';

/** How an image is wanted. */
export interface Wanted {
  /** Default: this machine's. */
  platform?: Platform;
  /** The registry may speak plain HTTP or show a certificate of its own. */
  insecure?: boolean;
  report: Report;
}

/** A place where an image may be had from. */
export interface Source {
  /** True for one that gives something else than what the name promises: left out under `--pull=always`. */
  readonly isStandIn: boolean;
  /** True for one that has images of other platforms than this machine's, too. */
  readonly isRegistry?: boolean;
  /**
   * Gets the image, stores it under the name and returns it.
   *
   * @param failed what the sources before this one said
   * @throws SourceUnavailable when the next source may be asked; any other error is final
   */
  obtain(reference: Reference, wanted: Wanted, failed: readonly SourceUnavailable[]): Promise<Image>;
}

/** A source cannot be reached or does not have the image. Damage (a wrong checksum) is not this: nothing replaces it. */
export class SourceUnavailable extends MinirunError {}
