import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { openRepository, pullSources, type Repository } from '../../../../src/image/registry/repository.ts';
import { digestOf, FakeRegistry, type FakeRegistryOptions } from '../../../support/fake-registry.ts';

// What the client does, seen by the registry.

const name = 'team/tool';
const layer = randomBytes(100_000);
const descriptor = {
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  digest: digestOf(layer),
  size: layer.length,
};
const blobPlace = `/v2/${name}/blobs/${descriptor.digest}`;

let directory: string;
const registries: FakeRegistry[] = [];
const environment = { ...process.env };

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-unit-'));
  Object.assign(process.env, { DOCKER_CONFIG: directory, MINIRUN_RETRY_BASE_MS: '1' });
  delete process.env.MINIRUN_CONFIG;
  delete process.env.REGISTRY_AUTH_FILE;
});

afterEach(async () => {
  for (const registry of registries.splice(0)) await registry.stop();
  fs.rmSync(directory, { recursive: true });
  for (const key of ['DOCKER_CONFIG', 'MINIRUN_RETRY_BASE_MS', 'MINIRUN_CONFIG', 'HTTP_PROXY', 'http_proxy']) {
    if (environment[key] === undefined) delete process.env[key];
    else process.env[key] = environment[key];
  }
});

async function start(options?: FakeRegistryOptions): Promise<FakeRegistry> {
  const registry = await FakeRegistry.start(options);
  registries.push(registry);
  registry.addImage(name, 'latest', { config: {}, layers: [layer] });
  return registry;
}

const notices: string[] = [];
const report = { notice: (line: string) => void notices.push(line) };

async function open(
  registry: FakeRegistry,
  more: { push?: true; insecure?: true; signal?: AbortSignal } = {},
): Promise<Repository> {
  notices.length = 0;
  const { push, ...options } = more;
  return openRepository(
    { domain: registry.host, path: name },
    { actions: push ? 'pull,push' : 'pull', report, ...options },
  );
}

async function bytesOf(
  repository: Repository,
  wanted = descriptor,
  onChunk?: (offset: number) => void,
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let offset = 0;
  for await (const chunk of repository.blob(wanted)) {
    chunks.push(chunk);
    offset += chunk.length;
    onChunk?.(offset);
  }
  return Buffer.concat(chunks);
}

/** Reads the blob, and cuts each connection that stands still as soon as all that came over it has been read. */
async function bytesWithCuts(repository: Repository, servers: FakeRegistry[], every: number): Promise<Buffer> {
  return bytesOf(repository, descriptor, (offset) => {
    if (offset % every === 0) for (const server of servers) server.cutStalled();
  });
}

function logIn(registry: FakeRegistry, login: object): void {
  fs.writeFileSync(path.join(directory, 'config.json'), JSON.stringify({ auths: { [registry.host]: login } }));
}

const auth = (text: string) => ({ auth: Buffer.from(text).toString('base64') });

/** The Range of each request, empty for none. */
function rangesOf(registry: FakeRegistry): string[] {
  return registry.requests.map(({ headers }) => headers.range ?? '');
}

/** The message of what a promise is rejected with; fails when it is not. */
async function failure(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: Error) => error.message,
  );
}

