import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import { compile, type Condition, gatesOf, type Machine, type Policy } from '../../../src/seccomp/bpf.ts';
import { gates, programs } from '../../../src/seccomp/compiled.ts';
import { renderCompiled } from '../../../src/seccomp/generate.ts';
import { seccompFilter } from '../../../src/seccomp/index.ts';
import { defaultCapabilities } from '../../../src/container/capabilities.ts';
import { defaultPolicy } from '../../../src/seccomp/profile.ts';
import { run } from '../../support/bpf.ts';
import { aarch64, arm, i386, type SyscallTable, x86_64 } from '../../../src/seccomp/tables.ts';

type Outcome = 'allow' | 'EPERM' | 'ENOSYS' | 'EAFNOSUPPORT';

const outcomes = new Map<number, Outcome>([
  [0x7fff0000, 'allow'],
  [0x00050001, 'EPERM'],
  [0x00050026, 'ENOSYS'],
  [0x00050061, 'EAFNOSUPPORT'],
]);

const abis = {
  x86_64: { machine: 'x64', audit: 0xc000003e, numbers: x86_64 },
  i386: { machine: 'x64', audit: 0x40000003, numbers: i386 },
  aarch64: { machine: 'arm64', audit: 0xc00000b7, numbers: aarch64 },
  arm: { machine: 'arm64', audit: 0x40000028, numbers: arm },
} as const satisfies Record<string, { machine: Machine; audit: number; numbers: SyscallTable }>;

type Abi = keyof typeof abis;

const cache = new Map<string, Uint8Array>();

function programFor(machine: Machine, capabilities: readonly string[]): Uint8Array {
  const key = `${machine} ${capabilities.join()}`;
  const program = cache.get(key) ?? compile(defaultPolicy, capabilities, machine);
  cache.set(key, program);
  return program;
}

/** What the default policy does with a call, by name or number. */
function outcome(abi: Abi, call: string | number, args: readonly bigint[] = [], capabilities = defaultCapabilities) {
  const { machine, audit, numbers } = abis[abi];
  const number = typeof call === 'number' ? call : numbers[call];
  if (number === undefined) throw new Error(`${abi} has no ${call}`);
  return outcomes.get(run(programFor(machine, capabilities), audit, number, args).value);
}

const admin = [...defaultCapabilities, 'CAP_SYS_ADMIN'];
const everyAbi = Object.keys(abis) as Abi[];

