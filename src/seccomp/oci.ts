import type { Condition, Policy, Rule, Verdict } from './bpf.ts';

/**
 * A profile in the OCI runtime-spec's form: `linux.seccomp` of a container's config.json.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
 */
export interface OciSeccomp {
  defaultAction: string;
  defaultErrnoRet?: number;
  /** `SCMP_ARCH_X86` and so on. The machine's own ABI is in, whether it is listed or not. */
  architectures?: string[];
  flags?: string[];
  syscalls: OciSyscalls[];
}

/** What is done about some calls when all of `args` hold. */
export interface OciSyscalls {
  names: string[];
  action: string;
  errnoRet?: number;
  args?: OciArgument[];
}

export interface OciArgument {
  /** 0 to 5. */
  index: number;
  value: OciNumber;
  /** For `SCMP_CMP_MASKED_EQ`, whose `value` is the mask: what the masked argument has to be. */
  valueTwo?: OciNumber;
  op: string;
}

/** An unsigned number of 64 bits. In decimal digits where a number of JavaScript would lose some, else as in the spec. */
export type OciNumber = number | string;

const EPERM = 1;
const ENOSYS: Verdict = { errno: 38 };

/** Actions without a number. SCMP_ACT_NOTIFY is left out: nobody would answer. */
const actions: Record<string, Verdict> = {
  SCMP_ACT_KILL: 'kill-thread',
  SCMP_ACT_KILL_THREAD: 'kill-thread',
  SCMP_ACT_KILL_PROCESS: 'kill-process',
  SCMP_ACT_TRAP: 'trap',
  SCMP_ACT_LOG: 'log',
  SCMP_ACT_ALLOW: 'allow',
};

/** Names of the actions that profiles may use. */
export const actionNames: readonly string[] = ['SCMP_ACT_ERRNO', 'SCMP_ACT_TRACE', ...Object.keys(actions)];

/** Whether an action takes an errno. */
export function takesErrno(action: string): boolean {
  return action === 'SCMP_ACT_ERRNO' || action === 'SCMP_ACT_TRACE';
}

const operators: Record<string, Condition['is']> = {
  SCMP_CMP_NE: '!=',
  SCMP_CMP_LT: '<',
  SCMP_CMP_LE: '<=',
  SCMP_CMP_EQ: '==',
  SCMP_CMP_GE: '>=',
  SCMP_CMP_GT: '>',
  SCMP_CMP_MASKED_EQ: '==',
};

export const operatorNames: readonly string[] = Object.keys(operators);

/** SECCOMP_FILTER_FLAG_* of linux/seccomp.h. TSYNC is for several threads, and a container begins with one. */
const flags: Record<string, number> = {
  SECCOMP_FILTER_FLAG_TSYNC: 0,
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
};

export const flagNames: readonly string[] = Object.keys(flags);

/** The flags of a profile as seccomp(2) takes them. */
export function filterFlags(profile: OciSeccomp): number {
  return (profile.flags ?? []).reduce((bits, name) => bits | (flags[name] ?? 0), 0);
}

/**
 * A checked profile as a policy, with the meaning that runc and libseccomp give it (libcontainer/seccomp/seccomp_linux.go
 * and patchbpf; libseccomp 2.5 was run on the cases below), and the stricter one where they leave it to chance:
 *
 * - Rules of a call are alternatives; conditions of one rule must all hold, but two on the same argument are two rules.
 * - A rule without conditions is all there is for its call, the first such rule if there are several, wherever it stands.
 *   A rule that says what happens by default anyway does not count.
 * - Where rules with conditions overlap and differ, the strictest decides: in libseccomp that depends on its sorting.
 * - Names that no ABI has are ignored.
 * - Calls newer than all that the profile names get ENOSYS, unless it lets calls through by default.
 * - An ABI that is not listed is answered by killing; x32, which hardly a kernel has, is never allowed.
 * - In the 32-bit ABI of x86 a rule for `socket` is also one for socketcall(SYS_SOCKET), and so on for its and ipc's other
 *   calls. libseccomp then forgets the conditions, which are on arguments behind a pointer: here a rule that lets a call
 *   through on conditions is none for the multiplexer.
 */
