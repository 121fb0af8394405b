import { MinirunError, messageOf } from '../errors.ts';
import { printable } from './output/printable.ts';
import { print } from './output/stdout.ts';

/**
 * Does something to each of the containers that were named, at most `parallel` at once, and goes on after errors.
 * What succeeds is printed as it was named and in that order, each failure as a line, and one failure makes the exit code 1.
 *
 * @param work gives false where there was nothing to do, which is not printed
 */
export async function forEach(
  names: readonly string[],
  work: (name: string) => Promise<unknown>,
  { parallel = 1, prints = true } = {},
): Promise<void> {
  const waiting = [...names.entries()];
  // Whoever is done first, what is printed comes in the order of the names.
  const reports: (() => void)[] = [];
  let printed = 0;
  const report = (index: number, say: () => void) => {
    reports[index] = say;
    for (let next = reports[printed]; next !== undefined; next = reports[++printed]) next();
  };
  const worker = async () => {
    for (let each = waiting.shift(); each !== undefined; each = waiting.shift()) {
      const [index, name] = each;
      try {
        const isDone = (await work(name)) !== false;
        report(index, () => {
          if (prints && isDone) print(`${name}\n`);
        });
      } catch (error) {
        if (!(error instanceof MinirunError)) throw error;
        process.exitCode = error.code ?? 1;
        report(index, () => process.stderr.write(`minirun: ${printable(messageOf(error))}\n`));
      }
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
}

/**
 * Takes back what killed processes have left, as every command does first.
 *
 * @param looksAt `index` for commands that come by the hundred
 */
export async function reconcileFirst(looksAt: 'states' | 'index' = 'states'): Promise<void> {
  const { reconcile } = await import('../container/reconcile.ts');
  for (const problem of await reconcile('spared', looksAt))
    process.stderr.write(`minirun: warning: ${printable(problem)}\n`);
}
