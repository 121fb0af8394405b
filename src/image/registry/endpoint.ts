import { isLoopback, readSettings } from '../../state/settings.ts';
import type { Challenge } from './authorization.ts';
import { type Answer, type HttpRequest, NetworkFailure, sendRequest } from './transport.ts';

/** Where the API of a registry or a mirror is. */
interface Base {
  /** Ends with a slash; names of repositories follow. */
  url: URL;
  insecure: boolean;
}

/**
 * A registry or a mirror of one, the same object for this process: what has been found out about it (whether it speaks
 * TLS, how it wants to be logged in to) is not asked for again.
 */
export class Endpoint {
  /** How it wants requests to be authorized, since it has said so. */
  challenge: Challenge | undefined;
  private base: Base | undefined;
  private finding: Promise<void> | undefined;

  constructor(
    /** As in image names, with the port: for messages, and what logins are kept under. */
    readonly host: string,
    private readonly candidates: readonly Base[],
    /** The registry that it is a mirror of. */
    readonly mirrorOf?: string,
  ) {}

  /** Whether it has answered before: then a failure to connect may be a passing one. */
  get hasAnswered(): boolean {
    return this.base !== undefined;
  }

  /** Whether the user has said that nothing needs to be protected on the way to it. */
  get insecure(): boolean {
    return this.candidates.some(({ insecure }) => insecure);
  }

  /** Whether it is spoken to in plain text. */
  get isPlain(): boolean {
    return this.base?.url.protocol === 'http:';
  }

  /** Whether a URL is at this very server, so that it may have our authorization. */
  isOwn(url: URL): boolean {
    return url.origin === this.base?.url.origin;
  }

  /**
   * Sends a request. The first one also finds out whether the server speaks TLS, where that is open.
   *
   * @param place relative to the API's base, or an absolute URL that the server has given
   * @throws NetworkFailure
   */
  async send(place: string | URL, request: HttpRequest): Promise<Answer> {
    while (this.base === undefined) {
      if (this.finding === undefined) return this.sendFirst(place, request);
      await this.finding;
    }
    return this.sendTo(this.base, place, request);
  }

  private async sendFirst(place: string | URL, request: HttpRequest): Promise<Answer> {
    let found = () => {};
    this.finding = new Promise((resolve) => {
      found = resolve;
    });
    try {
      const { base, answer } = await this.find(place, request);
      this.base = base;
      return answer;
    } finally {
      this.finding = undefined;
      found();
    }
  }

  private async find(place: string | URL, request: HttpRequest): Promise<{ base: Base; answer: Answer }> {
    const failures: NetworkFailure[] = [];
    let doubtful: { base: Base; answer: Answer } | undefined;
    for (const base of this.candidates) {
      try {
        const answer = await this.sendTo(base, place, request);
        const isLast = base === this.candidates.at(-1);
        // This is also how a server that expects TLS answers plain HTTP.
        if (base.url.protocol === 'https:' || answer.status !== 400 || isLast) return { base, answer };
        doubtful = { base, answer };
      } catch (error) {
        if (!(error instanceof NetworkFailure)) throw error;
        failures.push(error);
      }
    }
    // It speaks TLS then, and a certificate, its own or ours, is what is wrong.
    const untrusted = failures.find(({ isUntrusted }) => isUntrusted);
    if (untrusted !== undefined) throw untrusted;
    if (doubtful !== undefined) return doubtful;
    throw failures[0] as NetworkFailure;
  }

  private async sendTo(base: Base, place: string | URL, request: HttpRequest): Promise<Answer> {
    const url = new URL(place, base.url);
    // Lets one mirror serve several registries: distribution-spec, "Registry Proxying".
    if (this.mirrorOf !== undefined && typeof place === 'string') url.searchParams.set('ns', this.mirrorOf);
    return sendRequest(url, { ...request, insecure: base.insecure });
  }
}

const known = new Map<string, Endpoint>();

/**
 * The endpoint of a registry.
 *
 * @param domain as in image names: `docker.io`
 * @param insecure whether the user has asked for it; else the settings say
 */
export async function registryEndpoint(domain: string, insecure: boolean): Promise<Endpoint> {
  const { registries } = await readSettings();
  const isInsecure = insecure || registries[domain]?.insecure === true;
  const key = `${domain} ${isInsecure}`;
  const host = domain === 'docker.io' ? 'registry-1.docker.io' : domain;
  const base = (protocol: string): Base => ({ url: new URL(`${protocol}://${host}/v2/`), insecure: isInsecure });
  const bases = () => {
    // What most registries on this machine speak first: it saves a request.
    if (isLoopback(new URL(`http://${host}`).hostname)) return [base('http'), base('https')];
    return isInsecure ? [base('https'), base('http')] : [base('https')];
  };
  let endpoint = known.get(key);
  if (endpoint === undefined) known.set(key, (endpoint = new Endpoint(domain, bases())));
  return endpoint;
}

/**
 * The endpoint of a mirror.
 *
 * @param url its base as in the settings; one whose path begins with /v2 is complete, to another one /v2 is added
 * @param domain of the registry that it mirrors
 */
export async function mirrorEndpoint(url: string, domain: string, insecure: boolean): Promise<Endpoint> {
  const { registries } = await readSettings();
  const base = new URL(url);
  const isInsecure = insecure || registries[base.host]?.insecure === true;
  const path = base.pathname.replace(/\/+$/, '');
  base.pathname = /^\/v2(\/|$)/.test(path) ? `${path}/` : `${path}/v2/`;
  const key = `${base.href} ${domain} ${isInsecure}`;
  let endpoint = known.get(key);
  if (endpoint === undefined) {
    known.set(key, (endpoint = new Endpoint(base.host, [{ url: base, insecure: isInsecure }], domain)));
  }
  return endpoint;
}
