import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { removeImage, sweepImages } from '../../../src/image/collect.ts';
import type { Image } from '../../../src/image/image.ts';
import { parseReference } from '../../../src/image/reference.ts';
import { Staging } from '../../../src/image/staging.ts';
import { findImage, listImages, storeImage, tagImage } from '../../../src/image/store.ts';
import { ensureStateRoot, setStateRoot, stateRoot } from '../../../src/state/paths.ts';

/** The message with which a promise is rejected. */
async function failureOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error: Error) => error.message,
  );
}

const before = stateRoot();
let images: string;

beforeEach(() => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-images-'));
  setStateRoot(root);
  ensureStateRoot();
  images = path.join(root, 'images');
});

afterEach(() => {
  fs.rmSync(stateRoot(), { recursive: true, force: true });
  setStateRoot(before);
});

const diffId = (letter: string) => `sha256:${letter.repeat(64)}`;

/** Stores an image whose layers are named by letters, the lowest first. */
async function store(name: string | undefined, layers: string, command = 'sh', standIn?: string): Promise<Image> {
  const staging = new Staging();
  const staged = layers.split('').map((letter) => {
    const directory = staging.newLayer(letter);
    fs.writeFileSync(path.join(directory, 'file'), letter);
    return { diffId: diffId(letter), size: 1, directory };
  });
  const config = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: [command] },
    rootfs: { type: 'layers', diff_ids: staged.map((layer) => layer.diffId) },
  });
  try {
    const references = name === undefined ? [] : [parseReference(name)];
    return await storeImage({ references, config, layers: staged, standIn, staging });
  } finally {
    staging.remove();
  }
}

const layersHere = () =>
  fs
    .readdirSync(path.join(images, 'layers'))
    .map((hex) => hex.slice(0, 1))
    .toSorted()
    .join('');
const leftovers = () => fs.readdirSync(images).filter((entry) => entry.startsWith('.'));
const nobody = { inUse: () => undefined };

describe('finding', () => {
  test('an empty store has nothing', () => {
    expect(findImage('alpine')).toBeUndefined();
    expect(listImages()).toEqual([]);
  });

  test('by every form of the name, by id and by the beginning of an id', async () => {
    const image = await store('tool:1', 'ab');
    const forms = [
      'tool:1',
      'docker.io/library/tool:1',
      image.id,
      image.id.slice(7),
      image.id.slice(0, 20),
      image.id.slice(7, 12),
    ];
    for (const form of forms) expect(findImage(form)).toEqual(image);
    expect(findImage('tool')).toBeUndefined();
    expect(findImage('f'.repeat(64))).toBeUndefined();
    expect(image.reference).toBe('tool:1');
    expect(image.config.Cmd).toEqual(['sh']);
    // The topmost layer first.
    expect(image.layers).toEqual(['b', 'a'].map((letter) => path.join(images, 'layers', letter.repeat(64))));
    expect(fs.readFileSync(path.join(image.layers[0] as string, 'file'), 'utf8')).toBe('b');
  });

  test('an image without a name', async () => {
    const image = await store(undefined, 'a');
    expect(image.reference).toBe(image.id.slice(0, 19));
    expect(findImage(image.id)).toEqual(image);
    expect(listImages()).toMatchObject([{ id: image.id, size: 1 }]);
    expect(listImages()[0]?.repository).toBeUndefined();
  });

  test('a name that looks like an id goes first', async () => {
    const other = await store('other', 'a');
    const image = await store(other.id.slice(7, 11), 'b', 'x');
    expect(findImage(other.id.slice(7, 11))?.id).toBe(image.id);
  });

  test('bad names are refused', () => {
    expect(() => findImage('Bad Name')).toThrow('invalid image name');
  });
});

