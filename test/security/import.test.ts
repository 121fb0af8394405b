import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { Header } from 'tar/header';
import type { EntryTypeName } from 'tar/types';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, type World } from '../support/world.ts';

// Archives that try to reach out of the directory that they are unpacked into. Each is refused or contained; what lies
// outside stays as it is in every case.

interface Entry {
  path: string;
  type?: EntryTypeName;
  content?: string;
  linkpath?: string;
  mode?: number;
  devmaj?: number;
  devmin?: number;
}

/** An archive byte for byte as given: real tar programs refuse to write most of these. */
function archive(entries: Entry[]): Buffer {
  const blocks = entries.flatMap(({ content = '', ...entry }) => {
    const header = Buffer.alloc(512);
    const size = Buffer.byteLength(content);
    new Header({ type: 'File', mode: 0o644, uid: 0, gid: 0, mtime: new Date(0), size, ...entry }).encode(header);
    const body = Buffer.alloc(Math.ceil(size / 512) * 512);
    body.write(content);
    return [header, body];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

describe.skipIf(skipOrFail(missingWorld()))('hostile archives', () => {
  let world: World;
  /** The directory of the host that nothing may change. */
  let outside: string;

  beforeAll(async () => {
    world = await createWorld();
    outside = path.join(world.directory, 'outside');
    fs.mkdirSync(path.join(outside, 'directory'), { recursive: true });
    fs.writeFileSync(path.join(outside, 'file'), 'secret');
    fs.writeFileSync(path.join(outside, 'directory/file'), 'secret');
  });
  afterAll(() => world.destroy());

  const state = () =>
    fs
      .readdirSync(outside, { recursive: true, encoding: 'utf8' })
      .concat('.')
      .toSorted()
      .map((name) => {
        const stat = fs.lstatSync(path.join(outside, name));
        const { mode, uid, gid, nlink, size, mtimeMs, ctimeMs } = stat;
        const content = stat.isFile() ? fs.readFileSync(path.join(outside, name), 'utf8') : '';
        return { name, mode, uid, gid, nlink, size, mtimeMs, ctimeMs, content };
      });

  /** Imports an archive and returns the directory of the layer, or the error. Checks what must always hold. */
  async function importArchive(entries: Entry[]): Promise<{ layer?: string; error: string }> {
    const before = state();
    const result = await world.run(['import', '-'], { input: archive(entries) });
    expect(state()).toEqual(before);
    const images = path.join(world.root, 'images');
    expect(fs.readdirSync(images).filter((name) => name.startsWith('.'))).toEqual([]);
    if (result.code !== 0) {
      expect(result.stderr).toMatch(/^minirun: .*\n$/);
      expect(result.stderr).not.toContain('internal error');
      expect(result.stdout).toBe('');
      return { error: result.stderr };
    }
    const id = result.stdout.trim().replace('sha256:', '');
    const config = JSON.parse(fs.readFileSync(path.join(images, 'configs', `${id}.json`), 'utf8')) as {
      rootfs: { diff_ids: string[] };
    };
    const layer = path.join(images, 'layers', String(config.rootfs.diff_ids[0]).replace('sha256:', ''));
    return { layer, error: '' };
  }

  test('a file below a symbolic link to a directory of the host', async () => {
    const { error, layer } = await importArchive([
      { path: 'link', type: 'SymbolicLink', linkpath: outside },
      { path: 'link/new', content: 'x' },
    ]);
    expect(layer).toBeUndefined();
    expect(error).toContain('link/new');
  });

  test('the same when the archive has made a directory of that name inside', async () => {
    const { layer } = await importArchive([
      { path: `${outside.slice(1)}/`, type: 'Directory', mode: 0o755 },
      { path: 'link', type: 'SymbolicLink', linkpath: outside },
      { path: 'link/new', content: 'x' },
    ]);
    expect(fs.readFileSync(path.join(layer as string, outside, 'new'), 'utf8')).toBe('x');
  });

  test('a chain of relative links upwards', async () => {
    const up = '../'.repeat(20);
    const { layer } = await importArchive([
      { path: 'a', type: 'SymbolicLink', linkpath: up },
      { path: 'b', type: 'SymbolicLink', linkpath: `a/${up}` },
      { path: 'b/top', content: 'x' },
    ]);
    expect(fs.readFileSync(path.join(layer as string, 'top'), 'utf8')).toBe('x');
  });

  test('a hard link to a file of the host', async () => {
    for (const linkpath of [`${outside}/file`, `${outside.slice(1)}/file`]) {
      const { error } = await importArchive([{ path: 'hard', type: 'Link', linkpath }]);
      expect(error).toContain('cannot unpack "hard": no such file');
    }
  });

  test('a hard link through a symbolic link to the host', async () => {
    const { error } = await importArchive([
      { path: 'link', type: 'SymbolicLink', linkpath: outside },
      { path: 'hard', type: 'Link', linkpath: 'link/file' },
    ]);
    expect(error).toContain('cannot unpack "hard": no such file');
  });

  test('a file in the place of a hard link to a symbolic link', async () => {
    const { layer } = await importArchive([
      { path: 'link', type: 'SymbolicLink', linkpath: `${outside}/file` },
      { path: 'hard', type: 'Link', linkpath: 'link' },
      { path: 'hard', content: 'changed' },
      { path: 'link', content: 'changed' },
    ]);
    for (const name of ['hard', 'link']) {
      expect(fs.lstatSync(path.join(layer as string, name)).isFile()).toBe(true);
    }
  });

  test('an absolute name', async () => {
    const { layer } = await importArchive([{ path: `${outside}/file`, content: 'changed' }]);
    expect(fs.readFileSync(path.join(layer as string, outside, 'file'), 'utf8')).toBe('changed');
  });

  test('names that lead upwards', async () => {
    for (const name of ['../new', '../../../../../../etc/new', 'a/../../new', './../new', '..']) {
      const { error } = await importArchive([{ path: name, content: 'x' }]);
      expect(error).toContain('leads out of the archive');
    }
    const { error } = await importArchive([{ path: 'hard', type: 'Link', linkpath: '../../outside/file' }]);
    expect(error).toContain('leads out of the archive');
  });

  test('the root as something else than a directory', async () => {
    for (const name of ['.', './', '/', '/.', 'a/..']) {
      for (const entry of [
        { path: name, type: 'SymbolicLink' as const, linkpath: outside },
        { path: name, type: 'Link' as const, linkpath: `${outside}/file` },
        { path: name, type: 'FIFO' as const },
      ]) {
        const { error } = await importArchive([entry, { path: 'new', content: 'x' }]);
        expect(error).toContain('the root can only be a directory');
      }
    }
  });

  test('a directory in the place of a symbolic link to one of the host', async () => {
    const { layer } = await importArchive([
      { path: 'link', type: 'SymbolicLink', linkpath: `${outside}/directory` },
      { path: 'link', type: 'Directory', mode: 0o777 },
      { path: 'link/file', content: 'changed' },
    ]);
    expect(fs.lstatSync(path.join(layer as string, 'link')).isDirectory()).toBe(true);
  });

  test('the system directories of the host', async () => {
    for (const target of ['/proc/1/root', '/proc/self/root', '/proc/self/cwd', '/proc/self/fd/3', '/dev', '/sys']) {
      const { error } = await importArchive([
        { path: 'link', type: 'SymbolicLink', linkpath: target },
        { path: `link/${outside}/new`, content: 'x' },
      ]);
      expect(error).toContain('cannot unpack');
    }
  });

  test('a device is made but never opened', async () => {
    // The null device: what is written to it is gone, so that content proves a file.
    const { layer } = await importArchive([
      { path: 'disk', type: 'CharacterDevice', devmaj: 1, devmin: 3, mode: 0o666 },
      { path: 'other', type: 'Link', linkpath: 'disk' },
      { path: 'disk', content: 'x' },
    ]);
    expect(fs.readFileSync(path.join(layer as string, 'disk'), 'utf8')).toBe('x');
    expect(fs.lstatSync(path.join(layer as string, 'other')).isCharacterDevice()).toBe(true);
  });

  test('an archive that is cut off', async () => {
    const whole = archive([
      { path: 'a', content: 'x'.repeat(5000) },
      { path: 'b', content: 'x' },
    ]);
    for (let length = 0; length < whole.length - 1024; length += 512) {
      const result = await world.run(['import', '-'], { input: whole.subarray(0, length) });
      expect([length, result.code]).toEqual([length, 1]);
      expect(result.stderr).toMatch(/^minirun: .*(cut off|no tar archive).*\n$/);
    }
  });
});