describe('reading', () => {
  test('a manifest by tag and by digest, one request each', async () => {
    const registry = await start();
    const repository = await open(registry);
    const head = await repository.headManifest('latest');
    const byTag = await repository.manifest('latest');
    expect(head).toEqual({ digest: byTag.digest, mediaType: byTag.mediaType, size: byTag.body.length });
    expect((await repository.manifest(byTag.digest)).body).toEqual(byTag.body);
    expect(registry.lines()).toEqual([
      `HEAD /v2/${name}/manifests/latest`,
      `GET /v2/${name}/manifests/latest`,
      `GET /v2/${name}/manifests/${byTag.digest}`,
    ]);
    const headers = registry.requests[1]?.headers ?? {};
    expect(headers.accept).toContain('application/vnd.oci.image.index.v1+json');
    expect(headers['accept-encoding']).toBe('identity');
    expect(headers['user-agent']).toMatch(/^minirun\/\d/);
    expect(headers.authorization).toBeUndefined();
  });

  test('a manifest that is not what it is called is refused', async () => {
    const registry = await start();
    const repository = await open(registry);
    const { digest } = await repository.manifest('latest');
    registry.fault({ match: 'GET .*/manifests/', flip: 30 });
    expect(await failure(repository.manifest(digest))).toMatch(/its manifest is not the one of sha256:/);
    registry.forgetFaults();
    registry.fault({ match: 'GET .*/manifests/', headers: { 'docker-content-digest': `sha256:${'0'.repeat(64)}` } });
    expect(await failure(repository.manifest('latest'))).toMatch(/its manifest is not the one of sha256:0000/);
    registry.forgetFaults();
    registry.fault({ match: 'GET .*/manifests/', headers: { 'docker-content-digest': 'sha256:../x' } });
    expect(await failure(repository.manifest('latest'))).toMatch(/what is no digest/);
    registry.forgetFaults();
    registry.fault({ match: 'GET .*/manifests/', lengthenBy: 4 * 1024 * 1024 });
    expect(await failure(repository.manifest('latest'))).toMatch(/4 MiB/);
  });

  test('a registry that does not say digests', async () => {
    const registry = await start();
    const repository = await open(registry);
    registry.fault({ match: 'HEAD', status: 405 });
    expect(await repository.headManifest('latest')).toBeUndefined();
  });

  test('what is not there', async () => {
    const repository = await open(await start());
    expect(await failure(repository.manifest('nix'))).toMatch(
      /cannot pull .*team\/tool:nix: .* nothing of this name \(manifest unknown\)/,
    );
    expect(await failure(repository.headManifest('nix'))).toMatch(/nothing of this name/);
    expect(await repository.hasBlob(`sha256:${'0'.repeat(64)}`)).toBe(false);
    expect(await repository.hasBlob(descriptor.digest)).toBe(true);
  });

  test('nothing that is no tag or digest becomes a URL', async () => {
    const registry = await start();
    const repository = await open(registry);
    for (const bad of ['../x', 'a/b', 'sha256:00', '', 'a?b']) {
      expect(await failure(repository.manifest(bad))).toMatch(/invalid tag or digest/);
    }
    expect(await failure(bytesOf(repository, { ...descriptor, digest: '../../x' }))).toMatch(/invalid digest/);
    expect(registry.requests).toEqual([]);
  });

  test('an empty blob', async () => {
    const registry = await start();
    const empty = registry.addBlob(name, Buffer.alloc(0));
    expect(await bytesOf(await open(registry), { ...descriptor, ...empty })).toEqual(Buffer.alloc(0));
  });
});

describe('broken transfers', () => {
  test('go on where they broke, at every tenth', async () => {
    const registry = await start();
    const repository = await open(registry);
    for (let tenth = 1; tenth < 10; tenth++) {
      registry.forgetFaults();
      registry.requests.length = 0;
      const stallAt = (tenth * layer.length) / 10;
      registry.fault({ match: 'GET .*/blobs/', stallAt, times: 1 });
      expect(digestOf(await bytesWithCuts(repository, [registry], stallAt))).toBe(descriptor.digest);
      expect(rangesOf(registry)).toEqual(['', `bytes=${stallAt}-`]);
    }
  });

  test('begin again when nothing has come', async () => {
    const registry = await start();
    registry.fault({ match: 'GET .*/blobs/', cutAt: 0, times: 1 });
    expect(digestOf(await bytesOf(await open(registry)))).toBe(descriptor.digest);
    expect(rangesOf(registry)).toEqual(['', '']);
  });

  test('begin anew where the server knows no ranges', async () => {
    const registry = await start();
    registry.fault({ match: 'GET .*/blobs/', stallAt: 60_000, times: 1 });
    registry.fault({ match: 'GET .*/blobs/', ignoreRange: true });
    expect(digestOf(await bytesWithCuts(await open(registry), [registry], 60_000))).toBe(descriptor.digest);
    expect(rangesOf(registry)).toEqual(['', 'bytes=60000-']);
  });

  test('progress gives them all attempts again', async () => {
    const registry = await start();
    registry.fault({ match: 'GET .*/blobs/', stallAt: 5000, times: 12 });
    expect(digestOf(await bytesWithCuts(await open(registry), [registry], 5000))).toBe(descriptor.digest);
    expect(registry.requests).toHaveLength(13);
  });

  test('end after five attempts without progress', async () => {
    const registry = await start();
    registry.fault({ match: 'GET .*/blobs/', stallAt: 5000, times: 1 });
    registry.fault({ match: 'GET .*/blobs/', cutAt: 0 });
    const reading = bytesWithCuts(await open(registry), [registry], 5000);
    expect(await failure(reading)).toMatch(/cannot reach .*: the connection was cut/);
    expect(rangesOf(registry)).toEqual(['', ...Array.from({ length: 5 }, () => 'bytes=5000-')]);
  });

  test.each([
    [{ shortenTo: 500 }, /500 instead of 100000 bytes/],
    [{ shortenTo: 500, noLength: true }, /500 instead of 100000 bytes/],
    [{ lengthenBy: 1 }, /100001 instead of 100000 bytes/],
    [{ lengthenBy: 1, noLength: true }, /more than its 100000 bytes/],
  ])('of a wrong length are refused: %j', async (fault, message) => {
    const registry = await start();
    registry.fault({ match: 'GET .*/blobs/', ...fault });
    expect(await failure(bytesOf(await open(registry)))).toMatch(message);
  });

  test('end at once with their signal', async () => {
    const registry = await start();
    registry.fault({ match: 'GET .*/blobs/', stallAt: 1000 });
    const controller = new AbortController();
    const reading = (async () => {
      for await (const _ of (await open(registry, { signal: controller.signal })).blob(descriptor))
        controller.abort(new Error('cancelled'));
    })();
    expect(await failure(reading)).toBe('cancelled');
  });
});

