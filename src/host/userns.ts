/**
 * What of this machine's settings keeps an ordinary user from making a user namespace; undefined when nothing does. Pure.
 *
 * @param read the value of a sysctl, undefined or empty where this kernel has none of that name
 */
export function namespaceObstacle(
  read: (key: string) => string | undefined,
): { why: string; remedy: string } | undefined {
  if (read('user/max_user_namespaces') === '0')
    return {
      why: 'user.max_user_namespaces is 0, so nobody may make a user namespace',
      remedy: 'Allow them: sudo sysctl -w user.max_user_namespaces=15000',
    };
  // A patch of Debian's, also in Arch's linux-hardened.
  if (read('kernel/unprivileged_userns_clone') === '0')
    return {
      why: 'kernel.unprivileged_userns_clone is 0, so only root may make a user namespace',
      remedy: 'Allow them: sudo sysctl -w kernel.unprivileged_userns_clone=1',
    };
  // Ubuntu, since 23.10: the namespace is made, but nothing may be done in it.
  if (read('kernel/apparmor_restrict_unprivileged_userns') === '1')
    return {
      why: 'kernel.apparmor_restrict_unprivileged_userns is 1, so AppArmor lets users do nothing in a user namespace',
      remedy: 'Allow it: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0',
    };
  return undefined;
}
