import packageJson from '../../../package.json' with { type: 'json' };
import { messageOf } from '../../errors.ts';
import { type Tls, tlsFor } from './trust.ts';

/**
 * Milliseconds: for the first answer of a host, for each part of a transfer, for the answer to what was uploaded.
 * `MINIRUN_SILENCE_MS` changes the second, for tests.
 */
const timeouts = { connect: 10_000, silence: Number(process.env.MINIRUN_SILENCE_MS) || 30_000, stored: 300_000 };
const mostRedirects = 10;
/** Bytes of an answer that nobody wants: read to its end, so that the connection can be used again. */
const discardable = 64 * 1024;

/** A connection could not be made, broke, or is not to be trusted. The message is words for a user. */
export class NetworkFailure extends Error {
  /**
   * @param isCut whether there was a connection before: then it may be worth another try
   * @param isUntrusted whether its certificate is what is wrong
   * @param isPlain whether it does not speak TLS
   */
  constructor(
    message: string,
    readonly isCut: boolean,
    readonly isUntrusted = false,
    readonly isPlain = false,
  ) {
    super(message);
  }
}

/** One HTTP request. */
export interface HttpRequest {
  method?: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  headers?: Record<string, string>;
  body?: Uint8Array | string | AsyncIterable<Uint8Array>;
  signal?: AbortSignal;
  /** For hosts that the user has called insecure: any certificate will do, and so will plain HTTP after a redirect. */
  insecure?: boolean;
}

/**
 * Sends a request and follows redirects as far as they are safe: Authorization stays with the host it is meant for
 * (CVE-2020-15157) and does not come back, and nothing goes on in plain text that began encrypted.
 *
 * @throws NetworkFailure; whatever the request's body throws; the reason of its signal
 */
export async function sendRequest(first: URL, request: HttpRequest): Promise<Answer> {
  const { authorization, ...others } = request.headers ?? {};
  const isReplayable = request.body === undefined;
  let url = first;
  let isAtHome = true;
  for (let hop = 0; ; hop++) {
    const headers = isAtHome && authorization !== undefined ? { ...others, authorization } : others;
    const answer = await sendOnce(url, { ...request, headers });
    const location = answer.headers.get('location');
    if (!isReplayable || ![301, 302, 303, 307, 308].includes(answer.status) || location === null) return answer;
    await answer.discard();
    if (hop === mostRedirects) throw new NetworkFailure(`it redirects more than ${mostRedirects} times`, false);
    url = redirectTarget(location, url, request.insecure === true);
    isAtHome &&= url.origin === first.origin;
  }
}

function redirectTarget(location: string, from: URL, insecure: boolean): URL {
  let target: URL;
  try {
    target = new URL(location, from);
  } catch {
    throw new NetworkFailure('it redirects to what is no URL', false);
  }
  if (target.protocol !== 'https:' && target.protocol !== 'http:')
    throw new NetworkFailure(`it redirects to what is no web server (${target.protocol})`, false);
  if (from.protocol === 'https:' && target.protocol === 'http:' && !insecure)
    throw new NetworkFailure(`it redirects to plain HTTP at ${target.host}, which anybody could change`, false);
  // Whoever redirects has no say in what is sent as a login.
  target.username = '';
  target.password = '';
  return target;
}

/** Hosts that have answered in this process: from then on a slow answer is no sign of a host that is not there. */
const answered = new Set<string>();

