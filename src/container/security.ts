import os from 'node:os';
import { capabilityNames } from './capabilities.ts';
import { readTextFile } from './text-file.ts';
import type { SecurityOptions } from './security-options.ts';
import type { OciLinux } from './oci.ts';

/** What of `--security-opt` needs the machine: a profile's file, and whether a profile of AppArmor is there. */
export interface ResolvedSecurity {
  seccomp: OciLinux['seccomp'];
  apparmor?: string;
}

/**
 * Reads and checks what the options name. A profile that was asked for counts for a privileged container too, as in docker.
 *
 * @param capabilities of the container's processes
 * @throws MinirunError for a profile that cannot be used
 */
export async function resolveSecurity(
  { seccomp, apparmor }: SecurityOptions,
  { capabilities, privileged }: { capabilities: readonly string[]; privileged: boolean },
  notice: (line: string) => void,
): Promise<ResolvedSecurity> {
  if (apparmor !== undefined) {
    const { checkProfile } = await import('./apparmor.ts');
    checkProfile(apparmor);
  }
  return {
    seccomp:
      typeof seccomp === 'object'
        ? await readProfile(seccomp.file, privileged ? capabilityNames : capabilities, notice)
        : (seccomp ?? (privileged ? 'unconfined' : 'default')),
    ...(apparmor === undefined ? {} : { apparmor }),
  };
}

async function readProfile(
  file: string,
  capabilities: readonly string[],
  notice: (line: string) => void,
): Promise<OciLinux['seccomp']> {
  const text = readTextFile('--security-opt seccomp', file);
  const [{ readDockerProfile }, { seccompFilter, thisMachine }] = await Promise.all([
    import('../seccomp/docker.ts'),
    import('../seccomp/index.ts'),
  ]);
  const { profile, warnings } = readDockerProfile(file, text, {
    capabilities,
    machine: thisMachine(),
    kernel: os.release(),
  });
  // Only to refuse it now if it is too long.
  seccompFilter(profile, capabilities);
  for (const line of warnings) notice(`warning: ${line}`);
  return profile;
}
