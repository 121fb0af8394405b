import { createHash } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo, Socket } from 'node:net';

// A registry that does what a test says: content that is put in, faults for chosen requests, a log of all requests.
// In-process for unit tests; fake-registry-main.ts makes a program of it for machines of a fake world.

export interface LoggedRequest {
  method: string;
  /** With the query. */
  path: string;
  headers: Record<string, string>;
  /** What was answered. */
  status: number;
}

/** What goes wrong with a request. Without any field but `match`: nothing, which is good for counting. */
export interface Fault {
  /** Of `METHOD /path?query`, as a regular expression. */
  match: string;
  /** How often; default: always. */
  times?: number;
  /** The first so many matching requests are left alone. */
  skip?: number;
  /** Answers this instead. */
  status?: number;
  headers?: Record<string, string>;
  body?: string;
  /** Cuts the connection after so many bytes of the body. 0: before the answer. */
  cutAt?: number;
  /**
   * Milliseconds of silence before that cut, default 50. Clients throw away what they have not read yet when a
   * connection breaks, so this decides how much gets through; a test that must know uses stallAt and cutStalled.
   */
  linger?: number;
  /** Does not go on after so many bytes of the body, until cutStalled. */
  stallAt?: number;
  /** Sends so many bytes only, and says that this is all. */
  shortenTo?: number;
  /** Sends so many bytes more than there are. */
  lengthenBy?: number;
  /** Changes the byte at this place. */
  flip?: number;
  /** Redirects to this base URL, with the same path. */
  redirect?: string;
  /** Sends everything, whatever part was asked for. */
  ignoreRange?: boolean;
  /** Without Content-Length: in chunks. */
  noLength?: boolean;
}

export interface Login {
  username: string;
  password: string;
}

export interface FakeRegistryOptions {
  host?: string;
  port?: number;
  /** PEM. */
  tls?: { key: string; cert: string };
  /** Who may use it, and how; default: everybody. */
  auth?:
    | ({ type: 'basic' } & Login)
    /** Tokens of its own service at /token; anonymous ones too unless there is a login. */
    | ({
        type: 'bearer';
        /** Seconds, as the service says; default: not said. */
        expiresIn?: number;
        /** How often each token can be used; default: always. */
        uses?: number;
        /** The name of the field; default: token. */
        field?: 'token' | 'access_token';
        /** Base URL of the service, when it is another registry's; default: this one's. */
        service?: string;
        /** Goes for a login, too. */
        identityToken?: string;
      } & Partial<Login>);
}

interface Stored {
  mediaType: string;
  body: Buffer;
}

export class FakeRegistry {
  readonly requests: LoggedRequest[] = [];
  private faults: { fault: Fault; seen: number }[] = [];
  private readonly blobs = new Map<string, Map<string, Buffer>>();
  private readonly manifests = new Map<string, Map<string, Stored>>();
  private readonly uploads = new Map<string, Buffer>();
  private readonly tokens = new Map<string, { scopes: string[]; uses: number }>();
  private readonly stalled = new Set<Socket>();
  private serial = 0;

  private constructor(
    private readonly server: http.Server | https.Server,
    private readonly options: FakeRegistryOptions,
  ) {}

  static async start(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
    const server = options.tls === undefined ? http.createServer() : https.createServer(options.tls);
    const registry = new FakeRegistry(server, options);
    server.on('request', (request: http.IncomingMessage, response: http.ServerResponse) => {
      registry.handle(request, response).catch(() => response.destroy());
    });
    await new Promise<void>((resolve) => server.listen(options.port ?? 0, options.host ?? '127.0.0.1', resolve));
    return registry;
  }

  /** `127.0.0.1:PORT` */
  get host(): string {
    const { address, port } = this.server.address() as AddressInfo;
    return `${address}:${port}`;
  }

