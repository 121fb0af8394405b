import { MinirunError } from '../errors.ts';
import { aarch64, arm, i386, type SyscallTable, x86_64 } from './tables.ts';

/** What the kernel does with a system call: seccomp(2), "SECCOMP_RET_*". `trace` goes to a tracer with that message. */
export type Verdict =
  | 'allow'
  | 'log'
  | 'trap'
  | 'kill-thread'
  | 'kill-process'
  | { readonly errno: number }
  | { readonly trace: number };

/**
 * A test on one argument (0 to 5) of a system call, as its low 32 bits or as all 64. Comparisons are unsigned. In a 32-bit
 * ABI all of them are on 32 bits, as libseccomp has it: the registers have no more.
 */
export interface Condition {
  readonly argument: 0 | 1 | 2 | 3 | 4 | 5;
  readonly bits: 32 | 64;
  readonly is: '==' | '!=' | '<' | '<=' | '>' | '>=';
  readonly value: bigint;
  /** Bits to look at, for `==` and `!=`; all of them when left out. */
  readonly mask?: bigint;
}

/**
 * One line of a policy. It takes part when the process holds one of `capabilities` (if given) and none of
 * `unless` (if given), and decides when all conditions of `where` hold.
 */
export interface Rule {
  readonly names: readonly string[];
  readonly verdict: Verdict;
  readonly where?: readonly Condition[];
  readonly capabilities?: readonly string[];
  readonly unless?: readonly string[];
}

/** A seccomp policy. For each system call the first rule that decides wins. */
export interface Policy {
  readonly rules: readonly Rule[];
  /** For a system call that the tables know and no rule decides. */
  readonly otherwise: Verdict;
  /** For a number that the tables do not know: holes, calls newer than the tables, the x32 ABI. */
  readonly unknown: Verdict;
  /** For an ABI other than the machine's own and its 32-bit one. */
  readonly foreign: Verdict;
  /** For all numbers above those of some calls, in each ABI: calls that the policy's author cannot have known. */
  readonly newer?: { readonly than: readonly string[]; readonly verdict: Verdict };
  /** For the whole 32-bit ABI, whatever the rules say. */
  readonly compat?: Verdict;
  /** For the x32 ABI, whose numbers are those of x86-64 with a bit set. Absent: unknown numbers like others. */
  readonly x32?: Verdict;
}

/** Machines that programs can be made for, as in `process.arch`. */
export type Machine = 'x64' | 'arm64';

/** AUDIT_ARCH_* of linux/audit.h with the numbers that go with it: the native ABI, then the 32-bit one. */
const abis: Record<Machine, readonly [Abi, Abi]> = {
  x64: [
    { audit: 0xc000003e, numbers: x86_64, bits: 64, x32: 0x4000_0000 },
    { audit: 0x40000003, numbers: i386, bits: 32 },
  ],
  arm64: [
    { audit: 0xc00000b7, numbers: aarch64, bits: 64 },
    { audit: 0x40000028, numbers: arm, bits: 32 },
  ],
};

interface Abi {
  readonly audit: number;
  readonly numbers: SyscallTable;
  readonly bits: 32 | 64;
  /** From here on numbers are those of x32: __X32_SYSCALL_BIT of asm/unistd.h. */
  readonly x32?: number;
}

/** Opcodes of linux/bpf_common.h: BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_JMP|JA, |JEQ, |JGT, |JGE and BPF_RET|K. */
const op = { load: 0x20, and: 0x54, jump: 0x05, equal: 0x15, above: 0x25, atLeast: 0x35, return: 0x06 } as const;

/** `struct sock_filter` of linux/filter.h. Both jump offsets count from the following instruction. */
interface Instruction {
  readonly code: number;
  readonly yes: number;
  readonly no: number;
  readonly k: number;
}

/** BPF_MAXINSNS of linux/bpf_common.h: seccomp(2) refuses a longer program with EINVAL. */
const maximumLength = 4096;

/** Offsets in `struct seccomp_data` of linux/seccomp.h, on a little-endian machine. */
const offset = { number: 0, architecture: 4, low: (n: number) => 16 + 8 * n, high: (n: number) => 20 + 8 * n };

/**
 * Compiles a policy, for a process that holds `capabilities`, to a program for seccomp(2): the bytes of an array of
 * `struct sock_filter`.
 *
 * Numbers are found by a binary search that reads nothing but the ABI and the number, so that Linux >= 5.11 can work
 * out at load time which calls are always allowed and skip the program for them (kernel/seccomp.c,
 * `seccomp_is_const_allow`).
 */
