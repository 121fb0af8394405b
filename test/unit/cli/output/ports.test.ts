import { expect, test } from 'bun:test';
import { describePorts } from '../../../../src/cli/output/ports.ts';
import type { PublishedPort } from '../../../../src/network/definition.ts';

function port(hostIp: string, hostPort: number, containerPort = hostPort, protocol = 'tcp'): PublishedPort {
  return { hostIp, hostPort, containerPort, protocol: protocol as PublishedPort['protocol'] };
}

test('published ports, each by itself', () => {
  expect(describePorts([port('0.0.0.0', 8080, 80)], [])).toBe('0.0.0.0:8080->80/tcp');
  expect(describePorts([port('::', 8080, 80), port('0.0.0.0', 8080, 80)], [])).toBe(
    '0.0.0.0:8080->80/tcp, [::]:8080->80/tcp',
  );
  expect(describePorts([port('127.0.0.1', 5353, 53, 'udp')], [])).toBe('127.0.0.1:5353->53/udp');
});

test('neighbours of one number on both sides are a range, others are not', () => {
  const range = [8002, 8000, 8001].map((each) => port('0.0.0.0', each));
  expect(describePorts(range, [])).toBe('0.0.0.0:8000-8002->8000-8002/tcp');
  expect(describePorts([port('0.0.0.0', 9000, 80), port('0.0.0.0', 9001, 81)], [])).toBe(
    '0.0.0.0:9000->80/tcp, 0.0.0.0:9001->81/tcp',
  );
});

test('exposed only, neighbours of one protocol as a range', () => {
  expect(describePorts([], [])).toBe('');
  expect(describePorts([], ['443/tcp', '80/tcp'])).toBe('80/tcp, 443/tcp');
  expect(describePorts([], ['53/udp', '53/tcp', '54/udp'])).toBe('53/tcp, 53-54/udp');
  expect(describePorts([], ['53/udp', '8001/tcp', '80/tcp', '8000/tcp'])).toBe('80/tcp, 53/udp, 8000-8001/tcp');
});

test('both: what is published is not listed as exposed, and what keeps its number stands first', () => {
  expect(describePorts([port('0.0.0.0', 8080, 80), port('0.0.0.0', 443)], ['80/tcp', '443/tcp', '53/udp'])).toBe(
    '53/udp, 0.0.0.0:443->443/tcp, 0.0.0.0:8080->80/tcp',
  );
});
