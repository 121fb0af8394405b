/**
 * Sends one router advertisement (RFC 4861, 4.2) by a packet socket: `bun router-advertisement.ts IFNAME`. Its router is
 * fe80::bad, for half an hour.
 */
import { dlopen, FFIType, ptr } from 'bun:ffi';
import fs from 'node:fs';

const { i32, ptr: pointer } = FFIType;
const { symbols: libc } = dlopen('libc.so.6', {
  socket: { args: [i32, i32, i32], returns: i32 },
  sendto: { args: [i32, pointer, i32, i32, pointer, i32], returns: i32 },
});

const ifname = process.argv[2] as string;
const ifindex = Number(fs.readFileSync(`/sys/class/net/${ifname}/ifindex`, 'latin1'));
const mac = Buffer.from('02000000bad0', 'hex');
const source = Buffer.from('fe800000000000000000000000000bad', 'hex');
const everybody = Buffer.from('ff020000000000000000000000000001', 'hex');

const message = Buffer.from([134, 0, 0, 0, 64, 0, 1800 >> 8, 1800 & 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, ...mac]);
message.writeUInt16BE(checksum(message), 2);
const header = Buffer.alloc(8);
header[0] = 0x60;
header.writeUInt16BE(message.length, 4);
header[6] = 58;
header[7] = 255;
const frame = Buffer.concat([
  Buffer.from('333300000001', 'hex'),
  mac,
  Buffer.from('86dd', 'hex'),
  header,
  source,
  everybody,
  message,
]);

/** Of ICMPv6, over the pseudo header too (RFC 4443, 2.3). */
function checksum(data: Buffer): number {
  const length = Buffer.alloc(8);
  length.writeUInt32BE(data.length, 0);
  length[7] = 58;
  const all = Buffer.concat([source, everybody, length, data]);
  let sum = 0;
  for (let at = 0; at < all.length; at += 2) sum += all.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

/** struct sockaddr_ll, packet(7): family, protocol, index, type of hardware, type of packet, length and address. */
const address = Buffer.alloc(20);
address.writeUInt16LE(17, 0);
address.writeUInt16BE(0x86dd, 2);
address.writeInt32LE(ifindex, 4);
address[11] = 6;
Buffer.from('333300000001', 'hex').copy(address, 12);

// AF_PACKET, SOCK_RAW, ETH_P_IPV6 in the order of the network.
const fd = libc.socket(17, 3, 0xdd86);
const sent = libc.sendto(fd, ptr(frame), frame.length, 0, ptr(address), address.length);
if (sent !== frame.length) {
  process.stderr.write(`cannot send on ${ifname}\n`);
  process.exit(1);
}
