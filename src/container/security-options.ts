import path from 'node:path';
import { MinirunError } from '../errors.ts';

/** `--security-opt`, as it was given; nothing is read yet. */
export interface SecurityOptions {
  noNewPrivileges: boolean;
  /** Absent: the default, unless the container is privileged. */
  seccomp?: 'default' | 'unconfined' | { file: string };
  /** A profile's name, or `unconfined`. Absent: the default profile, unless the container is privileged. */
  apparmor?: string;
  /** Further paths to hide. */
  mask: string[];
  /** Patterns of paths not to hide, nor to make read-only; `ALL` is all of them. */
  unmask: string[];
}

function invalid(option: string, why: string, remedy: string): MinirunError {
  return new MinirunError(`invalid --security-opt "${option}"`, why, remedy, { code: 125 });
}

/**
 * Reads `--security-opt`: docker's options, and podman's `mask` and `unmask`. A colon may stand for the first `=`, as
 * docker had it once. Of several for one thing the last one counts.
 */
export function parseSecurityOptions(options: readonly string[]): SecurityOptions {
  const result: SecurityOptions = { noNewPrivileges: false, mask: [], unmask: [] };
  for (const option of options) {
    const [, name = '', value] = /^([^=:]*)(?:[=:](.*))?$/s.exec(option) ?? [];
    const set = Object.hasOwn(readers, name) ? readers[name] : undefined;
    if (set === undefined) throw invalid(option, 'there is none of that name', `Known are ${known.join(', ')}`);
    set(result, value, option);
  }
  return result;
}

const known = ['no-new-privileges', 'seccomp=…', 'apparmor=…', 'label=disable', 'mask=…', 'unmask=…', 'systempaths=…'];

type Reader = (into: SecurityOptions, value: string | undefined, option: string) => void;

const readers: Record<string, Reader> = {
  'no-new-privileges': (into, value, option) => {
    if (value !== undefined && !/^(true|false)$/i.test(value))
      throw invalid(option, 'it is true or false', 'Give no-new-privileges, or no-new-privileges=false');
    into.noNewPrivileges = value?.toLowerCase() !== 'false';
  },
  'no-new-privs': (into, value, option) => readers['no-new-privileges']?.(into, value, option),
  seccomp: (into, value, option) => {
    if (value === undefined || value === '')
      throw invalid(option, 'it names no profile', 'Give seccomp=FILE, seccomp=default or seccomp=unconfined');
    const builtIn = value === 'default' || value === 'builtin';
    into.seccomp = builtIn ? 'default' : value === 'unconfined' ? 'unconfined' : { file: value };
  },
  apparmor: (into, value, option) => {
    if (value === undefined || value === '')
      throw invalid(option, 'it names no profile', 'Give apparmor=NAME or apparmor=unconfined');
    // The kernel reads `exec NAME`, and its list has ` (mode)` behind the name.
    if (/[\s\0]/.test(value))
      throw invalid(option, 'names of profiles have no blanks', 'See aa-status for their names');
    into.apparmor = value;
  },
  label: (_into, value, option) => {
    if (value === 'disable') return;
    throw invalid(
      option,
      'minirun sets no SELinux labels',
      'Leave it out: containers run without labels, as with label=disable',
    );
  },
  mask: (into, value, option) => {
    into.mask.push(...paths(value, option, 'mask=/proc/version:/etc/machine-id'));
  },
  unmask: (into, value, option) => {
    const isAll = value?.toUpperCase() === 'ALL';
    into.unmask.push(...(isAll ? ['ALL'] : paths(value, option, 'unmask=ALL or unmask=/proc/acpi:/sys/*')));
  },
  systempaths: (into, value, option) => {
    if (value !== 'unconfined')
      throw invalid(option, 'it has the one value unconfined', 'Give systempaths=unconfined, or unmask=PATH');
    into.unmask.push('ALL');
  },
};

/** Absolute paths with colons between. */
function paths(value: string | undefined, option: string, example: string): string[] {
  const list = (value ?? '').split(':').filter((each) => each !== '');
  if (list.length === 0) throw invalid(option, 'it names no path', `For example ${example}`);
  for (const each of list)
    if (!path.posix.isAbsolute(each) || each.includes('\0'))
      throw invalid(option, `${each} is no absolute path`, `For example ${example}`);
  const clean = list.map((each) => path.posix.normalize(each).replace(/(.)\/$/, '$1'));
  if (clean.includes('/'))
    throw invalid(option, 'it names the root of the container', 'Name files or directories in it');
  return clean;
}
