import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { MinirunError, messageOf } from '../../errors.ts';
import { runTool } from '../../host/exec.ts';
import { which } from '../../host/launch.ts';

/** How to prove to a registry who we are. */
export type Credentials = { username: string; password: string } | { identityToken: string };

/** What this program knows of docker's `config.json`; everything else in it stays as it is. */
interface DockerConfig {
  auths?: Record<string, { auth?: string; username?: string; password?: string; identitytoken?: string } | null>;
  credsStore?: string;
  credHelpers?: Record<string, string>;
}

/** Under what docker keeps the login for docker.io. */
const dockerHubKey = 'https://index.docker.io/v1/';

const keyOf = (host: string): string => (host === 'docker.io' ? dockerHubKey : host);

/** Where logins are written, and read first: docker's own place. */
function loginFile(): string {
  return path.join(process.env.DOCKER_CONFIG || path.join(os.homedir(), '.docker'), 'config.json');
}

/** Podman's places, which are read after docker's. */
function furtherFiles(): string[] {
  const { REGISTRY_AUTH_FILE: named, XDG_RUNTIME_DIR: runtime } = process.env;
  return [...(named ? [named] : []), ...(runtime ? [path.join(runtime, 'containers/auth.json')] : [])];
}

/**
 * The login for a registry, from the first file that has one.
 *
 * @param host as in image names: `docker.io`, `localhost:5000`
 * @throws MinirunError when a file or a helper is broken
 */
export async function findCredentials(host: string): Promise<Credentials | undefined> {
  for (const file of [loginFile(), ...furtherFiles()]) {
    const config = readConfig(file);
    if (config === undefined) continue;
    const found = (await askHelper(config, host, file)) ?? storedIn(config, host, file);
    if (found !== undefined) return found;
  }
  return undefined;
}

function readConfig(file: string): DockerConfig | undefined {
  let text: string;
  try {
    text = fs.readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new MinirunError(`cannot read the logins in ${file}`, messageOf(error));
  }
  if (text.trim() === '') return {};
  const damaged = (why: string) =>
    new MinirunError(`cannot use the logins in ${file}`, why, 'Correct the file, or move it away and log in again');
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    throw damaged('it is not JSON');
  }
  if (!isObject(document)) throw damaged('it is no JSON object');
  for (const key of ['auths', 'credHelpers']) {
    if (document[key] != null && !isObject(document[key])) throw damaged(`its ${key} is no object`);
  }
  return document;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The helper that keeps the login for a host: its own before the one for all. */
function helperFor({ credHelpers, credsStore }: DockerConfig, host: string): string | undefined {
  const helper = credHelpers?.[keyOf(host)] ?? credHelpers?.[host] ?? credsStore;
  return typeof helper === 'string' && helper !== '' ? helper : undefined;
}

/** docker-credential-helpers: a host on standard input, JSON on standard output. */
async function askHelper(config: DockerConfig, host: string, file: string): Promise<Credentials | undefined> {
  const helper = helperFor(config, host);
  if (helper === undefined) return undefined;
  const { exitCode, stdout, stderr } = await runHelper(helper, 'get', keyOf(host), file);
  if (exitCode !== 0) {
    const said = (stdout.trim() || stderr.trim()).split('\n')[0] ?? '';
    // The words of the protocol for: nothing is stored.
    if (/credentials not found/i.test(said)) return undefined;
    throw new MinirunError(
      `cannot get the login for ${host}`,
      `docker-credential-${helper} failed${said === '' ? '' : `: ${said}`}`,
      `Log in again: minirun login ${host}`,
    );
  }
  let answer: unknown;
  try {
    answer = JSON.parse(stdout);
  } catch {
    answer = undefined;
  }
  const { Username: username, Secret: secret } = isObject(answer) ? answer : {};
  if (typeof username !== 'string' || typeof secret !== 'string')
    throw new MinirunError(`cannot get the login for ${host}`, `docker-credential-${helper} gives none`);
  if (secret === '') return undefined;
  return username === '<token>' ? { identityToken: secret } : { username, password: secret };
}

async function runHelper(helper: string, action: string, input: string, file: string) {
  const program = `docker-credential-${helper}`;
  const remedy = `Install it, or take "${helper}" out of ${file}`;
  if (!/^[\w.-]+$/.test(helper)) throw new MinirunError(`cannot run ${program}`, 'that is no name of a helper', remedy);
  if (which(program) === undefined) throw new MinirunError(`cannot run ${program}`, 'this machine has none', remedy);
  return runTool(program, [action], input);
}

