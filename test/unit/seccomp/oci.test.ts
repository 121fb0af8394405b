import { describe, expect, test } from 'bun:test';
import { compile } from '../../../src/seccomp/bpf.ts';
import {
  filterFlags,
  type OciArgument,
  type OciSeccomp,
  type OciSyscalls,
  policyOf,
} from '../../../src/seccomp/oci.ts';
import { aarch64, arm, i386, x86_64 } from '../../../src/seccomp/tables.ts';
import { run } from '../../support/bpf.ts';

const abis = {
  x86_64: { machine: 'x64', audit: 0xc000003e, numbers: x86_64 },
  i386: { machine: 'x64', audit: 0x40000003, numbers: i386 },
  aarch64: { machine: 'arm64', audit: 0xc00000b7, numbers: aarch64 },
  arm: { machine: 'arm64', audit: 0x40000028, numbers: arm },
} as const;

const outcomes: Record<number, string> = {
  0x7fff0000: 'allow',
  0x7ffc0000: 'log',
  0x30000: 'trap',
  0: 'kill thread',
  0x80000000: 'kill process',
};

/** What a profile makes of a call: `errno 5`, `allow`, … */
function ask(
  profile: Omit<OciSeccomp, 'syscalls'> & { syscalls?: OciSyscalls[] },
  abi: keyof typeof abis,
  call: string | number,
  args: bigint[] = [],
): string {
  const { machine, audit, numbers } = abis[abi];
  const program = compile(policyOf({ syscalls: [], ...profile }), [], machine);
  const number = typeof call === 'number' ? call : ((numbers as Record<string, number>)[call] ?? -1);
  const { value } = run(program, audit, number, args);
  if (value >>> 16 === 5) return `errno ${value & 0xffff}`;
  if (value >>> 16 === 0x7ff0) return `trace ${value & 0xffff}`;
  return outcomes[value] ?? value.toString(16);
}

const all = ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'];
const errno = (names: string, errnoRet?: number, ...args: OciArgument[]): OciSyscalls => ({
  names: names.split(' '),
  action: 'SCMP_ACT_ERRNO',
  ...(errnoRet === undefined ? {} : { errnoRet }),
  ...(args.length > 0 ? { args } : {}),
});
const allow = (names: string, ...args: OciArgument[]): OciSyscalls => ({
  names: names.split(' '),
  action: 'SCMP_ACT_ALLOW',
  ...(args.length > 0 ? { args } : {}),
});
const is = (index: number, op: string, value: number | string, valueTwo?: number | string): OciArgument => ({
  index,
  op: `SCMP_CMP_${op}`,
  value,
  ...(valueTwo === undefined ? {} : { valueTwo }),
});
const denying = (...syscalls: OciSyscalls[]) => ({
  defaultAction: 'SCMP_ACT_ERRNO',
  architectures: all,
  syscalls: [...syscalls, allow('file_setattr')],
});
const allowing = (...syscalls: OciSyscalls[]) => ({ defaultAction: 'SCMP_ACT_ALLOW', architectures: all, syscalls });

test.each([
  ['SCMP_ACT_ALLOW', undefined, 'allow'],
  ['SCMP_ACT_ERRNO', undefined, 'errno 1'],
  ['SCMP_ACT_ERRNO', 38, 'errno 38'],
  ['SCMP_ACT_ERRNO', 0, 'errno 0'],
  ['SCMP_ACT_TRACE', undefined, 'trace 1'],
  ['SCMP_ACT_TRACE', 7, 'trace 7'],
  ['SCMP_ACT_LOG', undefined, 'log'],
  ['SCMP_ACT_TRAP', undefined, 'trap'],
  ['SCMP_ACT_KILL', undefined, 'kill thread'],
  ['SCMP_ACT_KILL_THREAD', undefined, 'kill thread'],
  ['SCMP_ACT_KILL_PROCESS', undefined, 'kill process'],
])('%s %p: %s', (action, errnoRet, expected) => {
  const rule = { names: ['mkdir'], action, ...(errnoRet === undefined ? {} : { errnoRet }) };
  expect(ask({ defaultAction: 'SCMP_ACT_LOG', syscalls: [rule] }, 'x86_64', 'mkdir')).toBe(expected);
  const whole = { defaultAction: action, ...(errnoRet === undefined ? {} : { defaultErrnoRet: errnoRet }) };
  expect(ask(whole, 'x86_64', 'mkdir')).toBe(expected);
});

