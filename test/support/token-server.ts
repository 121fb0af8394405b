/**
 * A token server as registries have them, and a front for the registry it serves:
 * `bun token-server.ts SETTINGS`, SETTINGS being JSON of `Settings`.
 *
 * What it answers can be changed at any time by the file `control` (`TokenControl`). Each request of a token goes to the
 * log before it is answered. https://distribution.github.io/distribution/spec/auth/token/
 */
import { createPrivateKey, randomUUID, sign } from 'node:crypto';
import fs from 'node:fs';

export interface Settings {
  /** Port of the token server. */
  port: number;
  /** Port of the front: what clients know as the registry. */
  front: number;
  /** Port of the registry itself. */
  registry: number;
  issuer: string;
  /** PEM files. */
  key: string;
  certificate: string;
  /** Password by user. A user may do everything; who has none may pull from `public/…`. */
  users: Record<string, string>;
  log: string;
  control: string;
}

/** What the next answers are like. */
export interface TokenControl {
  /** With another one the counting of tokens begins anew. */
  id?: string;
  /** Seconds for which the next tokens, one each, are good at the registry; those after them 300. */
  lifetimes?: number[];
  /** The field that holds the token. */
  field?: 'token' | 'access_token';
  /** HTTP status of every answer, instead of a token. */
  status?: number;
}

/** A request of a token. */
export interface TokenRequest {
  method: string;
  /** The query's parameters, or the form's. */
  parameters: Record<string, string>;
  authorization: string | null;
}

/** What the registry allows for differing clocks, in seconds: `Leeway` in its registry/auth/token/token.go. */
const leeway = 60;

function serve(settings: Settings): void {
  const key = createPrivateKey(fs.readFileSync(settings.key));
  const certificate = fs
    .readFileSync(settings.certificate, 'utf8')
    .replace(/-----.*-----/g, '')
    .replace(/\s+/g, '');
  /** User by identity token. */
  const identities = new Map<string, string>();
  let counted: string | undefined;
  let given = 0;

  const control = (): TokenControl =>
    fs.existsSync(settings.control) ? (JSON.parse(fs.readFileSync(settings.control, 'utf8')) as TokenControl) : {};

  const tokenFor = (user: string, service: string, scopes: string[]): string => {
    const { id, lifetimes = [] } = control();
    if (id !== counted) given = 0;
    counted = id;
    const lifetime = lifetimes[given++] ?? 300;
    const now = Math.floor(Date.now() / 1000);
    const access = scopes.flatMap((scope) => {
      const [type = '', name = '', actions = ''] = scope.split(':');
      const wanted = actions.split(',');
      const allowed = user !== '' ? wanted : wanted.filter((each) => each === 'pull' && name.startsWith('public/'));
      return allowed.length === 0 ? [] : [{ type, name, actions: allowed }];
    });
    const claims = {
      iss: settings.issuer,
      sub: user,
      aud: service,
      exp: now + lifetime - leeway,
      nbf: now - 10,
      iat: now,
      jti: randomUUID(),
      access,
    };
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const body = `${part({ typ: 'JWT', alg: 'ES256', x5c: [certificate] })}.${part(claims)}`;
    const signature = sign('sha256', Buffer.from(body), { key, dsaEncoding: 'ieee-p1363' });
    return `${body}.${signature.toString('base64url')}`;
  };

  Bun.serve({
    hostname: '127.0.0.1',
    port: settings.port,
    async fetch(request) {
      const authorization = request.headers.get('authorization');
      const url = new URL(request.url);
      const form = request.method === 'POST' ? new URLSearchParams(await request.text()) : url.searchParams;
      const parameters = Object.fromEntries(form);
      const entry: TokenRequest = { method: request.method, parameters, authorization };
      fs.appendFileSync(settings.log, `${JSON.stringify(entry)}\n`);
      const { status, field = 'token' } = control();
      if (status !== undefined) return new Response('no', { status });

      const refused = Response.json(
        { errors: [{ code: 'UNAUTHORIZED', message: 'incorrect username or password' }] },
        { status: 401 },
      );
      let user = '';
      if (request.method === 'POST') {
        if (parameters.grant_type === 'refresh_token') {
          user = identities.get(parameters.refresh_token ?? '') ?? '';
          if (user === '') return refused;
        } else {
          user = parameters.username ?? '';
          if (user === '' || settings.users[user] !== parameters.password) return refused;
        }
      } else if (authorization !== null) {
        const [name = '', password = ''] = Buffer.from(authorization.replace(/^Basic /, ''), 'base64')
          .toString()
          .split(/:(.*)/s);
        if (settings.users[name] !== password) return refused;
        user = name;
      }
      const token = tokenFor(
        user,
        parameters.service ?? '',
        form.getAll('scope').flatMap((scope) => scope.split(' ')),
      );
      const answer: Record<string, unknown> = { [field]: token, expires_in: 300, issued_at: new Date().toISOString() };
      if (request.method === 'POST') answer.access_token = token;
      if (user !== '' && (request.method === 'POST' || parameters.offline_token === 'true')) {
        const identity = parameters.refresh_token ?? `identity-${randomUUID()}`;
        identities.set(identity, user);
        answer.refresh_token = identity;
      }
      return Response.json(answer);
    },
  });

  Bun.serve({
    hostname: '127.0.0.1',
    port: settings.front,
    idleTimeout: 60,
    async fetch(request) {
      const url = new URL(request.url);
      // A token that is about to expire is held back at a blob until it has: the registry then says so itself.
      if (url.pathname.includes('/blobs/')) await expired(request.headers.get('authorization'));
      const headers = new Headers(request.headers);
      const body = request.body === null ? undefined : await request.bytes();
      return fetch(`http://127.0.0.1:${settings.registry}${url.pathname}${url.search}`, {
        method: request.method,
        headers,
        ...(body === undefined ? {} : { body }),
        redirect: 'manual',
        decompress: false,
      });
    },
  });
  process.stdout.write('listening\n');
}

/** Waits for the end of a token that is good for a few seconds only. */
async function expired(authorization: string | null): Promise<void> {
  const payload = /^Bearer [^.]+\.([^.]+)\./.exec(authorization ?? '')?.[1];
  if (payload === undefined) return;
  const { exp } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { exp: number };
  const left = (exp + leeway) * 1000 - Date.now();
  if (left > 10_000) return;
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, left) + 1));
}

if (import.meta.main) serve(JSON.parse(process.argv[2] as string) as Settings);
