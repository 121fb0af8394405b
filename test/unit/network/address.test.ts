import { describe, expect, test } from 'bun:test';
import { MinirunError } from '../../../src/errors.ts';
import {
  blockOf,
  canonicalAddress,
  contains,
  encloses,
  formatAddress,
  formatRange,
  hostIfnameOf,
  linkLocalOf,
  macOf,
  overlaps,
  parseAddress,
  parseDestination,
  parseSubnet,
  type Range,
  readCidr,
} from '../../../src/network/address.ts';

const ends = ({ family, first, last }: Range) => [first, last].map((value) => formatAddress({ family, value }));

describe('addresses', () => {
  test.each([
    ['0.0.0.0', 4, 0n],
    ['10.90.0.7', 4, 0x0a_5a_00_07n],
    ['128.0.0.1', 4, 0x80_00_00_01n],
    ['255.255.255.255', 4, 2n ** 32n - 1n],
    ['::', 6, 0n],
    ['::1', 6, 1n],
    ['fd00:90::7', 6, 0xfd000090_00000000_00000000_00000007n],
    ['ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', 6, 2n ** 128n - 1n],
  ] as const)('%s', (text, family, value) => {
    expect(parseAddress(text)).toEqual({ family, value });
    expect(formatAddress({ family, value })).toBe(text);
  });

  // RFC 5952: lower case, no leading zeros, the longest run of zeros in short.
  test.each([
    ['FD00:0090:0:0:0:0:0:0007', 'fd00:90::7'],
    ['fd00:0:0:1:0:0:0:1', 'fd00:0:0:1::1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['10.90.0.7', '10.90.0.7'],
  ])('%s is written %s', (text, canonical) => {
    expect(canonicalAddress(text)).toBe(canonical);
  });

  test('of the wrong family: the message says which one is wanted', () => {
    expect(() => parseAddress('fd00::1', 4)).toThrow(/"fd00::1": it is not an IPv4 address/);
    expect(() => parseAddress('10.0.0.1', 6)).toThrow(/"10.0.0.1": it is not an IPv6 address/);
  });

  // inet_aton(3) takes the last four of these for other addresses than they look like.
  test.each([
    '',
    'web',
    '10.90.0',
    '10.90.0.256',
    '10.90.0.7 ',
    '10.90.0.7/16',
    ':::1',
    'fe80::1%eth0',
    'fd00::1/64',
    'fd00:12345::',
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
    expect(ends(range)).toEqual(['10.20.4.0', '10.20.7.255']);
    expect(range.prefixLength).toBe(22);
  });

  test.each([
    ['fd00:20::/64', 'fd00:20::', 'fd00:20::ffff:ffff:ffff:ffff'],
    ['fd00:20::/126', 'fd00:20::', 'fd00:20::3'],
    ['fd00:20::80/121', 'fd00:20::80', 'fd00:20::ff'],
    ['fd00::/8', 'fd00::', 'fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ])('%s: from %s to %s', (text, first, last) => {
    const range = parseSubnet(text);
    expect(ends(range)).toEqual([first, last]);
    expect(formatRange(range)).toBe(text);
  });

  test('is written in one way', () => {
    expect(formatRange(parseSubnet('FD00:0020:0::/64'))).toBe('fd00:20::/64');
  });

  test('the upper half of the address space', () => {
    const range = parseSubnet('255.255.255.252/30');
    expect([range.first, range.last]).toEqual([2n ** 32n - 4n, 2n ** 32n - 1n]);
  });

  test.each([
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/7',
    '10.0.0.0/31',
    'fd00::',
    'fd00::/129',
    'fd00::/127',
    'fd00::/7',
    'fd00::/-1',
    'lan/24',
    '/24',
    '',
  ])('refused: %j', (text) => {
    expect(() => parseSubnet(text)).toThrow(MinirunError);
  });

  test('host bits: the message names the range that was meant', () => {
    expect(() => parseSubnet('10.20.0.5/24')).toThrow(/bits set behind the prefix.*10\.20\.0\.0\/24/);
    expect(() => parseSubnet('fd00:20::5/64')).toThrow(/bits set behind the prefix.*fd00:20::\/64/);
  });
});

describe('destinations of routes', () => {
  test.each([
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['10.9.9.8/30', '10.9.9.8/30'],
    ['10.9.9.9', '10.9.9.9/32'],
    ['::/0', '::/0'],
    ['fd00::7', 'fd00::7/128'],
  ])('%s is %s', (text, canonical) => {
    expect(formatRange(parseDestination(text))).toBe(canonical);
  });

  test.each(['default', '10.9.9.9/30', '10.0.0.0/33', ''])('refused: %j', (text) => {
    expect(() => parseDestination(text)).toThrow(MinirunError);
  });
});

test('an address with a prefix length keeps its host bits', () => {
  expect(readCidr('10.0.1.1/24')).toEqual({ address: parseAddress('10.0.1.1'), prefixLength: 24 });
  expect(readCidr('fd00::1/64')).toEqual({ address: parseAddress('fd00::1'), prefixLength: 64 });
  for (const text of ['10.0.1.1', '10.0.1.1/33', 'fd00::1/129', '10.0.1.1/2x']) expect(readCidr(text)).toBeUndefined();
});

test('the block that an address lies in', () => {
  expect(formatRange(blockOf(parseAddress('10.1.2.3'), 8))).toBe('10.0.0.0/8');
  expect(formatRange(blockOf(parseAddress('10.1.2.3'), 0))).toBe('0.0.0.0/0');
  expect(formatRange(blockOf(parseAddress('fd00:1::5'), 32))).toBe('fd00:1::/32');
});

test.each([
  ['10.0.0.0/24', '10.0.0.0/24', true],
  ['10.0.0.0/16', '10.0.255.0/24', true],
  ['10.0.255.0/24', '10.0.0.0/16', true],
  ['10.0.0.0/24', '10.0.1.0/24', false],
  ['10.0.1.0/24', '10.0.0.0/24', false],
  ['fd00:1::/64', 'fd00::/16', true],
  ['fd00:1::/64', 'fd00:1:0:1::/64', false],
  // The same number, another family.
  ['0.0.0.0/8', '::/8', false],
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

test('one family does not contain the other', () => {
  expect(contains(parseSubnet('0.0.0.0/8'), parseAddress('::1'))).toBe(false);
  expect(contains(parseSubnet('fd00::/64'), parseAddress('fd00::1'))).toBe(true);
});

test.each([
  ['10.0.0.0/16', '10.0.3.0/24', true],
  ['10.0.0.0/16', '10.0.0.0/16', true],
  ['10.0.3.0/24', '10.0.0.0/16', false],
  ['10.0.0.0/16', '10.1.0.0/24', false],
  ['0.0.0.0/8', '::/64', false],
])('%s encloses %s: %s', (outer, inner, expected) => {
  expect(encloses(parseSubnet(outer), parseSubnet(inner))).toBe(expected);
});

test('a MAC address is unicast, locally administered, and its own for each address', () => {
  expect(macOf('10.90.0.2')).toBe('02:42:0a:5a:00:02');
  expect(macOf('255.1.16.0')).toBe('02:42:ff:01:10:00');
  const macs = ['fd00::2', 'fd00::3', 'fd01::2'].map(macOf);
  expect(new Set(macs).size).toBe(3);
  for (const mac of macs) expect(mac).toMatch(/^02:42(:[0-9a-f]{2}){4}$/);
});

test('a link-local address is that which the kernel makes of the MAC', () => {
  expect(linkLocalOf('02:42:0a:5a:00:02')).toBe('fe80::42:aff:fe5a:2');
  expect(linkLocalOf('fe:42:0a:5a:00:02')).toBe('fe80::fc42:aff:fe5a:2');
});

test('names of host interfaces fit in the 15 characters of IFNAMSIZ and differ for each address', () => {
  const names = ['10.90.0.2', '10.90.2.0', '1.2.3.4', '255.255.255.255', '0.0.0.1'].map(hostIfnameOf);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(name).toMatch(/^mr[0-9a-f]{8}$/);
  const names6 = ['fd00::2', 'fd00::3', 'fd01::2', 'fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff'].map(hostIfnameOf);
  expect(new Set(names6).size).toBe(names6.length);
  for (const name of names6) expect(name).toMatch(/^mr6[0-9a-f]{12}$/);
});
