import { MinirunError } from '../../errors.ts';
import { readSettings } from '../../state/settings.ts';
import { algorithmOf, digestOf } from '../digest.ts';
import type { Descriptor, RawManifest } from '../manifest.ts';
import { mediaTypes } from '../manifest.ts';
import { largestManifest } from '../manifest-document.ts';
import type { Report } from '../progress.ts';
import { familiarRepository, isDigest, type Reference } from '../reference.ts';
import { Authorization } from './authorization.ts';
import { Backoff, isTransientStatus, retryAfter, Transient } from './backoff.ts';
import { type Endpoint, mirrorEndpoint, registryEndpoint } from './endpoint.ts';
import { messageIn, RegistryError, remedyFor } from './failure.ts';
import { type Answer, type HttpRequest, NetworkFailure, sendRequest } from './transport.ts';

export interface RepositoryOptions {
  actions: 'pull' | 'pull,push';
  /** The user has asked for it (`--tls-verify=false`): any certificate, and plain HTTP, will do. */
  insecure?: boolean;
  report?: Report;
  signal?: AbortSignal;
  /** Base URL of a mirror to ask instead of the registry; see `pullSources`. */
  mirror?: string;
}

/** Where an image may be pulled from. */
export interface PullSource {
  /** For messages: `docker.io`, `mirror 127.0.0.1:5001`. */
  name: string;
  isMirror: boolean;
  open(options: Omit<RepositoryOptions, 'actions' | 'mirror'>): Promise<Repository>;
}

type RepositoryName = Pick<Reference, 'domain' | 'path'>;

/**
 * Where an image may be pulled from, in the order to try: the mirrors of the settings, then the registry. A mirror that
 * fails in any way gives way to the next one; what the last one says is final.
 */
export async function pullSources(reference: RepositoryName): Promise<PullSource[]> {
  const { registries } = await readSettings();
  const mirrors = registries[reference.domain]?.mirrors ?? [];
  return [
    ...mirrors.map(
      (mirror): PullSource => ({
        name: `mirror ${new URL(mirror).host}`,
        isMirror: true,
        open: (options) => openRepository(reference, { ...options, actions: 'pull', mirror }),
      }),
    ),
    {
      name: reference.domain,
      isMirror: false,
      open: (options) => openRepository(reference, { ...options, actions: 'pull' }),
    },
  ];
}

/** Opens a repository of a registry; this sends nothing yet. @throws MinirunError when the settings are wrong */
export async function openRepository(reference: RepositoryName, options: RepositoryOptions): Promise<Repository> {
  const { mirror, insecure = false } = options;
  const endpoint =
    mirror === undefined
      ? await registryEndpoint(reference.domain, insecure)
      : await mirrorEndpoint(mirror, reference.domain, insecure);
  return new Repository(reference, endpoint, options);
}

/** What registries are asked for; the last one for the sake of a good message about what is no image. */
const acceptedManifests = [
  mediaTypes.ociIndex,
  mediaTypes.ociManifest,
  mediaTypes.dockerIndex,
  mediaTypes.dockerManifest,
  '*/*',
].join(', ');

/** Bytes of the message of an error that are read. */
const largestComplaint = 64 * 1024;

interface Request extends HttpRequest {
  /** Relative to the API's base, or absolute as the registry gave it. */
  place: string | URL;
  /** What of the repository it is about, for messages: `:latest`, `@sha256:…`. */
  about?: string;
}

/**
 * A repository of a registry: https://github.com/opencontainers/distribution-spec and docker's HTTP API V2.
 *
 * All methods throw a RegistryError when the registry cannot be reached, refuses, or answers what it must not; passing
 * failures have been tried again before. Without a signal they end in time by themselves.
 */
export class Repository {
  /** As the user knows it: `alpine`, `localhost:5000/tool`. */
  readonly name: string;
  private readonly authorization: Authorization;
  private readonly signal: AbortSignal | undefined;
  private readonly report: Report | undefined;
  private readonly verb: 'pull' | 'push';
  /** Uploads that a mount has begun instead of mounting, by digest. */
  private readonly uploads = new Map<string, URL>();

  /** @param reference its name is well-formed: it becomes a part of URLs */
  constructor(
    private readonly reference: RepositoryName,
    private readonly endpoint: Endpoint,
    { actions, report, signal }: RepositoryOptions,
  ) {
    this.name = familiarRepository({ ...reference });
    this.report = report;
    this.signal = signal;
    this.verb = actions === 'pull' ? 'pull' : 'push';
    this.authorization = new Authorization(endpoint, {
      scopes: [`repository:${reference.path}:${actions}`],
      ...(signal === undefined ? {} : { signal }),
    });
  }