  get url(): string {
    return `${this.options.tls === undefined ? 'http' : 'https'}://${this.host}`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Requests as `METHOD /path?query`, of those whose text matches. */
  lines(match = ''): string[] {
    return this.requests.map(({ method, path }) => `${method} ${path}`).filter((line) => line.includes(match));
  }

  fault(fault: Fault): void {
    this.faults.push({ fault, seen: 0 });
  }

  forgetFaults(): void {
    this.faults = [];
  }

  /** Cuts the connections that stand still. */
  cutStalled(): void {
    for (const socket of this.stalled) socket.destroy();
    this.stalled.clear();
  }

  /** No token that was given is good any more. */
  expireTokens(): void {
    this.tokens.clear();
  }

  addBlob(repository: string, body: Buffer): { digest: string; size: number } {
    const digest = digestOf(body);
    inner(this.blobs, repository).set(digest, body);
    return { digest, size: body.length };
  }

  addManifest(repository: string, tag: string | undefined, document: object, mediaType?: string): string {
    const body = Buffer.from(JSON.stringify(document));
    const own = (document as { mediaType?: string }).mediaType;
    const stored = { mediaType: mediaType ?? own ?? 'application/vnd.oci.image.manifest.v1+json', body };
    const digest = digestOf(body);
    const manifests = inner(this.manifests, repository);
    manifests.set(digest, stored);
    if (tag !== undefined) manifests.set(tag, stored);
    return digest;
  }

  /** An image of layers that are there as they are to be sent; returns the digest of its manifest. */
  addImage(
    repository: string,
    tag: string | undefined,
    {
      config,
      layers,
      layerType = 'application/vnd.oci.image.layer.v1.tar+gzip',
    }: { config: object; layers: Buffer[]; layerType?: string },
  ): string {
    return this.addManifest(repository, tag, {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        ...this.addBlob(repository, Buffer.from(JSON.stringify(config))),
      },
      layers: layers.map((layer) => ({ mediaType: layerType, ...this.addBlob(repository, layer) })),
    });
  }

  blob(repository: string, digest: string): Buffer | undefined {
    return this.blobs.get(repository)?.get(digest);
  }

  manifest(repository: string, tagOrDigest: string): Stored | undefined {
    return this.manifests.get(repository)?.get(tagOrDigest);
  }

