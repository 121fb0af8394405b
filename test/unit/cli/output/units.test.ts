import { expect, test } from 'bun:test';
import { humanDuration, humanSize } from '../../../../src/cli/output/units.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

test.each([
  [-5 * SECOND, 'Less than a second'],
  [0, 'Less than a second'],
  [999, 'Less than a second'],
  [SECOND, '1 second'],
  [5 * SECOND + 900, '5 seconds'],
  [59 * SECOND, '59 seconds'],
  [MINUTE, 'About a minute'],
  [2 * MINUTE - 1, 'About a minute'],
  [3 * MINUTE, '3 minutes'],
  [59 * MINUTE + 59 * SECOND, '59 minutes'],
  [HOUR, 'About an hour'],
  [HOUR + 29 * MINUTE, 'About an hour'],
  [HOUR + 30 * MINUTE, '2 hours'],
  [47 * HOUR, '47 hours'],
  [48 * HOUR, '2 days'],
  [3 * DAY, '3 days'],
  [13 * DAY, '13 days'],
  [14 * DAY, '2 weeks'],
  [59 * DAY, '8 weeks'],
  [60 * DAY, '2 months'],
  [150 * DAY, '5 months'],
  [729 * DAY, '24 months'],
  [730 * DAY, '2 years'],
  [3 * 365 * DAY, '3 years'],
])('%d ms is "%s"', (milliseconds, expected) => {
  expect(humanDuration(milliseconds)).toBe(expected);
});

test.each([
  [0, '0B'],
  [1, '1B'],
  [999, '999B'],
  [1000, '1kB'],
  [1024, '1.024kB'],
  [1_000_000, '1MB'],
  [4_270_000, '4.27MB'],
  [4_274_321, '4.274MB'],
  [999_999, '1000kB'],
  [1_500_000_000, '1.5GB'],
  [2_000_000_000_000, '2TB'],
])('%d bytes are "%s"', (bytes, expected) => {
  expect(humanSize(bytes)).toBe(expected);
});

test('sizes of images have three digits', () => {
  expect(humanSize(4_274_321, 3)).toBe('4.27MB');
  expect(humanSize(117_312_000, 3)).toBe('117MB');
  expect(humanSize(999_900, 3)).toBe('1000kB');
});
