import { isLoopback } from '../../state/settings.ts';
import { Backoff, isTransientStatus, retryAfter, Transient } from './backoff.ts';
import { type Credentials, findCredentials } from './credentials.ts';
import type { Endpoint } from './endpoint.ts';
import { messageIn, RegistryError } from './failure.ts';
import { type Answer, type HttpRequest, NetworkFailure, sendRequest } from './transport.ts';

/** What a `WWW-Authenticate` header asks for. */
export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  scheme: string;
  /** By lower-case name: realm, service, scope. */
  parameters: Record<string, string>;
}

/** Seconds that a token lasts when its service does not say: the token protocol's default. */
const defaultLifetime = 60;
const largestAnswer = 1024 * 1024;

/**
 * Reads a `WWW-Authenticate` header, which may hold several challenges (RFC 9110, 11.6.1). What is not understood is
 * left out.
 */
export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  const token = "[\\w!#$%&'*+.^`|~-]+";
  const parameter = new RegExp(`[\\s,]*(${token})\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|(${token}))(?=\\s*(?:,|$))`, 'y');
  // Its opaque data (token68), as Negotiate has it, is passed over.
  const scheme = new RegExp(`[\\s,]*(${token})(?:\\s+[\\w.~+/-]+=*(?=\\s*(?:,|$)))?(?=[\\s,]|$)`, 'y');
  let place = 0;
  const next = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = place;
    const match = pattern.exec(header);
    if (match !== null) place = pattern.lastIndex;
    return match;
  };
  while (place < header.length) {
    const found = next(parameter);
    if (found !== null) {
      const [, name = '', quoted, bare] = found;
      const value = bare ?? (quoted ?? '').replaceAll(/\\(.)/gs, '$1');
      const last = challenges.at(-1);
      if (last !== undefined) last.parameters[name.toLowerCase()] ??= value;
      continue;
    }
    const started = next(scheme);
    if (started === null) break;
    challenges.push({ scheme: (started[1] as string).toLowerCase(), parameters: {} });
  }
  return challenges;
}

/** Several scopes as few: one for each resource, with all actions that any asks for. In the order of their resources. */
export function mergeScopes(scopes: readonly string[]): string[] {
  const actions = new Map<string, Set<string>>();
  for (const scope of scopes) {
    const colon = scope.lastIndexOf(':');
    const resource = scope.slice(0, colon);
    const known = actions.get(resource) ?? new Set();
    for (const action of scope.slice(colon + 1).split(',')) known.add(action);
    actions.set(resource, known);
  }
  return [...actions].map(([resource, known]) => `${resource}:${[...known].toSorted().join(',')}`).toSorted();
}

interface Token {
  value: string;
  /** Milliseconds of the clock that only goes forward. */
  expires: number;
}

interface CachedToken {
  fetched: Promise<Token>;
  /** Once it has been fetched. */
  token?: Token;
}

/** Tokens of this process, by what they were asked for. */
const tokens = new Map<string, CachedToken>();

function isStale(token: Token | undefined, used: string | undefined): boolean {
  return token !== undefined && (performance.now() >= token.expires || `Bearer ${token.value}` === used);
}

/** Gets what the `Authorization` header of requests for a repository must be. */
export class Authorization {
  private scopes: string[];
  private signal: AbortSignal | undefined;
  private given: Promise<Credentials | undefined> | undefined;

  /** @param credentials instead of those that are stored: for a login */
  constructor(
    private readonly endpoint: Endpoint,
    { scopes, signal, credentials }: { scopes: string[]; signal?: AbortSignal; credentials?: Credentials },
  ) {
    this.scopes = scopes;
    this.signal = signal;
    if (credentials !== undefined) this.given = Promise.resolve(credentials);
  }

  /** Further rights that requests from now on need. */
  add(scope: string): void {
    this.scopes = mergeScopes([...this.scopes, scope]);
  }

  /** The user whose login is used, for messages; undefined for nobody's. */
  async user(): Promise<string | undefined> {
    const credentials = await this.credentials();
    if (credentials === undefined) return undefined;
    return 'username' in credentials ? credentials.username : 'of the identity token';
  }

  /** The header for a request as far as it is known what the registry wants; undefined for none. */
  async header(): Promise<string | undefined> {
    const { challenge } = this.endpoint;
    return challenge === undefined ? undefined : this.headerFor(challenge, undefined);
  }

  /**
   * The header for a second attempt after a 401.
   *
   * @param used the header of the request that was refused: what is given again is another one
   * @returns undefined when there is nothing else to try
   */
  async renewed(answer: Answer, used: string | undefined): Promise<string | undefined> {
    const challenges = parseChallenges(answer.headers.get('www-authenticate') ?? '');
    const challenge =
      challenges.find(({ scheme, parameters }) => scheme === 'bearer' && parameters.realm !== undefined) ??
      challenges.find(({ scheme }) => scheme === 'basic');
    if (challenge === undefined) return undefined;
    this.endpoint.challenge = challenge;
    const header = await this.headerFor(challenge, used);
    return header === used ? undefined : header;
  }

  private async headerFor(challenge: Challenge, used: string | undefined): Promise<string | undefined> {
    if (challenge.scheme === 'bearer') return `Bearer ${await this.token(challenge, used)}`;
    const credentials = await this.credentials();
    return credentials === undefined || !('username' in credentials) ? undefined : basic(credentials);
  }

  private credentials(): Promise<Credentials | undefined> {
    this.given ??= findCredentials(this.endpoint.host);
    return this.given;
  }

