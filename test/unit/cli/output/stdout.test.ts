import { afterEach, beforeEach, expect, test } from 'bun:test';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const module = path.resolve(import.meta.dir, '../../../../src/cli/output/stdout.ts');
let directory: string;
let fifo: string;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-stdout-'));
  fifo = path.join(directory, 'fifo');
  execFileSync('mkfifo', [fifo]);
});
afterEach(() => fs.rmSync(directory, { recursive: true, force: true }));

/** A program that prints to the FIFO, whose descriptor is one that never waits. */
function printing(script: string): { reader: number; ended: Promise<number | null> } {
  const reader = fs.openSync(fifo, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  const writer = fs.openSync(fifo, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
  const source = `
    import { dlopen } from 'bun:ffi';
    import { isUnread, onUnread, print, stdoutStream } from ${JSON.stringify(module)};
    const { symbols } = dlopen('libc.so.6', { fcntl: { args: ['i32', 'i32', 'i32'], returns: 'i32' } });
    if (symbols.fcntl(1, 4, ${fs.constants.O_NONBLOCK}) !== 0) process.exit(99);
    ${script}`;
  const program = spawn(process.execPath, ['-e', source], { stdio: ['ignore', writer, 'inherit'] });
  fs.closeSync(writer);
  return { reader, ended: new Promise((resolve) => program.on('close', resolve)) };
}

test('a reader that is slower than what is printed gets everything, in order', async () => {
  const size = 1_000_000;
  const { reader, ended } = printing(`
    print('x'.repeat(${size}));
    print('then\\n');
    stdoutStream().write('and\\n');
    print('end\\n');`);
  const wanted = `${'x'.repeat(size)}then\nand\nend\n`;
  // It is full before anything is read.
  const buffer = Buffer.alloc(4096);
  const pieces: Buffer[] = [];
  for (let isEnded = false; !isEnded; ) {
    try {
      const count = fs.readSync(reader, buffer);
      isEnded = count === 0 && pieces.length > 0;
      pieces.push(Buffer.from(buffer.subarray(0, count)));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(Buffer.concat(pieces).toString() === wanted).toBe(true);
  expect(await ended).toBe(0);
  fs.closeSync(reader);
});

test('nobody reads: a command ends, or finishes what it is at and knows', async () => {
  const ending = printing(`await Bun.stdin.text(); print('x'.repeat(200_000)); process.exit(3);`);
  fs.closeSync(ending.reader);
  expect(await ending.ended).toBe(141);
  const finishing = printing(
    `onUnread(true); await Bun.stdin.text(); print('x'.repeat(200_000)); process.exit(isUnread() ? 3 : 4);`,
  );
  fs.closeSync(finishing.reader);
  expect(await finishing.ended).toBe(3);
});
