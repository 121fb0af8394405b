import { afterEach, beforeEach, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { isStatic, readElf } from '../../../src/image/elf.ts';

let directory: string;
let file: string;
beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-elf-'));
  file = path.join(directory, 'program');
});
afterEach(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});

const [load, dynamic, interpreter] = [1, 2, 3];
const tags = { needed: 1, strings: 5, rpath: 15, runpath: 29 };

/** A file of elf(5) whose strings lie at `strings` and are loaded 0x1000 higher. */
function elf({
  segments,
  entries = [],
  strings = '',
}: {
  segments: { type: number; offset: number; size: number }[];
  entries?: [number, number][];
  strings?: string;
}): Buffer {
  const bytes = Buffer.alloc(1024);
  bytes.write('\x7fELF\x02\x01\x01', 'latin1');
  bytes.writeUInt16LE(62, 18);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(segments.length, 56);
  for (const [index, { type, offset, size }] of segments.entries()) {
    const at = 64 + index * 56;
    bytes.writeUInt32LE(type, at);
    bytes.writeBigUInt64LE(BigInt(offset), at + 8);
    bytes.writeBigUInt64LE(BigInt(offset) + 0x1000n, at + 16);
    bytes.writeBigUInt64LE(BigInt(size), at + 32);
  }
  for (const [index, [key, value]] of entries.entries()) {
    bytes.writeBigInt64LE(BigInt(key), 512 + index * 16);
    bytes.writeBigUInt64LE(BigInt(value), 520 + index * 16);
  }
  bytes.write(strings, 768, 'latin1');
  return bytes;
}

const strings = '\0libc.so.6\0libm.so.6\0$ORIGIN/lib:/opt/lib\0/ignored\0/lib64/ld.so\0';
const at = (text: string) => strings.indexOf(text);
const segments = [
  { type: load, offset: 0, size: 1024 },
  { type: dynamic, offset: 512, size: 256 },
  { type: interpreter, offset: 768 + at('/lib64/ld.so'), size: '/lib64/ld.so'.length + 1 },
];
const entries: [number, number][] = [
  [tags.strings, 0x1000 + 768],
  [tags.needed, at('libc.so.6')],
  [tags.needed, at('libm.so.6')],
  [tags.rpath, at('/ignored')],
  [tags.runpath, at('$ORIGIN')],
];

test('interpreter, libraries and where to look for them', () => {
  fs.writeFileSync(file, elf({ segments, entries, strings }));
  expect(readElf(file)).toEqual({
    machine: 62,
    interpreter: '/lib64/ld.so',
    needed: ['libc.so.6', 'libm.so.6'],
    runPath: ['$ORIGIN/lib', '/opt/lib'],
  });
  expect(isStatic(file)).toBe(false);
});

test('static programs and scripts', () => {
  fs.writeFileSync(file, elf({ segments: segments.slice(0, 1) }));
  expect(readElf(file)).toEqual({ machine: 62, needed: [], runPath: [] });
  expect(isStatic(file)).toBe(true);
  fs.writeFileSync(file, '#!/bin/sh\n');
  expect(readElf(file)).toBeUndefined();
  expect(isStatic(file)).toBe(false);
  fs.writeFileSync(file, '');
  expect(isStatic(file)).toBe(false);
});

test('whatever byte of it is damaged, reading ends, and at once', () => {
  const whole = elf({ segments, entries, strings });
  for (let position = 4; position < 860; position++) {
    for (const value of [0xff, 0x80, 0x01]) {
      const damaged = Buffer.from(whole);
      damaged[position] = value;
      fs.writeFileSync(file, damaged);
      readElf(file);
    }
  }
  for (let length = 0; length < 860; length += 7) {
    fs.writeFileSync(file, whole.subarray(0, length));
    expect(isStatic(file)).toBe(false);
  }
  fs.writeFileSync(file, elf({ segments, entries: [[tags.needed, at('libc.so.6')]], strings }));
  expect(readElf(file)).toBeUndefined();
  fs.writeFileSync(file, elf({ segments, entries: [...entries, [tags.needed, 0xffffff]], strings }));
  expect(readElf(file)).toBeUndefined();
});

test('the program that runs this test is read as the host’s tools see it', () => {
  const found = readElf(process.execPath);
  expect(found?.interpreter).toMatch(/^\/.*ld/);
  expect(found?.needed.join(' ')).toMatch(/\blibc\./);
});
