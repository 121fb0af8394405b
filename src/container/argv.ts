import { helperArgv, ownBinary } from '../host/launch.ts';
import { stateRoot } from '../state/paths.ts';

/**
 * The command that makes the container's namespaces and runs init as pid 1 of the new pid namespace. The network
 * namespace is not made here but named by `ip netns add`, in the same `ip -batch` that wires it while init starts;
 * init enters it on `go` (docs/adr/0001).
 *
 * @param keepsPropagation leave mounts in touch with those of the host: init then sees to it that only those are that
 *   were asked for
 */
export function unshareArgv(user?: InUserNamespace, keepsPropagation = false): string[] {
  return [
    ...(user === undefined ? [] : enterArgv(user)),
    'unshare',
    '--pid',
    '--mount',
    ...(keepsPropagation ? ['--propagation', 'unchanged'] : []),
    '--uts',
    '--ipc',
    '--cgroup',
    '--fork',
    '--kill-child',
    '--',
    user === undefined ? ownBinary : './minirun',
    'init',
  ];
}

/** Where a container's init begins that is to live in a user namespace of its own. */
export interface InUserNamespace {
  /** The mount namespace where everything is prepared. */
  mounts: string;
  /** The user namespace. */
  userns: string;
  /** The prepared directory: its working directory. */
  place: string;
  /** Its network namespace; absent for the host's. */
  netns?: string;
  /** Who its root is on the host: `UID:GID`. */
  owner: string;
  /** What raises limits, in front of everything. */
  limits: string[];
}

/** The command that makes a user namespace, and a network namespace of it, as `hold` takes it. */
export function holderArgv(network: boolean): string[] {
  return ['unshare', '--user', ...(network ? ['--net'] : []), '--', 'cat'];
}

/** Enters the mounts first and the user namespace last: after that it could enter nothing else. */
function enterArgv({ mounts, userns, place, netns, limits }: InUserNamespace): string[] {
  return [
    ...limits,
    'nsenter',
    `--mount=${mounts}`,
    `--user=${userns}`,
    ...(netns === undefined ? [] : [`--net=${netns}`]),
    `--wd=${place}`,
    '--',
  ];
}

/**
 * The command that enters all namespaces of a container but its mounts, which init enters itself.
 *
 * @param user whether it has a user namespace of its own
 */
export function nsenterArgv(pid: number, user: boolean): string[] {
  const enter = ['nsenter', '--target', String(pid), '--pid', '--net', '--uts', '--ipc', '--cgroup'];
  // What comes behind --user is the same.
  if (user) return [...enter, ...helperArgv(pid).slice(3)];
  return [...enter, '--', ...helperArgv()];
}

/** Init's whole environment: that of the container comes with the spec, nothing of the caller's gets near it. */
export const initEnvironment: Record<string, string> = { MINIRUN_INIT: '1' };

/** The command that takes idle networks down once they have lingered long enough. */
export function lingerArgv(): string[] {
  return [ownBinary, '--root', stateRoot(), 'system', 'reconcile', '--due'];
}
