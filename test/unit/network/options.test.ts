import { describe, expect, test } from 'bun:test';
import { MinirunError } from '../../../src/errors.ts';
import { isIfname } from '../../../src/network/ifname.ts';
import { macAddress, networkOptions, parseAttachments } from '../../../src/network/options.ts';

describe('the options of a network', () => {
  const parse = (change: Partial<Parameters<typeof networkOptions>[0]> = {}) =>
    networkOptions({
      name: 'lab',
      driver: 'bridge',
      internal: false,
      isolate: true,
      routes: [],
      options: [],
      ...change,
    });

  test('without any', () => {
    expect(parse()).toEqual({
      driver: 'bridge',
      internal: false,
      isolate: true,
      masquerade: true,
      icc: true,
      hostAddress: true,
      routes: [],
    });
  });

  test('ours and docker’s long names mean the same', () => {
    const ours = ['bridge=br-lab', 'mtu=1300', 'masquerade=false', 'icc=0', 'inhibit_ipv4=1'];
    const dockers = [
      'com.docker.network.bridge.name=br-lab',
      'com.docker.network.driver.mtu=1300',
      'com.docker.network.bridge.enable_ip_masquerade=false',
      'com.docker.network.bridge.enable_icc=false',
      'com.docker.network.bridge.inhibit_ipv4=true',
    ];
    expect(parse({ options: ours })).toEqual(parse({ options: dockers }));
    expect(parse({ options: ours })).toMatchObject({
      bridge: 'br-lab',
      mtu: 1300,
      masquerade: false,
      icc: false,
      hostAddress: false,
    });
    expect(parse({ options: ['inhibit_ipv4'] }).hostAddress).toBe(false);
    expect(parse({ options: ['isolate=false'] }).isolate).toBe(false);
  });

  test('routes are written in one way', () => {
    expect(parse({ routes: ['10.9.9.9,10.7.0.2', 'FD01::/64,FD00::0002'] }).routes).toEqual([
      { destination: '10.9.9.9/32', gateway: '10.7.0.2' },
      { destination: 'fd01::/64', gateway: 'fd00::2' },
    ]);
  });

  test('a macvlan is on its parent, and the host has no address there', () => {
    expect(parse({ driver: 'macvlan', options: ['parent=enp3s0'] })).toMatchObject({
      driver: 'macvlan',
      bridge: 'enp3s0',
      hostAddress: false,
    });
  });

  test.each([
    [{ driver: 'overlay' }, /Give bridge or macvlan/],
    [{ driver: 'host' }, /minirun run --network host/],
    [{ driver: 'none' }, /minirun run --network none/],
    [{ options: ['colour=red'] }, /Known are bridge, mtu/],
    [{ options: ['mtu=67'] }, /from 68 to 65535/],
    [{ options: ['mtu=65536'] }, /from 68 to 65535/],
    [{ options: ['mtu=1e3'] }, /from 68 to 65535/],
    [{ options: ['mtu='] }, /from 68 to 65535/],
    [{ options: ['icc=maybe'] }, /neither true nor false/],
    [{ options: ['parent=eth0'] }, /--driver macvlan/],
    [{ driver: 'macvlan', options: ['bridge=br0'] }, /parent=INTERFACE/],
    [{ routes: ['10.9.0.0/24'] }, /DESTINATION,GATEWAY/],
    [{ routes: ['10.9.0.0/24,10.7.0.2,eth0'] }, /DESTINATION,GATEWAY/],
    [{ routes: ['10.9.0.5/24,10.7.0.2'] }, /Give 10\.9\.0\.0\/24/],
    [{ routes: ['10.9.0.0/24,gateway'] }, /invalid address "gateway"/],
  ])('%j is refused', (change, why) => {
    expect(() => parse(change)).toThrow(why);
    expect(() => parse(change)).toThrow(MinirunError);
  });
});