describe('a busy registry', () => {
  test('is asked again', async () => {
    const registry = await start();
    registry.fault({ match: 'manifests', status: 500, times: 3 });
    await (await open(registry)).manifest('latest');
    expect(registry.requests.map(({ status }) => status)).toEqual([500, 500, 500, 200]);
    expect(notices[0]).toBe(`${registry.host}: it answers 500 Internal Server Error. Trying again`);
  });

  test('says when', async () => {
    const registry = await start();
    registry.fault({ match: 'manifests', status: 429, times: 1, headers: { 'retry-after': '1' } });
    const started = performance.now();
    await (await open(registry)).manifest('latest');
    expect(performance.now() - started).toBeGreaterThanOrEqual(990);
    expect(notices).toEqual([`${registry.host}: it answers 429 Too Many Requests. Trying again in 1 s`]);
  });

  test('is left alone in the end, with its own words', async () => {
    const registry = await start();
    registry.fault({ match: 'manifests', status: 429, body: '{"errors":[{"message":"pull rate limit"}]}' });
    expect(await failure((await open(registry)).manifest('latest'))).toMatch(
      /takes no more requests for now \(pull rate limit\)\. Try again later, or log in/,
    );
    expect(registry.requests).toHaveLength(6);
  });

  test('other refusals are final', async () => {
    const registry = await start();
    registry.fault({ match: 'manifests', status: 418 });
    expect(await failure((await open(registry)).manifest('latest'))).toMatch(/answers 418/);
    expect(registry.requests).toHaveLength(1);
  });

  test('where nobody listens there is no second attempt', async () => {
    const registry = await start();
    const repository = await open(registry);
    await registry.stop();
    registries.pop();
    expect(await failure(repository.manifest('latest'))).toMatch(/connection refused/);
    expect(notices).toEqual([]);
  });
});

