import { expect } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import type { Result } from './world.ts';

/** What no user is ever to see: traces of the program's inside. */
const insides = [
  /\bat .*:\d+:\d+/,
  /\$bunfs/,
  /\b(?:TypeError|ReferenceError|RangeError|SyntaxError|ENOENT: |EISDIR: |ENOTDIR: )/,
  /\bundefined\b|\[object Object\]|\bNaN\b/,
  /internal error/,
];

/** What could move a terminal's cursor or change its colours. */
// eslint-disable-next-line no-control-regex
const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

/** docs: 0, 1 for most failures, 125 to 127 of run and exec, 130 for an interrupt. */
const codes = [0, 1, 125, 126, 127];

/** Fails when a command has not ended as it has to, whatever it was given. */
export function expectSober(args: readonly string[], { code, signal, stdout, stderr }: Result): void {
  const told = `minirun ${JSON.stringify(args)}: ${code ?? signal}\n${stdout.slice(0, 2000)}\n${stderr.slice(0, 4000)}`;
  const problems = [
    ...(codes.includes(code ?? -1) ? [] : ['exit code']),
    ...insides.filter((each) => each.test(stderr)).map(String),
    ...(controls.test(stderr) ? ['control characters'] : []),
    ...(code !== 0 && stderr === '' ? ['nothing said'] : []),
  ];
  if (problems.length > 0) throw new Error(`${problems.join(', ')}: ${told}`);
}

/** Every file below a directory, with what would change if somebody touched it. */
export function contentsOf(directory: string): string[] {
  return fs.readdirSync(directory, { recursive: true, withFileTypes: true }).map((entry) => {
    const file = path.join(entry.parentPath, entry.name);
    const { mode, size, mtimeMs, ino } = fs.lstatSync(file);
    return `${file} ${mode.toString(8)} ${size} ${mtimeMs} ${ino}`;
  });
}

/** Fails unless nothing below a directory has been touched. */
export function expectUntouched(before: readonly string[], directory: string): void {
  expect(contentsOf(directory).toSorted()).toEqual(before.toSorted());
}
