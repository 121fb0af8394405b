import { createHash } from 'node:crypto';

// Digests are well-formed here: what comes from elsewhere is checked by `isDigest` of reference.ts before.

/** The algorithm of a digest: `sha256`. */
export const algorithmOf = (digest: string): string => digest.slice(0, digest.indexOf(':'));

/** The hexadecimal digits of a digest. */
export const hexOf = (digest: string): string => digest.slice(digest.indexOf(':') + 1);

/** The first 12 hexadecimal digits, by which docker shows images and layers. */
export const shortDigest = (digest: string): string => hexOf(digest).slice(0, 12);

/** The digest of content. */
export function digestOf(content: string | Uint8Array, algorithm = 'sha256'): string {
  return `${algorithm}:${createHash(algorithm).update(content).digest('hex')}`;
}