export function compile(policy: Policy, capabilities: readonly string[], machine: Machine): Uint8Array {
  const held = new Set(capabilities);
  const rules = policy.rules.filter((rule) => takesPart(rule, held));
  const [native, compat] = abis[machine];
  const program = [
    instruction(op.load, offset.architecture),
    ...branch(
      op.equal,
      native.audit,
      numbers(policy, rules, native),
      branch(
        op.equal,
        compat.audit,
        policy.compat === undefined ? numbers(policy, rules, compat) : verdict(policy.compat),
        verdict(policy.foreign),
      ),
    ),
  ];
  if (program.length > maximumLength) {
    throw new MinirunError(
      'cannot make a seccomp filter',
      `the profile makes a program of ${program.length} instructions, and the kernel takes ${maximumLength}`,
      'Leave rules with arguments out of it: they take the most',
      { code: 125 },
    );
  }
  return encode(program);
}

/** The capabilities that make a difference to a policy, sorted. */
export function gatesOf(policy: Policy): string[] {
  const gates = new Set(policy.rules.flatMap((rule) => [...(rule.capabilities ?? []), ...(rule.unless ?? [])]));
  return [...gates].sort();
}

function takesPart(rule: Rule, held: ReadonlySet<string>): boolean {
  const wanted = rule.capabilities?.some((name) => held.has(name)) ?? true;
  return wanted && !rule.unless?.some((name) => held.has(name));
}

/** Numbers from `first` up to the next range's that share one decision. */
interface Range {
  readonly first: number;
  readonly decision: Decision;
}

/** What to do about one call: the rules to try in order, then the verdict. */
interface Decision {
  readonly conditional: readonly Rule[];
  readonly last: Verdict;
}

/** The part of the program for one ABI. */
function numbers(policy: Policy, rules: readonly Rule[], abi: Abi): Instruction[] {
  const byName = new Map<string, Rule[]>();
  for (const rule of rules) {
    for (const name of rule.names) {
      const own = byName.get(name);
      if (own === undefined) byName.set(name, [rule]);
      else own.push(rule);
    }
  }
  // ARM has two names for some numbers; the name that the policy knows is the one that counts.
  const byNumber = new Map<number, Rule[]>();
  for (const [name, number] of Object.entries(abi.numbers)) {
    byNumber.set(number, [...(byNumber.get(number) ?? []), ...(byName.get(name) ?? [])]);
  }

  const unknown: Decision = { conditional: [], last: policy.unknown };
  const ranges: Range[] = [];
  const add = (first: number, decision: Decision) => {
    const previous = ranges.at(-1);
    if (previous === undefined || !same(previous.decision, decision)) ranges.push({ first, decision });
  };
  let next = 0;
  const newest = newestOf(policy, abi);
  for (const [number, own] of [...byNumber].sort(([a], [b]) => a - b)) {
    if (number > newest) break;
    if (number > next) add(next, unknown);
    add(number, decide(own, policy.otherwise));
    next = number + 1;
  }
  add(next, newest === Infinity ? unknown : { conditional: [], last: policy.newer?.verdict ?? policy.unknown });
  if (abi.x32 !== undefined && policy.x32 !== undefined) add(abi.x32, { conditional: [], last: policy.x32 });
  return [instruction(op.load, offset.number), ...search(ranges, abi.bits)];
}

/** The number above which calls are too new for the policy. */
function newestOf({ newer }: Policy, { numbers: table }: Abi): number {
  const known = newer?.than.flatMap((name) => table[name] ?? []) ?? [];
  return known.length === 0 ? Infinity : Math.max(...known);
}

/** Cuts rules after the first one that decides whatever the arguments are. */
function decide(rules: readonly Rule[], otherwise: Verdict): Decision {
  const end = rules.findIndex((rule) => rule.where === undefined || rule.where.length === 0);
  if (end === -1) return { conditional: rules, last: otherwise };
  return { conditional: rules.slice(0, end), last: rules[end]?.verdict ?? otherwise };
}

function same(a: Decision, b: Decision): boolean {
  return (
    returnValue(a.last) === returnValue(b.last) &&
    a.conditional.length === b.conditional.length &&
    a.conditional.every((rule, index) => rule === b.conditional[index])
  );
}

/** Finds the range of the loaded number by halving. Every path ends in a return. */
function search(ranges: readonly Range[], bits: 32 | 64): Instruction[] {
  const [only] = ranges;
  if (only === undefined) throw new Error('no range to search');
  const middle = ranges[ranges.length >> 1];
  if (middle === undefined || middle === only) return leaf(only.decision, bits);
  const half = ranges.length >> 1;
  return branch(op.atLeast, middle.first, search(ranges.slice(half), bits), search(ranges.slice(0, half), bits));
}

