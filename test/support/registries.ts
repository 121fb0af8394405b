import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { Settings, TokenControl, TokenRequest } from './token-server.ts';
import type { World } from './world.ts';

/** A request that a registry got. */
export interface RegistryRequest {
  method: string;
  /** Path and query. */
  uri: string;
}

/** A running docker-registry on the loopback of a world's host. It ends with the world, and its files with it. */
export class Registry {
  constructor(
    /** `localhost:PORT` or the address, for names of images. */
    readonly host: string,
    private readonly log: string,
  ) {}

  /** Every request since the last `forget`, in the order of arrival. Complete as soon as the client has its answer. */
  requests(): RegistryRequest[] {
    return readLines<Record<string, string>>(this.log).flatMap((entry) =>
      // Of all that is logged at level debug this alone stands before the answer.
      entry.msg === 'authorizing request'
        ? [{ method: entry['http.request.method'] ?? '', uri: entry['http.request.uri'] ?? '' }]
        : [],
    );
  }

  /** How often each blob was fetched, by its digest. */
  blobFetches(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const { method, uri } of this.requests()) {
      const digest = /\/blobs\/(sha256:[0-9a-f]{64})$/.exec(uri)?.[1];
      if (method === 'GET' && digest !== undefined) counts.set(digest, (counts.get(digest) ?? 0) + 1);
    }
    return counts;
  }

  forget(): void {
    fs.truncateSync(this.log);
  }
}

export interface RegistryOptions {
  port: number;
  /** Password by user: Basic authentication. */
  users?: Record<string, string>;
  /** Serves TLS with this certificate. */
  tls?: KeyPair;
  /** Answers every fetch of a blob with a redirect to this URL and the blob's path in the store. */
  redirect?: string;
  /** Takes tokens of this issuer. */
  token?: { realm: string; service: string; issuer: string; certificate: string };
  /** Address to listen on. */
  address?: string;
}

/** Starts Debian's docker-registry on the world's host and waits until it answers. */
export async function startRegistry(world: World, options: RegistryOptions): Promise<Registry> {
  const { port, users, tls, redirect, token, address = '127.0.0.1' } = options;
  const directory = path.join(world.directory, `registry-${port}`);
  fs.mkdirSync(directory);
  const htpasswd = path.join(directory, 'htpasswd');
  if (users !== undefined) {
    const hashes = Object.entries(users).map(
      ([user, password]) => `${user}:${Bun.password.hashSync(password, { algorithm: 'bcrypt', cost: 4 })}\n`,
    );
    fs.writeFileSync(htpasswd, hashes.join(''));
  }
  const auth = {
    ...(users === undefined ? {} : { htpasswd: { realm: 'test', path: htpasswd } }),
    ...(token === undefined
      ? {}
      : {
          token: {
            realm: token.realm,
            service: token.service,
            issuer: token.issuer,
            rootcertbundle: token.certificate,
          },
        }),
  };
  const config = {
    version: '0.1',
    log: { level: 'debug', formatter: 'json', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: path.join(directory, 'store') } },
    http: {
      addr: `${address}:${port}`,
      relativeurls: true,
      secret: 'test',
      ...(tls === undefined ? {} : { tls: { certificate: tls.certificate, key: tls.key } }),
    },
    ...(Object.keys(auth).length === 0 ? {} : { auth }),
    ...(redirect === undefined
      ? {}
      : { middleware: { storage: [{ name: 'redirect', options: { baseurl: redirect } }] } }),
  };
  // JSON is YAML.
  fs.writeFileSync(path.join(directory, 'config.yml'), JSON.stringify(config));
  const log = path.join(directory, 'log');
  await startServer(world, `exec docker-registry serve ${directory}/config.yml >>${log} 2>&1`, {
    url: `${tls === undefined ? 'http' : 'https'}://${address}:${port}/v2/`,
    log,
  });
  return new Registry(`${address === '127.0.0.1' ? 'localhost' : address}:${port}`, log);
}

/** A registry that wants tokens, and what issues them. */
export interface TokenRegistry {
  registry: Registry;
  /** The requests of tokens since the last `forget`. */
  tokenRequests: () => TokenRequest[];
  /** Changes the answers, and begins to count tokens anew; without an argument all is as at the start. */
  control: (control?: Omit<TokenControl, 'id'>) => void;
  forget: () => void;
}

/** Starts a registry behind a token server. Uses three ports from `port` on. */
export async function startTokenRegistry(
  world: World,
  { port, users }: { port: number; users: Record<string, string> },
): Promise<TokenRegistry> {
  const directory = path.join(world.directory, `tokens-${port}`);
  fs.mkdirSync(directory);
  const pair = await makeCertificate(world, path.join(directory, 'issuer'));
  const settings: Settings = {
    front: port,
    port: port + 1,
    registry: port + 2,
    issuer: 'test issuer',
    key: pair.key,
    certificate: pair.certificate,
    users,
    log: path.join(directory, 'log'),
    control: path.join(directory, 'control'),
  };
  const program = Bun.fileURLToPath(import.meta.resolve('./token-server.ts'));
  const server = await world.host.spawn([process.execPath, program, JSON.stringify(settings)], { timeout: forever });
  await server.waitFor('listening');
  await startRegistry(world, {
    port: port + 2,
    token: {
      realm: `http://localhost:${port + 1}/token`,
      service: 'test-registry',
      issuer: settings.issuer,
      certificate: pair.certificate,
    },
  });
  const registry = new Registry(`localhost:${port}`, path.join(world.directory, `registry-${port + 2}`, 'log'));
  return {
    registry,
    tokenRequests: () => readLines<TokenRequest>(settings.log),
    control: (control = {}) => fs.writeFileSync(settings.control, JSON.stringify({ id: randomUUID(), ...control })),
    forget: () => {
      registry.forget();
      fs.rmSync(settings.log, { force: true });
    },
  };
}

export interface KeyPair {
  /** PEM files. */
  key: string;
  certificate: string;
}

/** Makes a key and a certificate: `BASE.key` and `BASE.crt`, signed by `authority` or by itself. */
export async function makeCertificate(world: World, base: string, authority?: KeyPair): Promise<KeyPair> {
  const names = 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:203.0.113.2';
  const signer = authority === undefined ? '' : `-CA ${authority.certificate} -CAkey ${authority.key}`;
  const purpose = authority === undefined ? '' : '-addext basicConstraints=critical,CA:FALSE';
  await world.sh(
    `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=${path.basename(base)}' ` +
      `-addext '${names}' ${purpose} ${signer} -keyout ${base}.key -out ${base}.crt 2>&1`,
  );
  return { key: `${base}.key`, certificate: `${base}.crt` };
}

const forever = 2 ** 31 - 1;

/** Starts a server by a shell script and waits until its URL answers, whatever that is. */
async function startServer(world: World, script: string, { url, log }: { url: string; log: string }): Promise<void> {
  const server = await world.host.spawn(['sh', '-c', script], { timeout: forever });
  for (const end = Date.now() + 15_000; ; ) {
    const { code } = await world.host.run(['curl', '-sko', '/dev/null', '--max-time', '5', url]);
    if (code === 0) return;
    const alive = fs.existsSync(`/proc/${server.pid}`);
    if (!alive || Date.now() > end) throw new Error(`${url} does not answer: ${fs.readFileSync(log, 'utf8')}`);
  }
}

function readLines<T>(file: string): T[] {
  if (!fs.existsSync(file)) return [];
  const found: T[] = [];
  for (const line of fs.readFileSync(file, 'utf8').split('\n')) {
    if (line.startsWith('{')) found.push(JSON.parse(line) as T);
  }
  return found;
}
