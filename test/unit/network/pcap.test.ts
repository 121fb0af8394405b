import { describe, expect, test } from 'bun:test';
import { spawnSync } from 'node:child_process';
import {
  type Packet,
  pcapHeader,
  pcapngHeader,
  pcapngPacket,
  pcapPacket,
  PcapReader,
} from '../../../src/network/pcap.ts';

/** An ARP request for an address, whose last byte is `last`. */
function arp(last: number): Buffer {
  const ethernet = 'ffffffffffff0242000000010806';
  return Buffer.from(
    `${ethernet}0001080006040001024200000001c0000201000000000000c00002${last.toString(16).padStart(2, '0')}`,
    'hex',
  );
}

const time = 1_700_000_000_123_456_789n;
const packets: Packet[] = [
  { time, data: arp(2), length: 42 },
  // 41 bytes: one that has to be filled up to a multiple of four.
  { time: time + 1n, data: arp(3).subarray(0, 41), length: 1500 },
];

function readBack(file: Buffer): string[] {
  const { stdout, stderr } = spawnSync('tcpdump', ['-r', '-', '-n', '-tt', '--time-stamp-precision=nano'], {
    input: file,
  });
  return [
    ...stdout.toString().trim().split('\n'),
    ...stderr
      .toString()
      .split('\n')
      .filter((line) => line.startsWith('tcpdump:')),
  ];
}

describe('a pcap stream', () => {
  const stream = Buffer.concat([pcapHeader({ linkType: 1, snapLength: 262144 }), ...packets.map(pcapPacket)]);

  test('is taken apart whatever the pieces are', () => {
    for (const size of [1, 7, 24, 1000]) {
      const reader = new PcapReader();
      const found: Packet[] = [];
      for (let at = 0; at < stream.length; at += size) found.push(...reader.push(stream.subarray(at, at + size)));
      expect(reader.header).toEqual({ linkType: 1, snapLength: 262144 });
      expect(found).toEqual(packets);
    }
  });

  test('may be of the other byte order, and count microseconds', () => {
    const swapped = Buffer.alloc(24 + 16 + 2);
    swapped.writeUInt32BE(0xa1b2c3d4, 0);
    swapped.writeUInt32BE(65535, 16);
    swapped.writeUInt32BE(276, 20);
    for (const [at, value] of [5, 7, 2, 60].entries()) swapped.writeUInt32BE(value, 24 + 4 * at);
    swapped.write('ab', 40);
    const reader = new PcapReader();
    expect(reader.push(swapped)).toEqual([{ time: 5_000_007_000n, data: Buffer.from('ab'), length: 60 }]);
    expect(reader.header).toEqual({ linkType: 276, snapLength: 65535 });
  });

  test('is refused when it is none', () => {
    expect(() => new PcapReader().push(Buffer.alloc(24))).toThrow('not a pcap stream');
  });

  test('is what tcpdump reads', () => {
    expect(readBack(stream)[0]).toBe('1700000000.123456789 ARP, Request who-has 192.0.2.2 tell 192.0.2.1, length 28');
  });
});

describe('a pcapng file', () => {
  const one = {
    linkType: 1,
    snapLength: 262144,
    name: 'web:eth0',
    description: 'eth0 of container 1f2e',
    filter: 'arp',
  };
  const file = Buffer.concat([
    pcapngHeader([one, { ...one, name: 'db:eth0', filter: '' }], 'minirun'),
    pcapngPacket(0, packets[0] as Packet),
    pcapngPacket(1, packets[1] as Packet),
  ]);

  test('is what tcpdump reads, with nanoseconds', () => {
    const lines = readBack(file);
    expect(lines).toHaveLength(2);
    expect(lines[0]).toBe('1700000000.123456789 ARP, Request who-has 192.0.2.2 tell 192.0.2.1, length 28');
    expect(lines[1]).toStartWith('1700000000.123456790 ');
  });

  test('has blocks whose length stands at both ends, and the interfaces by name', () => {
    const types: number[] = [];
    for (let at = 0; at < file.length; ) {
      const length = file.readUInt32LE(at + 4);
      expect(length % 4).toBe(0);
      expect(file.readUInt32LE(at + length - 4)).toBe(length);
      types.push(file.readUInt32LE(at));
      at += length;
    }
    expect(types).toEqual([0x0a0d0d0a, 1, 1, 6, 6]);
    for (const name of ['web:eth0', 'db:eth0', 'eth0 of container 1f2e']) expect(file.includes(name)).toBe(true);
  });
});