describe('logins', () => {
  test('Basic', async () => {
    const registry = await start({ auth: { type: 'basic', username: 'joe', password: 'a:b' } });
    logIn(registry, auth('joe:a:b'));
    const repository = await open(registry);
    await repository.manifest('latest');
    await bytesOf(repository);
    expect(registry.requests.map(({ status }) => status)).toEqual([401, 200, 200]);
  });

  test('nobody, and a wrong password', async () => {
    const options: FakeRegistryOptions = { auth: { type: 'basic', username: 'joe', password: 'secret' } };
    const registry = await start(options);
    expect(await failure((await open(registry)).manifest('latest'))).toMatch(
      /there is no such image at .*, or it needs a login \(authentication required\)\. Check the name, or log in: minirun login 127/,
    );
    const other = await start(options);
    logIn(other, auth('joe:wrong'));
    const message = await failure((await open(other)).manifest('latest'));
    expect(message).toMatch(/refuses user joe/);
    expect(message).not.toContain('wrong:');
    expect(other.requests).toHaveLength(2);
  });

  test.each(['token', 'access_token'] as const)('Bearer, anonymous, in the field %s', async (field) => {
    const registry = await start({ auth: { type: 'bearer', field } });
    const repository = await open(registry);
    await repository.manifest('latest');
    await bytesOf(repository);
    expect(registry.requests.map(({ method, path: place, status }) => [method, place, status])).toEqual([
      ['GET', `/v2/${name}/manifests/latest`, 401],
      ['GET', `/token?service=fake&scope=${encodeURIComponent(`repository:${name}:pull`)}`, 200],
      ['GET', `/v2/${name}/manifests/latest`, 200],
      ['GET', blobPlace, 200],
    ]);
  });

  test('Bearer with a password, which goes to the token service only', async () => {
    const registry = await start({ auth: { type: 'bearer', username: 'joe', password: 'secret' } });
    logIn(registry, auth('joe:secret'));
    await (await open(registry)).manifest('latest');
    const token = registry.requests.find(({ path: place }) => place.startsWith('/token'));
    expect(token?.path).toContain('account=joe');
    expect(token?.headers.authorization).toBe(`Basic ${auth('joe:secret').auth}`);
    const others = registry.requests.filter(({ path: place }) => !place.startsWith('/token'));
    expect(others.map(({ headers }) => headers.authorization?.split(' ')[0] ?? 'none')).toEqual(['none', 'Bearer']);
  });

  test('Bearer with a wrong password', async () => {
    const registry = await start({ auth: { type: 'bearer', username: 'joe', password: 'secret' } });
    logIn(registry, auth('joe:wrong'));
    expect(await failure((await open(registry)).manifest('latest'))).toMatch(
      /refuses user joe \(incorrect username or password\)/,
    );
  });

  test('an identity token', async () => {
    const registry = await start({ auth: { type: 'bearer', field: 'access_token', identityToken: 'id-token' } });
    logIn(registry, { identitytoken: 'id-token' });
    await (await open(registry)).manifest('latest');
    expect(registry.lines('/token')).toEqual(['POST /token']);
  });

  test('a token that expires in mid-pull is renewed, once a request, once for all', async () => {
    const registry = await start({ auth: { type: 'bearer' } });
    const repository = await open(registry);
    await repository.manifest('latest');
    registry.expireTokens();
    registry.requests.length = 0;
    const all = await Promise.all(Array.from({ length: 8 }, () => bytesOf(repository)));
    expect(new Set(all.map(digestOf))).toEqual(new Set([descriptor.digest]));
    expect(registry.lines('/token')).toHaveLength(1);
  });

  test('a token that is never good is not asked for again and again', async () => {
    const registry = await start({ auth: { type: 'bearer', uses: 0 } });
    expect(await failure((await open(registry)).manifest('latest'))).toMatch(/or it needs a login/);
    expect(registry.lines('/token')).toHaveLength(1);
  });

  test('a token service in plain text elsewhere gets nothing', async () => {
    const registry = await start({ auth: { type: 'bearer', service: 'http://203.0.113.9' } });
    logIn(registry, auth('joe:secret'));
    expect(await failure((await open(registry)).manifest('latest'))).toMatch(
      /token service 203\.0\.113\.9 is plain HTTP/,
    );
  });
});

