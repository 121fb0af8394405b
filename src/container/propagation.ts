import type { OciMount } from './oci.ts';

/**
 * Whether mounts that come and go on one side of a bind are to be seen on the other: `slave` takes them from the host,
 * `shared` also gives them to it. mount_namespaces(7) tells of both.
 */
export function isPropagated({ type, options }: Pick<OciMount, 'type' | 'options'>): boolean {
  return type === 'bind' && options.some((option) => /^r?(slave|shared)$/.test(option));
}

/**
 * Why a source cannot be mounted with the propagation that is asked for; undefined when it can. Pure.
 *
 * @param source an absolute path without links
 * @param mountinfo the content of /proc/PID/mountinfo
 */
export function propagationProblem(
  source: string,
  options: readonly string[],
  mountinfo: string,
): { why: string; remedy: string } | undefined {
  const wanted = options.find((option) => /^r?(slave|shared)$/.test(option));
  if (wanted === undefined) return undefined;
  const { place, tags } = mountHolding(source, mountinfo);
  const isShared = tags.some((tag) => tag.startsWith('shared:'));
  if (isShared || (wanted.endsWith('slave') && tags.some((tag) => tag.startsWith('master:')))) return undefined;
  return {
    why: `${wanted} takes a shared mount, and ${source} lies on ${place}, which is none`,
    remedy: `Make it one: mount --make-shared ${place}`,
  };
}

interface MountPoint {
  place: string;
  options: string[];
  /** `shared:N`, `master:N`, … */
  tags: string[];
}

/** The mount that holds `file`: of those whose place is the longest beginning of its path, the last. */
export function mountHolding(file: string, mountinfo: string): MountPoint {
  let best: MountPoint = { place: '/', options: [], tags: [] };
  for (const line of mountinfo.trim().split('\n')) {
    // proc_pid_mountinfo(5): space, tab, newline and backslash come as octal escapes.
    const [fields = '', ..._rest] = line.split(' - ');
    const [, , , , escaped = '', options = '', ...tags] = fields.split(' ');
    const place = escaped.replace(/\\(\d{3})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 8)));
    const prefix = place === '/' ? '/' : `${place}/`;
    if ((file === place || file.startsWith(prefix)) && place.length >= best.place.length)
      best = { place, options: options.split(','), tags };
  }
  return best;
}
