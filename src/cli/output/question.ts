import { MinirunError } from '../../errors.ts';
import { print } from './stdout.ts';

/**
 * Docker's question before something is removed. The answer may also come from a pipe (`yes |`).
 *
 * @throws MinirunError when nobody is there to answer: a script is to know that nothing was done
 */
export async function confirmed(warning: string): Promise<boolean> {
  print(`WARNING! ${warning}\nAre you sure you want to continue? [y/N] `);
  const { createInterface } = await import('node:readline');
  const lines = createInterface({ input: process.stdin });
  const answer = await new Promise<string | undefined>((resolve) => {
    lines.once('line', resolve);
    lines.once('close', () => resolve(undefined));
  });
  lines.close();
  if (answer === undefined) {
    print('\n');
    throw new MinirunError('nothing was removed', 'there was no answer', 'Give -f to remove without being asked');
  }
  return /^y(es)?$/i.test(answer.trim());
}