async function sendOnce(url: URL, request: HttpRequest): Promise<Answer> {
  keepLoopbackFromProxies();
  const controller = new AbortController();
  const deadline = new Deadline(request.signal);
  const { body } = request;
  const upload =
    body === undefined || typeof body === 'string' || body instanceof Uint8Array ? undefined : watched(body, deadline);
  const tls = url.protocol === 'https:' ? await tlsFor(url.host, request.insecure === true) : undefined;
  try {
    deadline.extend(answered.has(url.origin) ? timeouts.silence : timeouts.connect);
    const response = await deadline.race(
      fetch(url, {
        method: request.method ?? 'GET',
        headers: {
          'user-agent': `minirun/${packageJson.version}`,
          'accept-encoding': 'identity',
          ...request.headers,
        },
        body: (upload?.chunks ?? body) as RequestInit['body'],
        redirect: 'manual',
        signal: controller.signal,
        ...extras(tls),
      }),
    );
    answered.add(url.origin);
    return new Answer(response, url, controller, request.signal);
  } catch (error) {
    controller.abort();
    if (upload?.failure !== undefined) throw upload.failure;
    request.signal?.throwIfAborted();
    throw error instanceof NetworkFailure ? error : failureOf(error);
  } finally {
    deadline.clear();
  }
}

/** Fields that Node or Bun alone know, and the other one leaves alone. */
function extras(tls: Tls | undefined): RequestInit {
  const fields = {
    // Node takes a stream as body with this only.
    duplex: 'half',
    // Bun: a blob is what its digest was made of, however it calls itself.
    decompress: false,
    // Bun: time is kept here.
    timeout: false,
    ...(tls === undefined ? {} : { tls }),
  };
  return fields as RequestInit;
}

/** A body to upload: each part that is taken is a sign of life. */
function watched(
  body: AsyncIterable<Uint8Array>,
  deadline: Deadline,
): { chunks: AsyncGenerator<Uint8Array>; failure?: Error } {
  const upload: { chunks: AsyncGenerator<Uint8Array>; failure?: Error } = { chunks: chunks() };
  async function* chunks(): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of body) {
        deadline.extend(timeouts.silence);
        yield chunk;
      }
      deadline.extend(timeouts.stored);
    } catch (error) {
      upload.failure = error as Error;
      throw error;
    }
  }
  return upload;
}

/** What a server answers; its body is read once, or discarded. */
export class Answer {
  constructor(
    private readonly response: Response,
    /** Where it came from in the end. */
    readonly url: URL,
    private readonly controller: AbortController,
    private readonly signal?: AbortSignal,
  ) {}

  get status(): number {
    return this.response.status;
  }

  /** `404 Not Found` */
  get statusLine(): string {
    return `${this.response.status} ${this.response.statusText}`.trim();
  }

  get headers(): Headers {
    return this.response.headers;
  }

  /** Content-Length; undefined when the server does not say it. */
  get length(): number | undefined {
    const value = this.headers.get('content-length');
    return value !== null && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
  }

  /** The body part by part. Whoever stops reading ends the connection. @throws NetworkFailure */
  async *chunks(): AsyncGenerator<Uint8Array> {
    const { body } = this.response;
    if (body === null) return;
    const reader = body.getReader();
    const deadline = new Deadline(this.signal);
    let isWhole = false;
    try {
      for (;;) {
        deadline.extend(timeouts.silence);
        const { done, value } = await deadline.race(reader.read());
        if (done) {
          isWhole = true;
          return;
        }
        yield value;
      }
    } catch (error) {
      this.signal?.throwIfAborted();
      throw error instanceof NetworkFailure ? error : new NetworkFailure(failureOf(error).message, true);
    } finally {
      deadline.clear();
      // What goes on after an error would keep this process alive.
      if (!isWhole) this.controller.abort();
    }
  }

  /** The body, or its first `limit` bytes and one more. @throws NetworkFailure */
  async bytes(limit: number): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of this.chunks()) {
      parts.push(chunk);
      length += chunk.length;
      if (length > limit) break;
    }
    return Buffer.concat(parts).subarray(0, limit + 1);
  }

  /** Lets go of the body. */
  async discard(): Promise<void> {
    await this.bytes(discardable).catch(() => {});
  }
}

/** A limit of time that can be put off, and an abort signal. In a race, as neither alone ends a name's look-up in Bun. */
class Deadline {
  private timer: NodeJS.Timeout | undefined;
  private failure: { reason: unknown } | undefined;
  /** Ends the step that is waited for now. */
  private end: ((reason: unknown) => void) | undefined;
  private isOver = false;
  private readonly onAbort = () => this.expire(this.signal?.reason);

