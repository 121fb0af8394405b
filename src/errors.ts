/**
 * An error that a user reads: one line saying what failed, why, and what to do.
 *
 * Everything that can go wrong for a reason outside minirun's own code is thrown as one of these, so that
 * `src/cli/` can print it as it stands. Any other exception is a bug in minirun and is reported as one.
 */
export class MinirunError extends Error {
  /** Exit code of the process; undefined lets the command decide (125 for `run`, 1 for most others). */
  readonly code: number | undefined;

  /**
   * @param what what failed, without a full stop: `cannot create container "web"`
   * @param why the reason, without a full stop: `the name is taken by 1f2e3d4c5b6a`
   * @param remedy what to do about it, an imperative without a full stop; left out when nothing can be done
   */
  constructor(
    readonly what: string,
    readonly why?: string,
    readonly remedy?: string,
    options: { code?: number; cause?: unknown } = {},
  ) {
    const reason = why === undefined || why === '' ? what : `${what}: ${why}`;
    super(remedy === undefined ? reason : `${reason}. ${remedy}.`, { cause: options.cause });
    this.name = 'MinirunError';
    this.code = options.code;
  }
}

/** Several failures of one operation (an undo, a tear-down), all of which the user is told. */
export class MinirunErrors extends MinirunError {
  constructor(
    what: string,
    readonly errors: readonly Error[],
    remedy?: string,
  ) {
    super(
      what,
      errors
        .map(messageOf)
        // What has failed first has often failed again on the way back, for the same reason.
        .filter((why) => why !== what)
        .join('; '),
      remedy,
    );
    this.name = 'MinirunErrors';
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  if (isDiskFull(error))
    return `no space left on the disk of ${(error as { path?: string }).path ?? 'the state directory'}`;
  return error instanceof Error ? error.message : String(error);
}

/** Whether a system call has failed because the disk is full, or a quota reached. */
export function isDiskFull(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT'].includes((error as { code?: string } | undefined)?.code ?? '');
}
