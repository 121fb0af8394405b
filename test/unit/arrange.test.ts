import { afterAll, beforeAll, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const repository = path.resolve(import.meta.dir, '../..');
let directory: string;

beforeAll(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-arrange-'));
  const bun = (...args: string[]) =>
    Bun.spawn([process.execPath, ...args], { cwd: directory, stdout: 'ignore' }).exited;
  expect(await bun(path.join(repository, 'bin/arrange.ts'), 'arranged')).toBe(0);
  const options = ['--target=bun', '--splitting', '--format=esm', '--outdir=out'];
  expect(await bun('build', ...options, 'arranged/src/main.ts')).toBe(0);
});
afterAll(() => fs.rmSync(directory, { recursive: true, force: true }));

/** What a piece of the program loads before its first line runs: pieces, and modules of the runtime. */
function loadedWith(piece: string, found = new Set<string>()): Set<string> {
  if (found.has(piece)) return found;
  found.add(piece);
  const text = fs.readFileSync(path.join(directory, 'out', piece), 'utf8');
  for (const [, name = ''] of text.matchAll(/^(?:import|export)\b[^;'"]*["']([^"']+)["'];$/gm)) {
    if (name.startsWith('./')) loadedWith(name.slice(2), found);
    else found.add(name.replace(/^node:/, ''));
  }
  // What a package of CommonJS asks for when it is first used, which for some is at once.
  for (const [, name = ''] of text.matchAll(/__require\("([^"]+)"\)/g)) found.add(name.replace(/^node:/, ''));
  return found;
}

const pieces = (pattern: RegExp): string[] =>
  fs.readdirSync(path.join(directory, 'out')).filter((name) => pattern.test(name));

// Some of the runtime's modules take longer to load than everything of minirun's together.
test.each(['run', 'ps', 'rm', 'start', 'stop', 'exec'])(
  '%s loads no module of the runtime that it can do without',
  (command) => {
    const [piece = ''] = pieces(new RegExp(`^cli--${command}-`));
    const loaded = loadedWith(piece);
    expect([...loaded]).toContain('child_process');
    for (const slow of ['crypto', 'stream', 'net', 'tty', 'http', 'zlib']) expect([...loaded]).not.toContain(slow);
  },
);

test('what every start needs is in one piece', () => {
  const [piece = ''] = pieces(/^cli--run-/);
  expect([...loadedWith(piece)].filter((name) => name.endsWith('.js')).length).toBeLessThan(16);
});
