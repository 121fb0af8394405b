import { MinirunError } from '../../errors.ts';
import { gates, programs } from './compiled.ts';

/**
 * The default seccomp policy for a process that holds `capabilities` (`CAP_CHOWN`), as an array of
 * `struct sock_filter` for seccomp(2).
 *
 * Precompiled for the default capabilities, for none, and for every set that differs from these only in capabilities
 * that the policy does not ask about, such as CAP_NET_ADMIN. For another set the compiler is loaded (5 ms).
 */
export function seccompProgram(capabilities: readonly string[]): Uint8Array {
  const machine = process.arch;
  if (machine !== 'x64' && machine !== 'arm64') {
    throw new MinirunError('cannot make a seccomp filter', `minirun has none for ${machine}`);
  }
  const held = gates.filter((gate) => capabilities.includes(gate));
  const ready = programs[machine]?.[held.join(' ')];
  if (ready !== undefined) return Buffer.from(ready, 'base64');

  // require, because an import here would make this function and all that call it asynchronous.
  const { compile } = require('./bpf.ts') as typeof import('./bpf.ts');
  const { defaultPolicy } = require('./profile.ts') as typeof import('./profile.ts');
  return compile(defaultPolicy, held, machine);
}
