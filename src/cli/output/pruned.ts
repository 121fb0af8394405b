import { MinirunError } from '../../errors.ts';
import { printable } from './printable.ts';
import { print } from './stdout.ts';

/** Something that was removed, or why not. */
export type Pruned = { name: string; size: number } | MinirunError;

/** Prints what goes as it goes. @returns bytes */
export async function printPruned(title: string, removals: AsyncIterable<Pruned>): Promise<number> {
  let bytes = 0;
  let isBegun = false;
  for await (const removal of removals) {
    if (removal instanceof MinirunError) {
      process.stderr.write(`minirun: ${printable(removal.message)}\n`);
      process.exitCode = 1;
      continue;
    }
    if (!isBegun) print(`${title}:\n`);
    isBegun = true;
    bytes += removal.size;
    print(`${removal.name}\n`);
  }
  if (isBegun) print('\n');
  return bytes;
}
