import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { type Child, launch, ownBinary } from '../host/launch.ts';
import { processRef, signalProcess } from '../host/process.ts';
import { readSettings } from '../state/settings.ts';
import { type CompressionName, decompressed } from './compression.ts';

/** What is known of a layer once it is unpacked. */
export interface UnpackedLayer {
  /** Digest of the uncompressed tar. */
  diffId: string;
  /** Bytes of all files. */
  size: number;
  entries: number;
  /** Whether the archive had its end mark. Some writers leave it out, so it says something only without a digest. */
  ended: boolean;
  /** Whether it hides all that lower layers have. */
  opaque: boolean;
}

export interface UnpackOptions {
  /** By its first bytes when that is not said. */
  compression?: CompressionName;
  /** Called with every chunk as it is taken from the source. */
  onCompressed?: (chunk: Uint8Array) => void;
  signal?: AbortSignal;
  /** Whether names that begin with `.wh.` hide what lower layers have; true unless said. */
  whiteouts?: boolean;
}

/** What the helper says: `Receiving`, `Unpacked` or `Failure` of container/protocol.ts, which images do not know. */
interface Answer {
  type: string;
  fd?: number;
  bytes?: number;
  entries?: number;
  ended?: boolean;
  opaque?: boolean;
  what?: string;
  why?: string;
  remedy?: string;
}

/**
 * More than any image has: a full desktop distribution has a million files. An ext4 disk of 160 GB has as many inodes,
 * and an archive of 10 million empty files is a few megabytes when compressed.
 */
const mostEntries = 10_000_000;

/**
 * Unpacks a layer, plain or compressed, into a directory.
 *
 * This process decompresses and computes the digest; minirun's own binary in its helper mode (`init/unpack.ts`) makes
 * the files, with the directory as its root, so that nothing in the archive can reach beyond it. The helper starts while
 * the first data is on its way.
 *
 * @throws MinirunError when the archive is damaged or refused; what the source throws; the reason of the signal. The
 *   helper has ended by then, and the directory may be removed
 */
export async function unpackLayer(
  source: AsyncIterable<Uint8Array>,
  directory: string,
  options: UnpackOptions = {},
): Promise<UnpackedLayer> {
  const { signal, whiteouts = true } = options;
  const { layerEntries = mostEntries, layerSize } = (await readSettings()).limits;
  signal?.throwIfAborted();
  const helper = launch(['unshare', '--mount', '--', ownBinary, 'init'], { MINIRUN_INIT: '1' });
  helper.send({ type: 'unpack', directory, whiteouts, limits: { bytes: layerSize, entries: layerEntries } });
  const running = processRef(helper.pid);
  const aborted = abortion(signal);
  const feeder = new Feeder(helper, source, options);
  try {
    const fed = feeder.run();
    fed.catch(() => {});
    // An answer before the end is a refusal; then the source is of no use any more, and may never end.
    const diffId = await Promise.race([fed, feeder.answer.then(() => undefined), aborted.promise]);
    const answer = await Promise.race([feeder.answer, aborted.promise]);
    if (answer?.type === 'unpacked' && diffId !== undefined) {
      const { bytes, entries, ended, opaque } = answer;
      return { diffId, size: Number(bytes), entries: Number(entries), ended: ended === true, opaque: opaque === true };
    }
    if (answer?.type === 'failed') throw new MinirunError(answer.what ?? '', answer.why, answer.remedy);
    await helper.exited;
    throw new MinirunError('cannot unpack the archive', helper.stderr().trim() || 'the process that does it was ended');
  } catch (error) {
    // What has arrived so far would look like the whole archive.
    signalProcess(running, 'SIGKILL');
    throw error;
  } finally {
    feeder.stop();
    aborted.forget();
    await helper.exited;
  }
}

/** Decompresses a source, computes its digest and writes it to the helper, never more than the helper takes. */
class Feeder {
  /** What the helper says at its end. */
  readonly answer: Promise<Answer | undefined>;
  private readonly pipe: Promise<Pipe | undefined>;
  private isStopped = false;

  constructor(
    private readonly helper: Child,
    private readonly source: AsyncIterable<Uint8Array>,
    private readonly options: UnpackOptions,
  ) {
    const first = helper.receive() as Promise<Answer | undefined>;
    this.pipe = first.then((message) => this.openPipe(message));
    this.answer = first.then(async (message) =>
      message?.type === 'receiving' ? ((await helper.receive()) as Answer | undefined) : message,
    );
    for (const promise of [this.pipe, this.answer]) promise.catch(() => {});
  }

  /** @returns the digest of the uncompressed data */
  async run(): Promise<string> {
    const hash = createHash('sha256');
    try {
      for await (const chunk of decompressed(this.taken(), this.options.compression)) {
        if (this.isStopped) break;
        hash.update(chunk);
        const pipe = await this.pipe;
        if (pipe === undefined || !(await pipe.write(chunk))) {
          // The helper has ended, and says why.
          await this.answer;
          break;
        }
      }
    } finally {
      (await this.pipe)?.close();
    }
    return `sha256:${hash.digest('hex')}`;
  }

  /** Has `run` end at the next chunk. */
  stop(): void {
    this.isStopped = true;
  }

  private async *taken(): AsyncGenerator<Uint8Array> {
    for await (const chunk of this.source) {
      if (this.isStopped) return;
      this.options.onCompressed?.(chunk);
      yield chunk;
    }
  }

  private openPipe(message: Answer | undefined): Pipe | undefined {
    if (message?.type !== 'receiving') return undefined;
    try {
      const pipe = new Pipe(`/proc/${this.helper.pid}/fd/${message.fd}`);
      this.helper.send({ type: 'go' });
      return pipe;
    } catch {
      // The helper has ended just now, and says why.
      return undefined;
    }
  }
}

/**
 * The writing end of a pipe. While there is room, writing is one system call; when there is none, a thread waits. It is
 * open twice because the two ways differ in a flag of the open file.
 */
class Pipe {
  private readonly eager: number;
  private readonly patient: number;

  constructor(file: string) {
    this.eager = fs.openSync(file, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
    this.patient = fs.openSync(file, fs.constants.O_WRONLY);
  }

  /** @returns false when nobody reads any more */
  async write(chunk: Uint8Array): Promise<boolean> {
    try {
      for (let written = this.writeNow(chunk); written < chunk.length; ) {
        written += await this.writeSoon(chunk, written);
      }
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EPIPE') return false;
      throw error;
    }
  }

  close(): void {
    fs.closeSync(this.eager);
    fs.closeSync(this.patient);
  }

  private writeNow(chunk: Uint8Array): number {
    try {
      return fs.writeSync(this.eager, chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return 0;
      throw error;
    }
  }

  private async writeSoon(chunk: Uint8Array, from: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.write(this.patient, chunk, from, chunk.length - from, null, (error, count) => {
        if (error) reject(error);
        else resolve(count);
      });
    });
  }
}

/** A promise that rejects when a signal comes. */
function abortion(signal: AbortSignal | undefined): { promise: Promise<never>; forget: () => void } {
  let forget = () => {};
  const promise = new Promise<never>((_, reject) => {
    const abort = () => reject(signal?.reason as Error);
    signal?.addEventListener('abort', abort);
    forget = () => signal?.removeEventListener('abort', abort);
  });
  promise.catch(() => {});
  return { promise, forget };
}
