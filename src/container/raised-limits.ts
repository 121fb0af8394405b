import fs from 'node:fs';
import type { OciRlimit } from './oci.ts';

/** What proc_pid_limits(5) calls each resource. */
const names: Record<string, string> = {
  CPU: 'cpu time',
  FSIZE: 'file size',
  DATA: 'data size',
  STACK: 'stack size',
  CORE: 'core file size',
  RSS: 'resident set',
  NPROC: 'processes',
  NOFILE: 'open files',
  MEMLOCK: 'locked memory',
  AS: 'address space',
  LOCKS: 'file locks',
  SIGPENDING: 'pending signals',
  MSGQUEUE: 'msgqueue size',
  NICE: 'nice priority',
  RTPRIO: 'realtime priority',
  RTTIME: 'realtime timeout',
};

/**
 * What a command has to begin with so that it can set these limits from inside a user namespace: to raise a hard limit takes
 * CAP_SYS_RESOURCE of the host. Empty when none is above what this process has.
 *
 * @param own text of /proc/self/limits
 */
export function raisedLimitsArgv(
  limits: readonly OciRlimit[],
  own = fs.readFileSync('/proc/self/limits', 'latin1'),
): string[] {
  const raised = limits.flatMap(({ type, hard }) => {
    const name = type.replace('RLIMIT_', '');
    const has = new RegExp(`^Max ${names[name]}\\s+\\S+\\s+(\\S+)`, 'm').exec(own)?.[1] ?? 'unlimited';
    if (has === 'unlimited' || (hard !== -1 && hard <= Number(has))) return [];
    return [`--${name.toLowerCase()}=:${hard === -1 ? 'unlimited' : hard}`];
  });
  return raised.length === 0 ? [] : ['prlimit', ...raised];
}
