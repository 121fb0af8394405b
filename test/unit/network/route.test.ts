import { describe, expect, test } from 'bun:test';
import type { Step } from '../../../src/host/steps.ts';
import { checkRoute, deviceOf, parseRoute, planRoute, planRoutes, routeText } from '../../../src/network/route.ts';

const parse = (text: string) => parseRoute(text.split(' ').filter(Boolean));
const lines = (steps: readonly Step[]) =>
  steps
    .flatMap((step) => step.apply)
    .map((command) => (command.tool === 'ip' ? `${command.netns ?? 'host'}: ${command.args.join(' ')}` : command.tool));

describe('a route in the words of ip route', () => {
  test.each([
    ['default via 10.0.0.1', 'default via 10.0.0.1', 4],
    ['0.0.0.0/0 dev eth1 metric 5 via 10.0.0.1', 'default via 10.0.0.1 dev eth1 metric 5', 4],
    ['::/0 via FD00::0001', 'default via fd00::1', 6],
    ['default via fd00::1', 'default via fd00::1', 6],
    ['10.0.2.0/24 dev eth1', '10.0.2.0/24 dev eth1', 4],
    ['10.0.2.9 via 10.0.0.1 src 10.0.0.7', '10.0.2.9/32 via 10.0.0.1 src 10.0.0.7', 4],
    ['fd00:2::/64 via fd00::1', 'fd00:2::/64 via fd00::1', 6],
  ])('%s', (given, text, family) => {
    expect(routeText(parse(given))).toBe(text);
    expect(parse(given).family).toBe(family as 4);
  });

  test.each([
    ['', 'the destination is missing'],
    ['10.0.2.1/24 via 10.0.0.1', 'Give 10.0.2.0/24'],
    ['somewhere via 10.0.0.1', 'invalid destination'],
    ['10.0.2.0/24 via', 'nothing stands after "via"'],
    ['10.0.2.0/24 through 10.0.0.1', 'none of via, dev, src and metric'],
    ['10.0.2.0/24 via 10.0.0.1 via 10.0.0.2', 'stands there twice'],
    ['10.0.2.0/24 via fd00::1', 'is IPv6'],
    ['10.0.2.0/24 via 10.0.0.300', 'invalid address'],
    ['10.0.2.0/24 dev eth1 metric low', 'invalid metric'],
  ])('%s is refused', (given, message) => expect(() => parse(given)).toThrow(message));
});

describe('the interface that a route leads over', () => {
  const interfaces = [
    { ifname: 'eth0', addresses: ['10.0.0.7/24', 'fd00::7/64'] },
    { ifname: 'eth1', addresses: ['10.0.1.1/30'] },
  ];

  test('is that of the subnet with the gateway, the one that is named, or that of a route without a gateway', () => {
    expect(deviceOf(parse('default via 10.0.1.2'), interfaces)).toBe('eth1');
    expect(deviceOf(parse('default via fd00::9'), interfaces)).toBe('eth0');
    expect(deviceOf(parse('10.7.0.0/16 dev eth1'), interfaces)).toBe('eth1');
    expect(deviceOf(parse('10.7.0.0/16 dev eth9'), interfaces)).toBeUndefined();
    expect(deviceOf(parse('default via 10.9.0.1'), interfaces)).toBeUndefined();
    expect(deviceOf(parse('default via 10.9.0.1'), interfaces, [{ destination: '10.9.0.0/24', dev: 'eth1' }])).toBe(
      'eth1',
    );
  });

  test('only routes over what is there are set at a start, and never fail because of what a network has set', () => {
    const routes = [
      parse('default via 10.0.1.2'),
      parse('10.8.0.0/16 via 10.0.0.1'),
      parse('10.9.0.0/16 via 10.5.0.1'),
    ];
    expect(lines(planRoutes(routes, 'web', interfaces, (name) => name === 'eth1'))).toEqual([
      'web: route replace default via 10.0.1.2 dev eth1',
    ]);
    expect(planRoutes(routes, 'web', interfaces, () => true)).toHaveLength(2);
  });

  test('a route and its undo say the same', () => {
    const step = planRoute({ ...parse('10.9.9.8/30 via 10.13.37.2'), dev: 'br0' }, undefined, 'add');
    expect([step.apply, step.undo].map((commands) => (commands[0] as { args: string[] }).args.join(' '))).toEqual([
      'route add 10.9.9.8/30 via 10.13.37.2 dev br0',
      'route del 10.9.9.8/30 via 10.13.37.2 dev br0',
    ]);
  });

  test('metrics make room for a second route of a kind; that of IPv6 is 1024 when none is given', () => {
    const there = [
      { ...parse('default via 10.0.0.1 dev eth0'), family: 4 as const },
      { destination: 'default', via: 'fd00::1', dev: 'eth0', metric: 1024, family: 6 as const },
    ];
    const check = (text: string) => () => checkRoute(parse(text), 'web', interfaces, there);
    expect(check('default via 10.0.1.2')).toThrow('minirun route del web default');
    expect(check('default via fd00::2')).toThrow('has a default route already');
    expect(check('default via 10.0.1.2 metric 100')).not.toThrow();
    expect(check('default via fd00::2 metric 100')).not.toThrow();
  });
});
