import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { helperArgv, launch } from '../host/launch.ts';
import { processRef, signalProcess } from '../host/process.ts';
import { initEnvironment } from './argv.ts';
import type { Changed, Compare, Compared, Failure } from './protocol.ts';
import { containerFiles, readSpec, requireContainer } from './store.ts';

/** Something of its image that a container has added, changed or deleted. */
export interface Change {
  kind: 'A' | 'C' | 'D';
  /** In the container; bytes that are no UTF-8 are replaced. */
  path: string;
}

/**
 * What a container, running or not, has changed of its image's files, in order of the names. What is in volumes is not its
 * own.
 *
 * @throws MinirunError for one that was made of a directory (`--rootfs`): there is nothing to compare with
 */
export async function changesOf(reference: string): Promise<Change[]> {
  const { definition } = requireContainer(reference);
  if (definition.rootfs !== undefined)
    throw new MinirunError(
      `cannot tell what container "${definition.name}" has changed`,
      'it was made of a directory (--rootfs), which it changes itself, and not of an image',
    );
  const { upper } = containerFiles(definition.id);
  const { root, mounts } = readSpec(definition.id);
  const directory = root.path;
  // One that was never started.
  if (!fs.existsSync(upper) || !fs.existsSync(directory)) return [];
  const helper = launch(helperArgv(), initEnvironment);
  const running = processRef(helper.pid);
  const found: string[] = [];
  try {
    helper.send({ type: 'compare', directory, upper, lower: definition.layers } satisfies Compare);
    for (;;) {
      const answer = (await helper.receive()) as Changed | Compared | Failure | undefined;
      if (answer?.type === 'compared') break;
      if (answer?.type === 'failed') throw new MinirunError(answer.what, answer.why, answer.remedy);
      if (answer === undefined)
        throw new MinirunError('cannot compare', helper.stderr().trim() || 'the process that does it was ended');
      found.push(...answer.changes);
    }
  } finally {
    signalProcess(running, 'SIGKILL');
    await helper.exited;
  }
  // Where something is mounted and the image has nothing, minirun has made a place for it.
  const places = new Set(mounts.map(({ destination }) => `A ${destination}`));
  return found
    .filter((line) => !places.has(line))
    .map((line) => ({ kind: line[0] as Change['kind'], path: Buffer.from(line.slice(2), 'latin1').toString() }))
    .toSorted((a, b) => (a.path < b.path ? -1 : 1));
}
