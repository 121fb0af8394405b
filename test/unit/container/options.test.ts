import { describe, expect, test } from 'bun:test';
import {
  checkHostname,
  checkName,
  checkUser,
  mergeEnv,
  parseAddHost,
  parseEnv,
  parseEnvFile,
  parseLabel,
  parseRestart,
  parseSignal,
  signalName,
  parseSysctl,
  parseUlimit,
} from '../../../src/container/options.ts';
import { namePattern } from '../../../src/container/store.ts';
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

describe('signals', () => {
  test.each([
    ['TERM', 15],
    ['SIGTERM', 15],
    ['sigkill', 9],
    ['9', 9],
    ['HUP', 1],
    ['64', 64],
    ['RTMIN', 34],
    ['sigrtmin+3', 37],
    ['SIGRTMAX-1', 63],
    ['RTMAX', 64],
  ])('%s', (text, number) => {
    expect(parseSignal(text)).toBe(number);
  });
  test.each(['', '0', '65', '-9', '9.5', 'SIGNOPE', 'SIGSIGTERM', 'toString', 'RTMIN-1', 'RTMIN+31', 'RTMAX-31'])(
    'refused: %j',
    (text) => {
      refused(() => parseSignal(text));
    },
  );
  test('their names are docker’s, and mean them', () => {
    for (const name of ['SIGTERM', 'SIGRTMIN', 'SIGRTMIN+3']) expect(signalName(parseSignal(name))).toBe(name);
  });
});

describe('--restart', () => {
  test.each([
    ['no', { name: 'no', maximum: 0 }],
    ['always', { name: 'always', maximum: 0 }],
    ['unless-stopped', { name: 'unless-stopped', maximum: 0 }],
    ['on-failure', { name: 'on-failure', maximum: 0 }],
    ['on-failure:3', { name: 'on-failure', maximum: 3 }],
  ] as const)('%s', (text, policy) => {
    expect(parseRestart(text)).toEqual(policy);
  });
  test.each(['', 'sometimes', 'always:3', 'on-failure:', 'on-failure:-1', 'on-failure:x', 'on-failure:1:2'])(
    'refused: %j',
    (text) => {
      refused(() => parseRestart(text));
    },
  );
});

describe('--ulimit', () => {
  test.each([
    ['nofile=1024:2048', 'RLIMIT_NOFILE', 1024, 2048],
    ['core=0', 'RLIMIT_CORE', 0, 0],
    ['core=-1', 'RLIMIT_CORE', -1, -1],
    ['memlock=64:unlimited', 'RLIMIT_MEMLOCK', 64, -1],
    ['nproc=unlimited:-1', 'RLIMIT_NPROC', -1, -1],
  ])('%s', (text, type, soft, hard) => {
    expect(parseUlimit(text)).toEqual({ type, soft, hard });
  });
  test.each([
    'nofile',
    'nofile=',
    'nofile=2:1',
    'nofile=-1:5',
    'nofiles=1',
    'NOFILE=1',
    'nofile=1:2:3',
    'nofile=1k',
    'core=-2',
  ])('refused: %j', (text) => {
    refused(() => parseUlimit(text));
  });
});

describe('--sysctl', () => {
  test.each([
    ['net.ipv4.ip_forward=1', 'net.ipv4.ip_forward', '1'],
    ['net.ipv4.conf.eth0/1.rp_filter=', 'net.ipv4.conf.eth0/1.rp_filter', ''],
    ['kernel.shmmax=1', 'kernel.shmmax', '1'],
    ['kernel.msgmax=1', 'kernel.msgmax', '1'],
    ['kernel.sem=1 2 3 4', 'kernel.sem', '1 2 3 4'],
    ['fs.mqueue.msg_max=20=', 'fs.mqueue.msg_max', '20='],
  ])('%s', (text, key, value) => {
    expect(parseSysctl(text, true)).toEqual([key, value]);
  });
  // What belongs to the whole machine, and what would leave /proc/sys.
  test.each([
    'kernel.core_pattern=|/x',
    'vm.swappiness=1',
    'kernel.hostname=x',
    'fs.file-max=1',
    'net.ipv4.ip_forward',
    'net..x=1',
    'net./../kernel.core_pattern=x',
    'net/../kernel/x=1',
    '=1',
    'net.ipv4. x=1',
  ])('refused: %j', (text) => {
    refused(() => parseSysctl(text, true));
  });
  test("another's network is not to be changed; the rest is the container's own all the same", () => {
    refused(() => parseSysctl('net.ipv4.ip_forward=1', false));
    expect(parseSysctl('kernel.shmmax=1', false)).toEqual(['kernel.shmmax', '1']);
  });
});