describe('redirects', () => {
  test('never take Authorization to another host', async () => {
    const registry = await start({ auth: { type: 'bearer' } });
    const store = await start();
    registry.fault({ match: 'GET .*/blobs/', redirect: store.url });
    store.fault({ match: 'GET .*/blobs/', stallAt: 10_000, times: 1 });
    const repository = await open(registry);
    await repository.manifest('latest');
    registry.requests.length = 0;
    const bytes = await bytesWithCuts(repository, [store], 10_000);
    expect(digestOf(bytes)).toBe(descriptor.digest);
    expect(store.requests.map(({ headers }) => headers.authorization ?? 'none')).toEqual(['none', 'none']);
    expect(rangesOf(store)).toEqual(['', 'bytes=10000-']);
    const given = registry.requests.map(({ headers }) => headers.authorization ?? 'none');
    expect(given).toEqual([expect.stringMatching(/^Bearer token-/), expect.stringMatching(/^Bearer token-/)]);
  });

  test('do not bring it back either', async () => {
    const registry = await start({ auth: { type: 'basic', username: 'joe', password: 'secret' } });
    logIn(registry, auth('joe:secret'));
    const store = await start();
    registry.fault({ match: 'GET .*/blobs/', times: 1, skip: 1, redirect: store.url });
    store.fault({ match: 'GET .*/blobs/', redirect: registry.url });
    expect(await failure(bytesOf(await open(registry)))).toMatch(/refuses user joe/);
    const last = registry.requests.at(-1);
    expect(last?.headers.authorization).toBeUndefined();
    expect(last?.status).toBe(401);
  });

  test('have an end', async () => {
    const registry = await start();
    registry.fault({ match: 'GET .*/blobs/', redirect: registry.url });
    const repository = await open(registry);
    expect(await failure(bytesOf(repository))).toMatch(/redirects more than 10 times/);
  });

  test('elsewhere than to web servers are refused', async () => {
    const registry = await start();
    registry.fault({ match: 'GET .*/manifests/', status: 302, headers: { location: 'file:///etc/shadow' } });
    expect(await failure((await open(registry)).manifest('latest'))).toMatch(/no web server/);
  });
});

test('a layer that must not be redistributed comes from its URL, without a login', async () => {
  const registry = await start({ auth: { type: 'basic', username: 'joe', password: 'secret' } });
  logIn(registry, auth('joe:secret'));
  const elsewhere = await start();
  const foreign = randomBytes(1000);
  const { digest } = elsewhere.addBlob('x', foreign);
  const repository = await open(registry);
  const wanted = {
    ...descriptor,
    mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    digest,
    size: 1000,
    urls: ['file:///etc/passwd', `${elsewhere.url.replace('//', '//user:pass@')}/v2/x/blobs/${digest}`],
  };
  expect(await bytesOf(repository, wanted)).toEqual(foreign);
  expect(elsewhere.requests.map(({ headers }) => headers.authorization ?? 'none')).toEqual(['none']);
  // What is no such layer does not lead us anywhere.
  elsewhere.requests.length = 0;
  expect(await failure(bytesOf(repository, { ...wanted, mediaType: descriptor.mediaType }))).toMatch(
    /nothing of this name/,
  );
  expect(elsewhere.requests).toEqual([]);
});

describe('pushing', () => {
  const blob = randomBytes(300_000);
  const pushed = { mediaType: descriptor.mediaType, digest: digestOf(blob), size: blob.length };
  async function* parts(): AsyncGenerator<Uint8Array> {
    for (let place = 0; place < blob.length; place += 65_536) yield blob.subarray(place, place + 65_536);
  }

  test('a blob in one piece, of a known length', async () => {
    const registry = await start({ auth: { type: 'bearer' } });
    await (await open(registry, { push: true })).uploadBlob(pushed, parts);
    expect(registry.blob(name, pushed.digest)).toEqual(blob);
    const put = registry.requests.find(({ method }) => method === 'PUT');
    expect(put?.headers['content-length']).toBe('300000');
    expect(decodeURIComponent(registry.lines('/token')[0] ?? '')).toContain(`repository:${name}:pull,push`);
  });

  test('in parts where the registry wants that, and again after a failure', async () => {
    const registry = await start();
    registry.fault({ match: 'PUT .*uploads', status: 405, times: 1 });
    registry.fault({ match: 'PATCH', status: 500, times: 1 });
    await (await open(registry, { push: true })).uploadBlob(pushed, parts);
    expect(registry.blob(name, pushed.digest)).toEqual(blob);
    expect(registry.requests.map(({ method }) => method)).toEqual([
      'POST',
      'PUT',
      'POST',
      'PATCH',
      'POST',
      'PATCH',
      'PUT',
    ]);
  });

  test('what cannot be read is not tried again', async () => {
    const registry = await start();
    const broken = async function* (): AsyncGenerator<Uint8Array> {
      yield blob.subarray(0, 1000);
      throw new Error('disk on fire');
    };
    expect(await failure((await open(registry, { push: true })).uploadBlob(pushed, broken))).toBe('disk on fire');
    expect(registry.lines('PUT').length).toBeLessThanOrEqual(1);
  });

  test('a blob of another repository is mounted; where that fails, its upload has begun', async () => {
    const registry = await start();
    registry.addBlob('other/tool', blob);
    const repository = await open(registry, { push: true });
    expect(await repository.mountBlob(pushed.digest, 'other/tool')).toBe(true);
    expect(registry.blob(name, pushed.digest)).toEqual(blob);
    const more = randomBytes(10);
    const moreOf = { ...pushed, digest: digestOf(more), size: 10 };
    expect(await repository.mountBlob(moreOf.digest, 'other/tool')).toBe(false);
    await repository.uploadBlob(moreOf, async function* () {
      yield more;
    });
    expect(registry.blob(name, moreOf.digest)).toEqual(more);
    expect(registry.requests.map(({ method }) => method)).toEqual(['POST', 'POST', 'PUT']);
  });

  test('a manifest', async () => {
    const registry = await start();
    const repository = await open(registry, { push: true });
    const { mediaType, body, digest } = await repository.manifest('latest');
    expect(await repository.putManifest('v2', mediaType, body)).toBe(digest);
    expect(registry.manifest(name, 'v2')).toEqual({ mediaType, body });
  });
});

