import { expect, test } from 'bun:test';
import { portsOf } from '../../../src/image/ports.ts';

test('a port, a range, a protocol', () => {
  expect(portsOf('80')).toEqual(['80/tcp']);
  expect(portsOf('53/UDP')).toEqual(['53/udp']);
  expect(portsOf('8000-8002/sctp')).toEqual(['8000/sctp', '8001/sctp', '8002/sctp']);
});

test.each(['', 'http', '0', '65536', '9-8', '80/icmp', '80:80', '-80', '1-'])('refused: %j', (text) => {
  expect(portsOf(text)).toBeUndefined();
});
