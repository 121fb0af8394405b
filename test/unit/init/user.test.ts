import { afterEach, beforeEach, describe, expect, spyOn, test } from 'bun:test';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { InitError } from '../../../src/init/failure.ts';
import { resolveUser } from '../../../src/init/user.ts';

let root: string;

// init has changed its root when it looks users up: here /etc is opened below a directory, with the same flags.
beforeEach(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-user-'));
  fs.mkdirSync(path.join(root, 'etc'));
  const open = fs.openSync;
  spyOn(fs, 'openSync').mockImplementation((file, flags, mode) => open(path.join(root, String(file)), flags, mode));
});

afterEach(() => {
  spyOn(fs, 'openSync').mockRestore();
  fs.rmSync(root, { recursive: true, force: true });
});

/** Writes /etc/passwd or /etc/group; by a name of its own, for openSync is not what it was. */
function write(name: 'passwd' | 'group', ...lines: string[]): void {
  execFileSync('sh', ['-c', 'cat >"$1"', 'sh', path.join(root, 'etc', name)], { input: `${lines.join('\n')}\n` });
}

function image(): void {
  write(
    'passwd',
    '# comment',
    'root:x:0:0:root:/root:/bin/sh',
    'web:x:1000:100:Web:/srv/web:/bin/sh',
    '1000:x:7:7::/odd:',
    'bare:x:1001:50::',
  );
  write('group', 'root:x:0:', 'wheel:x:10:root,web', 'staff:x:50:', 'video:x:44:webmaster,web', 'broken');
}

describe('docker’s forms', () => {
  beforeEach(image);

  test.each([
    ['', 0, 0, [10, 0], '/root'],
    ['root', 0, 0, [10, 0], '/root'],
    ['web', 1000, 100, [10, 44, 100], '/srv/web'],
    ['7', 7, 7, [7], '/odd'],
    ['bare', 1001, 50, [50], '/'],
    ['4711', 4711, 0, [0], '/'],
    // A group that is named takes the place of all the others.
    ['web:staff', 1000, 50, [50], '/srv/web'],
    ['web:77', 1000, 77, [77], '/srv/web'],
    ['4711:staff', 4711, 50, [50], '/'],
    ['web:', 1000, 100, [10, 44, 100], '/srv/web'],
    [':staff', 0, 50, [50], '/root'],
    ['2147483647:2147483647', 2147483647, 2147483647, [2147483647], '/'],
  ])('%j', (specification, uid, gid, groups, home) => {
    expect(resolveUser(specification)).toEqual({ uid, gid, groups, home });
  });

  test('a user whose name is a number wins over the number', () => {
    expect(resolveUser('1000').uid).toBe(7);
  });

  test('further groups', () => {
    image();
    expect(resolveUser('4711:5', ['1', 'staff']).groups).toEqual([1, 50, 5]);
    for (const group of ['nobody', '2147483648', 'broken'])
      expect(() => resolveUser('4711:5', [group])).toThrow(InitError);
  });
});

describe('refused', () => {
  test.each(['nobody', 'web:nobody', 'we', 'web ', '-1', '0x0', '2147483648', '0:2147483648', '99999999999999999999'])(
    '%j',
    (specification) => {
      image();
      expect(() => resolveUser(specification)).toThrow(InitError);
    },
  );

  // CVE-2024-40635: an id of the image's own that turns negative, or into root, in 32 bits.
  test.each(['evil:x:4294967296:0::/:', 'evil:x:-1:0::/:', 'evil:x:1:2147483648::/:', 'evil:x:1e3x:0::/:', 'evil:x'])(
    'an entry %j',
    (entry) => {
      write('passwd', entry);
      expect(() => resolveUser('evil')).toThrow(InitError);
    },
  );

  test('an entry without a uid is not root’s', () => {
    write('passwd', 'evil:x::0::/:');
    expect(() => resolveUser('evil')).toThrow(InitError);
  });
});

describe('an image whose files are not files (CVE-2024-9676)', () => {
  test('none at all: numbers still work', () => {
    expect(resolveUser('')).toEqual({ uid: 0, gid: 0, groups: [0], home: '/root' });
    expect(resolveUser('5:6').gid).toBe(6);
  });

  test('a link, a folder, a FIFO: not read, and not waited for', () => {
    const passwd = path.join(root, 'etc/passwd');
    image();
    fs.renameSync(passwd, path.join(root, 'elsewhere'));
    fs.symlinkSync(path.join(root, 'elsewhere'), passwd);
    expect(() => resolveUser('web')).toThrow(/unknown user "web"/);
    fs.rmSync(passwd);
    fs.mkdirSync(passwd);
    expect(() => resolveUser('web')).toThrow(/unknown user "web"/);
    fs.rmdirSync(passwd);
    execFileSync('mkfifo', [passwd]);
    expect(() => resolveUser('web')).toThrow(/unknown user "web"/);
  });

  test('a huge one: not read', () => {
    write('passwd', 'web:x:1000:100::/:', `#${':'.repeat(5 * 1024 * 1024)}`);
    expect(() => resolveUser('web')).toThrow(/unknown user "web"/);
  });
});
