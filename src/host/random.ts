/** The most that Web Crypto gives at once. */
const mostAtOnce = 65_536;

/**
 * Random bytes, fit for secrets. By way of Web Crypto, which is there without being loaded: node:crypto brings all of
 * node:stream with it, two of a start's milliseconds.
 */
export function randomBytes(size: number): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  for (let at = 0; at < size; at += mostAtOnce) crypto.getRandomValues(bytes.subarray(at, at + mostAtOnce));
  return bytes;
}

/** As many random bytes in hexadecimal, two digits each. */
export function randomHex(size: number): string {
  return randomBytes(size).toString('hex');
}
