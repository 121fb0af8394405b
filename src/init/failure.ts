import type { Failure } from '../container/protocol.ts';

/** What failed inside init, in the form that reaches the user. */
export class InitError extends Error {
  constructor(
    readonly what: string,
    readonly why?: string,
    readonly remedy?: string,
    readonly code = 125,
  ) {
    super(why === undefined ? what : `${what}: ${why}`);
  }
}

/** Any error as a message of the protocol. */
export function failure(error: unknown): Failure {
  if (error instanceof InitError) {
    return { type: 'failed', what: error.what, why: error.why, remedy: error.remedy, code: error.code };
  }
  const why = error instanceof Error ? error.message : String(error);
  return { type: 'failed', what: 'cannot set up the container', why, code: 125 };
}