describe('the networks of a container', () => {
  const canonical = (name: string) => (name === 'bridge' ? 'minirun0' : name);
  const parse = (network: string[], change: Partial<Parameters<typeof parseAttachments>[0]> = {}) =>
    parseAttachments({ network, networkAlias: [], ...change }, canonical);
  const plain = { aliases: [], gatewayPriority: 0 };

  test('by name', () => {
    expect(parse(['lab', 'bridge'])).toEqual([
      { network: 'lab', ...plain },
      { network: 'minirun0', ...plain },
    ]);
  });

  test('with fields, in our form and in docker’s', () => {
    const fields = 'ip=10.7.0.7,ip6=FD00::7,mac=02-42-0A-07-00-07,ifname=lan0,alias=www,alias=web.lan,gw_priority=-5';
    const expected = [
      {
        network: 'lab',
        ip: '10.7.0.7',
        ip6: 'fd00::7',
        mac: '02:42:0a:07:00:07',
        ifname: 'lan0',
        aliases: ['www', 'web.lan'],
        gatewayPriority: -5,
      },
    ];
    expect(parse([`lab:${fields}`])).toEqual(expected);
    expect(parse([`name=lab,${fields.replace('mac=', 'mac-address=').replace('gw_', 'gw-')}`])).toEqual(expected);
    expect(parse(['lab:'])).toEqual([{ network: 'lab', ...plain }]);
  });

  test('--ip, --ip6, --mac-address and --network-alias are about the first', () => {
    const request = { ip: '10.7.0.7', ip6: 'fd00::7', macAddress: '02:42:0a:07:00:07', networkAlias: ['www'] };
    const [first, second] = parse(['lab:alias=web', 'other'], request);
    expect(first).toMatchObject({ ip: '10.7.0.7', ip6: 'fd00::7', mac: '02:42:0a:07:00:07', aliases: ['web', 'www'] });
    expect(second).toEqual({ network: 'other', ...plain });
  });

  test.each([
    [['lab', 'lab'], /named twice/],
    [['bridge', 'minirun0'], /named twice/],
    [['a:ifname=lan', 'b:ifname=lan'], /two interfaces cannot have one name/],
    [['lab:ipv4=10.7.0.7'], /unknown field "ipv4=10\.7\.0\.7"/],
    [['lab:10.7.0.7'], /unknown field "10\.7\.0\.7"/],
    [['ip=10.7.0.7'], /names no network/],
    [[':ip=10.7.0.7'], /names no network/],
    [['lab:ip=fd00::7'], /not an IPv4 address/],
    [['lab:ip6=10.7.0.7'], /not an IPv6 address/],
    [['lab:gw_priority=high'], /it is no number/],
    [['lab:ifname=an-interface-too-long'], /at most 15 characters/],
    [['lab:ifname=a/b'], /at most 15 characters/],
    [['lab:ifname=lo'], /cannot be called that/],
    [['lab:ifname=all'], /cannot be called that/],
    [['lab:ifname=a"b'], /cannot be called that/],
    [['lab:mac=02:42:0a'], /six pairs/],
    [['lab:mac=01:42:0a:07:00:07'], /no single interface/],
    [['lab:alias=-www'], /a name has letters/],
  ])('%j is refused', (network, why) => {
    expect(() => parse(network)).toThrow(why);
    expect(() => parse(network)).toThrow(MinirunError);
  });

  test('an address given twice is refused, also when it is the same', () => {
    expect(() => parse(['lab:ip=10.7.0.7'], { ip: '10.7.0.8' })).toThrow(/Give it once/);
  });
});

test.each([
  ['eth0', true],
  ['br.lab', true],
  ['fifteen-letters', true],
  ['sixteen-letters-', false],
  ['', false],
  ['.', false],
  ['..', false],
  ['a b', false],
  ['a:b', false],
  ['a/b', false],
])('%j is the name of an interface: %s', (name, valid) => {
  expect(isIfname(name)).toBe(valid);
});

test('a MAC address that was not given', () => {
  expect(macAddress(undefined)).toBeUndefined();
  expect(() => macAddress('00:00:00:00:00:00')).toThrow(/no single interface/);
});