describe('storing', () => {
  test('the mark of a stand-in belongs to the name', async () => {
    const image = await store('busybox', 'a');
    await tagImage(image.id, [parseReference('alpine')], 'a stand-in');
    expect(findImage('alpine')?.standIn).toBe('a stand-in');
    expect(findImage('busybox')?.standIn).toBeUndefined();
    await store('alpine', 'b', 'real');
    expect(findImage('alpine')?.standIn).toBeUndefined();
  });

  test('a name moves, and its former image stays without it', async () => {
    const old = await store('tool', 'a', 'old');
    const image = await store('tool', 'b', 'new');
    expect(findImage('tool')?.id).toBe(image.id);
    expect(findImage(old.id)?.reference).toBe(old.id.slice(0, 19));
  });

  test('ten at once share one layer', async () => {
    const stored = await Promise.all(Array.from({ length: 10 }, async () => store('tool', 'a')));
    expect(new Set(stored.map((image) => image.id)).size).toBe(1);
    expect(layersHere()).toBe('a');
    expect(leftovers()).toEqual([]);
  });

  test('nobody else may enter', async () => {
    await store('tool', 'a');
    for (const directory of ['', 'layers', 'configs']) {
      expect(fs.statSync(path.join(images, directory)).mode & 0o777).toBe(0o700);
    }
  });
});

describe('removing', () => {
  test('the last name takes the image along, and layers that no other has', async () => {
    const image = await store('one', 'ab', 'one');
    await store('two', 'ac', 'two');
    const removal = await removeImage('one', nobody);
    expect(removal).toEqual({ untagged: ['one:latest'], deleted: [image.id, diffId('b')] });
    expect(layersHere()).toBe('ac');
    expect(leftovers()).toEqual([]);
  });

  test('a further name is only taken away', async () => {
    const image = await store('one', 'a');
    await tagImage(image.id, [parseReference('two')]);
    expect(await removeImage('one', { inUse: () => 'web' })).toEqual({ untagged: ['one:latest'], deleted: [] });
    expect(findImage('two')?.id).toBe(image.id);
  });

  test('by id', async () => {
    const image = await store('one', 'a');
    await tagImage(image.id, [parseReference('two')]);
    expect(await failureOf(removeImage(image.id, nobody))).toMatch('it has 2 names');
    const removal = await removeImage(image.id.slice(7, 19), { ...nobody, force: true });
    expect(removal).toEqual({ untagged: ['one:latest', 'two:latest'], deleted: [image.id, diffId('a')] });
  });

  test('not while a container uses it', async () => {
    const image = await store('one', 'a');
    const used = { inUse: (id: string) => (id === image.id ? 'web' : undefined) };
    expect(await failureOf(removeImage('one', used))).toMatch('container web uses its image');
    expect(await failureOf(removeImage(image.id, { ...used, force: true }))).toMatch('container web uses it');
    expect(await removeImage('one', { ...used, force: true })).toEqual({ untagged: ['one:latest'], deleted: [] });
    expect(layersHere()).toBe('a');
    expect(findImage(image.id)?.id).toBe(image.id);
  });

  test('what is not here', async () => {
    expect(await failureOf(removeImage('one', nobody))).toMatch('it is not on this machine');
  });
});

describe('sweeping', () => {
  test('takes what killed processes have left, and nothing else', async () => {
    const image = await store('one', 'a');
    const mine = new Staging();
    fs.mkdirSync(path.join(images, '.staging-4194304-1-00000000-0/layer'), { recursive: true });
    fs.mkdirSync(path.join(images, `.staging-${process.pid}-1-${mine.directory.split('-').at(-2)}-0`));
    fs.mkdirSync(path.join(images, 'layers', 'b'.repeat(64)));
    fs.writeFileSync(path.join(images, 'configs', `${'c'.repeat(64)}.json`), '{}');
    fs.writeFileSync(path.join(images, '.index.json.4194304.0'), '{');
    await sweepImages();
    expect(leftovers()).toEqual([path.basename(mine.directory)]);
    expect(layersHere()).toBe('a');
    expect(fs.readdirSync(path.join(images, 'configs'))).toEqual([`${image.id.slice(7)}.json`]);
    mine.remove();
  });
});
