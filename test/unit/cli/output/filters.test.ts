import { expect, test } from 'bun:test';
import { labelFilter, parseFilters, patternFilter, type Filter } from '../../../../src/cli/output/filters.ts';

interface Container {
  name: string;
  status: string;
  labels: Record<string, string>;
}

const containers: readonly Container[] = [
  { name: 'web', status: 'running', labels: { tier: 'front', 'com.example.owner': 'a=b' } },
  { name: 'web2', status: 'exited', labels: { tier: 'front' } },
  { name: 'db', status: 'running', labels: { tier: 'back', backup: '' } },
];

const known: Record<string, Filter<Container>> = {
  name: patternFilter(({ name }) => name),
  status: { matches: ({ status }, value) => status === value, values: ['created', 'running', 'exited'] },
  label: labelFilter(({ labels }) => labels),
};

function names(...filters: string[]): string[] {
  return containers.filter(parseFilters(filters, known)).map(({ name }) => name);
}

test('no filter, and an empty one, keep everything', () => {
  expect(names()).toEqual(['web', 'web2', 'db']);
  expect(names('')).toEqual(['web', 'web2', 'db']);
});

test('values of one key are alternatives', () => {
  expect(names('status=running')).toEqual(['web', 'db']);
  expect(names('status=running', 'status=exited')).toEqual(['web', 'web2', 'db']);
});

test('different keys must all match', () => {
  expect(names('status=running', 'name=web')).toEqual(['web']);
  expect(names('status=created', 'name=web')).toEqual([]);
});

test('names are regular expressions found anywhere', () => {
  expect(names('name=web')).toEqual(['web', 'web2']);
  expect(names('name=^web$')).toEqual(['web']);
  expect(names('name=^(db|web2)$')).toEqual(['web2', 'db']);
  expect(names('name=(')).toEqual([]);
});

test('labels match by key, or by key and value, and all of them must', () => {
  expect(names('label=backup')).toEqual(['db']);
  expect(names('label=backup=')).toEqual(['db']);
  expect(names('label=tier=front')).toEqual(['web', 'web2']);
  expect(names('label=com.example.owner=a=b')).toEqual(['web']);
  expect(names('label=tier=front', 'label=tier=back')).toEqual([]);
  expect(names('label=toString')).toEqual([]);
});

test('keys are not case-sensitive and spaces around them do not matter', () => {
  expect(names(' Status = exited ')).toEqual(['web2']);
});

test('a bad filter is refused with what to write instead', () => {
  expect(() => names('colour=red')).toThrow(
    'invalid filter "colour=red": there is no key "colour" here. Use one of: label, name, status.',
  );
  expect(() => names('toString=x')).toThrow('there is no key "tostring" here');
  expect(() => names('running')).toThrow('invalid filter "running": it has no value. Write it as --filter KEY=VALUE.');
  expect(() => names('status=asleep')).toThrow(
    'invalid filter "status=asleep": status cannot be "asleep". Use one of: created, running, exited.',
  );
});
