import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { everything, Workshop } from '../support/oci-images.ts';
import {
  type KeyPair,
  makeCertificate,
  type Registry,
  startRegistry,
  startTokenRegistry,
  type TokenRegistry,
} from '../support/registries.ts';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, hostAddress, type Result, type RunOptions, type World } from '../support/world.ts';

const tools = missingTool('docker-registry', 'buildah', 'skopeo', 'openssl', 'curl');

describe.skipIf(skipOrFail(missingWorld() ?? tools))('credentials for a registry', () => {
  const user = 'me';
  const password = 'pass: wörd/+';
  let world: World;
  let workshop: Workshop;
  let basic: Registry;
  let tokens: TokenRegistry;
  let count = 0;
  /** Docker's directory with config.json, and a state directory; both empty at first. */
  let config: string;
  let root: string;

  beforeAll(async () => {
    world = await createWorld();
    workshop = await Workshop.open(world);
    basic = await startRegistry(world, { port: 5001, users: { [user]: password } });
    tokens = await startTokenRegistry(world, { port: 5010, users: { [user]: password } });
    await workshop.build('image', [
      everything[0] ?? '',
      'echo second >second',
      'echo third >third',
      'echo fourth >fourth',
    ]);
    const credentials = `--dest-creds '${user}:${password}'`;
    for (const place of [
      `${basic.host}/private`,
      `${tokens.registry.host}/private`,
      `${tokens.registry.host}/public`,
    ]) {
      await workshop.sh(`skopeo copy -q ${credentials} containers-storage:localhost/image docker://${place}/image:1`);
    }
  });
  beforeEach(() => {
    count++;
    config = path.join(world.directory, `config-${count}`);
    root = path.join(world.directory, `root-${count}`);
    fs.mkdirSync(config);
    basic.forget();
    tokens.forget();
    tokens.control();
  });
  afterAll(() => world.destroy());

  const run = async (args: readonly string[], { env, ...options }: RunOptions = {}): Promise<Result> =>
    world.run(args, { env: { MINIRUN_ROOT: root, DOCKER_CONFIG: config, ...env }, ...options });
  const expectPulled = async (reference: string, options?: RunOptions): Promise<void> => {
    const { code, stdout, stderr } = await run(['pull', '-q', reference], options);
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: `${reference}\n`, stderr: '' });
    const args = ['run', '--rm', '--network', 'none', '--pull', 'never', reference, 'cat', '/third'];
    expect(await run(args)).toMatchObject({ code: 0, stdout: 'third\n' });
  };
  /** One line that says why, without any secret; nothing is kept. */
  const expectRefused = async (args: readonly string[], why: RegExp, options?: RunOptions): Promise<void> => {
    const { code, stdout, stderr } = await run(args, options);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(why);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stderr).not.toContain(password);
    expect(stderr).not.toContain(Buffer.from(`${user}:${password}`).toString('base64'));
    expect((await run(['images', '-q'])).stdout).toBe('');
  };
  const login = async (host: string, secret = password): Promise<Result> =>
    run(['login', '-u', user, '--password-stdin', host], { input: `${secret}\n` });
  const configuration = (): { auths?: Record<string, Record<string, string>>; [key: string]: unknown } =>
    JSON.parse(fs.readFileSync(path.join(config, 'config.json'), 'utf8')) as ReturnType<typeof configuration>;
  const configure = (value: unknown): void => fs.writeFileSync(path.join(config, 'config.json'), JSON.stringify(value));
  const entry = (name = user, secret = password): { auth: string } => ({
    auth: Buffer.from(`${name}:${secret}`).toString('base64'),
  });

  describe('Basic', () => {
    test('none: refused, with the command to type', async () => {
      await expectRefused(['pull', '-q', `${basic.host}/private/image:1`], /minirun login localhost:5001/);
    });

    test('login, pull, logout', async () => {
      expect(await login(basic.host)).toMatchObject({ code: 0, stdout: 'Login Succeeded\n' });
      expect(fs.statSync(path.join(config, 'config.json')).mode & 0o777).toBe(0o600);
      expect(configuration().auths).toEqual({ [basic.host]: entry() });
      await expectPulled(`${basic.host}/private/image:1`);
      expect(await run(['logout', basic.host])).toMatchObject({
        code: 0,
        stdout: `Removing login credentials for ${basic.host}\n`,
      });
      expect(configuration().auths ?? {}).toEqual({});
      await expectRefusedAfterLogout();
    });
    const expectRefusedAfterLogout = async (): Promise<void> => {
      const { code, stderr } = await run(['run', '--rm', '--pull', 'always', `${basic.host}/private/image:1`]);
      expect(code).toBe(125);
      expect(stderr).toContain('minirun login');
    };

    test('a wrong password is not kept, and what is on file stays', async () => {
      configure({ auths: { 'other.example': entry('x', 'y') }, detachKeys: 'ctrl-x' });
      await expectRefused(
        ['login', '-u', user, '--password-stdin', basic.host],
        /incorrect|unauthorized|refuse|wrong|denied/i,
        { input: 'wrong' },
      );
      expect(configuration()).toEqual({ auths: { 'other.example': entry('x', 'y') }, detachKeys: 'ctrl-x' });
      expect((await login(basic.host)).code).toBe(0);
      expect(configuration()).toEqual({
        auths: { 'other.example': entry('x', 'y'), [basic.host]: entry() },
        detachKeys: 'ctrl-x',
      });
    });

    test('a wrong password on file', async () => {
      configure({ auths: { [basic.host]: entry(user, 'wrong') } });
      await expectRefused(['pull', '-q', `${basic.host}/private/image:1`], /password|login/);
    });

    test('a config.json that is none', async () => {
      fs.writeFileSync(path.join(config, 'config.json'), '{');
      await expectRefused(['pull', '-q', `${basic.host}/private/image:1`], /config\.json/);
    });
  });

  describe('a credential helper', () => {
    /** `docker-credential-test`: keeps one file for each server. */
    const install = (): { env: Record<string, string>; kept: () => string[]; calls: () => string[] } => {
      const directory = path.join(world.directory, `helper-${count}`);
      fs.mkdirSync(path.join(directory, 'kept'), { recursive: true });
      const script = `#!/bin/sh
cd ${directory}; echo "$1" >>calls; input=$(cat)
name() { echo "$1" | tr -c 'a-zA-Z0-9\\n' _; }
case $1 in
get) f=kept/$(name "$input"); [ -e "$f" ] && cat "$f" || { echo 'credentials not found in native keychain'; exit 1; } ;;
store) server=$(echo "$input" | sed 's/.*"ServerURL": *"\\([^"]*\\)".*/\\1/'); echo "$input" >kept/$(name "$server") ;;
erase) rm -f kept/$(name "$input") ;;
esac\n`;
      fs.writeFileSync(path.join(directory, 'docker-credential-test'), script, { mode: 0o755 });
      return {
        env: { PATH: `${directory}:${world.host.env.PATH}` },
        kept: () => fs.readdirSync(path.join(directory, 'kept')),
        calls: () => fs.readFileSync(path.join(directory, 'calls'), 'utf8').trim().split('\n'),
      };
    };

    for (const [title, settings] of [
      ['credsStore', { credsStore: 'test' }],
      ['credHelpers', { credHelpers: { 'localhost:5001': 'test' }, credsStore: 'missing' }],
    ] as const) {
      test(`${title}: login stores, pull gets, logout erases; config.json holds no secret`, async () => {
        configure(settings);
        const { env, kept, calls } = install();
        const input = `${password}\n`;
        const answer = await run(['login', '-u', user, '--password-stdin', basic.host], { env, input });
        expect(answer).toMatchObject({ code: 0, stdout: 'Login Succeeded\n' });
        expect(kept()).toEqual(['localhost_5001']);
        expect(JSON.stringify(configuration())).not.toContain(entry().auth);
        await expectPulled(`${basic.host}/private/image:1`, { env });
        expect((await run(['logout', basic.host], { env })).code).toBe(0);
        expect(kept()).toEqual([]);
        expect([...new Set(calls())]).toEqual(expect.arrayContaining(['store', 'get', 'erase']));
        await run(['rmi', '-f', `${basic.host}/private/image:1`]);
        await expectRefused(['pull', '-q', `${basic.host}/private/image:1`], /minirun login/, { env });
      });
    }

    test('one that is not installed', async () => {
      configure({ credsStore: 'absent' });
      await expectRefused(['pull', '-q', `${basic.host}/private/image:1`], /docker-credential-absent/);
    });
  });

  describe('Bearer', () => {
    const scope = 'repository:private/image:pull';

    test('anonymous, for what is public', async () => {
      await expectPulled(`${tokens.registry.host}/public/image:1`);
      const requests = tokens.tokenRequests();
      expect(requests).toHaveLength(1);
      expect(requests[0]).toMatchObject({
        method: 'GET',
        authorization: null,
        parameters: { service: 'test-registry', scope: 'repository:public/image:pull' },
      });
    });

    test('anonymous, for what is not', async () => {
      await expectRefused(['pull', '-q', `${tokens.registry.host}/private/image:1`], /minirun login localhost:5010/);
    });

    test('of a user', async () => {
      configure({ auths: { [tokens.registry.host]: entry() } });
      await expectPulled(`${tokens.registry.host}/private/image:1`);
      const requests = tokens.tokenRequests();
      expect(requests).toHaveLength(1);
      expect(requests[0]).toMatchObject({ authorization: `Basic ${entry().auth}`, parameters: { scope } });
      // The password goes to the token server alone: the front saw none of it, for the registry wants tokens.
      expect(tokens.registry.requests().length).toBeGreaterThan(0);
    });

    test('as access_token', async () => {
      tokens.control({ field: 'access_token' });
      await expectPulled(`${tokens.registry.host}/public/image:1`);
    });

    test('that expires in mid-pull: a new one is got, nothing is lost', async () => {
      configure({ auths: { [tokens.registry.host]: entry() } });
      // Good for the manifest; at the first blob the front waits until the registry takes it no longer.
      tokens.control({ lifetimes: [2] });
      await expectPulled(`${tokens.registry.host}/private/image:1`);
      expect(tokens.tokenRequests().length).toBeGreaterThanOrEqual(2);
      expect(tokens.tokenRequests().length).toBeLessThanOrEqual(4);
    });

    test('that is never taken: refused after few attempts', async () => {
      configure({ auths: { [tokens.registry.host]: entry() } });
      tokens.control({ lifetimes: Array.from({ length: 100 }, () => -100) });
      await expectRefused(['pull', '-q', `${tokens.registry.host}/private/image:1`], /localhost:5010/);
      expect(tokens.tokenRequests().length).toBeLessThan(5);
    });

    test('wrong password', async () => {
      configure({ auths: { [tokens.registry.host]: entry(user, 'wrong') } });
      await expectRefused(['pull', '-q', `${tokens.registry.host}/private/image:1`], /password|login/);
      expect(tokens.tokenRequests().length).toBeLessThan(3);
    });

    test('a token server that is broken', async () => {
      tokens.control({ status: 403 });
      await expectRefused(['pull', '-q', `${tokens.registry.host}/public/image:1`], /403|denied|refuse/);
    });

    test('an identity token, as docker login keeps it: exchanged, and no password is sent', async () => {
      const form = [
        'grant_type=password',
        'access_type=offline',
        'client_id=docker',
        'service=test-registry',
        `username=${user}`,
      ];
      const asked = form.concat(`password=${password}`).map((each) => `--data-urlencode '${each}'`);
      const answer = JSON.parse(await world.sh(`curl -sSf http://localhost:5011/token ${asked.join(' ')}`)) as Record<
        string,
        string
      >;
      const { refresh_token: identity = '' } = answer;
      expect(identity).toMatch(/^identity-/);
      configure({ auths: { [tokens.registry.host]: { auth: entry(user, '').auth, identitytoken: identity } } });
      tokens.forget();
      await expectPulled(`${tokens.registry.host}/private/image:1`);
      const requests = tokens.tokenRequests();
      expect(requests).toHaveLength(1);
      expect(requests[0]).toMatchObject({
        method: 'POST',
        authorization: null,
        parameters: { grant_type: 'refresh_token', refresh_token: identity, scope, service: 'test-registry' },
      });
    });

    test('login, pull, logout', async () => {
      expect(await login(tokens.registry.host)).toMatchObject({ code: 0, stdout: 'Login Succeeded\n' });
      await expectPulled(`${tokens.registry.host}/private/image:1`);
      expect((await run(['logout', tokens.registry.host])).code).toBe(0);
      expect(configuration().auths ?? {}).toEqual({});
    });

    test('login with a wrong password', async () => {
      await expectRefused(
        ['login', '-u', user, '--password-stdin', tokens.registry.host],
        /incorrect|unauthorized|refuse|wrong|denied/i,
        { input: 'wrong' },
      );
    });
  });

  describe('login', () => {
    test('without --password-stdin and without a terminal: refused before anything is asked', async () => {
      await expectRefused(['login', '-u', user, basic.host], /--password-stdin|terminal/);
      expect(basic.requests()).toEqual([]);
    });

    test('asks in a terminal, and does not show the password', async () => {
      const session = await world.spawn(['login', basic.host], {
        tty: true,
        env: { MINIRUN_ROOT: root, DOCKER_CONFIG: config },
      });
      await session.waitFor(/Username.*: /);
      session.write(`${user}\r`);
      await session.waitFor(/Password: /);
      session.write(`${password}\r`);
      const { code, stdout } = await session.exit;
      expect(code).toBe(0);
      expect(stdout).toContain('Login Succeeded');
      expect(stdout).not.toContain(password);
    });

    test('logout from where nobody is logged in', async () => {
      expect((await run(['logout', basic.host])).code).toBe(0);
    });
  });

  describe('TLS and plain HTTP', () => {
    let ca: KeyPair;
    let secure: Registry;

    beforeAll(async () => {
      ca = await makeCertificate(world, path.join(world.directory, 'authority'));
      const pair = await makeCertificate(world, path.join(world.directory, 'server'), ca);
      secure = await startRegistry(world, { port: 5003, tls: pair });
      await startRegistry(world, { port: 5004, address: hostAddress });
      await workshop.sh(`skopeo copy -q containers-storage:localhost/image docker://${secure.host}/image:1`);
      await workshop.sh(
        `skopeo copy -q --dest-tls-verify=false containers-storage:localhost/image docker://${hostAddress}:5004/image:1`,
      );
    });
    const minirunConfig = (text: string): { env: Record<string, string> } => {
      const file = path.join(config, 'minirun.yaml');
      fs.writeFileSync(file, text);
      return { env: { MINIRUN_CONFIG: file } };
    };

    test('an unknown authority is refused', async () => {
      secure.forget();
      await expectRefused(['pull', '-q', `${secure.host}/image:1`], /certificate/);
      expect(secure.requests().filter(({ uri }) => uri.includes('image'))).toHaveLength(0);
    });

    test('an authority of the config file', async () => {
      await expectPulled(
        `${secure.host}/image:1`,
        minirunConfig(`registries:\n  "${secure.host}":\n    ca: ${ca.certificate}\n`),
      );
    });

    test('an authority of /etc/docker/certs.d', async () => {
      await world.sh(
        `mkdir -p /etc/docker/certs.d/${secure.host}; cp ${ca.certificate} /etc/docker/certs.d/${secure.host}/ca.crt`,
      );
      await expectPulled(`${secure.host}/image:1`);
      await world.sh(`rm -r /etc/docker/certs.d/${secure.host}`);
    });

    test('no verification by --tls-verify=false', async () => {
      expect((await run(['pull', '-q', '--tls-verify=false', `${secure.host}/image:1`])).code).toBe(0);
    });

    test('plain HTTP beyond loopback is refused, unless it is said to be insecure', async () => {
      const reference = `${hostAddress}:5004/image:1`;
      await expectRefused(['pull', '-q', reference], /HTTP|TLS|insecure/i);
      await expectPulled(reference, minirunConfig(`registries:\n  "${hostAddress}:5004":\n    insecure: true\n`));
    });
  });
});