  constructor(private readonly signal?: AbortSignal) {
    if (signal?.aborted) this.onAbort();
    else signal?.addEventListener('abort', this.onAbort, { once: true });
  }

  extend(milliseconds: number): void {
    clearTimeout(this.timer);
    // A server may answer before the end of an upload is asked for: a timer of that moment would outlive the request.
    if (this.isOver) return;
    const words = `no answer within ${milliseconds / 1000} seconds`;
    this.timer = setTimeout(
      () => this.expire(new NetworkFailure(words, milliseconds !== timeouts.connect)),
      milliseconds,
    );
  }

  /**
   * Waits for a step, and not longer than the time that is left. Not by Promise.race: a promise that stays pending for as
   * long as a transfer lasts would hold on to every chunk that has raced with it.
   */
  async race<T>(step: Promise<T>): Promise<T> {
    // The loser of the race is aborted later, and nobody waits for it then.
    step.catch(() => {});
    if (this.failure !== undefined) throw this.failure.reason;
    try {
      return await new Promise<T>((resolve, reject) => {
        this.end = reject;
        step.then(resolve, reject);
      });
    } finally {
      this.end = undefined;
    }
  }

  private expire(reason: unknown): void {
    this.failure ??= { reason };
    this.end?.(reason);
  }

  clear(): void {
    this.isOver = true;
    clearTimeout(this.timer);
    this.signal?.removeEventListener('abort', this.onAbort);
  }
}

const words: Record<string, string> = {
  ConnectionClosed: 'the connection was cut',
  ConnectionRefused: 'connection refused',
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the connection was cut',
  EPIPE: 'the connection was cut',
  UND_ERR_SOCKET: 'the connection was cut',
  EAI_AGAIN: 'its name cannot be looked up now',
  EPROTO: 'it does not speak TLS, or wants a certificate from us',
  EHOSTUNREACH: 'there is no way to it',
  ENETUNREACH: 'there is no network',
  ENOTFOUND: 'its name is not known',
  ERR_PROXY_TUNNEL: 'the proxy does not let it through',
  ETIMEDOUT: 'no answer',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is signed by itself',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is from an authority that this machine does not trust',
  UNABLE_TO_GET_ISSUER_CERT: 'its certificate is from an authority that this machine does not trust',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate is from an authority that this machine does not trust',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is from an authority that this machine does not trust',
};

const cuts: ReadonlySet<string> = new Set(['ConnectionClosed', 'ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET']);

/** Why a fetch failed; Node hides it in the cause. */
function failureOf(error: unknown): NetworkFailure {
  const { code, cause } = error as { code?: string; cause?: { code?: string } };
  const name = String(cause?.code ?? code ?? '');
  const text = words[name] ?? messageOf(error).replace(/[.?!]+$/, '');
  return new NetworkFailure(text, cuts.has(name), /CERT|SIGNATURE|ERR_TLS/.test(name), name === 'EPROTO');
}

/** Bun would ask a proxy of the environment for this very machine too; Go's programs, docker among them, never do. */
function keepLoopbackFromProxies(): void {
  const { env } = process;
  for (const name of ['NO_PROXY', 'no_proxy']) {
    const list = env[name] || env.NO_PROXY || env.no_proxy || '';
    if (!list.includes(loopback)) env[name] = list === '' ? loopback : `${list},${loopback}`;
  }
}

const loopback = 'localhost,127.0.0.0/8,::1';

/**
 * The body of a file on the web, part by part.
 *
 * @param unavailable makes an error of words for a user: why the server cannot be reached or refuses
 */
export async function* fetchBody(url: string, unavailable: (why: string) => Error): AsyncGenerator<Uint8Array> {
  try {
    const answer = await sendRequest(new URL(url), {});
    if (answer.status !== 200) {
      await answer.discard();
      throw unavailable(`the server answers ${answer.statusLine}`);
    }
    yield* answer.chunks();
  } catch (error) {
    throw error instanceof NetworkFailure ? unavailable(error.message) : error;
  }
}