export function policyOf(profile: OciSeccomp): Policy {
  const otherwise = verdictOf(profile.defaultAction, profile.defaultErrnoRet);
  const given = profile.syscalls.flatMap(rulesOf).filter((rule) => rank(rule.verdict) !== rank(otherwise));
  const rules = [...given, ...given.flatMap(multiplexed)];
  const isConditional = (rule: Rule) => rule.where !== undefined;
  const abis = profile.architectures ?? [];
  const listed = (...names: string[]) => names.some((name) => abis.includes(name));
  return {
    rules: [
      ...rules.filter((rule) => !isConditional(rule)),
      ...rules.filter(isConditional).toSorted((a, b) => rank(a.verdict) - rank(b.verdict)),
    ],
    otherwise,
    unknown: otherwise,
    foreign: 'kill-thread',
    ...(isPermissive(otherwise)
      ? {}
      : { newer: { than: profile.syscalls.flatMap(({ names }) => names), verdict: ENOSYS } }),
    ...(listed('SCMP_ARCH_X86', 'SCMP_ARCH_ARM') ? {} : { compat: 'kill-thread' }),
    x32: listed('SCMP_ARCH_X32') ? ENOSYS : 'kill-thread',
  };
}

function verdictOf(action: string, errno = EPERM): Verdict {
  if (action === 'SCMP_ACT_ERRNO') return { errno };
  if (action === 'SCMP_ACT_TRACE') return { trace: errno };
  const verdict = actions[action];
  if (verdict === undefined) throw new Error(`unknown seccomp action ${action}`);
  return verdict;
}

/** A tracer decides about new calls itself: runc counts `trace` among what lets calls through, too. */
function isPermissive(verdict: Verdict): boolean {
  return verdict === 'allow' || verdict === 'log' || (typeof verdict === 'object' && 'trace' in verdict);
}

/** Smaller is stricter; the same for the same verdict only. The order is the kernel's for several filters: seccomp(2). */
function rank(verdict: Verdict): number {
  if (typeof verdict === 'string')
    return { 'kill-process': 0, 'kill-thread': 1, trap: 2, log: 400_000, allow: 400_001 }[verdict];
  return 'errno' in verdict ? 100_000 + verdict.errno : 200_000 + verdict.trace;
}

function rulesOf({ names, action, errnoRet, args = [] }: OciSyscalls): Rule[] {
  const verdict = verdictOf(action, errnoRet);
  if (args.length === 0) return [{ names, verdict }];
  const where = args.map(conditionOf);
  return testsTwice(args) ? where.map((each) => ({ names, verdict, where: [each] })) : [{ names, verdict, where }];
}

/** Whether two conditions are on the same argument. */
export function testsTwice(args: readonly OciArgument[] = []): boolean {
  return new Set(args.map(({ index }) => index)).size < args.length;
}

function conditionOf({ index, op, value, valueTwo = 0 }: OciArgument): Condition {
  const is = operators[op];
  if (is === undefined) throw new Error(`unknown seccomp operator ${op}`);
  const condition = { argument: index as Condition['argument'], bits: 64, is } as const;
  if (op !== 'SCMP_CMP_MASKED_EQ') return { ...condition, value: BigInt(value) };
  return { ...condition, mask: BigInt(value), value: BigInt(valueTwo) & BigInt(value) };
}

/** Calls of i386 that can also be made through another one, which has their number as its first argument. */
const multiplexers = {
  // SYS_* of linux/net.h, from 1.
  socketcall: `socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown
    setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg`
    .split(/\s+/)
    .map((name, index) => [name, index + 1] as const),
  // SEMOP and so on of linux/ipc.h.
  ipc: [
    ['semop', 1],
    ['semget', 2],
    ['semctl', 3],
    ['semtimedop', 4],
    ['msgsnd', 11],
    ['msgrcv', 12],
    ['msgget', 13],
    ['msgctl', 14],
    ['shmat', 21],
    ['shmdt', 22],
    ['shmget', 23],
    ['shmctl', 24],
  ],
} as const;

function multiplexed({ names, verdict, where }: Rule): Rule[] {
  if (where !== undefined && isPermissive(verdict)) return [];
  return Object.entries(multiplexers).flatMap(([through, calls]) =>
    calls
      .filter(([name]) => names.includes(name))
      // The upper half of ipc's number is a version, which the kernel cuts off.
      .map(([, number]) => ({
        names: [through],
        verdict,
        where: [
          {
            argument: 0 as const,
            bits: 32 as const,
            is: '==' as const,
            value: BigInt(number),
            mask: through === 'ipc' ? 0xffffn : 0xffff_ffffn,
          },
        ],
      })),
  );
}
