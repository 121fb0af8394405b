import { describe, expect, test } from 'bun:test';
import { MinirunError } from '../../../src/errors.ts';
import { type Circumstances, readDockerProfile } from '../../../src/seccomp/docker.ts';

const usual: Circumstances = { capabilities: ['CAP_CHOWN', 'CAP_NET_RAW'], machine: 'x64', kernel: '6.12.43-amd64' };
const read = (content: unknown, change: Partial<Circumstances> = {}) =>
  readDockerProfile('p.json', typeof content === 'string' ? content : JSON.stringify(content), { ...usual, ...change });
const profile = (...syscalls: object[]) => ({ defaultAction: 'SCMP_ACT_ALLOW', syscalls });
const rule = (more: object = {}) => ({ names: ['mkdir'], action: 'SCMP_ACT_ERRNO', ...more });
/** Whether a rule with these fields takes part. */
const counts = (more: object, change: Partial<Circumstances> = {}) =>
  read(profile(rule(more)), change).profile.syscalls.length === 1;

test('the fields of docker and of the OCI, and what may be left out or null', () => {
  const full = {
    $schema: 'whatever',
    _remark: 'no field',
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 38,
    defaultErrno: 'ENOSYS',
    archMap: [
      { architecture: 'SCMP_ARCH_AARCH64', subArchitectures: ['SCMP_ARCH_ARM'] },
      { architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] },
      { architecture: 'SCMP_ARCH_RISCV64', subArchitectures: null },
    ],
    flags: ['SECCOMP_FILTER_FLAG_LOG'],
    syscalls: [
      { name: 'read', action: 'SCMP_ACT_ALLOW', args: null, comment: 'why', includes: {}, excludes: {} },
      {
        names: ['ioctl', 'not_yet_there'],
        action: 'SCMP_ACT_ERRNO',
        errno: 'EINVAL',
        args: [{ index: 1, value: 12345, op: 'SCMP_CMP_EQ', valueTwo: 0 }],
      },
      { names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 2114060288, op: 'SCMP_CMP_MASKED_EQ' }] },
    ],
  };
  const text = JSON.stringify(full).replace('12345', '18446744073709551615');
  expect(read(text)).toEqual({
    profile: {
      defaultAction: 'SCMP_ACT_ERRNO',
      defaultErrnoRet: 38,
      architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'],
      flags: ['SECCOMP_FILTER_FLAG_LOG'],
      syscalls: [
        { names: ['read'], action: 'SCMP_ACT_ALLOW' },
        {
          names: ['ioctl', 'not_yet_there'],
          action: 'SCMP_ACT_ERRNO',
          errnoRet: 22,
          args: [{ index: 1, value: '18446744073709551615', op: 'SCMP_CMP_EQ' }],
        },
        {
          names: ['clone'],
          action: 'SCMP_ACT_ALLOW',
          args: [{ index: 0, value: 2114060288, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
        },
      ],
    },
    warnings: [],
  });
  expect(read(text, { machine: 'arm64' }).profile.architectures).toEqual(['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM']);
});

test('what is kept reads back as the same', () => {
  const { profile: kept } = read(profile(rule({ args: [{ index: 0, value: 1, op: 'SCMP_CMP_NE' }] })));
  expect(read(kept).profile).toEqual(kept);
});

