import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, type Running, type World } from '../support/world.ts';

const credentials = { username: 'joe', password: 'a secret' };
const stored = Buffer.from('joe:a secret').toString('base64');

describe.skipIf(skipOrFail(missingWorld()))('login and logout', () => {
  let world: World;
  let registry: Running;
  let host: string;
  let file: string;

  beforeAll(async () => {
    world = await createWorld();
    file = path.join(world.directory, '.docker/config.json');
    const config = path.join(world.directory, 'registry.json');
    fs.writeFileSync(config, JSON.stringify({ options: { auth: { type: 'bearer', ...credentials } } }));
    const program = path.resolve(import.meta.dir, '../support/fake-registry-main.ts');
    registry = await world.host.spawn([process.execPath, program, config], { timeout: 2 ** 31 - 1 });
    await registry.waitFor(/listening .*\n/);
    host = /listening (\S+)/.exec(registry.output())?.[1] ?? '';
  });
  afterAll(async () => {
    await world.destroy();
  });

  const read = (): unknown => JSON.parse(fs.readFileSync(file, 'utf8'));
  const write = (content: object): void => {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, JSON.stringify(content));
  };

  test('a password on standard input is checked and kept as docker keeps it, beside what is there', async () => {
    const others = { HttpHeaders: { 'X-Y': 'z' }, auths: { 'other.example': { auth: 'eDp5' } } };
    write(others);
    const { code, stdout, stderr } = await world.run(['login', '-u', 'joe', '--password-stdin', host], {
      input: 'a secret\n',
    });
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'Login Succeeded\n' });
    expect(stderr).toMatch(/^WARNING! Your credentials are stored unencrypted in '.*config\.json'/);
    expect(read()).toEqual({ ...others, auths: { ...others.auths, [host]: { auth: stored } } });
    expect(fs.statSync(file).mode & 0o777).toBe(0o600);
    expect(fs.readdirSync(path.dirname(file))).toEqual(['config.json']);
  });

  test('what is stored is tried again, and logout takes it away', async () => {
    write({ auths: { [host]: { auth: stored }, 'other.example': { auth: 'eDp5' } } });
    const again = await world.run(['login', host], { tty: true });
    expect(again.stdout).toContain('Authenticating with existing credentials');
    expect(again.stdout).toContain('Login Succeeded');
    const { stdout } = await world.run(['logout', host]);
    expect(stdout).toBe(`Removing login credentials for ${host}\n`);
    expect(read()).toEqual({ auths: { 'other.example': { auth: 'eDp5' } } });
    expect((await world.run(['logout', host])).stdout).toBe(`Not logged in to ${host}\n`);
  });

  test('a wrong password is not kept', async () => {
    write({});
    const { code, stdout, stderr } = await world.run(['login', '-u', 'joe', '-p', 'wrong', host]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(
      /^WARNING! Using --password via the CLI is insecure\. Use --password-stdin\.\nminirun: cannot log in to \S+: it refuses user joe \(incorrect username or password\)/,
    );
    expect(read()).toEqual({});
  });

  test('asks on a terminal, and shows no password', async () => {
    write({});
    const login = await world.spawn(['login', host], { tty: true });
    const asked = await login.waitFor(`Username for ${host}: `);
    login.write('joe\r');
    await login.waitFor('Password: ', { from: asked });
    login.write('a secret\r');
    const { code, stdout } = await login.exit;
    expect(code).toBe(0);
    expect(stdout).toContain('joe');
    expect(stdout).toContain('Login Succeeded');
    expect(stdout).not.toContain('a secret');
    expect(read()).toEqual({ auths: { [host]: { auth: stored } } });
  });

  test('Ctrl-C at the password ends it', async () => {
    const login = await world.spawn(['login', '-u', 'joe', host], { tty: true });
    await login.waitFor('Password: ');
    login.write('\x03');
    expect((await login.exit).code).toBe(130);
  });

  test('a credential helper keeps it instead of the file', async () => {
    const helper = path.join(world.directory, 'docker-credential-box');
    fs.writeFileSync(
      helper,
      `#!/bin/sh
cd ${world.directory}
case $1 in
  store) cat > box ;;
  get) cat > asked; [ -e box ] && cat box || { echo 'credentials not found in native keychain'; exit 1; } ;;
  erase) cat > erased; rm -f box ;;
esac
`,
      { mode: 0o755 },
    );
    const env = { PATH: `${world.directory}:${world.host.env.PATH}` };
    write({ credsStore: 'nosuch', credHelpers: { [host]: 'box' } });
    const { code, stdout, stderr } = await world.run(['login', '-u', 'joe', '--password-stdin', host], {
      input: 'a secret',
      env,
    });
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'Login Succeeded\n', stderr: '' });
    const box = JSON.parse(fs.readFileSync(path.join(world.directory, 'box'), 'utf8')) as unknown;
    expect(box).toEqual({ ServerURL: host, Username: 'joe', Secret: 'a secret' });
    expect(read()).toEqual({ credsStore: 'nosuch', credHelpers: { [host]: 'box' } });
    expect((await world.run(['login', host], { env, tty: true })).stdout).toContain('Login Succeeded');
    expect(fs.readFileSync(path.join(world.directory, 'asked'), 'utf8')).toBe(host);
    expect((await world.run(['logout', host], { env })).stdout).toBe(`Removing login credentials for ${host}\n`);
    expect(fs.readFileSync(path.join(world.directory, 'erased'), 'utf8')).toBe(host);
    const missing = await world.run(['logout', 'other.example'], { env });
    expect(missing.stderr).toMatch(
      /cannot run docker-credential-nosuch: this machine has none\. Install it, or take "nosuch" out of/,
    );
  });

  test('a file that is a link stays one', async () => {
    const real = path.join(world.directory, 'real.json');
    fs.writeFileSync(real, '{}');
    fs.rmSync(file, { force: true });
    fs.symlinkSync(real, file);
    await world.run(['login', '-u', 'joe', '--password-stdin', host], { input: 'a secret' });
    expect(fs.lstatSync(file).isSymbolicLink()).toBe(true);
    expect(JSON.parse(fs.readFileSync(real, 'utf8'))).toEqual({ auths: { [host]: { auth: stored } } });
    fs.rmSync(file);
  });

  const refusals: [title: string, args: string[], says: RegExp][] = [
    ['no terminal', ['login', 'registry.example'], /there is no terminal to ask on\. Use --username/],
    ['a password without a user', ['login', '-p', 'x'], /Add --username/],
    ['standard input without a user', ['login', '--password-stdin'], /Add --username/],
    ['two passwords', ['login', '-u', 'x', '-p', 'x', '--password-stdin'], /exclude each other/],
    ['no registry', ['login', '-u', 'x', '-p', 'x', 'registry'], /invalid registry "registry"/],
    ['an odd --tls-verify', ['login', '--tls-verify=maybe', '-u', 'x', '-p', 'x'], /neither true nor false/],
    [
      'nobody there',
      ['login', '-u', 'x', '-p', 'x', 'localhost:1'],
      /cannot log in to localhost:1: connection refused/,
    ],
    [
      'no network',
      ['login', '-u', 'x', '-p', 'x', '203.0.113.1:81'],
      /cannot log in to 203\.0\.113\.1:81: connection refused/,
    ],
  ];

  test.each(refusals)('refuses: %s', async (_, args, says) => {
    const { code, stdout, stderr } = await world.run(args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(says);
    expect(fs.existsSync(file)).toBe(false);
  });

  test('a damaged file is named, not overwritten', async () => {
    fs.writeFileSync(file, '{"auths":');
    const { code, stderr } = await world.run(['login', '-u', 'joe', '--password-stdin', host], { input: 'a secret' });
    expect(code).toBe(1);
    expect(stderr).toMatch(/cannot use the logins in .*config\.json: it is not JSON/);
    expect(fs.readFileSync(file, 'utf8')).toBe('{"auths":');
  });
});