  /** What a tag stands for, without fetching it; undefined when the registry does not say. */
  async headManifest(tagOrDigest: string): Promise<{ digest: string; mediaType: string; size: number } | undefined> {
    const place = this.manifestPlace(tagOrDigest);
    const request: Request = {
      method: 'HEAD',
      place,
      headers: { accept: acceptedManifests },
      about: suffix(tagOrDigest),
    };
    // Some registries have no HEAD.
    const answer = await this.request(request, [200, 400, 405, 501]);
    const digest = answer.headers.get('docker-content-digest');
    await answer.discard();
    if (answer.status !== 200 || digest === null || !isDigest(digest) || answer.length === undefined) return undefined;
    if (isDigest(tagOrDigest) && digest !== tagOrDigest) return undefined;
    return { digest, mediaType: mediaTypeOf(answer), size: answer.length };
  }

  /** A manifest or an index, checked against the digest that was asked for, or that the registry says. */
  async manifest(tagOrDigest: string): Promise<RawManifest> {
    const about = suffix(tagOrDigest);
    const place = this.manifestPlace(tagOrDigest);
    const { answer, body } = await this.small(
      { place, headers: { accept: acceptedManifests }, about },
      largestManifest,
    );
    if (body.length > largestManifest) throw this.damaged(about, 'its manifest is larger than 4 MiB');
    const said = answer.headers.get('docker-content-digest');
    const asked = isDigest(tagOrDigest) ? tagOrDigest : undefined;
    for (const expected of [asked, said ?? undefined]) {
      if (expected === undefined) continue;
      if (!isDigest(expected)) throw this.damaged(about, 'it calls its manifest by what is no digest');
      if (digestOf(body, algorithmOf(expected)) !== expected)
        throw this.damaged(about, `its manifest is not the one of ${expected}`);
    }
    return { digest: asked ?? digestOf(body), mediaType: mediaTypeOf(answer), body };
  }

  /**
   * The bytes of a blob, from the first to the last: as many as its descriptor says, or an error. A broken transfer goes
   * on where it broke. The digest is for the caller to check.
   *
   * @param onRetry is called before a wait of that many seconds
   */
  async *blob(
    descriptor: Descriptor,
    onRetry?: (why: string, seconds: number) => void,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const { digest, size } = descriptor;
    const backoff = new Backoff(this.signal, onRetry ?? ((why, seconds) => this.tellRetry(why, seconds)));
    const sources = this.blobSources(descriptor);
    let offset = 0;
    while (offset < size || size === 0) {
      try {
        for await (const chunk of this.blobFrom(sources[0] as BlobSource, descriptor, offset)) {
          offset += chunk.length;
          backoff.reset();
          yield chunk;
        }
        return;
      } catch (error) {
        if (error instanceof RegistryError && error.kind === 'not-found' && sources.length > 1) {
          sources.shift();
          continue;
        }
        await this.waitOrThrow(backoff, error, `@${digest}`);
      }
    }
  }