// What follows was compared with libseccomp 2.5.4.
describe('several rules for a call', () => {
  test('are alternatives; conditions of one must all hold', () => {
    const profile = denying(allow('ioctl', is(0, 'EQ', 1), is(1, 'GT', 5)), allow('ioctl', is(2, 'NE', 0)));
    const cases: [bigint[], string][] = [
      [[1n, 6n, 0n], 'allow'],
      [[1n, 5n, 0n], 'errno 1'],
      [[2n, 6n, 0n], 'errno 1'],
      [[2n, 0n, 9n], 'allow'],
    ];
    for (const [args, expected] of cases) expect(ask(profile, 'x86_64', 'ioctl', args)).toBe(expected);
  });

  test('one without conditions is all there is, wherever it stands; the first of several', () => {
    const conditional = errno('ioctl', 5, is(1, 'EQ', 7));
    for (const rules of [
      [conditional, allow('ioctl')],
      [allow('ioctl'), conditional],
      [allow('ioctl'), errno('ioctl', 5)],
    ]) {
      expect(ask(denying(...rules), 'x86_64', 'ioctl', [0n, 7n])).toBe('allow');
    }
    expect(ask(denying(errno('ioctl', 5), allow('ioctl')), 'x86_64', 'ioctl')).toBe('errno 5');
  });

  test('one that says what happens anyway does not count', () => {
    const profile = denying(errno('personality', 1), allow('personality', is(0, 'EQ', 8)));
    expect(ask(profile, 'x86_64', 'personality', [8n])).toBe('allow');
    expect(ask(profile, 'x86_64', 'personality', [9n])).toBe('errno 1');
  });

  test('two conditions on one argument are two rules', () => {
    const profile = denying(allow('socket', is(0, 'NE', 38), is(0, 'NE', 40)));
    for (const family of [2n, 38n, 40n]) expect(ask(profile, 'x86_64', 'socket', [family])).toBe('allow');
  });

  test('where they overlap and differ, the strictest decides', () => {
    const rules = [allow('ioctl', is(0, 'GT', 10)), errno('ioctl', 5, is(0, 'GT', 20)), allow('ioctl', is(1, 'EQ', 2))];
    for (const profile of [denying(...rules), denying(...rules.toReversed())]) {
      expect(ask(profile, 'x86_64', 'ioctl', [15n])).toBe('allow');
      expect(ask(profile, 'x86_64', 'ioctl', [25n, 2n])).toBe('errno 5');
    }
  });
});

describe('arguments', () => {
  test('of 64 bits, with masks', () => {
    const profile = denying(
      allow('read', is(0, 'EQ', '18446744073709551615')),
      allow('write', is(0, 'MASKED_EQ', 0xf0, 0x1f)),
      allow('close', is(0, 'LE', '4294967301')),
    );
    expect(ask(profile, 'x86_64', 'read', [2n ** 64n - 1n])).toBe('allow');
    expect(ask(profile, 'x86_64', 'read', [2n ** 32n - 1n])).toBe('errno 1');
    // libseccomp masks both sides.
    expect(ask(profile, 'x86_64', 'write', [0x1an])).toBe('allow');
    expect(ask(profile, 'x86_64', 'write', [0x2an])).toBe('errno 1');
    expect(ask(profile, 'x86_64', 'close', [4294967301n])).toBe('allow');
    expect(ask(profile, 'x86_64', 'close', [4294967302n])).toBe('errno 1');
  });

  test('of a 32-bit ABI have 32 bits, and so have the numbers they are compared with', () => {
    const profile = denying(allow('read', is(0, 'GT', '4294967301')));
    expect(ask(profile, 'i386', 'read', [6n])).toBe('allow');
    expect(ask(profile, 'i386', 'read', [5n])).toBe('errno 1');
    expect(ask(profile, 'arm', 'read', [6n])).toBe('allow');
  });
});