/** The login that a file holds itself. */
function storedIn({ auths = {} }: DockerConfig, host: string, file: string): Credentials | undefined {
  const exact = auths[keyOf(host)] ?? auths[host];
  const entry = exact ?? Object.entries(auths).find(([key]) => hostOf(key) === host)?.[1];
  if (!isObject(entry)) return undefined;
  const { auth, username, password, identitytoken } = entry;
  if (typeof identitytoken === 'string' && identitytoken !== '') return { identityToken: identitytoken };
  if (typeof auth === 'string' && auth !== '') {
    const decoded = Buffer.from(auth, 'base64').toString();
    const colon = decoded.indexOf(':');
    if (colon > 0) return { username: decoded.slice(0, colon), password: decoded.slice(colon + 1).replace(/\0+$/, '') };
    throw new MinirunError(
      `cannot use the login for ${host}`,
      `its entry in ${file} is damaged`,
      `Log in again: minirun login ${host}`,
    );
  }
  return typeof username === 'string' && typeof password === 'string' && username !== ''
    ? { username, password }
    : undefined;
}

/** The host that a key of `auths` is about: older versions of docker wrote URLs. */
function hostOf(key: string): string {
  const host = key.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  return host === 'index.docker.io' || host === 'registry-1.docker.io' ? 'docker.io' : host;
}

/** Where a login went: a file in which anybody who can read it finds the password, or a helper. */
export type StoredAt = { file: string } | { helper: string };

/** Keeps a login as docker does. */
export async function storeCredentials(host: string, credentials: Credentials): Promise<StoredAt> {
  const file = loginFile();
  const config = readConfig(file) ?? {};
  const helper = helperFor(config, host);
  const isToken = 'identityToken' in credentials;
  if (helper !== undefined) {
    const input = {
      ServerURL: keyOf(host),
      Username: isToken ? '<token>' : credentials.username,
      Secret: isToken ? credentials.identityToken : credentials.password,
    };
    const { exitCode, stdout, stderr } = await runHelper(helper, 'store', JSON.stringify(input), file);
    if (exitCode !== 0) {
      const said = (stderr.trim() || stdout.trim()).split('\n')[0];
      throw new MinirunError(`cannot store the login for ${host}`, `docker-credential-${helper} failed: ${said}`);
    }
    return { helper };
  }
  const entry = isToken
    ? { identitytoken: credentials.identityToken }
    : { auth: Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64') };
  writeConfig(file, { ...config, auths: { ...config.auths, [keyOf(host)]: entry } });
  return { file };
}

/** Forgets the login for a registry, everything that docker's file and its helper have of it; false when there is none. */
export async function eraseCredentials(host: string): Promise<boolean> {
  const file = loginFile();
  const config = readConfig(file);
  if (config === undefined) return false;
  const helper = helperFor(config, host);
  let isErased = false;
  if (helper !== undefined) isErased = (await runHelper(helper, 'erase', keyOf(host), file)).exitCode === 0;
  const kept = Object.entries(config.auths ?? {}).filter(([key]) => key !== keyOf(host) && hostOf(key) !== host);
  if (kept.length < Object.keys(config.auths ?? {}).length) {
    writeConfig(file, { ...config, auths: Object.fromEntries(kept) });
    isErased = true;
  }
  return isErased;
}

/** Replaces docker's file: whole, for its owner only, through a symbolic link as docker does, indented as docker has it. */
function writeConfig(file: string, config: DockerConfig): void {
  const refuse = (error: unknown) => new MinirunError(`cannot write the login to ${file}`, messageOf(error));
  try {
    fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    const target = fs.existsSync(file) ? fs.realpathSync(file) : file;
    const temporary = `${target}.${process.pid}`;
    fs.rmSync(temporary, { force: true });
    try {
      fs.writeFileSync(temporary, `${JSON.stringify(config, null, '\t')}\n`, { mode: 0o600, flag: 'wx', flush: true });
      keepOwner(target, temporary);
      fs.renameSync(temporary, target);
    } catch (error) {
      fs.rmSync(temporary, { force: true });
      throw error;
    }
  } catch (error) {
    throw refuse(error);
  }
}

/** With sudo and somebody's own DOCKER_CONFIG, the file stays theirs. */
function keepOwner(former: string, file: string): void {
  const stat = fs.statSync(former, { throwIfNoEntry: false });
  if (stat !== undefined) fs.chownSync(file, stat.uid, stat.gid);
}