describe('conditions', () => {
  test.each([
    [{ includes: { caps: ['CAP_CHOWN'] } }, true],
    [{ includes: { caps: ['CAP_SYS_ADMIN'] } }, false],
    [{ includes: { caps: ['CAP_CHOWN', 'CAP_SYS_ADMIN'] } }, false],
    [{ excludes: { caps: ['CAP_SYS_ADMIN'] } }, true],
    [{ excludes: { caps: ['CAP_CHOWN', 'CAP_SYS_ADMIN'] } }, false],
    [{ includes: { arches: ['arm64', 'amd64'] } }, true],
    [{ includes: { arches: ['s390x'] } }, false],
    [{ excludes: { arches: ['amd64'] } }, false],
    [{ includes: { minKernel: '4.8' } }, true],
    [{ includes: { minKernel: '6.12' } }, true],
    [{ includes: { minKernel: '6.13' } }, false],
    [{ includes: { minKernel: '' } }, true],
    [{ excludes: { minKernel: '5.0' } }, false],
    [{ includes: { arches: ['amd64'], caps: ['CAP_SYS_ADMIN'] } }, false],
    [{ includes: { caps: ['CAP_CHOWN'] }, excludes: { arches: ['arm64'] } }, true],
  ])('%j: %p', (conditions, expected) => {
    expect(counts(conditions)).toBe(expected);
  });

  test('are about this machine and this container', () => {
    expect(counts({ includes: { arches: ['arm64'] } }, { machine: 'arm64' })).toBe(true);
    expect(counts({ includes: { caps: ['CAP_SYS_ADMIN'] } }, { capabilities: ['CAP_SYS_ADMIN'] })).toBe(true);
    expect(counts({ includes: { minKernel: '4.8' } }, { kernel: '4.7.10' })).toBe(false);
    expect(counts({ includes: { minKernel: '4.8' } }, { kernel: '4.10' })).toBe(true);
  });
});

describe('refused, with the place', () => {
  const arg = (more: object) => profile(rule({ args: [{ index: 0, value: 1, op: 'SCMP_CMP_EQ', ...more }] }));
  test.each<[unknown, string]>([
    ['', 'it is no JSON'],
    ['{"defaultAction": "SCMP_ACT_ALLOW"', 'it is no JSON'],
    ['[]', 'it is no object'],
    ['3', 'it is no object'],
    ['null', 'it is no object'],
    ['99999999999999999999', 'it is no object'],
    [{}, 'it has no defaultAction'],
    [{ defaultAction: 1 }, 'defaultAction: it is no string'],
    [{ defaultAction: 'SCMP_ACT_DENY' }, 'defaultAction: unknown action "SCMP_ACT_DENY"'],
    [{ defaultAction: 'SCMP_ACT_NOTIFY' }, 'defaultAction: SCMP_ACT_NOTIFY hands calls to another program'],
    [profile(rule({ action: 'SCMP_ACT_NOTIFY' })), 'syscalls[0].action: SCMP_ACT_NOTIFY hands'],
    [{ ...profile(), listenerPath: '/run/agent' }, 'listenerPath: SCMP_ACT_NOTIFY hands'],
    [{ ...profile(), defaultErrnoRet: 1 }, 'defaultErrnoRet: SCMP_ACT_ALLOW returns no errno'],
    [{ defaultAction: 'SCMP_ACT_ERRNO', defaultErrno: 'EWHAT' }, 'defaultErrno: unknown errno "EWHAT"'],
    [{ defaultAction: 'SCMP_ACT_ERRNO', defaultErrno: 'toString' }, 'defaultErrno: unknown errno "toString"'],
    [
      { defaultAction: 'SCMP_ACT_ERRNO', defaultErrno: 'EPERM', defaultErrnoRet: 38 },
      'defaultErrno: EPERM is 1, but defaultErrnoRet says 38',
    ],
    [{ ...profile(), DefaultAction: 'SCMP_ACT_KILL' }, 'DefaultAction: there is no such field'],
    [{ ...profile(), flags: ['SECCOMP_FILTER_FLAG_NEW'] }, 'flags: unknown flag "SECCOMP_FILTER_FLAG_NEW"'],
    [{ ...profile(), architectures: ['x86'] }, 'architectures: "x86" is no SCMP_ARCH_'],
    [{ ...profile(), archMap: [{ architecture: 'amd64' }] }, 'archMap[0].architecture: "amd64" is no SCMP_ARCH_'],
    [
      { ...profile(), architectures: ['SCMP_ARCH_X86'], archMap: [{ architecture: 'SCMP_ARCH_X86_64' }] },
      'archMap: it does not go with architectures',
    ],
    [{ ...profile(), syscalls: {} }, 'syscalls: it is no list'],
    [{ ...profile(), syscalls: ['read'] }, 'syscalls[0]: it is no object'],
    [profile(rule({ names: 'read' })), 'syscalls[0].names: it is no list of names'],
    [profile(rule({ names: [''] })), 'syscalls[0].names: it is no list of names'],
    [profile(rule({ names: [] })), 'syscalls[0]: it names no system call'],
    [profile(rule({ name: 'read' })), 'syscalls[0].name: it does not go with names'],
    [profile(rule(), { names: ['read'] }), 'syscalls[1]: it has no action'],
    [profile(rule({ errnoRet: 4096 })), 'syscalls[0].errnoRet: it is no whole number from 0 to 4095'],
    [profile(rule({ errnoRet: -1 })), 'syscalls[0].errnoRet: it is no whole number'],
    [profile(rule({ arg: [] })), 'syscalls[0].arg: there is no such field'],
    [arg({ index: 6 }), 'syscalls[0].args[0].index: it is no whole number from 0 to 5'],
    [arg({ index: null }), 'syscalls[0].args[0]: it has no index'],
    [arg({ value: 1.5 }), 'syscalls[0].args[0].value: it is no whole number'],
    [arg({ value: '1' }), 'syscalls[0].args[0].value: it is no whole number'],
    [arg({ value: { text: '1' } }), 'syscalls[0].args[0].value: it is no whole number'],
    [arg({ op: 'SCMP_CMP_IN' }), 'syscalls[0].args[0].op: unknown operator "SCMP_CMP_IN"'],
    [arg({ size: 4 }), 'syscalls[0].args[0].size: there is no such field'],
    [profile(rule({ includes: [] })), 'syscalls[0].includes: it is no object'],
    [profile(rule({ includes: { caps: ['SYS_ADMIN'] } })), 'syscalls[0].includes.caps: "SYS_ADMIN" is no CAP_'],
    [profile(rule({ excludes: { minKernel: '4' } })), 'syscalls[0].excludes.minKernel: "4" is not of the form 4.8'],
    [profile(rule({ excludes: { arch: ['amd64'] } })), 'syscalls[0].excludes.arch: there is no such field'],
    // Also in a rule that does not take part.
    [profile(rule({ includes: { arches: ['s390'] }, args: [{}] })), 'syscalls[0].args[0]: it has no index'],
  ])('%j: %s', (content, message) => {
    expect(() => read(content)).toThrow(MinirunError);
    expect(() => read(content)).toThrow(`cannot use seccomp profile p.json: ${message}`);
  });

  test('a number above 64 bits', () => {
    const text = JSON.stringify(arg({ value: 12345 })).replace('12345', '18446744073709551616');
    expect(() => read(text)).toThrow('syscalls[0].args[0].value: it is no whole number from 0 to 18446744073709551615');
  });
});

