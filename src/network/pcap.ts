/**
 * Capture files. pcap is what tcpdump writes: one header, then packets of one interface. pcapng has blocks, and packets
 * of several interfaces (https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html). There is no npm package that
 * writes pcapng: `pcap-ng-parser` and `pcap-parser` only read, `pcap` is a binding of libpcap.
 */

/** What a pcap stream says about itself. */
export interface PcapHeader {
  /** https://www.tcpdump.org/linktypes.html; 1 is Ethernet. */
  linkType: number;
  /** Most bytes that are kept of a packet. */
  snapLength: number;
}

export interface Packet {
  /** Nanoseconds since 1970. */
  time: bigint;
  /** What was kept of it. */
  data: Buffer;
  /** Bytes that it had. */
  length: number;
}

const microseconds = 0xa1b2c3d4;
const nanoseconds = 0xa1b23c4d;

/** Takes a pcap stream apart, in pieces as they come. */
export class PcapReader {
  header?: PcapHeader;
  #rest: Buffer = Buffer.alloc(0);
  #isLittleEndian = true;
  #unit = 1n;

  /** @returns the packets that are complete with this piece. @throws Error when it is no pcap stream */
  push(piece: Buffer): Packet[] {
    const data = this.#rest.length === 0 ? piece : Buffer.concat([this.#rest, piece]);
    let at = 0;
    if (this.header === undefined) {
      if (data.length < 24) {
        this.#rest = data;
        return [];
      }
      this.header = this.#readHeader(data);
      at = 24;
    }
    const packets: Packet[] = [];
    while (data.length - at >= 16) {
      const captured = this.#uint32(data, at + 8);
      if (data.length - at - 16 < captured) break;
      packets.push({
        time: BigInt(this.#uint32(data, at)) * 1_000_000_000n + BigInt(this.#uint32(data, at + 4)) * this.#unit,
        data: data.subarray(at + 16, at + 16 + captured),
        length: this.#uint32(data, at + 12),
      });
      at += 16 + captured;
    }
    this.#rest = data.subarray(at);
    return packets;
  }

  #readHeader(data: Buffer): PcapHeader {
    const known = [microseconds, nanoseconds];
    this.#isLittleEndian = known.includes(data.readUInt32LE(0));
    const magic = this.#uint32(data, 0);
    if (!known.includes(magic)) throw new Error('not a pcap stream');
    this.#unit = magic === nanoseconds ? 1n : 1000n;
    // The upper bits of the last field tell of a frame check sequence.
    return { linkType: this.#uint32(data, 20) & 0xffff, snapLength: this.#uint32(data, 16) };
  }

  #uint32(data: Buffer, at: number): number {
    return this.#isLittleEndian ? data.readUInt32LE(at) : data.readUInt32BE(at);
  }
}

/** The beginning of a pcap stream with nanoseconds. */
export function pcapHeader({ linkType, snapLength }: PcapHeader): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(nanoseconds, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(snapLength, 16);
  header.writeUInt32LE(linkType, 20);
  return header;
}

/** A packet of a pcap stream with nanoseconds. */
export function pcapPacket({ time, data, length }: Packet): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(Number(time / 1_000_000_000n), 0);
  header.writeUInt32LE(Number(time % 1_000_000_000n), 4);
  header.writeUInt32LE(data.length, 8);
  header.writeUInt32LE(length, 12);
  return Buffer.concat([header, data]);
}

/** An interface whose packets are in a pcapng file. */
export interface PcapngInterface extends PcapHeader {
  /** `web:eth0` */
  name: string;
  description: string;
  /** The filter as it was typed; empty for none. */
  filter: string;
}

/** The beginning of a pcapng file: one section, and the interfaces that packets then name by their number. */
export function pcapngHeader(interfaces: readonly PcapngInterface[], application: string): Buffer {
  const section = Buffer.alloc(16);
  section.writeUInt32LE(0x1a2b3c4d, 0);
  section.writeUInt16LE(1, 4);
  // The section's length is not known.
  section.writeBigInt64LE(-1n, 8);
  return Buffer.concat([
    block(0x0a0d0d0a, [section, option(4, Buffer.from(application)), endOfOptions]),
    ...interfaces.map(({ linkType, snapLength, name, description, filter }) => {
      const fixed = Buffer.alloc(8);
      fixed.writeUInt16LE(linkType, 0);
      fixed.writeUInt32LE(snapLength, 4);
      return block(1, [
        fixed,
        option(2, Buffer.from(name)),
        option(3, Buffer.from(description)),
        // Time stamps count units of 10⁻⁹ s.
        option(9, Buffer.from([9])),
        // 0: a filter in libpcap's words.
        ...(filter === '' ? [] : [option(11, Buffer.from(`\0${filter}`))]),
        endOfOptions,
      ]);
    }),
  ]);
}

/** An Enhanced Packet Block. @param index which of the file's interfaces it came from, counted from 0 */
export function pcapngPacket(index: number, { time, data, length }: Packet): Buffer {
  const fixed = Buffer.alloc(20);
  fixed.writeUInt32LE(index, 0);
  fixed.writeUInt32LE(Number(time >> 32n), 4);
  fixed.writeUInt32LE(Number(time & 0xffff_ffffn), 8);
  fixed.writeUInt32LE(data.length, 12);
  fixed.writeUInt32LE(length, 16);
  return block(6, [fixed, padded(data)]);
}

const endOfOptions = Buffer.alloc(4);

function option(code: number, value: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(code, 0);
  head.writeUInt16LE(value.length, 2);
  return Buffer.concat([head, padded(value)]);
}

function padded(data: Buffer): Buffer {
  const missing = (4 - (data.length % 4)) % 4;
  return missing === 0 ? data : Buffer.concat([data, Buffer.alloc(missing)]);
}

function block(type: number, parts: readonly Buffer[]): Buffer {
  const total = 12 + parts.reduce((sum, { length }) => sum + length, 0);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(type, 0);
  head.writeUInt32LE(total, 4);
  return Buffer.concat([head, ...parts, head.subarray(4)], total);
}