/** Call, arguments, outcome with the default capabilities, outcome with CAP_SYS_ADMIN in addition. */
const everywhere: [string, bigint[], Outcome, Outcome][] = [
  ['read', [], 'allow', 'allow'],
  ['execve', [], 'allow', 'allow'],
  ['exit_group', [], 'allow', 'allow'],
  ['ptrace', [], 'allow', 'allow'],
  ['chroot', [], 'allow', 'allow'],
  ['fchmodat2', [], 'allow', 'allow'],
  ['mount', [], 'EPERM', 'allow'],
  ['umount2', [], 'EPERM', 'allow'],
  ['pivot_root', [], 'EPERM', 'allow'],
  ['setns', [], 'EPERM', 'allow'],
  ['unshare', [0x10000000n], 'EPERM', 'allow'],
  ['fsopen', [], 'EPERM', 'allow'],
  ['open_tree_attr', [], 'EPERM', 'allow'],
  ['bpf', [], 'EPERM', 'allow'],
  ['perf_event_open', [], 'EPERM', 'allow'],
  ['syslog', [], 'EPERM', 'allow'],
  ['statmount', [], 'ENOSYS', 'allow'],
  ['clone3', [], 'ENOSYS', 'allow'],
  // A thread and a process as glibc makes them; then namespaces, alone and among other flags.
  ['clone', [0x3d0f00n], 'allow', 'allow'],
  ['clone', [0x1200011n], 'allow', 'allow'],
  ['clone', [0x10000000n], 'EPERM', 'allow'],
  ['clone', [0x1220011n], 'EPERM', 'allow'],
  ['clone', [0x40000011n], 'EPERM', 'allow'],
  ['personality', [0n], 'allow', 'allow'],
  ['personality', [0x20008n], 'allow', 'allow'],
  ['personality', [0xffffffffn], 'allow', 'allow'],
  ['personality', [0x40000n], 'EPERM', 'EPERM'],
  ['socket', [1n], 'allow', 'allow'],
  ['socket', [2n], 'allow', 'allow'],
  ['socket', [39n], 'allow', 'allow'],
  ['socket', [38n], 'EAFNOSUPPORT', 'EAFNOSUPPORT'],
  ['socket', [40n], 'EAFNOSUPPORT', 'EAFNOSUPPORT'],
  ['socket', [10n], 'allow', 'allow'],
  ['socket', [17n], 'allow', 'allow'],
  ['socket', [12n], 'EAFNOSUPPORT', 'EAFNOSUPPORT'],
  ['socket', [37n], 'EAFNOSUPPORT', 'EAFNOSUPPORT'],
  ['socket', [45n], 'allow', 'allow'],
  ['socket', [46n], 'EAFNOSUPPORT', 'EAFNOSUPPORT'],
  ['socket', [0x1_0000_0026n], 'EAFNOSUPPORT', 'EAFNOSUPPORT'],
  ['lsm_set_self_attr', [], 'ENOSYS', 'allow'],
  ['ioctl', [0n, 0x5401n], 'allow', 'allow'],
  ['ioctl', [0n, 0x5412n], 'EPERM', 'EPERM'],
  ['ioctl', [0n, 0x541cn], 'EPERM', 'EPERM'],
  ['keyctl', [], 'EPERM', 'EPERM'],
  ['add_key', [], 'EPERM', 'EPERM'],
  ['userfaultfd', [], 'EPERM', 'EPERM'],
  ['io_uring_setup', [], 'EPERM', 'EPERM'],
  ['kexec_load', [], 'EPERM', 'EPERM'],
  ['swapon', [], 'EPERM', 'EPERM'],
  ['reboot', [], 'EPERM', 'EPERM'],
  ['init_module', [], 'EPERM', 'EPERM'],
  ['open_by_handle_at', [], 'EPERM', 'EPERM'],
  ['clock_settime', [], 'EPERM', 'EPERM'],
  ['nfsservctl', [], 'ENOSYS', 'ENOSYS'],
];

describe.each(everyAbi)('the default policy for %s', (abi) => {
  test.each(everywhere)('%s(%p): %s, with CAP_SYS_ADMIN %s', (call, args, ordinary, privileged) => {
    expect(outcome(abi, call, args)).toBe(ordinary);
    expect(outcome(abi, call, args, admin)).toBe(privileged);
  });

  test('numbers without a name, among the others and above them, are ENOSYS', () => {
    const known = new Set<number>(Object.values(abis[abi].numbers));
    for (let number = 0; number < 1100; number++) {
      if (!known.has(number)) expect(outcome(abi, number)).toBe('ENOSYS');
    }
    expect(outcome(abi, 0x3fffffff)).toBe('ENOSYS');
    expect(outcome(abi, 0xffffffff)).toBe('ENOSYS');
  });

  test('each call that a rule allows to everybody is allowed', () => {
    const allowed = defaultPolicy.rules.filter(
      (rule) => rule.verdict === 'allow' && rule.where === undefined && rule.capabilities === undefined,
    );
    const special = new Set(['socket', 'socketcall', 'ioctl']);
    for (const name of allowed.flatMap((rule) => rule.names)) {
      if (name in abis[abi].numbers && !special.has(name)) expect([name, outcome(abi, name)]).toEqual([name, 'allow']);
    }
  });

  test('a call takes few instructions', () => {
    const { machine, audit, numbers } = abis[abi];
    const program = programFor(machine, defaultCapabilities);
    const lengths = Object.values(numbers).map((number) => run(program, audit, number, []).steps);
    expect(Math.max(...lengths)).toBeLessThan(24);
  });
});

