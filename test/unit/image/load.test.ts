import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import { readTar } from '../../../src/image/archive-files.ts';
import { Staging } from '../../../src/image/staging.ts';
import { type TarEntry, tarOf } from '../../support/oci-layout.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();

async function* inPieces(content: Buffer, length: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < content.length; at += length) yield content.subarray(at, at + length);
}

const read = async (entries: readonly TarEntry[], { piece = 1 << 18, largest = 1e9 } = {}) =>
  readTar(inPieces(tarOf(entries), piece), new Staging(), 'it', { largest });

const textOf = async (files: Awaited<ReturnType<typeof read>>, name: string) => {
  const found = await files.find(name);
  return found && fs.readFileSync(found.file, 'utf8');
};

const failureOf = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'no error',
    (error: Error) => error.message,
  );

describe('the files of an archive', () => {
  const entries: TarEntry[] = [
    { path: './a/', type: 'Directory' },
    { path: './a/one', content: 'x'.repeat(1000) },
    { path: 'a//two', content: 'two' },
    { path: 'a/soft', type: 'SymbolicLink', linkpath: '../a/./one' },
    { path: 'hard', type: 'Link', linkpath: 'a/soft' },
    { path: 'a/two', content: 'two again' },
    { path: 'a/replaced', content: 'file' },
    { path: 'a/replaced', type: 'SymbolicLink', linkpath: 'two' },
    { path: '../out', content: 'out' },
    { path: 'up', type: 'SymbolicLink', linkpath: '../../etc/passwd' },
  ];

  for (const piece of [1, 511, 512, 4096]) {
    test(`are found by their names, in pieces of ${piece} bytes`, async () => {
      const files = await read(entries, { piece });
      expect(files.isCut).toBe(false);
      expect(await textOf(files, 'a/one')).toBe('x'.repeat(1000));
      expect(await textOf(files, '/a/one')).toBe('x'.repeat(1000));
      expect(await textOf(files, 'hard')).toBe('x'.repeat(1000));
      expect(await textOf(files, './a/two')).toBe('two again');
      expect(await textOf(files, 'a/replaced')).toBe('two again');
      for (const name of ['a', 'up', 'etc/passwd', 'out', '']) expect(await textOf(files, name)).toBeUndefined();
    });
  }

  test('have the digest of the algorithm that their name says', async () => {
    const hex = 'a'.repeat(128);
    const files = await read([
      { path: `blobs/sha512/${hex}`, content: 'x' },
      { path: 'blobs/md5/aa', content: 'x' },
    ]);
    expect((await files.find(`blobs/sha512/${hex}`))?.digest).toMatch(/^sha512:a4abd4448c49562d828115d13a1fccea927f/);
    expect((await files.find('blobs/md5/aa'))?.digest).toMatch(/^sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903c/);
  });

  test('are limited in number and size', async () => {
    const many = Array.from({ length: 50_001 }, (_, at) => ({ path: `d${at}`, type: 'Directory' as const }));
    expect(await failureOf(read(many))).toMatch(/more than 50000 entries/);
    expect(await failureOf(read([{ path: 'a', content: 'xx' }], { largest: 1 }))).toMatch(
      /"a" in it has more than the 1/,
    );
    const long = Array.from({ length: 12 }, (_, at) => ({
      path: `link${at}`,
      type: 'SymbolicLink' as const,
      linkpath: `link${at + 1}`,
    }));
    const files = await read([...long, { path: 'link12', content: 'x' }]);
    expect(await failureOf(files.find('link0'))).toMatch(/lead in circles/);
    expect(await textOf(files, 'link3')).toBe('x');
  });

  test('of an archive without its end', async () => {
    const whole = tarOf([{ path: 'a', content: 'x' }]);
    const files = await readTar(inPieces(whole.subarray(0, 1024), 512), new Staging(), 'it');
    expect(files.isCut).toBe(true);
    expect(await failureOf(readTar(inPieces(whole.subarray(0, 700), 512), new Staging(), 'it'))).toMatch(/cut off/);
  });
});
