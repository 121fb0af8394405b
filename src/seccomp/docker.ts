import { MinirunError } from '../errors.ts';
import {
  actionNames,
  flagNames,
  type OciArgument,
  type OciNumber,
  type OciSeccomp,
  type OciSyscalls,
  operatorNames,
  takesErrno,
  testsTwice,
} from './oci.ts';

/** What the conditions of a profile are about. */
export interface Circumstances {
  /** Those that the container's processes may ever have: `CAP_CHOWN`. */
  capabilities: readonly string[];
  machine: 'x64' | 'arm64';
  /** `uname -r`: `6.12.43-amd64`. */
  kernel: string;
}

/** A profile, and what the author of its file should know, a line each. */
export interface Read {
  profile: OciSeccomp;
  warnings: string[];
}

/**
 * Reads a profile in docker's form, that is, the OCI's with `archMap`, and with `includes` and `excludes` for each rule:
 * moby's profiles/seccomp/default.json. What containers-common adds (`defaultErrno`, `errno`) is understood as well. The
 * whole file is checked, also the rules that do not take part.
 *
 * @param file for messages
 * @throws MinirunError that names the place: `syscalls[3].args[0].op`
 */
export function readDockerProfile(file: string, text: string, circumstances: Circumstances): Read {
  const refuse: Refuse = (place, why) => {
    throw new MinirunError(
      `cannot use seccomp profile ${file}`,
      place === '' ? why : `${place}: ${why}`,
      "Correct it: it is to be in docker's form",
      { code: 125 },
    );
  };
  let json: unknown;
  try {
    json = JSON.parse(text, keepDigits);
  } catch (error) {
    refuse('', `it is no JSON (${(error as Error).message.replace(/^JSON Parse error: /, '')})`);
  }
  const top = new Fields(json, '', refuse);
  const { action: defaultAction, errnoRet: defaultErrnoRet } = readAction(top, 'default');
  const architectures = readArchitectures(top, circumstances.machine);
  const flags = top.strings('flags') ?? [];
  for (const flag of flags)
    if (!flagNames.includes(flag)) top.refuse('flags', `unknown flag "${flag}": known are ${flagNames.join(', ')}`);
  if (top.take('listenerPath') !== undefined || top.take('listenerMetadata') !== undefined)
    top.refuse('listenerPath', notify);
  const rules = top.objects('syscalls') ?? [];
  top.end();
  const read = rules.map((rule) => readRule(rule, circumstances));
  const syscalls = read.flatMap(({ rule, takesPart }) => (takesPart ? [rule] : []));
  return {
    profile: {
      defaultAction,
      ...(defaultErrnoRet === undefined ? {} : { defaultErrnoRet }),
      architectures,
      ...(flags.length > 0 ? { flags } : {}),
      syscalls,
    },
    warnings: [...misreadings(read), ...overridden(read, { action: defaultAction, errnoRet: defaultErrnoRet })].map(
      (line) => `${file}: ${line}`,
    ),
  };
}

const notify =
  'SCMP_ACT_NOTIFY hands calls to another program, and minirun starts none that would answer: the calls would hang';

/** A number that JavaScript cannot hold exactly, as it stands in the file. */
class Digits {
  constructor(readonly text: string) {}
}

/** A whole number beyond 2^53 would be rounded: it stays as its digits. JSON.parse tells them since ES2025. */
function keepDigits(_key: string, value: unknown, context?: { source?: string }): unknown {
  return typeof value === 'number' && !Number.isSafeInteger(value) ? new Digits(context?.source ?? '') : value;
}

type Refuse = (place: string, why: string) => never;

/** The fields of a JSON object, taken out one by one; what is left in the end is unknown. */
class Fields {
  private readonly left: Map<string, unknown>;

