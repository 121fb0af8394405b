import { describe, expect, test } from 'bun:test';
import { capabilityNames, defaultCapabilities } from '../../../src/container/capabilities.ts';
import type { OciMount } from '../../../src/container/oci.ts';
import { defaultDevices, interfaceSysctls, planSpec, type SpecInput } from '../../../src/container/spec.ts';

const plain: SpecInput = {
  id: 'a'.repeat(64),
  hostname: 'web',
  rootfs: '/state/rootfs',
  readonlyRootfs: false,
  args: ['sh', '-c', 'id'],
  env: ['PATH=/bin'],
  cwd: '/srv',
  user: '',
  tty: false,
  capAdd: [],
  capDrop: [],
  privileged: false,
  noNewPrivileges: false,
  seccomp: 'default',
  mask: [],
  unmask: [],
  thermalThrottle: [],
  rlimits: [],
  sysctl: {},
  mounts: [],
  etc: { hosts: '/state/hosts', hostname: '/state/hostname', resolvConf: '/state/resolv.conf' },
  labels: {},
  openFilesHard: 1048576,
  ownNetwork: true,
};
const plan = (change: Partial<SpecInput> = {}) => planSpec({ ...plain, ...change });
const bind = (destination: string, source = '/data'): OciMount => ({
  destination,
  type: 'bind',
  source,
  options: ['rbind'],
});
const mountAt = (destination: string, change: Partial<SpecInput> = {}) =>
  plan(change).mounts.filter((mount) => mount.destination === destination);

describe('mounts', () => {
  test('what lies inside another comes after it', () => {
    const places = plan({ mounts: [bind('/dev/shm/x'), bind('/proc/y')] }).mounts.map((mount) => mount.destination);
    for (const [index, place] of places.entries()) {
      const outer = places.findIndex((other) => place.startsWith(`${other}/`));
      expect(outer).toBeLessThan(index);
    }
    expect(places).toContain('/dev/mqueue');
  });

  test('none but /dev and /dev/pts has devices, none has setuid programs', () => {
    for (const { destination, options } of plan().mounts.filter((mount) => mount.type !== 'bind')) {
      expect(options).toContain('nosuid');
      if (!['/dev', '/dev/pts'].includes(destination)) expect(options).toContain('nodev');
    }
  });

  test('/sys and the cgroups are read-only, unless privileged', () => {
    for (const place of ['/sys', '/sys/fs/cgroup']) {
      expect(mountAt(place)[0]?.options).toContain('ro');
      expect(mountAt(place, { privileged: true })[0]?.options).not.toContain('ro');
    }
  });

  test("the user's mount takes the place of minirun's own", () => {
    const own = bind('/etc/hosts', '/mine');
    expect(mountAt('/etc/hosts')[0]?.source).toBe('/state/hosts');
    expect(mountAt('/etc/hosts', { mounts: [own] })).toEqual([own]);
    expect(mountAt('/dev/shm', { mounts: [bind('/dev/shm', '/big')] })).toEqual([bind('/dev/shm', '/big')]);
  });

  test('two on one place both stay, in their order', () => {
    const mounts = [bind('/data', '/one'), bind('/data', '/two')];
    expect(mountAt('/data', { mounts })).toEqual(mounts);
  });
});

