import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { buildRootfs, isStatic } from '../../../src/image/busybox.ts';
import { findRelease } from '../../../src/image/minirootfs.ts';
import { findRecipe } from '../../../src/image/recipes.ts';
import { parseReference } from '../../../src/image/reference.ts';
import { resolveImage } from '../../../src/image/resolve.ts';
import { listImages } from '../../../src/image/store.ts';
import { setStateRoot, stateRoot } from '../../../src/state/paths.ts';
import { missingTool, skipOrFail } from '../../support/skip.ts';

/** The message with which a promise is rejected. */
async function failureOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error: Error) => error.message,
  );
}

const before = stateRoot();
let directory: string;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-recipes-'));
  setStateRoot(path.join(directory, 'root'));
});

afterEach(() => {
  fs.rmSync(directory, { recursive: true, force: true });
  setStateRoot(before);
});

test('recipes are found by every form of their name', () => {
  for (const name of ['busybox', 'busybox:latest', 'docker.io/library/busybox']) {
    expect(findRecipe(parseReference(name))?.config.Cmd).toEqual(['sh']);
  }
  expect(findRecipe(parseReference('busybox:1.36'))).toBeUndefined();
  expect(findRecipe(parseReference('user/busybox'))).toBeUndefined();
});

test('the root filesystem of the busybox recipe', () => {
  const source = findRecipe(parseReference('busybox'))?.sources[0];
  if (source?.type !== 'busybox') throw new Error('the busybox recipe has another source');
  const umask = process.umask(0o077);
  const size = buildRootfs(directory, source.rootfs, Buffer.from('program'), [
    'bin/busybox',
    'bin/sh',
    'usr/bin/[',
    'odd/place',
    'linuxrc',
  ]);
  process.umask(umask);
  const place = (name: string) => path.join(directory, name);
  const mode = (name: string) => fs.statSync(place(name)).mode & 0o7777;
  expect([mode('tmp'), mode('root'), mode('bin'), mode('etc/passwd'), mode('bin/busybox')]).toEqual([
    0o1777, 0o700, 0o755, 0o644, 0o755,
  ]);
  expect(fs.readFileSync(place('bin/busybox'), 'utf8')).toBe('program');
  for (const applet of ['bin/sh', 'usr/bin/[', 'odd/place'])
    expect(fs.readlinkSync(place(applet))).toBe('/bin/busybox');
  expect(fs.existsSync(place('linuxrc'))).toBe(false);
  expect(fs.readFileSync(place('etc/passwd'), 'utf8')).toMatch(/^root:x:0:0:.*\n(.*\n)*nobody:x:65534:65534:/);
  expect(fs.readFileSync(place('etc/os-release'), 'utf8')).not.toMatch(/alpine/i);
  expect(size).toBeGreaterThan(7);
});

test('static programs are told from others', () => {
  const elf = Buffer.alloc(256);
  elf.write('\x7fELF', 'latin1');
  elf.set([2, 1], 4);
  elf.writeBigUInt64LE(64n, 32);
  elf.writeUInt16LE(56, 54);
  elf.writeUInt16LE(2, 56);
  const file = path.join(directory, 'program');
  const check = () => {
    fs.writeFileSync(file, elf);
    return isStatic(file);
  };
  expect(check()).toBe(true);
  elf.writeUInt32LE(3, 64 + 56);
  expect(check()).toBe(false);
  fs.writeFileSync(file, '#!/bin/sh\n');
  expect(isStatic(file)).toBe(false);
});

describe("Alpine's list of releases", () => {
  const list = (changes: Record<string, unknown> = {}) => {
    const entry = {
      flavor: 'alpine-minirootfs',
      version: '3.22.1',
      file: 'alpine-minirootfs-3.22.1-x86_64.tar.gz',
      date: '2025-07-15',
      time: '10:31:11',
      size: 3500000,
      sha256: 'ab'.repeat(32),
      ...changes,
    };
    return `---\n${JSON.stringify([{ flavor: 'alpine-virt', file: 'x.iso' }, entry])}`;
  };

  test('read', async () => {
    const text = `---\n-\n  title: "Mini root filesystem"\n  desc: |\n    Minimal root filesystem.\n  flavor: alpine-minirootfs\n  file: a.tar.gz\n  version: 3.20\n  date: 2025-07-15\n  time: 10:31:11\n  size: 5\n  sha256: ${'0'.repeat(64)}\n`;
    expect(await findRelease(text, 'there')).toEqual({
      file: 'a.tar.gz',
      version: '3.20',
      created: '2025-07-15T10:31:11.000Z',
      size: 5,
      sha256: '0'.repeat(64),
    });
    expect((await findRelease(list(), 'there')).version).toBe('3.22.1');
  });

  test.each([
    { file: '../../etc/passwd' },
    { file: '/etc/passwd' },
    { file: '' },
    { sha256: 'AB' },
    { sha256: 5 },
    { size: -1 },
    { size: '0x5' },
    { size: 1e12 },
    { flavor: 'other' },
  ])('refused: %j', async (changes) => {
    expect(await failureOf(findRelease(list(changes), 'there'))).toMatch('cannot use the list of releases');
  });

  test.each(['', 'no list', '- 5', '{ bad'])('refused: %j', async (text) => {
    expect(await failureOf(findRelease(text, 'there'))).toMatch('cannot use the list of releases');
  });
});