  private async handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const { method = '', url: path = '' } = request;
    const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
    const logged: LoggedRequest = { method, path, headers, status: 0 };
    this.requests.push(logged);
    const fault = this.faultFor(`${method} ${path}`);
    const body = await readAll(request);
    const reply = this.answer(logged, new URL(path, this.url), body, fault);
    logged.status = reply.status;
    if (await send(request, response, reply, fault)) this.stalled.add(request.socket);
  }

  private faultFor(line: string): Fault | undefined {
    for (const each of this.faults) {
      const { match, times = Number.POSITIVE_INFINITY, skip = 0 } = each.fault;
      if (!new RegExp(match).test(line)) continue;
      each.seen++;
      if (each.seen > skip && each.seen <= skip + times) return each.fault;
    }
    return undefined;
  }

  private answer(request: LoggedRequest, url: URL, body: Buffer, fault: Fault = { match: '' }): Reply {
    if (fault.redirect !== undefined) {
      return { status: 307, headers: { location: `${fault.redirect}${request.path}` }, body: Buffer.alloc(0) };
    }
    if (fault.status !== undefined) {
      return { status: fault.status, headers: { ...fault.headers }, body: Buffer.from(fault.body ?? '') };
    }
    if (url.pathname === '/token') return this.token(request, url, body);
    const place = /^\/v2\/(?:(.+)\/(manifests|blobs)\/(.+))?$/.exec(url.pathname);
    if (place === null) return complaint(404, 'NOT_FOUND', 'no such page');
    const [, repository = '', kind, name = ''] = place;
    const refused = this.refusal(request, repository);
    if (refused !== undefined) return refused;
    if (kind === undefined) return json(200, {});
    const reply =
      kind === 'manifests'
        ? this.manifestReply(request, repository, name, body)
        : this.blobReply(request, repository, name, url, body);
    return { ...reply, headers: { ...reply.headers, ...fault.headers } };
  }

  private manifestReply({ method, headers }: LoggedRequest, repository: string, name: string, body: Buffer): Reply {
    if (method === 'PUT') {
      const digest = digestOf(body);
      const stored = { mediaType: headers['content-type'] ?? '', body };
      inner(this.manifests, repository).set(digest, stored).set(name, stored);
      return { status: 201, headers: { 'docker-content-digest': digest }, body: Buffer.alloc(0) };
    }
    const stored = this.manifest(repository, name);
    if (stored === undefined) return complaint(404, 'MANIFEST_UNKNOWN', 'manifest unknown');
    return {
      status: 200,
      headers: { 'content-type': stored.mediaType, 'docker-content-digest': digestOf(stored.body) },
      body: stored.body,
    };
  }

  private blobReply({ method }: LoggedRequest, repository: string, name: string, url: URL, body: Buffer): Reply {
    if (name.startsWith('uploads/'))
      return this.uploadReply(method, repository, name.slice('uploads/'.length), url, body);
    const blob = this.blob(repository, name);
    if (blob === undefined) return complaint(404, 'BLOB_UNKNOWN', 'blob unknown to registry');
    return { status: 200, headers: { 'content-type': 'application/octet-stream' }, body: blob, isBlob: true };
  }

  private uploadReply(method: string, repository: string, id: string, url: URL, body: Buffer): Reply {
    const created = (digest: string): Reply => ({
      status: 201,
      headers: { location: `/v2/${repository}/blobs/${digest}`, 'docker-content-digest': digest },
      body: Buffer.alloc(0),
    });
    if (method === 'POST') {
      const mount = url.searchParams.get('mount');
      const mounted = mount === null ? undefined : this.blob(url.searchParams.get('from') ?? '', mount);
      if (mounted !== undefined) return created(this.addBlob(repository, mounted).digest);
      const fresh = `upload-${this.serial++}`;
      this.uploads.set(fresh, Buffer.alloc(0));
      return {
        status: 202,
        headers: { location: `/v2/${repository}/blobs/uploads/${fresh}?state=1` },
        body: Buffer.alloc(0),
      };
    }
    const begun = this.uploads.get(id);
    if (begun === undefined) return complaint(404, 'BLOB_UPLOAD_UNKNOWN', 'upload unknown');
    const whole = Buffer.concat([begun, body]);
    this.uploads.set(id, whole);
    if (method === 'PATCH') {
      return {
        status: 202,
        headers: { location: `/v2/${repository}/blobs/uploads/${id}?state=2` },
        body: Buffer.alloc(0),
      };
    }
    this.uploads.delete(id);
    if (url.searchParams.get('digest') !== digestOf(whole))
      return complaint(400, 'DIGEST_INVALID', 'digest does not match');
    return created(this.addBlob(repository, whole).digest);
  }

  private refusal({ method, headers }: LoggedRequest, repository: string): Reply | undefined {
    const { auth } = this.options;
    const given = headers.authorization;
    if (auth === undefined) return undefined;
    if (auth.type === 'basic') {
      if (given === basic(auth)) return undefined;
      return {
        ...complaint(401, 'UNAUTHORIZED', 'authentication required'),
        headers: { 'www-authenticate': 'Basic realm="fake, with a comma"' },
      };
    }
    const action = method === 'GET' || method === 'HEAD' ? 'pull' : 'push';
    const token = this.tokens.get(given?.replace(/^Bearer /, '') ?? '');
    const isAllowed = (scope: string) =>
      scope.startsWith(`repository:${repository}:`) && scope.split(':').at(-1)?.split(',').includes(action);
    if (token !== undefined && token.uses > 0 && (repository === '' || token.scopes.some(isAllowed))) {
      token.uses--;
      return undefined;
    }
    const scope =
      repository === '' ? '' : `,scope="repository:${repository}:${action === 'pull' ? 'pull' : 'pull,push'}"`;
    const challenge = `Bearer realm="${auth.service ?? this.url}/token",service="fake"${scope}`;
    return { ...complaint(401, 'UNAUTHORIZED', 'authentication required'), headers: { 'www-authenticate': challenge } };
  }

  private token({ method, headers }: LoggedRequest, url: URL, body: Buffer): Reply {
    const { auth } = this.options;
    if (auth?.type !== 'bearer') return complaint(404, 'NOT_FOUND', 'no token service');
    const form = method === 'POST' ? new URLSearchParams(body.toString()) : url.searchParams;
    if (method === 'POST') {
      const isRight = form.get('grant_type') === 'refresh_token' && form.get('refresh_token') === auth.identityToken;
      if (!isRight || auth.identityToken === undefined) return json(401, { details: 'invalid identity token' });
    } else if (headers.authorization !== undefined || auth.username !== undefined) {
      const { username = '', password = '' } = auth;
      if (headers.authorization !== basic({ username, password }))
        return json(401, { details: 'incorrect username or password' });
    }
    const value = `token-${this.serial++}`;
    const scopes = form.getAll('scope').flatMap((each) => each.split(' '));
    this.tokens.set(value, { scopes, uses: auth.uses ?? Number.POSITIVE_INFINITY });
    return json(200, {
      [auth.field ?? 'token']: value,
      ...(auth.expiresIn === undefined ? {} : { expires_in: auth.expiresIn }),
    });
  }
}

