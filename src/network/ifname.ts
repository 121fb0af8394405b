/** The kernel's rule for names of interfaces: dev_valid_name() in net/core/dev.c. */
export function isIfname(name: string): boolean {
  return /^[^\s/:]{1,15}$/.test(name) && name !== '.' && name !== '..';
}

/** Of what the kernel takes, what does not confuse `ip -batch` and `sysctl`. */
export const ifnamePattern = /^[a-zA-Z0-9_][a-zA-Z0-9_.@-]*$/;

/** Names that every network stack has an interface or settings of. */
const takenIfnames: readonly string[] = ['lo', 'all', 'default'];

/** Whether an interface that minirun makes can be called so. */
export function isUsableIfname(name: string): boolean {
  return name.length <= 15 && ifnamePattern.test(name) && !takenIfnames.includes(name);
}