  constructor(
    value: unknown,
    readonly place: string,
    private readonly refuseAt: Refuse,
  ) {
    if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Digits)
      refuseAt(place, 'it is no object');
    this.left = new Map(Object.entries(value));
  }

  at(name: string): string {
    return this.place === '' ? name : `${this.place}.${name}`;
  }

  refuse(name: string, why: string): never {
    return this.refuseAt(name === '' ? this.place : this.at(name), why);
  }

  /** Undefined when it is absent, or null, as Go writes what is absent. */
  take(name: string): unknown {
    const value = this.left.get(name);
    this.left.delete(name);
    return value ?? undefined;
  }

  string(name: string): string | undefined {
    const value = this.take(name);
    if (value !== undefined && typeof value !== 'string') this.refuse(name, 'it is no string');
    return value;
  }

  strings(name: string): string[] | undefined {
    const value = this.take(name);
    if (value === undefined) return undefined;
    if (!Array.isArray(value) || value.some((each) => typeof each !== 'string' || each === ''))
      this.refuse(name, 'it is no list of names');
    return value as string[];
  }

  objects(name: string): Fields[] | undefined {
    const value = this.take(name);
    if (value !== undefined && !Array.isArray(value)) this.refuse(name, 'it is no list');
    return (value as unknown[] | undefined)?.map(
      (each, index) => new Fields(each, `${this.at(name)}[${index}]`, this.refuseAt),
    );
  }

  object(name: string): Fields | undefined {
    const value = this.take(name);
    return value === undefined ? undefined : new Fields(value, this.at(name), this.refuseAt);
  }

  /** An unsigned whole number of up to 64 bits. */
  number(name: string, most: bigint): OciNumber | undefined {
    const value = this.take(name);
    if (value === undefined) return undefined;
    const digits = value instanceof Digits ? value.text : typeof value === 'number' ? String(value) : '';
    if (!/^\d+$/.test(digits) || BigInt(digits) > most) this.refuse(name, `it is no whole number from 0 to ${most}`);
    return typeof value === 'number' ? value : digits;
  }

  /** Refuses what nobody has taken. A name with _ or $ in front is a remark: JSON has no other way to make one. */
  end(): void {
    for (const name of this.left.keys()) if (!/^[_$]/.test(name)) this.refuse(name, 'there is no such field');
  }
}

const mostErrno = 4095n;
const most64 = 2n ** 64n - 1n;

/** Errnos that containers-common's own profile names; asm-generic/errno-base.h and errno.h. */
const errnos: Record<string, number> = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  ENODEV: 19,
  EINVAL: 22,
  ENOTTY: 25,
  EROFS: 30,
  ENOSYS: 38,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
};

/** `action` and `errnoRet`, or `defaultAction` and `defaultErrnoRet`. */
function readAction(fields: Fields, prefix: '' | 'default'): { action: string; errnoRet?: number } {
  const named = (name: string) => (prefix === '' ? name : prefix + name[0]?.toUpperCase() + name.slice(1));
  const action = fields.string(named('action'));
  if (action === undefined || action === '') fields.refuse('', `it has no ${named('action')}`);
  if (action === 'SCMP_ACT_NOTIFY') fields.refuse(named('action'), notify);
  if (!actionNames.includes(action))
    fields.refuse(named('action'), `unknown action "${action}": known are ${actionNames.join(', ')}`);
  const number = fields.number(named('errnoRet'), mostErrno) as number | undefined;
  const name = fields.string(named('errno')) || undefined;
  const byName = name !== undefined && Object.hasOwn(errnos, name) ? errnos[name] : undefined;
  if (name !== undefined && byName === undefined)
    fields.refuse(named('errno'), `unknown errno "${name}": give its number as ${named('errnoRet')}`);
  if (number !== undefined && byName !== undefined && number !== byName)
    fields.refuse(named('errno'), `${name} is ${byName}, but ${named('errnoRet')} says ${number}`);
  const errnoRet = number ?? byName;
  // The OCI's rule. Without it a profile would say something that does not happen.
  if (errnoRet !== undefined && !takesErrno(action)) fields.refuse(named('errnoRet'), `${action} returns no errno`);
  return { action: action, ...(errnoRet === undefined ? {} : { errnoRet }) };
}

const native = { x64: 'SCMP_ARCH_X86_64', arm64: 'SCMP_ARCH_AARCH64' };

/** The ABIs of this machine that the profile is for: those listed, or those that `archMap` has for this machine's own. */
function readArchitectures(top: Fields, machine: 'x64' | 'arm64'): string[] {
  const listed = top.strings('architectures');
  const map = top.objects('archMap');
  if (listed !== undefined && listed.length > 0 && map !== undefined && map.length > 0)
    top.refuse('archMap', 'it does not go with architectures: give one of the two');
  const check = (fields: Fields, name: string, values: readonly string[]) => {
    for (const value of values)
      if (!/^SCMP_ARCH_[A-Z0-9_]+$/.test(value)) fields.refuse(name, `"${value}" is no SCMP_ARCH_…`);
  };
  check(top, 'architectures', listed ?? []);
  const mapped = (map ?? []).map((entry) => {
    const architecture = entry.string('architecture') ?? '';
    const further = entry.strings('subArchitectures') ?? [];
    check(entry, 'architecture', [architecture]);
    check(entry, 'subArchitectures', further);
    entry.end();
    return [architecture, ...further];
  });
  return [...(listed ?? []), ...(mapped.find(([architecture]) => architecture === native[machine]) ?? [])];
}

interface ReadRule {
  /** `syscalls[3]` */
  place: string;
  rule: OciSyscalls;
  takesPart: boolean;
}

