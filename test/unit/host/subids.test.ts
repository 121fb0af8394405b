import { expect, test } from 'bun:test';
import { freeRange, mappingArguments, planMapping, rangesOf } from '../../../src/host/subids.ts';

const text = `# comment
alice:100000:65536
bob:165536:65536
1000:300000:1000
alice:not:1
alice:400000:0
`;

test('the ranges of a user are those of the name and of the number, in their order', () => {
  expect(rangesOf(text, { name: 'alice', uid: 1000 })).toEqual([
    { start: 100_000, count: 65_536 },
    { start: 300_000, count: 1000 },
  ]);
  expect(rangesOf(text, { name: 'eve', uid: 7 })).toEqual([]);
});

test('the user becomes root, and the ranges follow without a gap', () => {
  const mapping = planMapping(1000, rangesOf(text, { name: 'alice', uid: 1000 }));
  expect(mappingArguments(mapping).join(' ')).toBe('0 1000 1 1 100000 65536 65537 300000 1000');
});

test('no more lines than the kernel takes', () => {
  const many = Array.from({ length: 400 }, (_, index) => ({ start: 100_000 + index, count: 1 }));
  expect(planMapping(1000, many)).toHaveLength(340);
});

test('a free range begins behind all that are in use', () => {
  expect(freeRange('', '')).toBe('100000-165535');
  expect(freeRange(text, 'x:500000:65536')).toBe('565536-631071');
});
