import { beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { masked } from '../support/transcript.ts';

// What the documents show has to exist: commands and their flags, links, files. Their output is not checked here.

const repository = path.resolve(import.meta.dir, '../..');

const documents = [
  ...fs.readdirSync(repository).filter((name) => name.endsWith('.md')),
  ...fs
    .readdirSync(path.join(repository, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
].toSorted();

const read = (document: string): string => fs.readFileSync(path.join(repository, document), 'utf8');

const isCode = (line: string): boolean => /^ {4}/.test(line);

/** What stands between backticks in a document; such a piece may go on in the next line. */
function inlineCode(text: string): string[] {
  const prose = text.split('\n').filter((line) => !isCode(line));
  return [...prose.join('\n').matchAll(/`([^`]+)`/g)].map(([, code = '']) => code.replaceAll(/\s+/g, ' '));
}

/** Commands that a document shows, without what is before `minirun` and without what a shell does with them. */
function shownCommands(text: string): string[] {
  const typed = text
    .split('\n')
    .filter(isCode)
    .map((line) => line.trim().replace(/^[$#] /, ''));
  return [...typed, ...inlineCode(text)]
    .map((line) => line.replace(/^sudo /, '').replace(/^(\w+=\S+ )+/, ''))
    .flatMap((line) => /^(?:bin\/)?minirun +([^|;&>]+)/.exec(line)?.[1]?.trim() ?? []);
}

/** Words of a shell command; quotes keep spaces together. */
function words(line: string): string[] {
  return [...line.matchAll(/(?:[^\s'"]|'[^']*'|"[^"]*")+/g)].map(([word]) => word.replaceAll(/['"]/g, ''));
}

const program = new Command('minirun')
  .enablePositionalOptions()
  .option('--root <dir>')
  .option('-v, --version')
  .option('-h, --help');

beforeAll(async () => {
  const directory = path.join(repository, 'src/cli');
  for (const file of fs.readdirSync(directory).filter((name) => name.endsWith('.ts'))) {
    const commands = (await import(path.join(directory, file))) as Record<string, unknown>;
    for (const [name, register] of Object.entries(commands)) {
      if (name.startsWith('register')) (register as (program: Command) => void)(program);
    }
  }
});

/** What is wrong with a command line; undefined when all of its commands and flags exist. */
function wrongWith(line: string): string | undefined {
  let command = program;
  let positionals = 0;
  const rest = words(line);
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === '--') return undefined;
    if (!word.startsWith('-') || word === '-') {
      const next =
        positionals === 0
          ? command.commands.find((each) => [each.name(), ...each.aliases()].includes(word))
          : undefined;
      if (next !== undefined) {
        command = next;
        continue;
      }
      if (command.commands.length > 0) return /^(init$|[A-Z…])/.test(word) ? undefined : `no command "${word}"`;
      positionals++;
      // What follows is the container's own command line.
      if (['run', 'create'].includes(command.name()) && command.parent === program) return undefined;
      if (command.name() === 'exec') return undefined;
      continue;
    }
    const problem = takeFlag(command, word, rest);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** Checks one word of flags, several letters as in `-it` too, and takes its value from the words that follow. */
function takeFlag(command: Command, word: string, rest: string[]): string | undefined {
  const names = word.startsWith('--')
    ? [word.split('=')[0] as string]
    : (word.match(/\w/g) ?? []).map((letter) => `-${letter}`);
  for (const [index, name] of names.entries()) {
    if (name === '--help') continue;
    const option = command.options.find(
      ({ long, short, flags }) => long === name || short === name || flags.split(/[ ,]+/).includes(name),
    );
    if (option === undefined) return `"${command.name()}" has no flag ${name}`;
    if (!option.required) continue;
    if (!word.includes('=') && index === names.length - 1) rest.shift();
    break;
  }
  return undefined;
}

test('a command or a flag that does not exist is found', () => {
  expect(wrongWith('run --rm -it alpine sh --bogus')).toBeUndefined();
  expect(wrongWith('network create --subnet 10.20.0.0/24 lab')).toBeUndefined();
  expect(wrongWith('run --rm --bogus alpine')).toContain('--bogus');
  expect(wrongWith('run -dx alpine')).toContain('-x');
  expect(wrongWith('network join lab web')).toContain('join');
  expect(wrongWith('attach web')).toContain('attach');
});

test('there are commands in the README', () => {
  expect(shownCommands(read('README.md')).length).toBeGreaterThan(15);
});

describe.each(documents)('%s', (document) => {
  const text = read(document);

  test('shows commands that exist', () => {
    const wrong = shownCommands(text).flatMap((line) => {
      const problem = wrongWith(line);
      return problem === undefined ? [] : [`minirun ${line}: ${problem}`];
    });
    expect(wrong).toEqual([]);
  });

  test('has links that lead somewhere', () => {
    const targets = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target);
    const broken = targets.filter((target) => {
      if (/^(https?|mailto):/.test(target)) return false;
      const [file = ''] = target.split('#');
      return file !== '' && !fs.existsSync(path.resolve(repository, path.dirname(document), file));
    });
    expect(broken).toEqual([]);
  });

  test('names files that exist', () => {
    const named = inlineCode(text).flatMap((code) => code.match(/^(?:src|test|bin|images|docs)\/[\w./-]+/)?.[0] ?? []);
    // The folder for files with several containers is a rule before it is a folder.
    const missing = named.filter(
      (file) => file !== 'src/lab/' && !/[A-Z]{4}/.test(file) && !fs.existsSync(path.join(repository, file)),
    );
    expect(missing).toEqual([]);
  });
});

test('docs/networking.md shows what the demos print, and nothing else', () => {
  const shown: string[] = [];
  let isFenced = false;
  for (const line of read('docs/networking.md').split('\n')) {
    if (line.startsWith('```')) isFenced = !isFenced;
    else if (isFenced) shown.push(line);
    else if (isCode(line)) shown.push(line.slice(4));
  }
  const sources = ['docs/demos', 'docs/explain'].flatMap((directory) =>
    fs.readdirSync(path.join(repository, directory)).map((name) => read(`${directory}/${name}`)),
  );
  const lines = (text: string) =>
    masked(text)
      .split('\n')
      .map((line) => line.trim());
  const known = new Set(sources.flatMap(lines));
  expect(shown.length).toBeGreaterThan(100);
  expect(lines(shown.join('\n')).filter((line) => !known.has(line))).toEqual([]);
});