interface Reply {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
  isBlob?: boolean;
}

/** Whether it stands still now. */
async function send(
  request: http.IncomingMessage,
  response: http.ServerResponse,
  reply: Reply,
  fault: Fault = { match: '' },
): Promise<boolean> {
  const { headers } = reply;
  let { status, body } = reply;
  if (fault.flip !== undefined && fault.flip < body.length) {
    body = Buffer.from(body);
    body[fault.flip] = (body[fault.flip] as number) ^ 1;
  }
  if (fault.shortenTo !== undefined) body = body.subarray(0, fault.shortenTo);
  if (fault.lengthenBy !== undefined) body = Buffer.concat([body, Buffer.alloc(fault.lengthenBy)]);
  const from = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1];
  if (reply.isBlob === true && from !== undefined && fault.ignoreRange !== true) {
    const whole = body.length;
    if (Number(from) >= whole) {
      response.writeHead(416, { 'content-range': `bytes */${whole}`, 'content-length': '0' }).end();
      return false;
    }
    status = 206;
    headers['content-range'] = `bytes ${from}-${whole - 1}/${whole}`;
    body = body.subarray(Number(from));
  }
  if (fault.noLength !== true) headers['content-length'] = String(body.length);
  const limit = fault.cutAt ?? fault.stallAt;
  if (limit === 0 && fault.cutAt === 0) {
    request.socket.destroy();
    return false;
  }
  response.writeHead(status, headers);
  if (request.method === 'HEAD') {
    response.end();
    return false;
  }
  if (limit === undefined || limit >= body.length) {
    response.end(body);
    return false;
  }
  await new Promise<void>((resolve) => response.write(body.subarray(0, limit), () => resolve()));
  if (fault.cutAt === undefined) return true;
  setTimeout(() => request.socket.destroy(), fault.linger ?? 50);
  return false;
}

function json(status: number, document: object): Reply {
  return { status, headers: { 'content-type': 'application/json' }, body: Buffer.from(JSON.stringify(document)) };
}

function complaint(status: number, code: string, message: string): Reply {
  return json(status, { errors: [{ code, message }] });
}

function basic({ username, password }: Login): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

function inner<T>(outer: Map<string, Map<string, T>>, key: string): Map<string, T> {
  let found = outer.get(key);
  if (found === undefined) outer.set(key, (found = new Map()));
  return found;
}

async function readAll(request: http.IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** `sha256:` and hexadecimal digits. */
export function digestOf(body: Uint8Array): string {
  return `sha256:${createHash('sha256').update(body).digest('hex')}`;
}
