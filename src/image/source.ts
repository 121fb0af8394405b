import { MinirunError } from '../errors.ts';
import type { Image } from './image.ts';
import type { Reference } from './reference.ts';

/** A place where an image may be had from. */
export interface Source {
  /** True for one that gives something else than what the name promises: left out under `--pull=always`. */
  readonly isStandIn: boolean;
  /**
   * Gets the image, stores it under the name and returns it.
   *
   * @param failed what the sources before this one said
   * @throws SourceUnavailable when the next source may be asked; any other error is final
   */
  obtain(reference: Reference, notice: (line: string) => void, failed: readonly SourceUnavailable[]): Promise<Image>;
}

/** A source cannot be reached or does not have the image. Damage (a wrong checksum) is not this: nothing replaces it. */
export class SourceUnavailable extends MinirunError {}
