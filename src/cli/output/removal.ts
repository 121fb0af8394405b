import type { Removal } from '../../image/collect.ts';
import { print } from './stdout.ts';

/** What a `prune` has removed of images, as docker lists it. */
export function printRemoval({ untagged, deleted }: Removal): void {
  if (untagged.length + deleted.length === 0) return;
  const lines = [...untagged.map((name) => `untagged: ${name}`), ...deleted.map((digest) => `deleted: ${digest}`)];
  print(`Deleted Images:\n${lines.join('\n')}\n\n`);
}
