import { MinirunError } from '../errors.ts';
import type { Machine } from './bpf.ts';
import { gates, programs } from './compiled.ts';
import type { OciSeccomp } from './oci.ts';

/** A program for seccomp(2): the bytes of an array of `struct sock_filter`, and SECCOMP_FILTER_FLAG_*. */
export interface Filter {
  program: Uint8Array;
  flags: number;
}

/**
 * The filter for a process that holds `capabilities` (`CAP_CHOWN`): a profile, or minirun's default policy.
 *
 * The latter is precompiled for the default capabilities, for none, and for every set that differs from these only in
 * capabilities that the policy does not ask about, such as CAP_NET_ADMIN. For another set and for profiles the compiler is
 * loaded (figures are in docs/adr/0019).
 *
 * @throws MinirunError for a profile whose program is too long
 */
export function seccompFilter(profile: 'default' | OciSeccomp, capabilities: readonly string[]): Filter {
  const machine = thisMachine();
  // require, because an import here would make this function and all that call it asynchronous.
  const compiler = () => require('./bpf.ts') as typeof import('./bpf.ts');
  if (profile !== 'default') {
    const { filterFlags, policyOf } = require('./oci.ts') as typeof import('./oci.ts');
    return {
      program: compiler().compile(
        checked(() => policyOf(profile)),
        capabilities,
        machine,
      ),
      flags: filterFlags(profile),
    };
  }
  const held = gates.filter((gate) => capabilities.includes(gate));
  const ready = programs[machine]?.[held.join(' ')];
  if (ready !== undefined) return { program: Buffer.from(ready, 'base64'), flags: 0 };
  const { defaultPolicy } = require('./profile.ts') as typeof import('./profile.ts');
  return { program: compiler().compile(defaultPolicy, held, machine), flags: 0 };
}

/** A profile comes from a file of state, where somebody may have written. */
function checked<T>(make: () => T): T {
  try {
    return make();
  } catch {
    throw new MinirunError('cannot make a seccomp filter', "the profile in the container's config.json is damaged");
  }
}

/** @throws MinirunError on a machine for which no filter can be made */
export function thisMachine(): Machine {
  const machine = process.arch;
  if (machine === 'x64' || machine === 'arm64') return machine;
  throw new MinirunError('cannot make a seccomp filter', `minirun has none for ${machine}`);
}
