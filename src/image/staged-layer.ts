import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { algorithmOf } from './digest.ts';
import { unpackLayer } from './layer.ts';
import { append } from './layer-archive.ts';
import type { Descriptor } from './manifest.ts';
import type { Staging } from './staging.ts';
import type { StagedLayer } from './store.ts';

/** The archive of a layer, and what is promised of it. */
export interface LayerArchive {
  source: AsyncIterable<Uint8Array>;
  mediaType: string;
  expected: { digest: string; size: number };
  diffId: string;
}

/** What it has come to is not what was promised: nobody may use it, and asking elsewhere may help. */
export class Damaged extends MinirunError {}

/** What was promised has come, and cannot be taken: the disk is full, a limit reached. Any source would give the same. */
export class Unstorable extends MinirunError {}

/**
 * Unpacks a layer into a staging directory and keeps its archive there, in one pass: the size, the digest of the
 * archive and that of its uncompressed content (the diffID) are verified before anything is returned.
 *
 * @param name of its own in the staging directory
 * @param onBytes called with the bytes of the archive that have come so far
 * @throws Damaged when a promise is not kept; MinirunError when it cannot be unpacked
 */
export async function stageLayer(
  { source, mediaType, expected, diffId }: LayerArchive,
  staging: Staging,
  name: string,
  { signal, onBytes }: { signal?: AbortSignal; onBytes?: (bytes: number) => void } = {},
): Promise<StagedLayer> {
  const file = staging.file(`${name}.blob`);
  const archive = new KeptArchive(file, source, expected, onBytes);
  try {
    const directory = staging.newLayer(name);
    const unpacked = await archive.whileIntact(() => unpackLayer(archive, directory, { signal }), signal);
    const digest = await archive.verified();
    if (unpacked.diffId !== diffId) {
      throw new Damaged(
        'the layer is not the one that the image config names',
        `its content has the digest ${unpacked.diffId} and not ${diffId}`,
        'Tell who made the image',
      );
    }
    const descriptor: Descriptor = { mediaType, digest, size: archive.length };
    return { diffId, size: unpacked.size, opaque: unpacked.opaque, directory, blob: { file, descriptor } };
  } finally {
    await archive.close();
  }
}

/** Passes an archive on and writes it to a file meanwhile, computing its digest. */
class KeptArchive implements AsyncIterable<Uint8Array> {
  length = 0;
  private readonly fd: number;
  private readonly chunks: AsyncIterator<Uint8Array>;
  private readonly algorithm: string;
  private readonly hash;
  private ended = false;
  /** What the source has thrown: it goes on no more, and is not merely cut off. */
  private failure: { reason: unknown } | undefined;
  private closed = false;

  constructor(
    file: string,
    source: AsyncIterable<Uint8Array>,
    private readonly expected: { digest: string; size: number },
    private readonly onBytes?: (bytes: number) => void,
  ) {
    this.algorithm = algorithmOf(expected.digest);
    this.hash = createHash(this.algorithm);
    this.chunks = source[Symbol.asyncIterator]();
    this.fd = fs.openSync(file, 'wx', 0o600);
  }

  /** Not a generator: whoever stops reading early must not end the source, which `whileIntact` may read to its end. */
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return { next: async () => this.next() };
  }

  private async next(): Promise<IteratorResult<Uint8Array>> {
    const { done, value } = await this.nextOfSource();
    // Whoever was still waiting for this when the work failed must not write to a descriptor that is another file's now.
    if (this.closed) return { done: true, value: undefined };
    if (done === true) {
      this.ended = true;
      return { done: true, value: undefined };
    }
    this.length += value.length;
    if (this.length > this.expected.size) {
      throw new Damaged(
        'the layer is longer than announced',
        `it should have ${this.expected.size} bytes`,
        'Try again',
      );
    }
    this.hash.update(value);
    append(this.fd, value);
    this.onBytes?.(this.length);
    return { done: false, value };
  }

  private async nextOfSource(): Promise<IteratorResult<Uint8Array>> {
    try {
      return await this.chunks.next();
    } catch (reason) {
      this.failure = { reason };
      throw reason;
    }
  }

  /** When the work fails, the digest tells whether the archive is to blame: then that is what is said. */
  async whileIntact<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (this.failure !== undefined) throw this.failure.reason;
      if (error instanceof Damaged || signal?.aborted) throw error;
      try {
        while (!this.ended) await this.next();
      } catch (second) {
        throw second instanceof Damaged || this.failure !== undefined ? second : error;
      }
      await this.verified();
      throw error;
    }
  }

  /** Reads what is left, and returns the digest. @throws Damaged when it is another one than promised, or the length is */
  async verified(): Promise<string> {
    while (!this.ended) await this.next();
    const digest = `${this.algorithm}:${this.hash.digest('hex')}`;
    if (this.length < this.expected.size) {
      throw new Damaged('the layer is cut off', `it has ${this.length} of ${this.expected.size} bytes`, 'Try again');
    }
    if (digest !== this.expected.digest) {
      throw new Damaged('the layer is damaged', `its digest is ${digest} and not ${this.expected.digest}`, 'Try again');
    }
    return digest;
  }

  async close(): Promise<void> {
    this.closed = true;
    fs.closeSync(this.fd);
    await this.chunks.return?.();
  }
}
