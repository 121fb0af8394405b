import ipaddr from 'ipaddr.js';
import { MinirunError } from '../errors.ts';

/** An IPv4 range as numbers: first and last address of the block. */
export interface Range {
  first: number;
  last: number;
  prefixLength: number;
}

/** @throws MinirunError unless `text` is an IPv4 address in dotted form */
export function parseAddress(text: string): number {
  if (!ipaddr.IPv4.isValidFourPartDecimal(text)) {
    throw new MinirunError(`invalid address "${text}"`, 'it is not an IPv4 address', 'Give one such as 10.90.0.7');
  }
  return ipaddr.IPv4.parse(text)
    .toByteArray()
    .reduce((value, byte) => value * 256 + byte, 0);
}

export function formatAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.');
}

/** @throws MinirunError unless `text` is an IPv4 range in CIDR form whose host bits are zero */
export function parseSubnet(text: string): Range {
  let parsed: [ipaddr.IPv4, number];
  try {
    parsed = ipaddr.IPv4.parseCIDR(text);
  } catch {
    throw new MinirunError(`invalid subnet "${text}"`, 'it is not an IPv4 range', 'Give one such as 10.20.0.0/24');
  }
  const [address, prefixLength] = parsed;
  if (prefixLength > 30 || prefixLength < 8) {
    throw new MinirunError(
      `invalid subnet "${text}"`,
      'the prefix length must be between 8 and 30',
      'Give a range such as 10.20.0.0/24',
    );
  }
  const size = 2 ** (32 - prefixLength);
  const given = parseAddress(address.toString());
  const first = given - (given % size);
  if (first !== given) {
    throw new MinirunError(
      `invalid subnet "${text}"`,
      'the address has bits set behind the prefix',
      `Give ${formatAddress(first)}/${prefixLength}`,
    );
  }
  return { first, last: first + size - 1, prefixLength };
}

export function overlaps(a: Range, b: Range): boolean {
  return a.first <= b.last && b.first <= a.last;
}

export function contains(range: Range, address: number): boolean {
  return address >= range.first && address <= range.last;
}

/** A locally administered MAC address that holds the IPv4 address: `02:42:0a:5a:00:02`. */
export function macOf(address: string): string {
  const bytes = address.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0'));
  return `02:42:${bytes.join(':')}`;
}