describe('privileges', () => {
  test('bounding = permitted = effective; inheritable and ambient are empty', () => {
    const { capabilities } = plan({ capAdd: ['NET_ADMIN'] }).process;
    expect(capabilities.bounding.toSorted()).toEqual([...defaultCapabilities, 'CAP_NET_ADMIN'].toSorted());
    expect(capabilities.permitted).toEqual(capabilities.bounding);
    expect(capabilities.effective).toEqual(capabilities.bounding);
    expect([...capabilities.inheritable, ...capabilities.ambient]).toEqual([]);
  });

  test('paths of the kernel are hidden or read-only', () => {
    const { maskedPaths, readonlyPaths } = plan().linux;
    expect(maskedPaths).toEqual(
      expect.arrayContaining(['/proc/kcore', '/proc/keys', '/proc/timer_list', '/sys/firmware']),
    );
    expect(readonlyPaths).toEqual(['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']);
  });

  test('--privileged lifts capabilities and masks', () => {
    const { process, linux } = plan({ privileged: true, capDrop: ['ALL'] });
    expect(process.capabilities.bounding).toEqual([...capabilityNames]);
    expect([...linux.maskedPaths, ...linux.readonlyPaths]).toEqual([]);
  });

  test('devices: the harmless six, character devices, for everybody', () => {
    expect(defaultDevices.map(({ path, major, minor }) => `${path} ${major}:${minor}`)).toEqual([
      '/dev/null 1:3',
      '/dev/zero 1:5',
      '/dev/full 1:7',
      '/dev/random 1:8',
      '/dev/urandom 1:9',
      '/dev/tty 5:0',
    ]);
    for (const device of plan({ privileged: true }).linux.devices)
      expect(device).toMatchObject({ type: 'c', fileMode: 0o666 });
  });
});

describe('limit of open files', () => {
  const limit = (change: Partial<SpecInput>) =>
    plan(change).process.rlimits.filter(({ type }) => type === 'RLIMIT_NOFILE');

  test('1024, and never above what the caller has: raising fails without CAP_SYS_RESOURCE', () => {
    expect(limit({})).toEqual([{ type: 'RLIMIT_NOFILE', soft: 1024, hard: 524288 }]);
    expect(limit({ openFilesHard: 4096 })).toEqual([{ type: 'RLIMIT_NOFILE', soft: 1024, hard: 4096 }]);
    expect(limit({ openFilesHard: 256 })).toEqual([{ type: 'RLIMIT_NOFILE', soft: 256, hard: 256 }]);
  });

  test('as given', () => {
    const given = { type: 'RLIMIT_NOFILE', soft: 5, hard: 6 };
    expect(limit({ rlimits: [given] })).toEqual([given]);
    const core = { type: 'RLIMIT_CORE', soft: 0, hard: 0 };
    expect(plan({ rlimits: [core] }).process.rlimits).toHaveLength(2);
  });
});

describe('sysctls', () => {
  test('ping and low ports', () => {
    expect(plan().linux.sysctl).toEqual({
      'net.ipv4.ping_group_range': '0 2147483647',
      'net.ipv4.ip_unprivileged_port_start': '0',
    });
  });

  test('of each interface: IPv6 off where the kernel has it and the network has not', () => {
    const endpoints = [{ ifname: 'eth0' }, { ifname: 'lan.7', ipv6: { address: 'fd00::2', prefixLength: 64 } }];
    const ipv4 = {
      'net.ipv4.conf.eth0.arp_notify': '1',
      'net.ipv4.conf.eth0.rp_filter': '2',
      'net.ipv4.conf.lan/7.arp_notify': '1',
      'net.ipv4.conf.lan/7.rp_filter': '2',
    };
    expect(interfaceSysctls(endpoints, false)).toEqual(ipv4);
    expect(interfaceSysctls(endpoints, true)).toEqual({ ...ipv4, 'net.ipv6.conf.eth0.disable_ipv6': '1' });
  });

  test("the user's come last and win", () => {
    const { sysctl } = plan({ sysctl: { 'net.ipv4.ip_unprivileged_port_start': '1024' } }).linux;
    expect(sysctl['net.ipv4.ip_unprivileged_port_start']).toBe('1024');
    expect(Object.keys(sysctl)).toHaveLength(2);
  });

  test("another's network is left as it is", () => {
    expect(plan({ ownNetwork: false }).linux.sysctl).toEqual({});
  });
});

test('--init runs the command under a static init that is mounted read-only', () => {
  const spec = plan({ init: '/usr/libexec/init' });
  const mount = spec.mounts.find(({ source }) => source === '/usr/libexec/init');
  expect(mount?.options).toEqual(expect.arrayContaining(['bind', 'ro', 'nosuid', 'nodev']));
  expect(spec.process.args).toEqual([mount?.destination as string, '--', 'sh', '-c', 'id']);
  expect(plan().process.args).toEqual(['sh', '-c', 'id']);
});