describe('mirrors', () => {
  test('come first, in their order, with the name of the registry', async () => {
    const mirror = await start();
    const config = path.join(directory, 'config.yaml');
    const mirrors = [`${mirror.url}`, `${mirror.url}/cache`, `${mirror.url}/v2/hub`];
    fs.writeFileSync(config, JSON.stringify({ registries: { 'registry.example': { mirrors } } }));
    process.env.MINIRUN_CONFIG = config;
    const sources = await pullSources({ domain: 'registry.example', path: name });
    expect(sources.map(({ name: shown, isMirror }) => [shown, isMirror])).toEqual([
      [`mirror ${mirror.host}`, true],
      [`mirror ${mirror.host}`, true],
      [`mirror ${mirror.host}`, true],
      ['registry.example', false],
    ]);
    for (const source of sources.slice(0, 3)) await (await source.open({})).manifest('latest').catch(() => {});
    expect(mirror.lines()).toEqual([
      `GET /v2/${name}/manifests/latest?ns=registry.example`,
      `GET /cache/v2/${name}/manifests/latest?ns=registry.example`,
      `GET /v2/hub/${name}/manifests/latest?ns=registry.example`,
    ]);
  });
});

test('this machine is never asked for through a proxy', async () => {
  process.env.HTTP_PROXY = 'http://127.0.0.1:1';
  process.env.http_proxy = 'http://127.0.0.1:1';
  await (await open(await start())).manifest('latest');
});

describe('TLS', () => {
  /** A certificate for localhost, signed by an authority of its own. */
  function certificate(): { key: string; cert: string; ca: string } {
    const run = (script: string) => execFileSync('sh', ['-ec', script], { cwd: directory, stdio: 'ignore' });
    run(`openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
      openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out csr -subj /CN=localhost
      echo subjectAltName=DNS:localhost > ext
      openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -out cert -days 2 -extfile ext`);
    const read = (file: string) => fs.readFileSync(path.join(directory, file), 'utf8');
    return { key: read('key'), cert: read('cert'), ca: path.join(directory, 'ca.crt') };
  }

  test('is found out, and trusted as the user says', async () => {
    const { ca, ...tls } = certificate();
    const trusting = async (settings: object, insecure: boolean) => {
      const registry = await start({ tls });
      const domain = registry.host.replace('127.0.0.1', 'localhost');
      const config = path.join(directory, `${registry.host}.yaml`);
      fs.writeFileSync(config, JSON.stringify({ registries: { [domain]: settings } }));
      process.env.MINIRUN_CONFIG = config;
      const repository = await openRepository({ domain, path: name }, { actions: 'pull', insecure });
      return (await repository.manifest('latest')).mediaType;
    };
    expect(await failure(trusting({}, false))).toMatch(
      /certificate is from an authority that this machine does not trust\. Put the certificate of the authority into \/etc\/docker\/certs\.d\/localhost:/,
    );
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    expect(await trusting({ ca }, false)).toBe(mediaType);
    expect(await trusting({ insecure: true }, false)).toBe(mediaType);
    expect(await trusting({}, true)).toBe(mediaType);
    expect(await failure(trusting({ ca: '/nix/ca.crt' }, false))).toMatch(
      /cannot read the certificates in \/nix\/ca\.crt/,
    );
  });
});
