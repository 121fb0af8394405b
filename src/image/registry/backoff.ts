/** Something failed that may go better another time. The message is words for a user. */
export class Transient extends Error {
  /** @param after seconds that the server asks to wait */
  constructor(
    message: string,
    readonly after?: number,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** How often something is tried again after the last progress, and the longest wait in seconds. */
const most = { retries: 5, wait: 60 };

/** Answers after which a request may be tried again. */
const transientStatuses: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);

export function isTransientStatus(status: number): boolean {
  return transientStatuses.has(status);
}

/** Seconds of a `Retry-After`: a number, or a date (RFC 9110, 10.2.3). */
export function retryAfter(value: string | null, now = Date.now()): number | undefined {
  if (value === null) return undefined;
  if (/^\s*\d+\s*$/.test(value)) return Number(value);
  const instant = Date.parse(value);
  return Number.isNaN(instant) ? undefined : Math.max(0, Math.ceil((instant - now) / 1000));
}

/** Milliseconds of the first wait. `MINIRUN_RETRY_BASE_MS` changes it, for tests. */
function baseOf(): number {
  const given = process.env.MINIRUN_RETRY_BASE_MS;
  return given !== undefined && /^\d{1,6}$/.test(given) ? Number(given) : 500;
}

/** Waits between attempts: twice as long each time, with chance in it so that not all clients come back at once. */
export class Backoff {
  private failures = 0;

  /** @param tell is called before a wait of that many seconds */
  constructor(
    private readonly signal: AbortSignal | undefined,
    private readonly tell: (why: string, seconds: number) => void,
  ) {}

  /** Something got better: counting begins again. */
  reset(): void {
    this.failures = 0;
  }

  /** Waits until it is time for another attempt; false when there have been enough. */
  async wait(failure: Transient): Promise<boolean> {
    if (this.failures === most.retries) return false;
    const chosen = (baseOf() / 1000) * 2 ** this.failures++ * (0.75 + Math.random() / 4);
    const seconds = Math.min(failure.after ?? chosen, most.wait);
    this.tell(failure.message, seconds);
    await pause(seconds * 1000, this.signal);
    return true;
  }
}

function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, milliseconds);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
