/** The one thing of Bun that is used here, so that the library still loads in Node. */
interface HashingRuntime {
  Bun?: { CryptoHasher: new (algorithm: 'sha256') => { update(text: string): { digest(): Buffer } } };
}

/** The SHA-256 of a text, 32 bytes. Without node:crypto where that can be; see `randomBytes`. */
export function sha256(text: string): Buffer {
  const { Bun } = globalThis as HashingRuntime;
  if (Bun !== undefined) return new Bun.CryptoHasher('sha256').update(text).digest();
  return process.getBuiltinModule('node:crypto').createHash('sha256').update(text).digest();
}