  /** Where a blob may be: in the repository, and a layer that must not be redistributed also at its URLs. */
  private blobSources({ digest, mediaType, urls = [] }: Descriptor): BlobSource[] {
    const own: BlobSource = (headers) => this.attempt({ place: this.blobPlace(digest), headers, about: `@${digest}` });
    if (!/nondistributable|\bforeign\b/.test(mediaType)) return [own];
    const others = urls.filter((url) => /^https?:\/\//i.test(url) && URL.canParse(url));
    return [
      own,
      ...others.map(
        (url): BlobSource =>
          (headers) =>
            this.foreign(new URL(url), headers),
      ),
    ];
  }

  /** A request to whom a manifest names: it gets no login of ours. */
  private async foreign(url: URL, headers: Record<string, string>): Promise<Answer> {
    url.username = '';
    url.password = '';
    return sendRequest(url, { headers, ...(this.signal === undefined ? {} : { signal: this.signal }) });
  }

  /** The rest of a blob from an offset on. @throws Transient when it ends too early */
  private async *blobFrom(
    source: BlobSource,
    { digest, size }: Descriptor,
    offset: number,
  ): AsyncGenerator<Uint8Array> {
    const about = `@${digest}`;
    const answer = await source(offset === 0 ? {} : { range: `bytes=${offset}-` });
    if (answer.status !== 200 && answer.status !== 206 && answer.status !== 416)
      throw await this.refusal(answer, about);
    const [, from, whole] = /^bytes (?:(\d+)-\d+|\*)\/(\d+|\*)$/.exec(answer.headers.get('content-range') ?? '') ?? [];
    const total = whole === undefined || whole === '*' ? undefined : Number(whole);
    if (answer.status === 416 || (total !== undefined && total !== size)) {
      await answer.discard();
      throw this.damaged(
        about,
        `the blob has ${total ?? 'other than the'} ${total === undefined ? '' : 'instead of '}${size} bytes`,
      );
    }
    const start = answer.status === 206 ? Number(from ?? offset) : 0;
    if (start > offset) throw this.damaged(about, 'it sends another part of the blob than it was asked for');
    if (answer.length !== undefined && start + answer.length !== size && answer.status === 200) {
      throw this.damaged(about, `the blob has ${answer.length} instead of ${size} bytes`);
    }
    let place = start;
    for await (const chunk of answer.chunks()) {
      const end = place + chunk.length;
      if (end > size) throw this.damaged(about, `the blob has more than its ${size} bytes`);
      // A server that knows no ranges sends again what is here already.
      if (end > offset) yield place < offset ? chunk.subarray(offset - place) : chunk;
      place = end;
    }
    if (place < size) throw new Transient(`the transfer ended after ${place} of ${size} bytes`);
  }

  /** Whether the repository has a blob. */
  async hasBlob(digest: string): Promise<boolean> {
    const answer = await this.request({ method: 'HEAD', place: this.blobPlace(digest) }, [200, 404]);
    await answer.discard();
    return answer.status === 200;
  }

  /** Takes a blob over from another repository of the same registry; false when that cannot be done. */
  async mountBlob(digest: string, fromPath: string): Promise<boolean> {
    this.authorization.add(`repository:${fromPath}:pull`);
    const query = new URLSearchParams({ mount: checkedDigest(digest), from: fromPath });
    const request: Request = {
      method: 'POST',
      place: `${this.uploadsPlace()}?${query.toString()}`,
      headers: emptyBody,
    };
    const answer = await this.request(request, [201, 202, 400, 401, 403, 404, 405]);
    await answer.discard();
    if (answer.status === 202) this.uploads.set(digest, this.locationOf(answer));
    return answer.status === 201;
  }

  /**
   * Uploads a blob, from the beginning again when that fails.
   *
   * @param open gives the bytes that the descriptor is about, each time anew; what it throws is thrown
   */
  async uploadBlob(descriptor: Descriptor, open: () => AsyncIterable<Uint8Array>): Promise<void> {
    const about = `@${checkedDigest(descriptor.digest)}`;
    const backoff = new Backoff(this.signal, (why, seconds) => this.tellRetry(why, seconds));
    let inParts = false;
    let isRenewed = false;
    for (;;) {
      try {
        const answer = await (inParts ? this.uploadInParts(descriptor, open) : this.uploadWhole(descriptor, open));
        if (answer.status === 201) {
          await answer.discard();
          return;
        }
        if (answer.status === 401 && !isRenewed) {
          isRenewed = true;
          await answer.discard();
          continue;
        }
        // Some registries take a blob in parts only.
        if (!inParts && [400, 404, 405, 411, 415, 501].includes(answer.status)) {
          inParts = true;
          await answer.discard();
          continue;
        }
        throw await this.refusal(answer, about);
      } catch (error) {
        await this.waitOrThrow(backoff, error, about);
      }
    }
  }

  /** One PUT with everything. */
  private async uploadWhole({ digest, size }: Descriptor, open: () => AsyncIterable<Uint8Array>): Promise<Answer> {
    const place = this.uploads.get(digest) ?? (await this.beginUpload());
    this.uploads.delete(digest);
    place.searchParams.set('digest', digest);
    return this.sendAuthorized({
      method: 'PUT',
      place,
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(size) },
      body: size === 0 ? new Uint8Array() : open(),
    });
  }

  /** A PATCH with everything and a PUT that ends the upload: docker's way. */
  private async uploadInParts({ digest }: Descriptor, open: () => AsyncIterable<Uint8Array>): Promise<Answer> {
    const place = await this.beginUpload();
    const headers = { 'content-type': 'application/octet-stream' };
    const answer = await this.sendAuthorized({ method: 'PATCH', place, headers, body: open() });
    if (answer.status !== 202 && answer.status !== 204) return answer;
    await answer.discard();
    const end = this.locationOf(answer);
    end.searchParams.set('digest', digest);
    return this.attempt({ method: 'PUT', place: end, headers: emptyBody });
  }

