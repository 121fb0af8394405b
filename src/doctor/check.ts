/** One thing that was looked at. */
export interface Check {
  name: string;
  /** `missing`: containers do not work without it. `warning`: they do, with less, or somebody should know. */
  status: 'ok' | 'warning' | 'missing';
  /** What was found: a version or a few words. */
  found: string;
  /** The command to type, or the words that say what else to do. */
  remedy?: string;
}

export function ok(name: string, found = ''): Check {
  return { name, status: 'ok', found };
}

export function warning(name: string, found: string, remedy?: string): Check {
  return { name, status: 'warning', found, remedy };
}

export function missing(name: string, found: string, remedy?: string): Check {
  return { name, status: 'missing', found, remedy };
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}