  private async token(challenge: Challenge, used: string | undefined): Promise<string> {
    const { realm = '', service = '', scope } = challenge.parameters;
    const asked = scope === undefined ? [] : scope.split(/\s+/).filter((each) => each.includes(':'));
    // A mirror may have its repositories under other names, which it knows best.
    const scopes = mergeScopes(
      this.endpoint.mirrorOf !== undefined && asked.length > 0 ? asked : [...this.scopes, ...asked],
    );
    const credentials = await this.credentials();
    const key = JSON.stringify([realm, service, scopes, credentials]);
    const known = tokens.get(key);
    // Whoever asks first gets it for all who ask meanwhile.
    if (known !== undefined && !isStale(known.token, used)) return (await known.fetched).value;
    const fresh: CachedToken = { fetched: this.fetchToken(challenge.parameters, scopes, credentials) };
    tokens.set(key, fresh);
    try {
      fresh.token = await fresh.fetched;
    } catch (error) {
      if (tokens.get(key) === fresh) tokens.delete(key);
      throw error;
    }
    return fresh.token.value;
  }

  private async fetchToken(
    { realm = '', service = '' }: Record<string, string>,
    scopes: string[],
    credentials: Credentials | undefined,
  ): Promise<Token> {
    const url = this.realmUrl(realm);
    const request = tokenRequest(url, service, scopes, credentials);
    const backoff = new Backoff(this.signal, () => {});
    for (;;) {
      try {
        return await this.askForToken(url, request, credentials);
      } catch (error) {
        if (error instanceof NetworkFailure) {
          throw new RegistryError(
            'unreachable',
            `cannot log in to ${this.endpoint.host}`,
            `cannot reach its token service ${url.host}: ${error.message}`,
          );
        }
        if (!(error instanceof Transient)) throw error;
        if (await backoff.wait(error)) continue;
        throw new RegistryError('refused', `cannot log in to ${this.endpoint.host}`, error.message, 'Try again later');
      }
    }
  }

  private async askForToken(url: URL, request: HttpRequest, credentials: Credentials | undefined): Promise<Token> {
    const { host, insecure } = this.endpoint;
    let answer: Answer;
    try {
      answer = await sendRequest(url, { ...request, insecure, ...(this.signal && { signal: this.signal }) });
    } catch (error) {
      if (error instanceof NetworkFailure && error.isCut) throw new Transient(error.message);
      throw error;
    }
    const body = await answer.bytes(largestAnswer);
    if (answer.status !== 200) {
      const said = messageIn(body) ?? answer.statusLine;
      if (isTransientStatus(answer.status)) {
        const why = `its token service ${url.host} answers ${said}`;
        throw new Transient(why, retryAfter(answer.headers.get('retry-after')));
      }
      if (![400, 401, 403].includes(answer.status)) {
        throw new RegistryError('refused', `cannot log in to ${host}`, `its token service ${url.host} answers ${said}`);
      }
      throw await this.loginRefused(said, credentials);
    }
    return readToken(body, `cannot log in to ${host}`);
  }

  private async loginRefused(said: string, credentials: Credentials | undefined): Promise<RegistryError> {
    const { host } = this.endpoint;
    if (credentials === undefined) {
      return new RegistryError(
        'denied',
        `cannot log in to ${host}`,
        `it needs a login (${said})`,
        `Log in: minirun login ${host}`,
      );
    }
    const who = 'username' in credentials ? `user ${credentials.username}` : 'the stored identity token';
    return new RegistryError(
      'denied',
      `cannot log in to ${host}`,
      `it refuses ${who} (${said})`,
      `Log in again: minirun login ${host}`,
    );
  }

  /** Where tokens are to be had. Passwords are sent there, so it must be encrypted where the registry is. */
  private realmUrl(realm: string): URL {
    const { host, insecure, isPlain } = this.endpoint;
    let url: URL | undefined;
    try {
      url = new URL(realm);
    } catch {
      // Refused below.
    }
    const isAllowed =
      url?.protocol === 'https:' || (url?.protocol === 'http:' && (insecure || (isPlain && isLoopback(url.hostname))));
    if (url === undefined || !isAllowed) {
      throw new RegistryError(
        'refused',
        `cannot log in to ${host}`,
        url?.protocol === 'http:'
          ? `its token service ${url.host} is plain HTTP, where anybody could read the password`
          : 'the address of its token service is none',
      );
    }
    url.username = '';
    url.password = '';
    return url;
  }
}

/** https://distribution.github.io/distribution/spec/auth/token/ and, for identity tokens, …/auth/oauth/ */
function tokenRequest(url: URL, service: string, scopes: string[], credentials: Credentials | undefined): HttpRequest {
  if (credentials !== undefined && 'identityToken' in credentials) {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      service,
      client_id: 'minirun',
      refresh_token: credentials.identityToken,
    });
    if (scopes.length > 0) form.set('scope', scopes.join(' '));
    return {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: form.toString(),
    };
  }
  if (service !== '') url.searchParams.set('service', service);
  for (const scope of scopes) url.searchParams.append('scope', scope);
  if (credentials === undefined) return {};
  url.searchParams.set('account', credentials.username);
  return { headers: { authorization: basic(credentials) } };
}

function basic({ username, password }: { username: string; password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

function readToken(body: Buffer, what: string): Token {
  let document: Record<string, unknown> | null = null;
  try {
    document = JSON.parse(body.toString()) as Record<string, unknown> | null;
  } catch {
    // It has no token then.
  }
  const value = document?.token || document?.access_token;
  // It becomes a header.
  if (typeof value !== 'string' || !/^[\x21-\x7e]+$/.test(value))
    throw new RegistryError('damaged', what, 'its token service gives no token');
  const seconds = Number(document?.expires_in) > 0 ? Number(document?.expires_in) : defaultLifetime;
  // A little early: the way to the registry takes time.
  return { value, expires: performance.now() + Math.max(seconds * 0.9, seconds - 10) * 1000 };
}
