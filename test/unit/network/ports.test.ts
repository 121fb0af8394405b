import { describe, expect, test } from 'bun:test';
import { MinirunError } from '../../../src/errors.ts';
import {
  hostAddressOf,
  joinHostPort,
  type PortRequest,
  parsePublish,
  requestsForExposed,
} from '../../../src/network/ports.ts';

const tcp = (containerPort: number, more: Partial<PortRequest> = {}): PortRequest => ({
  containerPort,
  protocol: 'tcp',
  ...more,
});

describe('-p', () => {
  test.each<[string, PortRequest[]]>([
    ['8080:80', [tcp(80, { hostPort: 8080 })]],
    ['80', [tcp(80)]],
    ['0:80', [tcp(80)]],
    ['80/udp', [tcp(80, { protocol: 'udp' })]],
    ['53:53/UDP', [tcp(53, { hostPort: 53, protocol: 'udp' })]],
    ['36412:36412/sctp', [tcp(36412, { hostPort: 36412, protocol: 'sctp' })]],
    ['80:80/', [tcp(80, { hostPort: 80 })]],
    ['127.0.0.1:8080:80', [tcp(80, { hostIp: '127.0.0.1', hostPort: 8080 })]],
    ['127.0.0.1::80', [tcp(80, { hostIp: '127.0.0.1' })]],
    [':8080:80', [tcp(80, { hostPort: 8080 })]],
    ['[::1]:8080:80', [tcp(80, { hostIp: '::1', hostPort: 8080 })]],
    ['[::]::80', [tcp(80, { hostIp: '::' })]],
    ['::1:8080:80', [tcp(80, { hostIp: '::1', hostPort: 8080 })]],
    ['[2001:DB8:0::7]:8080:80', [tcp(80, { hostIp: '2001:db8::7', hostPort: 8080 })]],
    ['[::ffff:10.0.0.1]:8080:80', [tcp(80, { hostIp: '10.0.0.1', hostPort: 8080 })]],
    ['8000-8001:9000-9001', [tcp(9000, { hostPort: 8000 }), tcp(9001, { hostPort: 8001 })]],
    ['7000-7001/udp', [tcp(7000, { protocol: 'udp' }), tcp(7001, { protocol: 'udp' })]],
    // One port of the container: the range of the host is a choice.
    ['8000-8009:80', [tcp(80, { hostPort: [8000, 8009] })]],
    ['127.0.0.1:8000-8009:80', [tcp(80, { hostIp: '127.0.0.1', hostPort: [8000, 8009] })]],
    ['8000-8000:80', [tcp(80, { hostPort: 8000 })]],
    ['1-65535:1-65535', Array.from({ length: 65535 }, (_, index) => tcp(index + 1, { hostPort: index + 1 }))],
  ])('%s', (text, requests) => {
    expect(parsePublish(text)).toEqual(requests);
  });

  test.each([
    ['', /no port of the container/],
    ['8080:', /no port of the container/],
    ['8080:/tcp', /no port of the container/],
    ['http', /"http" is no port/],
    ['0', /"0" is no port/],
    ['65536', /"65536" is no port/],
    ['90-80', /"90-80" is no port/],
    ['80-', /"80-" is no port/],
    ['x:80', /"x" is no port and no range of ports of the host/],
    ['70000:80', /"70000" is no port/],
    ['80:80/icmp', /no protocol "icmp"/],
    ['80:80/tcp/udp', /no protocol "tcp\/udp"/],
    ['8000-8002:80-81', /3 ports of the host do not go with 2/],
    ['8000:80-81', /1 ports of the host do not go with 2/],
    ['localhost:80:80', /"localhost" is not an IP address.*\[::1\]/],
    ['300.0.0.1:80:80', /not an IP address/],
    ['127.1:80:80', /not an IP address/],
    ['[::1:80:80', /not an IP address/],
    ['[fe80::1%eth0]:80:80', /not an IP address/],
    [' 80:80', /" 80" is no port/],
  ])('refused: %j', (text, why) => {
    let error: unknown;
    try {
      parsePublish(text);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(MinirunError);
    expect((error as MinirunError).message).toMatch(why);
    expect((error as MinirunError).code).toBe(125);
  });
});

test('-P: every exposed port on a free one, but for those that -p has', () => {
  expect(requestsForExposed(['80/tcp', '53/udp'])).toEqual([tcp(80), tcp(53, { protocol: 'udp' })]);
  expect(requestsForExposed(['80/tcp', '80/udp'], parsePublish('8080:80'))).toEqual([tcp(80, { protocol: 'udp' })]);
  expect(requestsForExposed([])).toEqual([]);
});

test('addresses in one form', () => {
  expect(hostAddressOf('0:0:0:0:0:0:0:1')).toBe('::1');
  expect(hostAddressOf('::ffff:127.0.0.1')).toBe('127.0.0.1');
  expect(hostAddressOf('10.0.0.1')).toBe('10.0.0.1');
  expect(hostAddressOf('10.0.1')).toBeUndefined();
  expect(joinHostPort('::', 80)).toBe('[::]:80');
  expect(joinHostPort('0.0.0.0', 80)).toBe('0.0.0.0:80');
});
