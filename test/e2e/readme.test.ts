import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { startRegistry } from '../support/registries.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { inLab, masked } from '../support/transcript.ts';
import { createWorld, expectNoLeak, type World } from '../support/world.ts';

/**
 * The tour of the README is typed, command after command, and each has to print what stands there. With MINIRUN_UPDATE=1 what
 * differs is written into it.
 */

const readme = path.join(import.meta.dir, '../../README.md');

/** A command, and what the README shows of its output. */
interface Example {
  /** Its lines are joined. */
  command: string;
  output: string[];
  /** The number of the first line of the output, from 0, and how far it is indented. */
  line: number;
  indent: string;
}

/** The examples of a section, in their order. A picture stands between fences, behind the command that draws it. */
function examples(lines: readonly string[], section: string): Example[] {
  const found: Example[] = [];
  let isInside = false;
  let isFenced = false;
  for (const [index, line] of lines.entries()) {
    const last = found.at(-1);
    if (line.startsWith('## ')) isInside = line === `## ${section}`;
    if (!isInside) continue;
    if (line.startsWith('```')) {
      isFenced = !isFenced;
      if (isFenced && last?.output.length === 0) Object.assign(last, { line: index + 1, indent: '' });
    } else if (isFenced) last?.output.push(line);
    else if (line.startsWith('    $ '))
      found.push({ command: line.slice(6), output: [], line: index + 1, indent: '    ' });
    else if (line.startsWith('    ') && last?.command.endsWith('\\'))
      Object.assign(last, { command: `${last.command.slice(0, -1)}${line.trim()}`, line: index + 1 });
    else if (line.startsWith('    ')) last?.output.push(line.slice(4));
  }
  return found;
}

/** What differs from run to run besides what differs in the demos. */
const masks: readonly [RegExp, string][] = [
  [/\b\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'DATE'],
  [/\b(?:Less than a second|\d+ seconds?)\b/g, 'TIME'],
  // What the container uses, and whose its processes are.
  [/^(SHORT-ID shop) .*/m, '$1 USAGE'],
  [/^ ?\d{9,10} /gm, 'UID '],
  // An empty line between two examples belongs to neither.
  [/\n+/g, '\n'],
];

const plain = (text: string): string =>
  masks.reduce((result, [pattern, replacement]) => result.replace(pattern, replacement), masked(text));

/** Fails unless this was printed; a line with `…` alone stands for any number of lines. */
function expectPrinted({ command, output }: Example, printed: string): void {
  const parts = plain(output.join('\n')).split(/^…$/m);
  if (parts.length === 1) {
    expect(`$ ${command}\n${plain(printed)}`).toBe(`$ ${command}\n${parts[0]}`);
    return;
  }
  let rest = plain(printed);
  for (const part of parts) {
    const at = rest.indexOf(part.trim());
    expect(`$ ${command}: ${at < 0 ? rest : ''}\n${at < 0 ? '' : part}`).toBe(`$ ${command}: \n${part}`);
    rest = rest.slice(at + part.trim().length);
  }
}

async function type(world: World, command: string): Promise<string> {
  const { stdout, stderr } = await world.host.run(inLab(['sh', '-c', `exec 2>&1; ${command}`]), { timeout: 60_000 });
  return stdout + stderr;
}

describe.skipIf(skipOrFail(missingWorld()))('README', () => {
  test('the tour shows what its commands print, and leaves nothing', async () => {
    await using world = await createWorld();
    await startRegistry(world, { port: 5000 });
    // The list of published ports stays, empty, once there has been one.
    await world.sh(
      'for image in busybox nettools; do minirun run --rm --network none $image true; done; minirun network create once; minirun run --rm --network once -p 80:80 busybox true; minirun network rm once',
    );
    const clean = await world.snapshot();
    const lines = fs.readFileSync(readme, 'utf8').split('\n');
    const tour = examples(lines, 'A tour');
    expect(tour.length).toBeGreaterThan(30);
    const wrong: string[] = [];
    const updates: (() => void)[] = [];
    for (const example of tour) {
      const printed = await type(world, example.command);
      try {
        expectPrinted(example, printed);
      } catch (error) {
        wrong.push((error as Error).message);
        const { line, indent, output } = example;
        const shown = printed.trimEnd() === '' ? [] : printed.trimEnd().split('\n');
        updates.unshift(() => lines.splice(line, output.length, ...shown.map((each) => `${indent}${each}`.trimEnd())));
      }
    }
    // An excerpt is chosen by hand.
    if (process.env.MINIRUN_UPDATE === '1') {
      for (const update of updates) update();
      fs.writeFileSync(readme, lines.join('\n'));
    } else expect(wrong.join('\n')).toBe('');
    await expectNoLeak(clean, world);
  }, 120_000);
});