describe('corners', () => {
  test('the x32 ABI is ENOSYS', () => {
    for (const number of Object.values(x86_64)) expect(outcome('x86_64', 0x40000000 + number)).toBe('ENOSYS');
    expect(outcome('x86_64', 0x40000000 + 520)).toBe('ENOSYS');
  });

  test('another ABI is EPERM', () => {
    for (const machine of ['x64', 'arm64'] as const) {
      const program = programFor(machine, defaultCapabilities);
      expect(outcomes.get(run(program, 0x80000016, 1, []).value)).toBe('EPERM');
    }
    expect(outcomes.get(run(programFor('arm64', []), 0xc000003e, 0, []).value)).toBe('EPERM');
  });

  test('the high half of an argument that the kernel reads as an int does not hide it (CVE-2019-10063)', () => {
    expect(outcome('x86_64', 'ioctl', [0n, 0x1_0000_5412n])).toBe('EPERM');
    expect(outcome('x86_64', 'socket', [0xffff_ffff_0000_0026n])).toBe('EAFNOSUPPORT');
    expect(outcome('aarch64', 'clone', [0x1_1000_0000n])).toBe('EPERM');
  });

  test('socketcall makes no socket, but does the rest', () => {
    expect(outcome('i386', 'socketcall', [1n])).toBe('ENOSYS');
    expect(outcome('i386', 'socketcall', [3n])).toBe('allow');
  });

  test('a call has its own number in each ABI', () => {
    expect(outcome('x86_64', 165)).toBe('EPERM'); // mount
    expect(outcome('i386', 165)).toBe('allow'); // getresuid
    expect(outcome('i386', 21)).toBe('EPERM'); // mount
    expect(outcome('x86_64', 21)).toBe('allow'); // access
  });

  test("ARM's private calls are allowed", () => {
    for (const name of ['cacheflush', 'set_tls', 'breakpoint', 'sync_file_range2']) {
      expect(outcome('arm', name)).toBe('allow');
    }
  });

  test.each([
    ['CAP_SYS_CHROOT', 'chroot'],
    ['CAP_BPF', 'bpf'],
    ['CAP_PERFMON', 'perf_event_open'],
    ['CAP_SYSLOG', 'syslog'],
    ['CAP_SYS_PTRACE', 'kcmp'],
    ['CAP_SYS_NICE', 'mbind'],
    ['CAP_SYS_MODULE', 'finit_module'],
    ['CAP_SYS_RAWIO', 'iopl'],
    ['CAP_SYS_TIME', 'clock_settime'],
    ['CAP_SYS_BOOT', 'reboot'],
    ['CAP_SYS_PACCT', 'acct'],
    ['CAP_SYS_TTY_CONFIG', 'vhangup'],
    ['CAP_DAC_READ_SEARCH', 'open_by_handle_at'],
  ])('%s opens %s', (capability, call) => {
    expect(outcome('x86_64', call, [], [])).toBe('EPERM');
    expect(outcome('x86_64', call, [], [capability])).toBe('allow');
  });

  test('every name in the profile is a system call somewhere', () => {
    const known = new Set(Object.values(abis).flatMap(({ numbers }) => Object.keys(numbers)));
    const unknown = defaultPolicy.rules.flatMap((rule) => rule.names).filter((name) => !known.has(name));
    expect(unknown).toEqual([]);
  });
});

