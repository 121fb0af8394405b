import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { buildRootfs } from '../../../src/image/busybox.ts';
import { findRelease } from '../../../src/image/minirootfs.ts';
import { collectPrograms } from '../../../src/image/host-programs.ts';
import { findRecipe, type Recipe, recipeNames } from '../../../src/image/recipes.ts';
import { which } from '../../../src/host/launch.ts';
import { parseReference } from '../../../src/image/reference.ts';
import { resolveImage } from '../../../src/image/resolve.ts';
import { listImages } from '../../../src/image/store.ts';
import { setStateRoot, stateRoot } from '../../../src/state/paths.ts';

/** The message with which a promise is rejected. */
async function failureOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error: Error) => error.message,
  );
}

const repository = path.resolve(import.meta.dir, '../../..');
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
  for (const name of ['debian', 'debian:latest', 'debian:trixie', 'debian:12-slim', 'docker.io/library/debian:stable'])
    expect(findRecipe(parseReference(name))?.reference).toBe('docker.io/library/debian:latest');
  expect(findRecipe(parseReference('debian:woody'))).toBeUndefined();
  expect(findRecipe(parseReference(`debian@sha256:${'0'.repeat(64)}`))).toBeUndefined();
});

test('every folder below images/ is a recipe that minirun has', () => {
  const folders = fs.readdirSync(path.join(repository, 'images')).toSorted();
  expect(recipeNames()).toEqual(folders);
  for (const folder of folders) {
    const text = fs.readFileSync(path.join(repository, 'images', folder, 'recipe.json'), 'utf8');
    expect(findRecipe(parseReference(folder))).toEqual(JSON.parse(text) as Recipe);
  }
});

test('the recipe that docs/images.md shows how to add can be built', async () => {
  const text = fs.readFileSync(path.join(repository, 'docs/images.md'), 'utf8');
  const [, shown = ''] = /\n((?: {4}\{\n)(?: {4}.*\n)+? {4}\}\n)/.exec(text) ?? [];
  const recipe = JSON.parse(shown) as Recipe;
  const [source] = recipe.sources;
  if (source?.type !== 'host-programs') throw new Error('the example has another source');
  const { tree, found, missing } = await collectPrograms({
    ...source,
    programs: { ...source.programs, no: ['no-such'] },
  });
  expect(missing.get('no')).toEqual(['no-such']);
  expect(found.length + [...missing.values()].flat().length).toBe(3);
  await tree.copyTo(directory);
  for (const program of found) expect(fs.existsSync(path.join(directory, which(program) as string))).toBe(true);
});

test('the root filesystem of the busybox recipe', () => {
  const source = findRecipe(parseReference('busybox'))?.sources[0];
  if (source?.type !== 'busybox') throw new Error('the busybox recipe has another source');
  const umask = process.umask(0o077);
  buildRootfs(directory, source.rootfs, {
    content: Buffer.from('program'),
    applets: ['bin/busybox', 'bin/sh', 'usr/bin/[', 'odd/place', 'linuxrc'],
  });
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

describe('without a network', () => {
  const notices: string[] = [];
  const resolve = async (name: string, pull: 'missing' | 'always' | 'never' = 'missing') =>
    resolveImage(name, pull, { openReport: async () => ({ notice: (line) => void notices.push(line) }) });

  beforeEach(() => {
    // Port 1 of the loopback: refused at once.
    process.env.MINIRUN_ALPINE_MIRROR = 'http://127.0.0.1:1';
    process.env.HTTPS_PROXY = 'http://127.0.0.1:1';
    notices.length = 0;
  });
  afterEach(() => {
    delete process.env.MINIRUN_ALPINE_MIRROR;
    delete process.env.HTTPS_PROXY;
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
    expect(notices.join('\n')).toMatch(/^Downloading Alpine 9 from http:/m);
  });

  test('names that are refused', async () => {
    expect(await failureOf(resolve('busybox', 'never'))).toMatch('--pull=never');
    expect(await failureOf(resolve('Foo'))).toMatch('invalid image name');
  });
});