describe('warnings', () => {
  const on = (index: number, value: number) => ({ index, value, op: 'SCMP_CMP_NE' });
  test.each<[string, object[], string[]]>([
    [
      'one argument twice',
      [rule({ args: [on(0, 38), on(0, 40)] })],
      ['p.json: syscalls[0] tests one argument twice, '],
    ],
    [
      'a rule that another one makes idle',
      [{ names: ['read', 'ioctl'], action: 'SCMP_ACT_LOG' }, rule({ names: ['ioctl'], args: [on(1, 1)] })],
      ['p.json: syscalls[1] has no effect on ioctl: syscalls[0] says SCMP_ACT_LOG for it'],
    ],
    ['the same action twice', [rule(), rule({ args: [on(0, 1)] })], []],
    ['what happens anyway', [{ names: ['mkdir'], action: 'SCMP_ACT_ALLOW' }, rule({ args: [on(0, 1)] })], []],
    ['a rule that does not take part', [rule(), rule({ errnoRet: 5, excludes: { arches: ['amd64'] } })], []],
  ])('%s', (_, syscalls, expected) => {
    const { warnings } = read(profile(...syscalls));
    expect(warnings).toHaveLength(expected.length);
    for (const [index, text] of expected.entries()) expect(warnings[index]).toStartWith(text);
  });
});