function leaf(decision: Decision, bits: 32 | 64): Instruction[] {
  return [...decision.conditional.flatMap((rule) => conditional(rule, bits)), ...verdict(decision.last)];
}

/**
 * A test and the two blocks it chooses from. Conditional jumps reach 255 instructions, so a longer block is
 * stepped over by an unconditional jump, which has 32 bits.
 */
function branch(code: number, k: number, yes: readonly Instruction[], no: readonly Instruction[]): Instruction[] {
  const over = no.length;
  if (over <= 255) return [{ code, yes: over, no: 0, k }, ...no, ...yes];
  return [{ code, yes: 0, no: 1, k }, instruction(op.jump, over), ...no, ...yes];
}

/** Where a test of a condition goes on: to the following instruction, or out of the condition either way. */
type Target = 'next' | 'pass' | 'fail';

interface Test {
  readonly code: number;
  readonly k: number;
  readonly yes: Target;
  readonly no: Target;
}

/** A rule with conditions: returns its verdict when all hold, else falls through to what follows. */
function conditional(rule: Rule, bits: 32 | 64): Instruction[] {
  const conditions = (rule.where ?? []).map((condition) => testsOf(bits === 32 ? { ...condition, bits } : condition));
  const end = conditions.reduce((sum, tests) => sum + tests.length, 0);
  const body: Instruction[] = [];
  for (const tests of conditions) {
    const passed = body.length + tests.length;
    for (const test of tests) {
      const here = body.length + 1;
      const distance = { next: 0, pass: passed - here, fail: end + 1 - here };
      body.push({ code: test.code, yes: distance[test.yes], no: distance[test.no], k: test.k });
    }
  }
  return [...body, ...verdict(rule.verdict)];
}

/** The instructions that test one condition. */
function testsOf(condition: Condition): Test[] {
  const { argument, is, value } = condition;
  if (condition.mask !== undefined && is !== '==' && is !== '!=') {
    throw new Error(`a mask goes with == and != only, not with ${is}`);
  }
  const mask = condition.mask ?? 0xffff_ffff_ffff_ffffn;
  const high = { load: offset.high(argument), value: Number(value >> 32n), mask: Number(mask >> 32n) };
  const low = { load: offset.low(argument), value: lowBits(value), mask: lowBits(mask) };

  // The others are these with the outcome turned round.
  const positive = { '==': op.equal, '!=': op.equal, '>': op.above, '<=': op.above, '>=': op.atLeast, '<': op.atLeast };
  const tests = [...loadMasked(low), test(positive[is], low.value, 'pass', 'fail')];
  if (condition.bits === 64) {
    const first = loadMasked(high);
    if (positive[is] !== op.equal) first.push(test(op.above, high.value, 'pass', 'next'));
    tests.unshift(...first, test(op.equal, high.value, 'next', 'fail'));
  }
  return is === '==' || is === '>' || is === '>=' ? tests : tests.map(turned);
}

function loadMasked(half: { load: number; mask: number }): Test[] {
  const load = test(op.load, half.load, 'next', 'next');
  return half.mask === 0xffff_ffff ? [load] : [load, test(op.and, half.mask, 'next', 'next')];
}

function test(code: number, k: number, yes: Target, no: Target): Test {
  return { code, k, yes, no };
}

function turned({ code, k, yes, no }: Test): Test {
  const opposite = { next: 'next', pass: 'fail', fail: 'pass' } as const;
  return { code, k, yes: opposite[yes], no: opposite[no] };
}

function lowBits(value: bigint): number {
  return Number(value & 0xffff_ffffn);
}

function verdict(what: Verdict): Instruction[] {
  return [instruction(op.return, returnValue(what))];
}

/** SECCOMP_RET_* of linux/seccomp.h. */
function returnValue(what: Verdict): number {
  switch (what) {
    case 'allow':
      return 0x7fff0000;
    case 'log':
      return 0x7ffc0000;
    case 'trap':
      return 0x00030000;
    case 'kill-thread':
      return 0x00000000;
    case 'kill-process':
      return 0x80000000;
    default:
      return 'errno' in what ? 0x00050000 | what.errno : 0x7ff00000 | what.trace;
  }
}

function instruction(code: number, k: number): Instruction {
  return { code, yes: 0, no: 0, k };
}

function encode(program: readonly Instruction[]): Uint8Array {
  const bytes = new Uint8Array(8 * program.length);
  const view = new DataView(bytes.buffer);
  program.forEach(({ code, yes, no, k }, index) => {
    view.setUint16(8 * index, code, true);
    view.setUint8(8 * index + 2, yes);
    view.setUint8(8 * index + 3, no);
    view.setUint32(8 * index + 4, k, true);
  });
  return bytes;
}