describe('environment', () => {
  test('a name alone takes the value of the caller, and stays alone where there is none', () => {
    const own = { HOME: '/root', EMPTY: '' };
    expect(parseEnv('A=1=2', own)).toBe('A=1=2');
    expect(parseEnv('A=', own)).toBe('A=');
    expect(parseEnv('HOME', own)).toBe('HOME=/root');
    expect(parseEnv('EMPTY', own)).toBe('EMPTY=');
    expect(parseEnv('OTHER', own)).toBe('OTHER');
    for (const text of ['', '=', '=x']) refused(() => parseEnv(text, own));
  });

  test('a file: comments, empty lines and Windows line ends are left out, quotes and inner blanks stay', () => {
    const content = '# comment\r\nA=1\r\n\n  B="two words" \n#C=3\nHOME\nMISSING\nD=#4';
    expect(parseEnvFile(content, { HOME: '/root' })).toEqual(['A=1', 'B="two words" ', 'HOME=/root', 'D=#4']);
  });

  test('a later variable replaces an earlier one in its place', () => {
    expect(mergeEnv(['PATH=/bin', 'A=1'], [], ['A=2=3', 'AB=4'])).toEqual(['PATH=/bin', 'A=2=3', 'AB=4']);
    expect(mergeEnv(['A=1', 'B=2', 'C=3'], ['A', 'C', 'D'], ['C=4'])).toEqual(['B=2', 'C=4']);
  });
});

test('labels', () => {
  expect(parseLabel('a=b=c')).toEqual(['a', 'b=c']);
  expect(parseLabel('a')).toEqual(['a', '']);
  for (const text of ['', '=x']) refused(() => parseLabel(text));
});

describe('--add-host', () => {
  test.each([
    ['db:10.0.0.7', '10.0.0.7', 'db'],
    ['db=10.0.0.7', '10.0.0.7', 'db'],
    ['db:::1', '::1', 'db'],
    ['db:[fe80::1]', 'fe80::1', 'db'],
    ['gw:host-gateway', 'host-gateway', 'gw'],
  ])('%s', (text, address, name) => {
    expect(parseAddHost(text)).toEqual([address, name]);
  });
  // The line goes into /etc/hosts: neither part may bring further words or lines.
  test.each(['db', 'db:', ':10.0.0.7', 'db:other', 'd b:10.0.0.7', 'db:10.0.0.7\n1.2.3.4 bank', 'db:10.0.0.7 bank'])(
    'refused: %j',
    (text) => {
      refused(() => parseAddHost(text));
    },
  );
});

describe('names', () => {
  test.each(['web', 'a1', '0_.-', 'A'.repeat(200)])('%s', (name) => {
    expect(checkName(name, namePattern)).toBe(name);
  });
  // The name is a file in /run/netns and in the state directory.
  test.each(['', 'a', '-a', '.a', '_a', 'a/b', '../x', 'a b', 'a\n', 'ä1', 'a'.repeat(201)])('refused: %j', (name) => {
    refused(() => checkName(name, namePattern));
  });
});

describe('hostnames', () => {
  test.each(['a', 'web-1.example.org', 'a'.repeat(63)])('%s', (name) => {
    expect(checkHostname(name)).toBe(name);
  });
  test.each(['', '-a', 'a-', 'a b', 'a\nb', 'a'.repeat(64)])('refused: %j', (name) => {
    refused(() => checkHostname(name));
  });
});

describe('-u', () => {
  test.each(['', 'web', '0', '1000:1000', 'web:staff', '2147483647', 'a-1'])('%j', (text) => {
    expect(checkUser(text)).toBe(text);
  });
  // CVE-2024-40635: larger ids turn negative, and so into root.
  test.each(['2147483648', '4294967296', '0:2147483648', 'web:99999999999', '-1', '0:-1'])('refused: %j', (text) => {
    refused(() => checkUser(text));
  });
});