function readRule(fields: Fields, circumstances: Circumstances): ReadRule {
  const single = fields.string('name') || undefined;
  const several = fields.strings('names') ?? [];
  if (single !== undefined && several.length > 0)
    fields.refuse('name', 'it does not go with names: give one of the two');
  const names = single === undefined ? several : [single];
  if (names.length === 0) fields.refuse('', 'it names no system call');
  const { action, errnoRet } = readAction(fields, '');
  const args = (fields.objects('args') ?? []).map(readArgument);
  fields.string('comment');
  const includes = fields.object('includes');
  const excludes = fields.object('excludes');
  fields.end();
  const wanted = includes === undefined || readFilter(includes, circumstances).every((holds) => holds.all);
  const unwanted = excludes !== undefined && readFilter(excludes, circumstances).some((holds) => holds.any);
  return {
    place: fields.place,
    rule: {
      names,
      action,
      ...(errnoRet === undefined ? {} : { errnoRet }),
      ...(args.length > 0 ? { args } : {}),
    },
    takesPart: wanted && !unwanted,
  };
}

function readArgument(fields: Fields): OciArgument {
  const index = fields.number('index', 5n);
  const value = fields.number('value', most64);
  const valueTwo = fields.number('valueTwo', most64);
  const op = fields.string('op');
  if (index === undefined) fields.refuse('', 'it has no index');
  if (op === undefined || !operatorNames.includes(op))
    fields.refuse('op', `unknown operator "${op ?? ''}": known are ${operatorNames.join(', ')}`);
  fields.end();
  // As in Go, an absent value is 0.
  const masked = op === 'SCMP_CMP_MASKED_EQ';
  return {
    index: index as number,
    value: value ?? 0,
    ...(masked ? { valueTwo: valueTwo ?? 0 } : {}),
    op: op,
  };
}

/** docker's names for the machine. */
const machineNames = { x64: 'amd64', arm64: 'arm64' };

/**
 * Each of the conditions that `includes` or `excludes` has: for the first, all listed capabilities must be held; for
 * the second one of them is enough.
 */
function readFilter(
  fields: Fields,
  { capabilities, machine, kernel }: Circumstances,
): { all: boolean; any: boolean }[] {
  const given: { all: boolean; any: boolean }[] = [];
  const arches = fields.strings('arches') ?? [];
  if (arches.length > 0) {
    const holds = arches.includes(machineNames[machine]);
    given.push({ all: holds, any: holds });
  }
  const wanted = fields.strings('caps') ?? [];
  for (const name of wanted) if (!/^CAP_[A-Z_]+$/.test(name)) fields.refuse('caps', `"${name}" is no CAP_…`);
  if (wanted.length > 0) {
    const held = (name: string) => capabilities.includes(name);
    given.push({ all: wanted.every(held), any: wanted.some(held) });
  }
  const minimum = fields.string('minKernel') || undefined;
  if (minimum !== undefined) {
    if (!/^\d{1,3}\.\d{1,3}$/.test(minimum)) fields.refuse('minKernel', `"${minimum}" is not of the form 4.8`);
    const holds = compareVersions(kernel, minimum) >= 0;
    given.push({ all: holds, any: holds });
  }
  fields.end();
  return given;
}

/** By the first two numbers, as docker compares them. */
function compareVersions(a: string, b: string): number {
  const [[aMajor = 0, aMinor = 0], [bMajor = 0, bMinor = 0]] = [a, b].map((text) =>
    text.split('.').map((part) => Number.parseInt(part, 10)),
  ) as [number[], number[]];
  return aMajor - bMajor || aMinor - bMinor;
}

/** Rules that do not mean what one would think. */
function misreadings(rules: readonly ReadRule[]): string[] {
  return rules
    .filter(({ rule, takesPart }) => takesPart && testsTwice(rule.args))
    .map(({ place }) => `${place} tests one argument twice, which runc takes for two rules, of which either is enough`);
}

/** Rules with conditions that are without effect, because another one speaks of the same call without conditions. */
function overridden(
  rules: readonly ReadRule[],
  otherwise: { action: string; errnoRet?: number | undefined },
): string[] {
  const same = (a: { action: string; errnoRet?: number | undefined }, b: typeof a) =>
    a.action === b.action && (!takesErrno(a.action) || (a.errnoRet ?? 1) === (b.errnoRet ?? 1));
  const counting = rules.filter(({ rule, takesPart }) => takesPart && !same(rule, otherwise));
  const settled = new Map<string, ReadRule>();
  for (const each of counting)
    if (each.rule.args === undefined)
      for (const name of each.rule.names) if (!settled.has(name)) settled.set(name, each);
  return counting.flatMap((each) => {
    const lost = each.rule.names.find((name) => {
      const winner = settled.get(name);
      return winner !== undefined && winner !== each && !same(winner.rule, each.rule);
    });
    if (lost === undefined) return [];
    const winner = settled.get(lost) as ReadRule;
    return [
      `${each.place} has no effect on ${lost}: ${winner.place} says ${winner.rule.action} for it whatever its arguments are`,
    ];
  });
}