describe('calls newer than the profile', () => {
  const old = { defaultAction: 'SCMP_ACT_ERRNO', syscalls: [allow('read statx'), errno('openat2')] };

  test('are ENOSYS, what is older and not named is what happens by default', () => {
    expect(ask(old, 'x86_64', 'openat2')).toBe('errno 1');
    expect(ask(old, 'x86_64', 'clone3')).toBe('errno 1');
    for (const call of [x86_64['openat2'] as number, 335, 400]) expect(ask(old, 'x86_64', call)).toBe('errno 1');
    for (const call of ['pidfd_getfd', 'mseal', 470, 5000]) expect(ask(old, 'x86_64', call)).toBe('errno 38');
    expect(ask({ ...old, defaultAction: 'SCMP_ACT_KILL_PROCESS' }, 'x86_64', 'mseal')).toBe('errno 38');
  });

  test('are let through where everything is', () => {
    for (const [defaultAction, expected] of [
      ['SCMP_ACT_ALLOW', 'allow'],
      ['SCMP_ACT_LOG', 'log'],
      ['SCMP_ACT_TRACE', 'trace 1'],
    ] as const)
      expect(ask({ ...old, defaultAction }, 'x86_64', 5000)).toBe(expected);
  });
});

describe('ABIs', () => {
  const rules = [allow('getpid file_setattr')];
  const native = { defaultAction: 'SCMP_ACT_ERRNO', syscalls: rules };

  test('that are not listed are killed; the own one is always in', () => {
    for (const profile of [native, { defaultAction: 'SCMP_ACT_ALLOW', architectures: ['SCMP_ARCH_S390X'] }]) {
      expect(ask(profile, 'x86_64', 'getpid')).toBe('allow');
      expect(ask(profile, 'aarch64', 'getpid')).toBe('allow');
      for (const abi of ['i386', 'arm'] as const) expect(ask(profile, abi, 'getpid')).toBe('kill thread');
      expect(ask(profile, 'x86_64', 0x40000000 + (x86_64['getpid'] as number))).toBe('kill thread');
    }
  });

  test('that are listed have the rules; x32 is never allowed', () => {
    for (const defaultAction of ['SCMP_ACT_ERRNO', 'SCMP_ACT_ALLOW']) {
      const profile = { ...native, defaultAction, architectures: [...all, 'SCMP_ARCH_X32'] };
      for (const abi of ['i386', 'arm'] as const) expect(ask(profile, abi, 'getpid')).toBe('allow');
      for (const number of [0x40000000, 0x40000027, 0x7fffffff])
        expect(ask(profile, 'x86_64', number)).toBe('errno 38');
    }
  });

  test('socketcall and ipc of i386 do not lead round a refusal', () => {
    const profile = allowing(errno('socket', 97, is(0, 'EQ', 38)), errno('shmget', 13), errno('accept4', 1));
    expect(ask(profile, 'i386', 'socketcall', [1n])).toBe('errno 97');
    expect(ask(profile, 'i386', 'socketcall', [18n])).toBe('errno 1');
    expect(ask(profile, 'i386', 'socketcall', [2n])).toBe('allow');
    for (const call of [23n, 0x10017n]) expect(ask(profile, 'i386', 'ipc', [call])).toBe('errno 13');
    expect(ask(profile, 'i386', 'ipc', [24n])).toBe('allow');
    expect(ask(profile, 'x86_64', 'shmget')).toBe('errno 13');
  });

  test('they lead to what is allowed without conditions only', () => {
    const profile = denying(allow('socket', is(0, 'NE', 38)), allow('bind'));
    expect(ask(profile, 'i386', 'socket', [2n])).toBe('allow');
    expect(ask(profile, 'i386', 'socketcall', [1n])).toBe('errno 1');
    expect(ask(profile, 'i386', 'socketcall', [2n])).toBe('allow');
    expect(ask(denying(allow('socketcall')), 'i386', 'socketcall', [1n])).toBe('allow');
  });
});

test('flags', () => {
  const flags = (...names: string[]) =>
    filterFlags({
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [],
      flags: names.map((name) => `SECCOMP_FILTER_FLAG_${name}`),
    });
  expect([flags(), flags('TSYNC'), flags('LOG'), flags('SPEC_ALLOW', 'LOG')]).toEqual([0, 0, 2, 6]);
});
