import ipaddr from 'ipaddr.js';
import { MinirunError } from '../errors.ts';
import { sha256 } from '../host/sha256.ts';

export type Family = 4 | 6;

/** An address as a number. */
export interface Address {
  family: Family;
  value: bigint;
}

/** A block of addresses: the first and the last of it. */
export interface Range {
  family: Family;
  first: bigint;
  last: bigint;
  prefixLength: number;
}

/** Bits of an address. */
const bits = (family: Family) => (family === 4 ? 32 : 128);

function valueOf(parsed: ipaddr.IPv4 | ipaddr.IPv6): Address {
  return {
    family: parsed.kind() === 'ipv4' ? 4 : 6,
    value: parsed.toByteArray().reduce((value, byte) => value * 256n + BigInt(byte), 0n),
  };
}

/** The address that a text stands for, IPv4 in dotted form or IPv6; undefined for anything else. */
export function readAddress(text: string): Address | undefined {
  if (ipaddr.IPv4.isValidFourPartDecimal(text)) return valueOf(ipaddr.IPv4.parse(text));
  if (text.includes('%') || !ipaddr.IPv6.isValid(text)) return undefined;
  return valueOf(ipaddr.IPv6.parse(text));
}

/** @throws MinirunError unless `text` is an address, of the family that is asked for */
export function parseAddress(text: string, family?: Family): Address {
  const address = readAddress(text);
  if (address !== undefined && (family ?? address.family) === address.family) return address;
  throw new MinirunError(
    `invalid address "${text}"`,
    family === undefined ? 'it is neither an IPv4 nor an IPv6 address' : `it is not an IPv${family} address`,
    `Give one such as ${family === 6 ? 'fd00:90::7' : '10.90.0.7'}`,
  );
}

export function formatAddress({ family, value }: Address): string {
  const bytes = Array.from({ length: bits(family) / 8 }, (_, index) =>
    Number((value >> BigInt(bits(family) - 8 * (index + 1))) & 255n),
  );
  const parsed = ipaddr.fromByteArray(bytes);
  return parsed instanceof ipaddr.IPv6 ? parsed.toRFC5952String() : parsed.toString();
}

/** An address in the form in which it is written everywhere: `FD00::0002` is `fd00::2`. @throws MinirunError for none */
export function canonicalAddress(text: string, family?: Family): string {
  return formatAddress(parseAddress(text, family));
}

/** The block of `prefixLength` bits that an address lies in. */
export function blockOf({ family, value }: Address, prefixLength: number): Range {
  const size = 1n << BigInt(bits(family) - prefixLength);
  const first = value - (value % size);
  return { family, first, last: first + size - 1n, prefixLength };
}

/** An address with a prefix length, whose host bits may be set: `10.0.1.1/24`. Undefined for anything else. */
export function readCidr(text: string): { address: Address; prefixLength: number } | undefined {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(text);
  const address = match === null ? undefined : readAddress(match[1] as string);
  const prefixLength = Number(match?.[2]);
  if (address === undefined || prefixLength > bits(address.family)) return undefined;
  return { address, prefixLength };
}

/** @throws MinirunError unless `text` is a range in CIDR form whose host bits are zero and that has room for a network */
export function parseSubnet(text: string): Range {
  const cidr = readCidr(text);
  if (cidr === undefined) {
    throw new MinirunError(
      `invalid subnet "${text}"`,
      'it is not a range of addresses',
      'Give one such as 10.20.0.0/24 or fd00:20::/64',
    );
  }
  const { address, prefixLength } = cidr;
  const [least, most] = address.family === 4 ? [8, 30] : [8, 126];
  if (prefixLength > most || prefixLength < least) {
    throw new MinirunError(
      `invalid subnet "${text}"`,
      `the prefix length must be between ${least} and ${most}`,
      `Give a range such as ${address.family === 4 ? '10.20.0.0/24' : 'fd00:20::/64'}`,
    );
  }
  return withoutHostBits('subnet', text, address, prefixLength);
}

/** @throws MinirunError unless `text` is where a route can lead: a range in CIDR form, or an address alone */
export function parseDestination(text: string): Range {
  const alone = readAddress(text);
  const cidr = alone === undefined ? readCidr(text) : { address: alone, prefixLength: bits(alone.family) };
  if (cidr === undefined)
    throw new MinirunError(
      `invalid destination "${text}"`,
      'it is not a range of addresses',
      'Give one such as 10.20.0.0/24',
    );
  return withoutHostBits('destination', text, cidr.address, cidr.prefixLength);
}

function withoutHostBits(what: string, text: string, address: Address, prefixLength: number): Range {
  const range = blockOf(address, prefixLength);
  if (range.first === address.value) return range;
  throw new MinirunError(
    `invalid ${what} "${text}"`,
    'the address has bits set behind the prefix',
    `Give ${formatRange(range)}`,
  );
}

export function formatRange({ family, first, prefixLength }: Range): string {
  return `${formatAddress({ family, value: first })}/${prefixLength}`;
}

export function overlaps(a: Range, b: Range): boolean {
  return a.family === b.family && a.first <= b.last && b.first <= a.last;
}

export function contains(range: Range, { family, value }: Address): boolean {
  return range.family === family && value >= range.first && value <= range.last;
}

/** Whether all of `inner` lies in `outer`. */
export function encloses(outer: Range, inner: Range): boolean {
  return outer.family === inner.family && inner.first >= outer.first && inner.last <= outer.last;
}

/** Whether one network card can have an address of the form 02:42:0a:5a:00:02: not that of a group (IEEE 802), not none. */
export function isUnicastMac(mac: string): boolean {
  return /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/i.test(mac) && mac !== '00:00:00:00:00:00';
}

/** A locally administered MAC address made of an address: that of 10.90.0.2 is `02:42:0a:5a:00:02`. */
export function macOf(address: string): string {
  const bytes =
    readAddress(address)?.family === 4 ? address.split('.').map(Number) : [...digestOf(address).subarray(0, 4)];
  return `02:42:${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`;
}

/** The link-local IPv6 address that a MAC address gives: modified EUI-64 (RFC 4291, appendix A). */
export function linkLocalOf(mac: string): string {
  const [a = 0, b = 0, c = 0, ...rest] = mac.split(':').map((byte) => Number.parseInt(byte, 16));
  const value = [a ^ 2, b, c, 0xff, 0xfe, ...rest].reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  return formatAddress({ family: 6, value: (0xfe80n << 112n) | value });
}

/** Name of the host's end of a veth pair, made of the container's address: `mr` and the IPv4 address in hexadecimal. */
export function hostIfnameOf(address: string): string {
  const { family, value } = parseAddress(address);
  return family === 4
    ? `mr${value.toString(16).padStart(8, '0')}`
    : `mr6${digestOf(address).toString('hex').slice(0, 12)}`;
}

function digestOf(address: string): Buffer {
  return sha256(address);
}