  private async beginUpload(): Promise<URL> {
    const answer = await this.request({ method: 'POST', place: this.uploadsPlace(), headers: emptyBody }, [202]);
    await answer.discard();
    return this.locationOf(answer);
  }

  /** Where an upload goes on. A registry behind a proxy may think that it is spoken to in plain text. */
  private locationOf(answer: Answer): URL {
    const location = answer.headers.get('location');
    const url =
      location !== null && URL.canParse(location, answer.url.href) ? new URL(location, answer.url) : undefined;
    if (url === undefined || !/^https?:$/.test(url.protocol))
      throw this.damaged('', 'it does not say where to upload to');
    if (answer.url.protocol === 'https:' && url.protocol === 'http:') {
      if (url.hostname !== answer.url.hostname)
        throw this.damaged('', `it wants uploads to go to ${url.host} in plain text`);
      url.protocol = 'https:';
      url.port = answer.url.port;
    }
    return url;
  }

  /** Stores a manifest or an index and returns its digest. */
  async putManifest(tagOrDigest: string, mediaType: string, body: Uint8Array): Promise<string> {
    const about = suffix(tagOrDigest);
    const headers = { 'content-type': mediaType };
    const place = this.manifestPlace(tagOrDigest);
    const answer = await this.request({ method: 'PUT', place, headers, body, about }, [200, 201]);
    await answer.discard();
    const said = answer.headers.get('docker-content-digest');
    if (said !== null && isDigest(said) && digestOf(body, algorithmOf(said)) !== said)
      throw this.damaged(about, `it has stored the manifest as ${said}, which is not its digest`);
    return isDigest(tagOrDigest) ? tagOrDigest : digestOf(body);
  }

  private manifestPlace(tagOrDigest: string): string {
    if (!isDigest(tagOrDigest) && !/^\w[\w.-]{0,127}$/.test(tagOrDigest))
      throw new MinirunError(`invalid tag or digest "${tagOrDigest}"`);
    return `${this.reference.path}/manifests/${tagOrDigest}`;
  }

  private blobPlace(digest: string): string {
    return `${this.reference.path}/blobs/${checkedDigest(digest)}`;
  }

  private uploadsPlace(): string {
    return `${this.reference.path}/blobs/uploads/`;
  }

  /** A request whose whole answer is read, again when that breaks. */
  private async small(request: Request, limit: number): Promise<{ answer: Answer; body: Buffer }> {
    const backoff = this.backoff();
    for (;;) {
      try {
        const answer = await this.accepted(request, [200]);
        const body = await answer.bytes(limit);
        if (answer.length !== undefined && body.length < Math.min(answer.length, limit))
          throw new Transient('the connection was cut');
        return { answer, body };
      } catch (error) {
        await this.waitOrThrow(backoff, error, request.about ?? '');
      }
    }
  }

  private async request(request: Request, accepted: readonly number[]): Promise<Answer> {
    const backoff = this.backoff();
    for (;;) {
      try {
        return await this.accepted(request, accepted);
      } catch (error) {
        await this.waitOrThrow(backoff, error, request.about ?? '');
      }
    }
  }

  private backoff(): Backoff {
    return new Backoff(this.signal, (why, seconds) => this.tellRetry(why, seconds));
  }

  private tellRetry(why: string, seconds: number): void {
    const wait = seconds < 1 ? '' : ` in ${Math.round(seconds)} s`;
    this.report?.notice(`${this.endpoint.host}: ${why}. Trying again${wait}`);
  }

  private async accepted(request: Request, accepted: readonly number[]): Promise<Answer> {
    const answer = await this.attempt(request);
    if (accepted.includes(answer.status)) return answer;
    throw await this.refusal(answer, request.about ?? '');
  }

  /** Sends a request with what authorizes it, and a second time when that was not (or no longer) enough. */
  private async attempt(request: Request): Promise<Answer> {
    const used = await this.authorization.header();
    const answer = await this.sendAuthorized(request, used);
    if (answer.status !== 401) return answer;
    const renewed = await this.authorization.renewed(answer, used);
    if (renewed === undefined) return answer;
    await answer.discard();
    return this.sendAuthorized(request, renewed);
  }

