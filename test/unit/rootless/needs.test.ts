import { expect, test } from 'bun:test';
import { needsOf } from '../../../src/rootless/needs.ts';

const needs = (line: string) =>
  Object.entries(needsOf(line.split(' ')))
    .flatMap(([name, needed]) => (needed === true ? [name] : []))
    .join(' ');

test.each([
  ['ps -a', ''],
  ['run --rm busybox true', 'uplink'],
  ['run --rm --network none busybox true', 'uplink isolated'],
  ['run --net=none busybox true', 'uplink isolated'],
  ['run -d -p 8080:80 busybox', 'uplink ports'],
  ['run -dp 8080:80 busybox', 'uplink ports'],
  ['run --publish-all busybox', 'uplink ports'],
  ['start web', 'uplink ports'],
  ['pull busybox', 'hostNetwork'],
  ['image pull busybox', 'hostNetwork'],
  ['image ls', ''],
])('%s needs: %s', (line, expected) => {
  expect(needs(line)).toBe(expected);
});
