import { describe, expect, test } from 'bun:test';
import type { Definition } from '../../../src/container/definition.ts';
import { hostsContent, planFiles, resolvConfContent, usableNameservers } from '../../../src/container/etc.ts';
import type { Endpoint } from '../../../src/network/definition.ts';
import { containerFiles } from '../../../src/container/store.ts';

const plain = {
  id: 'c0ffee'.padEnd(64, '0'),
  name: 'web',
  network: 'minirun0',
  dns: [],
  dnsSearch: [],
  dnsOptions: [],
  addHosts: [],
} as Partial<Definition> as Definition;
const definition = (change: Partial<Definition> = {}): Definition => ({ ...plain, ...change });

const address = (text: string) => ({ address: text, prefixLength: 24, gateway: text.replace(/2$/, '1') });
const endpoint = (text: string, change: Partial<Endpoint> = {}): Endpoint => ({
  network: 'minirun0',
  driver: 'bridge',
  bridge: 'minirun0',
  ifname: 'eth0',
  hostIfname: 'mr0',
  ipv4: address(text),
  routes: [],
  mac: '02:42:0a:5a:00:02',
  mtu: 1500,
  aliases: [],
  gatewayPriority: 0,
  alone: false,
  ...change,
});

describe('/etc/hosts', () => {
  test('loopback always; the own names once there is an address, each once', () => {
    expect(hostsContent(definition(), 'web', [])).not.toContain('web');
    expect(hostsContent(definition(), 'web', [])).toMatch(/^127\.0\.0\.1\tlocalhost$/m);
    expect(hostsContent(definition(), 'web', [endpoint('10.90.0.2')])).toMatch(/^10\.90\.0\.2\tweb$/m);
    expect(hostsContent(definition(), 'c0ffee', [endpoint('10.90.0.2')])).toMatch(/^10\.90\.0\.2\tc0ffee web$/m);
  });

  test('the addresses of all networks and families; host-gateway is the host as the container sees it', () => {
    const two = [
      endpoint('10.90.0.2'),
      endpoint('10.7.0.2', { network: 'lab', gatewayPriority: 1, ipv6: address('fd00::2') }),
    ];
    const content = hostsContent(definition({ addHosts: [['host-gateway', 'host']] }), 'web', two);
    for (const own of ['10.90.0.2', '10.7.0.2', 'fd00::2']) expect(content).toContain(`\n${own}\tweb\n`);
    expect(content).toContain('\n10.7.0.1\thost\n');
  });

  test('--add-host', () => {
    const lines = hostsContent(
      definition({
        addHosts: [
          ['10.0.0.7', 'db'],
          ['::7', 'db'],
        ],
      }),
      'web',
      [endpoint('10.90.0.2')],
    );
    expect(lines).toMatch(/^10\.0\.0\.7\tdb\n::7\tdb$/m);
    expect(lines.endsWith('\n')).toBe(true);
  });
});

describe('resolv.conf', () => {
  const host =
    'domain x\nsearch lan office\n# nameserver 9.9.9.9\nnameserver 192.168.1.1\n  nameserver 1.1.1.1 # two\noptions ndots:2\n';
  const stub = 'nameserver 127.0.0.53\noptions edns0\n';
  const content = (change: Partial<Definition>, resolvConf = host, upstream = '') =>
    resolvConfContent(definition(change), { resolvConf, upstream });

  test('servers that a container reaches: not those on loopback', () => {
    expect(usableNameservers(host)).toEqual(['192.168.1.1', '1.1.1.1']);
    expect(
      usableNameservers('nameserver 127.0.0.53\nnameserver ::1\nnameserver 127.1.2.3\nnameserver fd00::1'),
    ).toEqual(['fd00::1']);
  });

  test("the host's servers, search list and options", () => {
    expect(content({})).toBe('nameserver 192.168.1.1\nnameserver 1.1.1.1\nsearch lan office\noptions ndots:2\n');
  });

  test('the servers behind a stub on loopback', () => {
    expect(content({}, stub, 'nameserver 10.0.0.53\n')).toBe('nameserver 10.0.0.53\noptions edns0\n');
    expect(content({}, stub, '')).toBe('options edns0\n');
  });

  test('what was given replaces its kind only; a given loopback server is meant', () => {
    expect(content({ dns: ['127.0.0.1'] })).toMatch(/^nameserver 127\.0\.0\.1\nsearch lan office\n/);
    expect(content({ dnsSearch: ['a', 'b'] })).toMatch(/^search a b$/m);
    expect(content({ dnsSearch: ['a'] })).toMatch(/^nameserver 192\.168\.1\.1$/m);
    expect(content({ dnsOptions: ['ndots:5'] })).toMatch(/^options ndots:5$/m);
    expect(content({ dnsOptions: ['ndots:5'] })).not.toContain('ndots:2');
  });

  test("minirun's own name servers take the place of all others; a name without a dot is theirs first", () => {
    const served = (change: Partial<Definition>, resolvConf = '') =>
      resolvConfContent(definition(change), { resolvConf, upstream: '' }, ['10.90.0.1']);
    expect(served({ dns: ['9.9.9.9'] }, 'nameserver 192.168.1.1\nsearch lan\n')).toBe(
      'nameserver 10.90.0.1\nsearch lan\noptions ndots:0\n',
    );
    expect(served({}, host)).not.toContain('ndots:0');
    expect(served({ dnsOptions: ['ndots:5'] })).toBe('nameserver 10.90.0.1\noptions ndots:5\n');
    expect(served({ dnsOptions: ['timeout:1'] })).toContain('options ndots:0\n');
  });

  test('the file of the container whose network is shared, word for word', () => {
    expect(content({ network: 'container:web' }, 'nameserver 127.0.0.11\noptions ndots:0\n')).toBe(
      'nameserver 127.0.0.11\noptions ndots:0\n',
    );
  });

  test("network host keeps the host's file word for word", () => {
    expect(content({ network: 'host' }, stub)).toBe(stub);
    expect(content({ network: 'host', dns: ['9.9.9.9'] })).toContain('nameserver 9.9.9.9');
  });
});

describe('files of a container', () => {
  const resolvers = { resolvConf: 'nameserver 192.0.2.1\n', upstream: '' };
  const commands = (change: Partial<Definition> = {}) =>
    planFiles({ definition: definition(change) }, 'c0ffee', resolvers).flatMap((step) => step.apply);
  const made = (change: Partial<Definition> = {}) =>
    commands(change).flatMap((command) => ('path' in command ? [`${command.tool} ${command.path}`] : []));
  const files = containerFiles(plain.id);

  test('folders of the overlay, which --rootfs does not need', () => {
    const overlay = [`mkdir ${files.upper}`, `mkdir ${files.work}`, `mkdir ${files.rootfs}`];
    expect(made()).toEqual(expect.arrayContaining(overlay));
    expect(made({ rootfs: '/srv/root' }).some((text) => text.startsWith('mkdir'))).toBe(false);
  });

  test('hosts, hostname and resolv.conf are readable for every user of the container', () => {
    const written = commands({ rootfs: '/srv/root' }).flatMap((command) => (command.tool === 'file' ? [command] : []));
    expect(written.map(({ path }) => path)).toEqual([files.hosts, files.hostname, files.resolvConf]);
    for (const { mode } of written) expect(mode).toBe(0o644);
    expect(written[1]?.content).toBe('c0ffee\n');
  });
});
