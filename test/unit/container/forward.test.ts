import { expect, test } from 'bun:test';
import { planForwards, portsInside } from '../../../src/container/forward.ts';
import type { PublishedPort } from '../../../src/network/definition.ts';

const ports: PublishedPort[] = [
  { protocol: 'tcp', hostIp: '127.0.0.1', hostPort: 8080, containerPort: 80 },
  { protocol: 'tcp', hostIp: '192.0.2.1', hostPort: 8080, containerPort: 80 },
  { protocol: 'udp', hostIp: '0.0.0.0', hostPort: 53, containerPort: 53 },
  { protocol: 'udp', hostIp: '::', hostPort: 53, containerPort: 53 },
];

test('inside, a port is the same whatever address of the real machine it is of', () => {
  expect(portsInside(ports)).toEqual([
    { protocol: 'tcp', hostIp: '0.0.0.0', hostPort: 8080, containerPort: 80 },
    { protocol: 'udp', hostIp: '0.0.0.0', hostPort: 53, containerPort: 53 },
  ]);
});

test('slirp4netns listens on each IPv4 address that was asked for, and gives it back', () => {
  const steps = planForwards(ports, '/s');
  expect(steps.map(({ apply }) => apply)).toEqual([
    [{ tool: 'forward', socket: '/s', protocol: 'tcp', hostIp: '127.0.0.1', hostPort: 8080 }],
    [{ tool: 'forward', socket: '/s', protocol: 'tcp', hostIp: '192.0.2.1', hostPort: 8080 }],
    [{ tool: 'forward', socket: '/s', protocol: 'udp', hostIp: '0.0.0.0', hostPort: 53 }],
  ]);
  expect(steps.every(({ undo }) => undo.length === 1 && 'remove' in (undo[0] ?? {}))).toBe(true);
  expect(planForwards(ports, undefined)).toEqual([]);
});
