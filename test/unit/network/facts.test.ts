import { afterEach, describe, expect, spyOn, test } from 'bun:test';
import fs from 'node:fs';
import { MinirunError } from '../../../src/errors.ts';
import { checkGateway, defaultMtu, interfaceExists, overlappingRoute } from '../../../src/network/facts.ts';

/** Route table in the kernel's form: device, destination, gateway, …, mask; addresses in the byte order of x86. */
const routes = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wlan0	00000000	0101A8C0	0003	0	0	600	00000000	0	0	0
wlan0	0001A8C0	00000000	0001	0	0	600	00FFFFFF	0	0	0
tun0	00005A0A	00000000	0001	0	0	0	0000FFFF	0	0	0
tun0	05000A0A	00000000	0005	0	0	0	FFFFFFFF	0	0	0
`;

const devices = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0
minirun01:  0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
mr0a5a0002:  0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
`;

/** Lets the files of /proc and /sys hold what a test wants. */
function pretend(files: Record<string, string>): void {
  spyOn(fs, 'readFileSync').mockImplementation(((file: string) => {
    const content = files[file];
    if (content === undefined) throw Object.assign(new Error(`ENOENT: ${file}`), { code: 'ENOENT' });
    return content;
  }) as unknown as typeof fs.readFileSync);
}

afterEach(() => {
  spyOn(fs, 'readFileSync').mockRestore();
});

describe('a subnet overlaps a route of the host', () => {
  test.each([
    ['192.168.0.0/16', '192.168.1.0/24 dev wlan0'],
    ['192.168.1.128/25', '192.168.1.0/24 dev wlan0'],
    ['10.90.3.0/24', '10.90.0.0/16 dev tun0'],
    ['10.10.0.0/24', '10.10.0.5/32 dev tun0'],
    ['10.91.0.0/16', undefined],
    ['192.168.2.0/24', undefined],
  ])('%s: %s', (subnet, route) => {
    pretend({ '/proc/self/net/route': routes });
    expect(overlappingRoute(subnet)).toBe(route);
  });

  test("the network's own bridge does not count", () => {
    pretend({ '/proc/self/net/route': routes });
    expect(overlappingRoute('10.90.0.0/16', 'tun0')).toBeUndefined();
  });

  test('a host without any route', () => {
    pretend({ '/proc/self/net/route': routes.slice(0, routes.indexOf('\n') + 1) });
    expect(overlappingRoute('10.90.0.0/16')).toBeUndefined();
  });
});

describe('MTU', () => {
  test("that of the default route's device", () => {
    pretend({ '/proc/self/net/route': routes, '/sys/class/net/wlan0/mtu': '1420\n' });
    expect(defaultMtu()).toBe(1420);
  });

  test('1500 without a default route, and where it cannot be read', () => {
    pretend({ '/proc/self/net/route': routes.replace(/^wlan0\t00000000.*\n/m, '') });
    expect(defaultMtu()).toBe(1500);
    pretend({ '/proc/self/net/route': routes });
    expect(defaultMtu()).toBe(1500);
  });
});

test('an interface is found by its whole name', () => {
  expect(interfaceExists('lo')).toBe(true);
  expect(interfaceExists('o')).toBe(false);
  expect(interfaceExists('..')).toBe(false);
  pretend({ '/proc/self/net/dev': devices });
  // The kernel has settings of these names, which are no interfaces.
  expect(interfaceExists('all')).toBe(false);
  pretend({ '/proc/self/net/dev': devices.replace('mr0a5a0002:', 'all:') });
  expect(interfaceExists('all')).toBe(true);
});

test.each([
  ['10.20.0.1', true],
  ['10.20.0.254', true],
  ['10.20.0.0', false],
  ['10.20.0.255', false],
  ['10.21.0.1', false],
  ['gateway', false],
])('gateway %s of 10.20.0.0/24: %s', (gateway, valid) => {
  const check = () => checkGateway('10.20.0.0/24', gateway);
  if (valid) check();
  else expect(check).toThrow(MinirunError);
});
