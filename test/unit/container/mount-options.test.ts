import { describe, expect, test } from 'bun:test';
import {
  checkVolumeName,
  parseDevice,
  parseMount,
  parseShmSize,
  parseTmpfs,
  parseVolume,
} from '../../../src/container/mount-options.ts';
import { propagationProblem } from '../../../src/container/propagation.ts';
import { MinirunError } from '../../../src/errors.ts';

/** Every option that makes no sense ends the command with docker's code for that, and says what to do. */
function refused(parse: () => unknown): void {
  let error: unknown;
  try {
    parse();
  } catch (thrown) {
    error = thrown;
  }
  if (!(error instanceof MinirunError)) throw new Error(`not refused as a user's mistake: ${String(error)}`);
  expect(error.code).toBe(125);
  expect(error.remedy).toBeTruthy();
}

describe('-v', () => {
  test('a bind mount, private unless said otherwise, read-only with all below it', () => {
    expect(parseVolume('/data:/srv/data', '/home/me')).toEqual({
      destination: '/srv/data',
      type: 'bind',
      source: '/data',
      options: ['rbind', 'rprivate'],
    });
    const options = (modes: string) => parseVolume(`/data:/srv:${modes}`, '/').options;
    expect(options('ro')).toEqual(['rbind', 'rprivate', 'rro']);
    expect(options('ro,rslave')).toEqual(['rbind', 'rro', 'rslave']);
    expect(options('rw,z')).toEqual(['rbind', 'rprivate']);
    expect(options('noexec,nosuid,nodev')).toEqual(['rbind', 'rprivate', 'rnoexec', 'rnosuid', 'rnodev']);
    expect(options('exec,dev')).toEqual(['rbind', 'rprivate', 'dev']);
    expect(options('bind')).toEqual(['rprivate', 'bind']);
  });
  test('both places are made clean and absolute', () => {
    expect(parseVolume('./data/../x:/srv//a/./b/', '/home/me')).toMatchObject({
      source: '/home/me/x',
      destination: '/srv/a/b',
    });
    expect(parseVolume('..:/a/../../b', '/home/me')).toMatchObject({ source: '/home', destination: '/b' });
  });
  test('a place alone is a volume without a name, a word before it is its name', () => {
    const volume = { type: 'volume', destination: '/data' };
    expect(parseVolume('/data/', '/home/me') as object).toEqual({
      ...volume,
      source: '',
      options: ['rbind', 'rprivate'],
    });
    expect(parseVolume('my.vol-1:/data:ro,nocopy', '/home/me') as object).toEqual({
      ...volume,
      source: 'my.vol-1',
      options: ['rbind', 'rprivate', 'rro', 'nocopy'],
    });
  });
  test.each([
    '',
    'data',
    '/',
    '/data:',
    '/data:srv',
    '/data:/',
    '/data:/a/..',
    '/data://',
    ':/srv',
    '/a:/b:ro:rw',
    '/a:/b:fast',
    '/a:/b:constructor',
    '/a:/b:ro,rw',
    '/a:/b:shared,slave',
    '/a:/b:nocopy',
    '/a:/b:U',
    'd:/srv',
    'da/ta:/srv',
    '-data:/srv',
    'data:/srv:shared',
    `${'v'.repeat(201)}:/srv`,
  ])('refused: %j', (text) => {
    refused(() => parseVolume(text, '/'));
  });
});

describe('names of volumes', () => {
  test.each(['vol', 'a1', 'A_.-', '0'.repeat(64), 'x.removing'])('%s', (name) => {
    expect(checkVolumeName(name)).toBe(name);
  });
  test.each(['', 'a', '.a', '..', '-a', '_a', 'a/b', 'a b', 'a\n', 'ä1'])('refused: %j', (name) => {
    refused(() => checkVolumeName(name));
  });
});

