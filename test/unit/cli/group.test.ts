import { expect, test } from 'bun:test';
import { Command } from 'commander';
import { registerContainer } from '../../../src/cli/container.ts';
import { containerCommands, shortened } from '../../../src/cli/group.ts';

test.each([
  ['container run --rm busybox container ls', 'run --rm busybox container ls'],
  ['container ls -a', 'ps -a'],
  ['container list', 'ps'],
  ['container inspect -f {{.Id}} web', 'inspect --type=container -f {{.Id}} web'],
  ['container remove -f web', 'rm -f web'],
  ['container prune -f', 'container prune -f'],
  ['container --help', 'container --help'],
  ['container nonsense', 'container nonsense'],
  ['container', 'container'],
  ['image ls', 'image ls'],
  ['run container ls', 'run container ls'],
])('%s is %s', (line, short) => {
  expect(shortened(line.split(' ')).join(' ')).toBe(short);
});

test('the help of the group shows what there is', () => {
  const program = new Command();
  registerContainer(program);
  const shown = program.commands[0]?.commands.map((each) => `${each.name()}: ${each.summary()}`) ?? [];
  expect(shown).toContain('ls: The same as minirun ps');
  expect(shown).toContain('inspect: The same as minirun inspect');
  expect(shown).toContain('run: The same as minirun run');
  expect(shown).toContain('prune: Remove containers that do not run');
  expect(shown).toHaveLength(containerCommands.size + 3);
});

test('every command that is said to be the same is one of minirun', async () => {
  const main = await Bun.file(`${import.meta.dir}/../../../src/cli/main.ts`).text();
  expect([...containerCommands].filter((name) => !main.includes(`\n  ${name}: {`))).toEqual([]);
});
