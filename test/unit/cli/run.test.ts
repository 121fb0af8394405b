import { expect, test } from 'bun:test';
import { withoutOptions } from '../../../src/cli/run.ts';

const dropped = ['detach', 'interactive', 'name', 'rm', 'cidfile', 'restart'];

test.each([
  ['-d busybox sleep 1', 'busybox sleep 1'],
  ['-dit --name web busybox', '-t busybox'],
  ['-itd -eA=1 -v /a:/b busybox -d', '-t -eA=1 -v /a:/b busybox -d'],
  ['--name=web --rm --cidfile f --env name --label=name=x busybox', '--env name --label=name=x busybox'],
  ['--restart always --network -d -d busybox', '--network -d busybox'],
  ['-te -d busybox', '-te -d busybox'],
  ['-d -- busybox --name x', '-- busybox --name x'],
  ['--rootfs dir --rm sh -c true', '--rootfs dir sh -c true'],
])('%s', (typed, kept) => {
  expect(withoutOptions(typed.split(' '), dropped)).toEqual(kept.split(' '));
});