describe('the compiler', () => {
  /** Whether a policy of this one condition on openat's arguments holds. */
  const holds = (condition: Condition, value: bigint) => {
    const policy: Policy = {
      rules: [{ names: ['openat'], verdict: 'allow', where: [condition] }],
      otherwise: { errno: 1 },
      unknown: { errno: 38 },
      foreign: { errno: 1 },
    };
    const args = [0n, 0n, 0n, 0n, 0n, 0n].with(condition.argument, value);
    return (
      outcomes.get(run(compile(policy, [], 'x64'), abis.x86_64.audit, x86_64['openat'] ?? -1, args).value) === 'allow'
    );
  };
  const samples = [0n, 1n, 5n, 0xffff_ffffn, 0x1_0000_0000n, 0x1_0000_0005n, 0x5_0000_0001n, 0xffff_ffff_ffff_ffffn];

  test.each(['==', '!=', '<', '<=', '>', '>='] as const)('compares with %s', (is) => {
    const compare = { '==': 0, '!=': 0, '<': 0, '<=': 0, '>': 0, '>=': 0, [is]: 1 };
    const expected = (a: bigint, b: bigint) =>
      a === b
        ? compare['=='] + compare['<='] + compare['>='] > 0
        : compare['!='] + (a < b ? compare['<'] + compare['<='] : compare['>'] + compare['>=']) > 0;
    for (const value of samples) {
      for (const given of samples) {
        expect(holds({ argument: 5, bits: 64, is, value }, given)).toBe(expected(given, value));
        const low = (n: bigint) => n & 0xffff_ffffn;
        expect(holds({ argument: 2, bits: 32, is, value }, given)).toBe(expected(low(given), low(value)));
      }
    }
  });

  test.each(['==', '!='] as const)('compares masked bits with %s', (is) => {
    const mask = 0xf_0000_000fn;
    for (const value of samples.map((sample) => sample & mask)) {
      for (const given of samples) {
        const equal = (given & mask) === value;
        expect(holds({ argument: 1, bits: 64, is, value, mask }, given)).toBe(is === '==' ? equal : !equal);
      }
    }
  });

  test('all conditions of a rule must hold, and the first rule that decides wins', () => {
    const policy: Policy = {
      rules: [
        {
          names: ['openat'],
          verdict: { errno: 38 },
          where: [
            { argument: 0, bits: 64, is: '!=', value: 7n },
            { argument: 1, bits: 64, is: '>', value: 0x1_0000_0000n },
          ],
        },
        { names: ['openat'], verdict: 'allow', where: [{ argument: 2, bits: 32, is: '==', value: 3n }] },
        { names: ['openat'], verdict: { errno: 97 } },
        { names: ['openat'], verdict: 'allow' },
      ],
      otherwise: { errno: 1 },
      unknown: { errno: 1 },
      foreign: { errno: 1 },
    };
    const program = compile(policy, [], 'x64');
    const decide = (...args: bigint[]) => outcomes.get(run(program, 0xc000003e, x86_64['openat'] ?? -1, args).value);
    expect(decide(8n, 0x2_0000_0000n, 3n)).toBe('ENOSYS');
    expect(decide(7n, 0x2_0000_0000n, 3n)).toBe('allow');
    expect(decide(8n, 0x1_0000_0000n, 3n)).toBe('allow');
    expect(decide(8n, 0x1_0000_0000n, 4n)).toBe('EAFNOSUPPORT');
  });

  test('reaches over more instructions than a conditional jump can', () => {
    const names = Object.keys(x86_64).filter((_, index) => index % 4 === 0);
    const where: Condition[] = [
      { argument: 0, bits: 64, is: '==', value: 1n },
      { argument: 1, bits: 64, is: '==', value: 2n },
    ];
    // A rule object of its own for each name, so that no two ranges merge.
    const rules = names.map((name) => ({ names: [name], verdict: 'allow', where }) as const);
    const policy: Policy = { rules, otherwise: { errno: 1 }, unknown: { errno: 38 }, foreign: { errno: 1 } };
    const program = compile(policy, [], 'x64');
    expect(program.length / 8).toBeGreaterThan(1000);
    for (const [name, number] of Object.entries(x86_64)) {
      const expected = names.includes(name) ? 'allow' : 'EPERM';
      expect(outcomes.get(run(program, 0xc000003e, number, [1n, 2n]).value)).toBe(expected);
      expect(outcomes.get(run(program, 0xc000003e, number, [1n, 3n]).value)).toBe('EPERM');
    }
    const longer = compile.bind(undefined, { ...policy, rules: rules.concat(rules, rules) }, [], 'x64');
    expect(longer).toThrow('4096');
  });
});

describe('seccompFilter', () => {
  test('compiled.ts is up to date; else run: bun src/seccomp/generate.ts', () => {
    const file = new URL('../../../src/seccomp/compiled.ts', import.meta.url);
    expect(renderCompiled()).toBe(fs.readFileSync(file, 'utf8'));
    expect(gatesOf(defaultPolicy)).toEqual([...gates]);
  });

  test.each([
    ['the default capabilities', defaultCapabilities],
    ['no capabilities', []],
    ['capabilities that no rule asks about', [...defaultCapabilities, 'CAP_NET_ADMIN', 'CAP_MKNOD']],
    ['CAP_SYS_ADMIN', admin],
  ])('is what the compiler makes for %s', (_, capabilities) => {
    const expected = compile(defaultPolicy, capabilities, process.arch as Machine);
    expect(Buffer.from(seccompFilter('default', capabilities).program).equals(expected)).toBe(true);
  });

  test('is precompiled for the default capabilities and for none', () => {
    for (const machine of ['x64', 'arm64'])
      expect(Object.keys(programs[machine] ?? {})).toEqual(['CAP_SYS_CHROOT', '']);
  });
});
