import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { renderScript, word } from '../../../src/host/script.ts';
import { type HostCommand, ip, ipIn, iptables, type Step } from '../../../src/host/steps.ts';

let directory: string;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-script-'));
});

afterEach(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});

const step = (id: string, apply: HostCommand[], undo: HostCommand[] = []): Step => ({
  id,
  why: `Why ${id}.`,
  apply,
  undo,
});
const render = (steps: Step[], variables?: Record<string, string>) =>
  renderScript('A test.', [{ title: 'Part one', steps }], variables);
const sh = (script: string, ...args: string[]) =>
  spawnSync('sh', ['-c', script, 'script', ...args], { encoding: 'utf8', cwd: directory });
const shell = (script: string) => ({ tool: 'process', script }) as const;

/** Texts that a shell could take for something else. */
const odd = [
  'two words',
  "it's",
  '"',
  '$HOME',
  '`id`',
  '$(id)',
  'a\\b',
  '*',
  '~',
  '',
  ';',
  '&&',
  '#',
  '-n',
  'ü',
  "''",
  'a\tb',
  'a\nb',
];

test.each(odd)('%j is one word of a shell', (text) => {
  expect(sh(`printf '%s.' ${word(text)}`).stdout).toBe(`${text}.`);
});

test.each(['a', '/var/lib/minirun', 'KEY=value', '10.0.0.1/24', 'a:b,c'])('%s stays as a person types it', (text) => {
  expect(word(text)).toBe(text);
});

describe('the script', () => {
  const file = (name: string, content: string, mode = 0o640): HostCommand => ({
    tool: 'file',
    path: path.join(directory, name),
    content,
    mode,
  });

  test('is valid in sh with every kind of step, and with none', () => {
    const everything = step('all', [
      ip('link', 'add', 'a', 'type', 'bridge'),
      ipIn('web', 'link', 'set', 'lo', 'up'),
      iptables('nat', '-A', 'c', '-m', 'comment', '--comment', 'two words'),
      { tool: 'sysctl', key: 'net.ipv4.ping_group_range', value: '0 2147483647' },
      { tool: 'mkdir', path: "/it's here", mode: 0o700 },
      { tool: 'remove', path: '/two words' },
      file('a b', 'x'),
      shell('true &&\n  true'),
    ]);
    for (const steps of [
      [],
      [step('none', [])],
      [everything],
      [{ ...everything, undo: everything.apply.filter(({ tool }) => tool !== 'file') }],
    ]) {
      const { status, stderr } = spawnSync('sh', ['-n'], { input: render(steps), encoding: 'utf8' });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    }
  });

  test('has each step below its reason, commands as a person types them', () => {
    const script = render([step('one', [ip('link', 'add', 'a')]), step('two', [iptables('nat', '-A', 'c')])]);
    expect(script).toMatch(
      /# --- Part one\n\n {2}# Why one\.\n {2}ip link add a\n\n {2}# Why two\.\n {2}iptables -w -t nat -A c\n/,
    );
  });

  test('leaves a step out that does nothing', () => {
    expect(render([step('idle', [], [ip('link', 'del', 'a')])])).not.toContain('Why idle');
  });

  test('has comment lines that fit a terminal', () => {
    const script = render([{ ...step('one', [ip('a')]), why: 'many words '.repeat(40).trim() }]);
    expect(Math.max(...script.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
    expect(script.match(/\bwords\b/g)).toHaveLength(40);
  });

  test('says how it is used', () => {
    for (const args of [[], ['remove']]) {
      const { status, stderr } = sh(render([]), ...args);
      expect(status).toBe(2);
      expect(stderr).toMatch(/^usage: .* add\|delete$/m);
    }
  });
});

describe('add', () => {
  test.each([
    'plain\n',
    'no line end',
    '$HOME `id` \\n $(id) "\n',
    "it's\n\n\n",
    'EOF\nafter\n',
    '  indented\n\ttab\n',
  ])('writes a file with %j in it, with its permissions', (content) => {
    const place = path.join(directory, "it's a file");
    const { status, stderr } = sh(render([step('file', [{ tool: 'file', path: place, content, mode: 0o640 }])]), 'add');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(fs.readFileSync(place, 'utf8')).toBe(content.endsWith('\n') ? content : `${content}\n`);
    expect(fs.statSync(place).mode & 0o777).toBe(0o640);
  });

  test('stops at the first error', () => {
    const { status, stdout } = sh(
      render([step('one', [shell('echo one')]), step('two', [shell('false')]), step('three', [shell('echo three')])]),
      'add',
    );
    expect(status).not.toBe(0);
    expect(stdout).toBe('one\n');
  });
});

describe('delete', () => {
  const echo = (name: string, ...undo: string[]) =>
    step(
      name,
      [shell(`echo +${name}`)],
      undo.map((text) => shell(text)),
    );

  test('goes backwards by steps, forwards within a step, and on after errors; it ends well', () => {
    const script = render([echo('a', 'echo -a1', 'echo -a2'), echo('b', 'echo bad >&2; false'), echo('c', 'echo -c')]);
    expect(sh(script, 'delete')).toMatchObject({ status: 0, stdout: '-c\n-a1\n-a2\n', stderr: '' });
  });

  test('is no error when nothing is there', () => {
    const place = path.join(directory, 'a b');
    const script = render([
      step('folder', [{ tool: 'mkdir', path: place, mode: 0o700 }], [{ tool: 'remove', path: place }]),
    ]);
    expect(sh(script, 'add').status).toBe(0);
    expect(fs.existsSync(place)).toBe(true);
    for (let time = 0; time < 2; time++) {
      expect(sh(script, 'delete').status).toBe(0);
      expect(fs.existsSync(place)).toBe(false);
    }
    expect(sh(render([]), 'delete').status).toBe(0);
  });
});

describe('long paths', () => {
  test('have a name, also for programs that the script starts', () => {
    const place = path.join(directory, 'long');
    const script = render(
      [
        step('folder', [{ tool: 'mkdir', path: `${place}/x`, mode: 0o700 }]),
        step('process', [shell(`sh -c 'echo ${place}/x'`)]),
      ],
      { folder: place },
    );
    expect(script.split(place)).toHaveLength(2);
    expect(sh(script, 'add').stdout).toBe(`${place}/x\n`);
    expect(fs.existsSync(`${place}/x`)).toBe(true);
  });

  test('that would need quotes stay as they are', () => {
    const place = path.join(directory, 'a b');
    const script = render([step('folder', [{ tool: 'mkdir', path: `${place}/x`, mode: 0o700 }])], { folder: place });
    expect(sh(script, 'add').status).toBe(0);
    expect(fs.existsSync(`${place}/x`)).toBe(true);
  });
});
