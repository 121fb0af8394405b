import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { bootstrapCommand, findMirror, Tree } from '../../../src/image/debian.ts';
import { findRecipe } from '../../../src/image/recipes.ts';
import { parseReference } from '../../../src/image/reference.ts';

describe('the mirror of this machine', () => {
  const lines = (...rows: [string, string, string, string][]) => rows.map((row) => row.join('\t')).join('\n');
  const unknown = '$(ORIGIN)';

  test('by what its releases say of themselves', () => {
    const targets = lines(
      ['https://download.docker.com/linux/debian/', 'bookworm', 'main', 'Docker'],
      ['http://mirror.example/deb/', 'bookworm', 'contrib', 'Debian'],
      ['http://mirror.example/deb/', 'bookworm-updates', 'main', 'Debian'],
      ['http://mirror.example/deb/', 'bookworm', 'main', 'Debian'],
      ['http://mirror.example/sec/', 'bookworm-security', 'main', 'Debian'],
    );
    const found = { mirror: 'http://mirror.example/deb', hasUpdates: true, security: 'http://mirror.example/sec' };
    expect(findMirror(targets, true)).toEqual(found);
    expect(findMirror(targets, false)).toEqual(found);
  });

  test('by its address before the first apt-get update, on a Debian only', () => {
    const targets = lines(
      ['https://apt.example/tool/', 'bookworm', 'main', unknown],
      ['http://deb.debian.org/debian/', 'trixie', 'main', unknown],
    );
    expect(findMirror(targets, true)).toEqual({ mirror: 'http://deb.debian.org/debian', hasUpdates: false });
    expect(findMirror(targets, false)).toBeUndefined();
  });

  test.each([
    'http://user:secret@mirror.example/debian/',
    'file:/srv/debian/',
    'cdrom://Debian/',
    'mirror+file:/etc/apt/debian/',
  ])('not %s', (uri) => {
    expect(findMirror(lines([uri, 'trixie', 'main', 'Debian']), true)).toBeUndefined();
  });
});

describe('the command', () => {
  const source = findRecipe(parseReference('debian'))?.sources.find(({ type }) => type === 'debian');
  if (source?.type !== 'debian') throw new Error('the debian recipe has another source');
  const plan = {
    definition: source,
    release: 'trixie',
    mirror: { mirror: 'http://m/debian', hasUpdates: true, security: 'http://m/security' },
    directory: '/there/layer',
    options: '/there/apt.conf',
  };

  test('mmdebstrap, in namespaces that end with this process, with every source signed by Debian', () => {
    const command = bootstrapCommand('mmdebstrap', plan);
    expect(command.slice(0, 5)).toEqual(['setpriv', '--pdeathsig', 'KILL', 'unshare', '--mount']);
    expect(command).toContain('--kill-child');
    expect(command.slice(-5)).toEqual([
      'trixie',
      '/there/layer',
      'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m/debian trixie main',
      'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m/debian trixie-updates main',
      'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m/security trixie-security main',
    ]);
  });

  test('debootstrap checks signatures', () => {
    const command = bootstrapCommand('debootstrap', plan);
    expect(command).toContain('--force-check-gpg');
    expect(command.slice(-3)).toEqual(['trixie', '/there/layer', 'http://m/debian']);
  });
});

describe('a root filesystem', () => {
  let directory: string;
  let tree: Tree;
  const place = (name: string) => path.join(directory, 'root', name);
  const write = (name: string) => {
    fs.mkdirSync(path.dirname(place(name)), { recursive: true });
    fs.writeFileSync(place(name), '');
  };
  beforeEach(() => {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-tree-'));
    fs.mkdirSync(path.join(directory, 'outside'));
    fs.writeFileSync(path.join(directory, 'outside/file'), 'mine');
    tree = new Tree(path.join(directory, 'root'));
  });
  afterEach(() => {
    fs.rmSync(directory, { recursive: true, force: true });
  });

  test('removes by pattern and leaves what packages would keep', () => {
    for (const name of ['doc/a/copyright', 'doc/a/readme', 'doc/b/readme', 'log/x.log', 'log/y', 'log/.hidden'])
      write(name);
    tree.filter(['/doc/*'], ['/doc/*/copyright']);
    tree.remove('/log/*.log');
    const left = fs.readdirSync(place(''), { recursive: true, encoding: 'utf8' });
    expect(left.toSorted()).toEqual(['doc', 'doc/a', 'doc/a/copyright', 'log', 'log/.hidden', 'log/y']);
    tree.remove('/log/*');
    tree.remove('/not/there');
    expect(fs.readdirSync(place('log'))).toEqual([]);
  });

  test('never goes through a link', () => {
    write('etc/x');
    fs.symlinkSync(path.join(directory, 'outside'), place('var'));
    fs.symlinkSync(path.join(directory, 'outside/file'), place('etc/resolv.conf'));
    tree.remove('/var/*');
    tree.filter(['/var/*'], []);
    tree.write('/var/new', ['new'], 0o644);
    expect(tree.read('/var/file')).toBe('');
    expect(tree.read('/etc/resolv.conf')).toBe('');
    tree.write('/etc/resolv.conf', ['new'], 0o600);
    expect(fs.readFileSync(place('etc/resolv.conf'), 'utf8')).toBe('new\n');
    expect(fs.statSync(place('etc/resolv.conf')).mode & 0o777).toBe(0o600);
    expect(fs.readdirSync(path.join(directory, 'outside'))).toEqual(['file']);
    expect(fs.readFileSync(path.join(directory, 'outside/file'), 'utf8')).toBe('mine');
  });
});
