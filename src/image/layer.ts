import { createHash } from 'node:crypto';
import type { Readable, Writable } from 'node:stream';
import { MinirunError } from '../errors.ts';
import { launch, ownBinary } from '../host/launch.ts';
import { processRef, signalProcess } from '../host/process.ts';
import { decompressed } from './compression.ts';

/** What is known of a layer once it is unpacked. */
export interface UnpackedLayer {
  /** Digest of the uncompressed tar. */
  diffId: string;
  /** Bytes of all files. */
  size: number;
  /** Whether the archive had its end mark. Some writers leave it out, so it says something only without a digest. */
  ended: boolean;
}

/** What the helper says: `Unpacked` or `Failure` of container/protocol.ts, which images do not know. */
interface Answer {
  type: string;
  bytes?: number;
  ended?: boolean;
  what?: string;
  why?: string;
  remedy?: string;
}

/**
 * Unpacks a layer, plain or compressed, into a directory.
 *
 * This process decompresses and computes the digest; minirun's own binary in its helper mode (`init/unpack.ts`) makes
 * the files, with the directory as its root, so that nothing in the archive can reach beyond it.
 */
export async function unpackLayer(source: Readable, directory: string): Promise<UnpackedLayer> {
  const helper = launch(['unshare', '--mount', '--', ownBinary, 'init'], { MINIRUN_INIT: '1' }, 'pipe');
  const running = processRef(helper.pid);
  const input = helper.stdin as Writable;
  // When the helper refuses an entry it ends: what it says of that counts, and not the broken pipe.
  let broken = false;
  input.on('error', () => {
    broken = true;
  });
  input.on('close', () => {
    broken = true;
  });
  helper.send({ type: 'unpack', directory });
  const hash = createHash('sha256');
  try {
    for await (const chunk of decompressed(source)) {
      if (broken) break;
      hash.update(chunk);
      if (!input.write(chunk)) await drained(input);
    }
  } catch (error) {
    // What has arrived so far would look like the whole archive.
    signalProcess(running, 'SIGKILL');
    await helper.exited;
    throw error;
  } finally {
    source.destroy();
  }
  if (!broken) input.end();
  const answer = (await helper.receive()) as Answer | undefined;
  await helper.exited;
  if (answer?.type === 'unpacked') {
    return { diffId: `sha256:${hash.digest('hex')}`, size: Number(answer.bytes), ended: answer.ended === true };
  }
  if (answer?.type === 'failed') throw new MinirunError(answer.what ?? '', answer.why, answer.remedy);
  throw new MinirunError('cannot unpack the archive', helper.stderr().trim() || 'the process that does it was ended');
}

/** Resolves when a stream takes more, or never will. */
function drained(stream: Writable): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      for (const event of ['drain', 'close', 'error']) stream.off(event, done);
      resolve();
    };
    for (const event of ['drain', 'close', 'error']) stream.on(event, done);
  });
}
