import { ownBinary } from '../host/launch.ts';
import { stateRoot } from '../state/paths.ts';

/**
 * The command that makes the container's namespaces and runs init as pid 1 of the new pid namespace. The network
 * namespace is not made here but named by `ip netns add`, in the same `ip -batch` that wires it while init starts;
 * init enters it on `go` (docs/adr/0001).
 *
 * @param keepsPropagation leave mounts in touch with those of the host: init then sees to it that only those are that
 *   were asked for
 */
export function unshareArgv(keepsPropagation = false): string[] {
  return [
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
    ownBinary,
    'init',
  ];
}

/** The command that enters all namespaces of a container but its mounts, which init enters itself. */
export function nsenterArgv(pid: number): string[] {
  return [
    'nsenter',
    '--target',
    String(pid),
    '--pid',
    '--net',
    '--uts',
    '--ipc',
    '--cgroup',
    '--',
    'unshare',
    '--mount',
    '--',
    ownBinary,
    'init',
  ];
}

/** Init's whole environment: that of the container comes with the spec, nothing of the caller's gets near it. */
export const initEnvironment: Record<string, string> = { MINIRUN_INIT: '1' };

/** The command that takes idle networks down once they have lingered long enough. */
export function lingerArgv(): string[] {
  return [ownBinary, '--root', stateRoot(), 'system', 'reconcile', '--due'];
}
