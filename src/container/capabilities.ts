import { MinirunError } from '../errors.ts';

/** Every capability of Linux 6.x; its place is its number: capabilities(7). */
export const capabilityNames: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_DAC_READ_SEARCH',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETPCAP',
  'CAP_LINUX_IMMUTABLE',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_BROADCAST',
  'CAP_NET_ADMIN',
  'CAP_NET_RAW',
  'CAP_IPC_LOCK',
  'CAP_IPC_OWNER',
  'CAP_SYS_MODULE',
  'CAP_SYS_RAWIO',
  'CAP_SYS_CHROOT',
  'CAP_SYS_PTRACE',
  'CAP_SYS_PACCT',
  'CAP_SYS_ADMIN',
  'CAP_SYS_BOOT',
  'CAP_SYS_NICE',
  'CAP_SYS_RESOURCE',
  'CAP_SYS_TIME',
  'CAP_SYS_TTY_CONFIG',
  'CAP_MKNOD',
  'CAP_LEASE',
  'CAP_AUDIT_WRITE',
  'CAP_AUDIT_CONTROL',
  'CAP_SETFCAP',
  'CAP_MAC_OVERRIDE',
  'CAP_MAC_ADMIN',
  'CAP_SYSLOG',
  'CAP_WAKE_ALARM',
  'CAP_BLOCK_SUSPEND',
  'CAP_AUDIT_READ',
  'CAP_PERFMON',
  'CAP_BPF',
  'CAP_CHECKPOINT_RESTORE',
];

/** Docker's default without MKNOD: the root filesystem is mounted nodev, so no device cgroup is needed. */
export const defaultCapabilities: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
];

/** `net_admin`, `CAP_NET_ADMIN`, `NET_ADMIN` → `CAP_NET_ADMIN`; `ALL` stays. @throws MinirunError for another name */
function canonical(name: string): string {
  const upper = name.toUpperCase();
  if (upper === 'ALL') return upper;
  const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if (!capabilityNames.includes(full)) {
    throw new MinirunError(
      `unknown capability "${name}"`,
      'Linux has none of that name',
      'See capabilities(7) for the names, for example NET_ADMIN',
    );
  }
  return full;
}

/** The capabilities that remain of the default set after `--cap-add` and `--cap-drop`, in the kernel's order. */
export function adjustCapabilities(add: readonly string[], drop: readonly string[]): string[] {
  const added = add.map(canonical);
  const dropped = drop.map(canonical);
  const base = dropped.includes('ALL') ? [] : added.includes('ALL') ? capabilityNames : defaultCapabilities;
  const set = new Set(base);
  for (const name of added) {
    if (name !== 'ALL') set.add(name);
    else if (dropped.includes('ALL')) for (const each of capabilityNames) set.add(each);
  }
  for (const name of dropped) if (name !== 'ALL') set.delete(name);
  return capabilityNames.filter((name) => set.has(name));
}
