import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { helperArgv, launch } from '../host/launch.ts';
import { processRef, signalProcess } from '../host/process.ts';

/** What the helper says: `Reading`, `Packed` or `Failure` of container/protocol.ts, which images do not know. */
interface Answer {
  type: string;
  fd?: number;
  what?: string;
  why?: string;
  remedy?: string;
}

/** As in container/protocol.ts. */
interface PackedRoot {
  overlay?: { lower: readonly string[] };
  owners?: { uid: number; gid: number; size: number };
  process?: { pid: number; start: number; inUserNamespace?: boolean };
}

/**
 * The uncompressed archive of a layer, made of a layer's directory or the upper directory of an overlay. It is the same
 * byte by byte each time. minirun's own binary in its helper mode (`init/pack.ts`) reads the files, with the directory
 * as its root.
 *
 * @param from what to read instead: an overlay mounted on the directory, or the root of a running process without what
 *   is mounted below it
 * @throws MinirunError while it is read
 */
export async function* packLayer(directory: string, from: PackedRoot = {}): AsyncGenerator<Buffer> {
  const inside = from.process?.inUserNamespace ? from.process.pid : undefined;
  const helper = launch(helperArgv(inside), { MINIRUN_INIT: '1' });
  const running = processRef(helper.pid);
  const answer = async (expected: string): Promise<Answer> => {
    const message = (await helper.receive()) as Answer | undefined;
    if (message?.type === expected) return message;
    if (message?.type === 'failed') throw new MinirunError(message.what ?? '', message.why, message.remedy);
    throw new MinirunError('cannot pack the layer', helper.stderr().trim() || 'the process that does it was ended');
  };
  let isDone = false;
  try {
    helper.send({ type: 'pack', directory, ...from });
    const { fd } = await answer('reading');
    const opened = fs.openSync(`/proc/${helper.pid}/fd/${fd}`, 'r');
    helper.send({ type: 'go' });
    yield* fs.createReadStream('', { fd: opened, highWaterMark: 1 << 18 }) as AsyncIterable<Buffer>;
    await answer('packed');
    isDone = true;
  } finally {
    if (!isDone) signalProcess(running, 'SIGKILL');
    await helper.exited;
  }
}