  private async sendAuthorized({ place, headers, ...request }: Request, header?: string): Promise<Answer> {
    const isOwn = typeof place === 'string' || this.endpoint.isOwn(place);
    const authorization = isOwn ? (header ?? (await this.authorization.header())) : undefined;
    return this.endpoint.send(place, {
      ...request,
      headers: { ...headers, ...(authorization === undefined ? {} : { authorization }) },
      ...(this.signal === undefined ? {} : { signal: this.signal }),
    });
  }

  /** Waits before another attempt, if the error is one that another attempt may not meet; throws it otherwise. */
  private async waitOrThrow(backoff: Backoff, error: unknown, about: string): Promise<void> {
    if (error instanceof NetworkFailure) {
      const isPassing = !error.isUntrusted && (error.isCut || this.endpoint.hasAnswered);
      if (isPassing && (await backoff.wait(new Transient(error.message)))) return;
      throw this.unreachable(about, error);
    }
    if (!(error instanceof Transient)) throw error;
    if (await backoff.wait(error)) return;
    throw error.cause instanceof RegistryError ? error.cause : this.unreachable(about, error);
  }

  private error(kind: RegistryError['kind'], about: string, why: string, remedy?: string): RegistryError {
    return new RegistryError(kind, `cannot ${this.verb} ${this.name}${about}`, why, remedy);
  }

  private damaged(about: string, why: string): RegistryError {
    return this.error('damaged', about, `${this.endpoint.host} sent something wrong: ${why}`);
  }

  private unreachable(about: string, failure: Error): RegistryError {
    const { host } = this.endpoint;
    const how = failure instanceof NetworkFailure ? failure : {};
    return this.error('unreachable', about, `cannot reach ${host}: ${failure.message}`, remedyFor(host, how));
  }

  /** What a refusal means, with the registry's own words. */
  private async refusal(answer: Answer, about: string): Promise<Error> {
    const body = await answer.bytes(largestComplaint).catch(() => Buffer.alloc(0));
    const said = messageIn(body);
    const words = said === undefined ? '' : ` (${said})`;
    const { host } = this.endpoint;
    const login = `minirun login${host === 'docker.io' ? '' : ` ${host}`}`;
    const user = answer.status === 401 || answer.status === 403 ? await this.authorization.user() : undefined;
    if (isTransientStatus(answer.status)) {
      const line = `it answers ${answer.statusLine}${words}`;
      const final =
        answer.status === 429
          ? this.error(
              'refused',
              about,
              `${host} takes no more requests for now${words}`,
              `Try again later, or log in: ${login}`,
            )
          : this.error('refused', about, `${host} answers ${answer.statusLine}${words}`, 'Try again later');
      return new Transient(line, retryAfter(answer.headers.get('retry-after')), { cause: final });
    }
    switch (answer.status) {
      case 401:
      case 403:
        if (user !== undefined)
          return this.error(
            'denied',
            about,
            answer.status === 401
              ? `${host} refuses user ${user}: the password is wrong, or this is not allowed${words}`
              : `${host} does not allow it to user ${user}${words}`,
            `Check the name, or log in again: ${login}`,
          );
        return this.verb === 'pull'
          ? this.error(
              'denied',
              about,
              `there is no such image at ${host}, or it needs a login${words}`,
              `Check the name, or log in: ${login}`,
            )
          : this.error('denied', about, `${host} needs a login${words}`, `Log in: ${login}`);
      case 404:
        return this.error('not-found', about, `${host} has nothing of this name${words}`, 'Check the name');
      default:
        return this.error('refused', about, `${host} answers ${answer.statusLine}${words}`);
    }
  }
}

type BlobSource = (headers: Record<string, string>) => Promise<Answer>;

/** Without it a POST or PUT of nothing has no length, which some servers refuse. */
const emptyBody = { 'content-length': '0' };

function suffix(tagOrDigest: string): string {
  return isDigest(tagOrDigest) ? `@${tagOrDigest}` : `:${tagOrDigest}`;
}

/** @throws MinirunError for what must not become a part of a URL */
function checkedDigest(digest: string): string {
  if (!isDigest(digest)) throw new MinirunError(`invalid digest "${digest}"`);
  return digest;
}

/** Content-Type without its parameters. */
function mediaTypeOf(answer: Answer): string {
  return (answer.headers.get('content-type') ?? '').replace(/;.*$/s, '').trim().toLowerCase();
}