describe('--mount', () => {
  test.each([
    ['type=bind,source=/data,target=/srv', 'bind', '/data', ['rbind', 'rprivate']],
    ['type=bind,src=data,dst=/srv,readonly', 'bind', '/home/me/data', ['rbind', 'rprivate', 'rro']],
    ['type=bind,src=/data,destination=/srv,ro=true', 'bind', '/data', ['rbind', 'rprivate', 'rro']],
    ['type=bind,src=/data,destination=/srv,readonly=false', 'bind', '/data', ['rbind', 'rprivate']],
    ['type=bind,src=/data,dst=/srv,bind-propagation=rshared', 'bind', '/data', ['rbind', 'rshared']],
    ['type=bind,src=/data,dst=/srv,bind-nonrecursive,ro', 'bind', '/data', ['rprivate', 'bind', 'ro']],
    ['type=bind,src=/data,dst=/srv,bind-recursive=disabled', 'bind', '/data', ['rprivate', 'bind']],
    ['type=bind,src=/data,dst=/srv,bind-recursive=writable,ro', 'bind', '/data', ['rbind', 'rprivate', 'ro']],
    ['type=bind,src=/data,dst=/srv,bind-recursive=readonly,ro', 'bind', '/data', ['rbind', 'rprivate', 'rro']],
    ['"type=bind","src=/da,ta",dst=/srv,consistency=cached', 'bind', '/da,ta', ['rbind', 'rprivate']],
    ['target=/srv', 'volume', '', ['rbind', 'rprivate']],
    ['type=volume,dst=/srv,ro,volume-nocopy', 'volume', '', ['rbind', 'rprivate', 'rro', 'nocopy']],
    ['src=data,dst=/srv', 'volume', 'data', ['rbind', 'rprivate']],
    ['type=tmpfs,target=/srv', 'tmpfs', 'tmpfs', ['nosuid', 'nodev', 'noexec']],
    [
      'type=tmpfs,target=/srv,tmpfs-size=1m,tmpfs-mode=1770',
      'tmpfs',
      'tmpfs',
      ['nosuid', 'nodev', 'noexec', 'size=1m', 'mode=1770'],
    ],
  ])('%s', (text, type, source, options) => {
    expect(parseMount(text, '/home/me') as object).toEqual({ destination: '/srv', type, source, options });
  });
  test('a part of a volume, and what a volume is made with', () => {
    expect(parseMount('src=data,dst=/srv,volume-subpath=a//b/', '/')).toMatchObject({
      subpath: 'a/b/',
      options: ['rbind', 'rprivate', 'nocopy'],
    });
    const text =
      'src=data,dst=/srv,volume-label=a=b,volume-opt=type=tmpfs,"volume-opt=o=size=1m,uid=5",volume-driver=local';
    expect(parseMount(text, '/').make).toEqual({
      labels: { a: 'b' },
      options: { type: 'tmpfs', o: 'size=1m,uid=5' },
    });
  });
  test.each([
    'type=bind,source=/data',
    'type=bind,target=/srv',
    'type=bind,source=/data,target=srv',
    'type=volume,source=da/ta,target=/srv',
    'type=tmpfs,target=/srv,source=/data',
    'type=tmpfs,target=/srv,tmpfs-size=much',
    'type=tmpfs,target=/srv,tmpfs-mode=999',
    'type=bind,source=/data,target=/srv,speed=fast',
    'type=bind,source=/data,target=/srv,readonly=yes',
    'type=bind,source=/data,target=/srv,bind-propagation=fast',
    'type=bind,source=/data,target=/srv,bind-recursive=readonly',
    'type=bind,source=/data,target=/srv,bind-recursive=readonly,readonly,bind-propagation=rshared',
    'type=bind,source=/data,target=/srv,bind-recursive=maybe',
    'type=bind,source=/data,target=/srv,volume-nocopy',
    'type=volume,target=/srv,volume-subpath=a',
    'type=volume,source=data,target=/srv,volume-subpath=/a',
    'type=volume,source=data,target=/srv,volume-subpath=a/../../b',
    'type=volume,source=data,target=/srv,volume-driver=nfs',
    'type=volume,target=/srv,volume-label=a',
    'type=npipe,source=a,target=/srv',
    '',
  ])('refused: %j', (text) => {
    refused(() => parseMount(text, '/'));
  });
});

describe('--tmpfs', () => {
  test('without setuid, devices and programs, unless lifted by name', () => {
    expect(parseTmpfs('/tmp') as object).toEqual({
      destination: '/tmp',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'nodev', 'noexec'],
    });
    expect(parseTmpfs('/tmp:size=1m,exec').options).toEqual(['nosuid', 'nodev', 'size=1m', 'exec']);
    expect(parseTmpfs('/tmp:rw,noexec,size=64mb,mode=01770,uid=5,gid=6,nr_inodes=1k').options).toEqual([
      'nosuid',
      'nodev',
      'noexec',
      'rw',
      'size=64m',
      'mode=01770',
      'uid=5',
      'gid=6',
      'nr_inodes=1k',
    ]);
  });
  test.each(['', 'tmp', '/', '/tmp:size=', '/tmp:size=5q', '/tmp:mode=rw', '/tmp:uid=-1', '/tmp:bind', '/tmp:loop=x'])(
    'refused: %j',
    (text) => {
      refused(() => parseTmpfs(text));
    },
  );
});

describe('--shm-size', () => {
  test.each([
    ['1048576', 2 ** 20],
    ['256m', 2 ** 28],
    ['1.5g', 1.5 * 2 ** 30],
    ['64MB', 2 ** 26],
    ['64 MiB', 2 ** 26],
    ['0', 2 ** 26],
  ])('%s', (text, bytes) => {
    expect(parseShmSize(text)).toBe(bytes);
  });
  test.each(['', '-1', 'much', '1q', '1m1', '9999999p'])('refused: %j', (text) => {
    refused(() => parseShmSize(text));
  });
});

describe('--device', () => {
  test.each([
    ['/dev/sda', '/dev/sda', '/dev/sda'],
    ['/dev/sda:/dev/disk', '/dev/sda', '/dev/disk'],
    ['/dev/sda:rwm', '/dev/sda', '/dev/sda'],
    ['/dev/sda:/dev//x/../disk:rw', '/dev/sda', '/dev/disk'],
  ])('%s', (text, host, container) => {
    expect(parseDevice(text)).toEqual({ host, container });
  });
  test.each([
    '',
    'sda',
    '/dev/sda:disk',
    '/dev/sda:/',
    '/dev/sda:r',
    '/dev/sda:/d:w',
    '/dev/sda:/d:x',
    '/d:/d:rw:rw',
    'vendor.com/class=name',
  ])('refused: %j', (text) => {
    refused(() => parseDevice(text));
  });
});

describe('propagation', () => {
  const mountinfo = [
    '1 0 8:1 / / rw - ext4 /dev/sda rw',
    '2 1 8:2 / /srv rw shared:5 - ext4 /dev/sdb rw',
    '3 2 8:3 / /srv/a\\040b rw master:5 - ext4 /dev/sdc rw',
  ].join('\n');
  test.each([
    ['/srv/x', 'rshared', true],
    ['/srv', 'slave', true],
    ['/srv/a b/c', 'rslave', true],
    ['/srv/a b/c', 'shared', false],
    ['/srvx', 'rslave', false],
    ['/home', 'rprivate', true],
  ])('%s %s', (source, option, isPossible) => {
    expect(propagationProblem(source, ['rbind', option], mountinfo) === undefined).toBe(isPossible);
  });
});
