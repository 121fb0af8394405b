import { describe, expect, test } from 'bun:test';
import { MinirunError } from '../../../src/errors.ts';
import { contains, formatAddress, macOf, overlaps, parseAddress, parseSubnet } from '../../../src/network/address.ts';

describe('addresses', () => {
  test.each([
    ['0.0.0.0', 0],
    ['10.90.0.7', 10 * 2 ** 24 + 90 * 2 ** 16 + 7],
    ['128.0.0.1', 2 ** 31 + 1],
    ['255.255.255.255', 2 ** 32 - 1],
  ])('%s', (text, value) => {
    expect(parseAddress(text)).toBe(value);
    expect(formatAddress(value)).toBe(text);
  });

  // inet_aton(3) takes the last four of these for other addresses than they look like.
  test.each([
    '',
    'web',
    '10.90.0',
    '10.90.0.256',
    '10.90.0.7 ',
    '10.90.0.7/16',
    '::1',
    '0x7f000001',
    '10.1',
    '167772161',
  ])('refused: %j', (text) => {
    expect(() => parseAddress(text)).toThrow(MinirunError);
  });
});

describe('subnets', () => {
  test('its first and last address', () => {
    const range = parseSubnet('10.20.4.0/22');
    expect(formatAddress(range.first)).toBe('10.20.4.0');
    expect(formatAddress(range.last)).toBe('10.20.7.255');
    expect(range.prefixLength).toBe(22);
  });

  test('the upper half of the address space', () => {
    const range = parseSubnet('255.255.255.252/30');
    expect([range.first, range.last]).toEqual([2 ** 32 - 4, 2 ** 32 - 1]);
  });

  test.each(['10.0.0.0', '10.0.0.0/', '10.0.0.0/33', '10.0.0.0/7', '10.0.0.0/31', 'fd00::/64', 'lan/24', ''])(
    'refused: %j',
    (text) => {
      expect(() => parseSubnet(text)).toThrow(MinirunError);
    },
  );

  test('host bits: the message names the range that was meant', () => {
    expect(() => parseSubnet('10.20.0.5/24')).toThrow(/bits set behind the prefix.*10\.20\.0\.0\/24/);
  });
});

test.each([
  ['10.0.0.0/24', '10.0.0.0/24', true],
  ['10.0.0.0/16', '10.0.255.0/24', true],
  ['10.0.255.0/24', '10.0.0.0/16', true],
  ['10.0.0.0/24', '10.0.1.0/24', false],
  ['10.0.1.0/24', '10.0.0.0/24', false],
])('%s overlaps %s: %s', (a, b, expected) => {
  expect(overlaps(parseSubnet(a), parseSubnet(b))).toBe(expected);
});

test.each([
  ['10.0.0.0', true],
  ['10.0.0.255', true],
  ['10.0.1.0', false],
  ['9.255.255.255', false],
])('10.0.0.0/24 contains %s: %s', (address, expected) => {
  expect(contains(parseSubnet('10.0.0.0/24'), parseAddress(address))).toBe(expected);
});

test('a MAC address is unicast, locally administered, and its own for each address', () => {
  expect(macOf('10.90.0.2')).toBe('02:42:0a:5a:00:02');
  expect(macOf('255.1.16.0')).toBe('02:42:ff:01:10:00');
});