describe.skipIf(skipOrFail(missingTool('busybox')))('without a network', () => {
  const notices: string[] = [];
  const resolve = async (name: string, pull: 'missing' | 'always' | 'never' = 'missing') =>
    resolveImage(name, pull, (line) => void notices.push(line));

  beforeEach(() => {
    // Port 1 of the loopback: refused at once.
    process.env.MINIRUN_ALPINE_MIRROR = 'http://127.0.0.1:1';
    notices.length = 0;
  });
  afterEach(() => {
    delete process.env.MINIRUN_ALPINE_MIRROR;
  });

  test('busybox is built once, and is the same every time', async () => {
    const [first, second] = await Promise.all([resolve('busybox'), resolve('busybox')]);
    expect(second).toEqual(first);
    expect(await resolve('busybox', 'always')).toEqual(first);
    expect(await resolve('busybox', 'never')).toEqual(first);
    expect(fs.readdirSync(path.join(stateRoot(), 'images', 'layers'))).toHaveLength(1);
    expect(fs.readdirSync(path.join(stateRoot(), 'images')).toSorted()).toEqual(['configs', 'index.json', 'layers']);
    expect(fs.readlinkSync(path.join(first.layers[0] as string, 'bin/sh'))).toBe('/bin/busybox');
  });

  test('alpine is a labelled stand-in', async () => {
    const image = await resolve('alpine');
    expect(image.reference).toBe('alpine:latest');
    expect(image.standIn).toMatch(
      /^alpine:latest is only a stand-in made of this machine's busybox \(.*connection refused\); --pull=always/,
    );
    expect((await resolve('alpine')).standIn).toBe(image.standIn);
    expect(listImages().map(({ repository, standIn }) => [repository, standIn !== undefined])).toEqual([
      ['alpine', true],
      ['busybox', false],
    ]);
    expect(await failureOf(resolve('alpine', 'always'))).toMatch(
      /cannot get image "alpine": cannot download .*connection refused\. .*MINIRUN_ALPINE_MIRROR/,
    );
  });

  test('a wrong checksum is an error and no reason for a stand-in', async () => {
    const archive = Buffer.from('not what was published');
    const entry = {
      flavor: 'alpine-minirootfs',
      version: '9',
      file: 'a.tar.gz',
      size: archive.length,
      sha256: createHash('sha256').update('x').digest('hex'),
    };
    const server = http.createServer((request, response) => {
      response.end(request.url?.endsWith('.yaml') ? JSON.stringify([entry]) : archive);
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    process.env.MINIRUN_ALPINE_MIRROR = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    try {
      expect(await failureOf(resolve('alpine'))).toMatch('its sha256 is not the published one');
      entry.size = 5;
      expect(await failureOf(resolve('alpine'))).toMatch('it is longer than the 5 bytes');
    } finally {
      server.close();
      server.closeAllConnections();
    }
    expect(listImages()).toEqual([]);
    expect(fs.readdirSync(path.join(stateRoot(), 'images')).filter((name) => name.startsWith('.'))).toEqual([]);
    expect(notices[0]).toMatch(/^Downloading Alpine 9 from http:/);
  });

  test('unknown names', async () => {
    expect(await failureOf(resolve('foo'))).toMatch(
      'cannot find image "foo": it is not on this machine, and pulling from registries is not built yet. Import it from a file: minirun import TARBALL foo.',
    );
    expect(await failureOf(resolve('busybox', 'never'))).toMatch('--pull=never');
    expect(await failureOf(resolve('Foo'))).toMatch('invalid image name');
  });
});
