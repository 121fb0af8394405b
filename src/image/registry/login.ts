import { MinirunError } from '../../errors.ts';
import { parseReference } from '../reference.ts';
import { Authorization } from './authorization.ts';
import { type Credentials, eraseCredentials, findCredentials, type StoredAt, storeCredentials } from './credentials.ts';
import { registryEndpoint } from './endpoint.ts';
import { messageIn, RegistryError, remedyFor } from './failure.ts';
import { NetworkFailure } from './transport.ts';

export type { Credentials, StoredAt } from './credentials.ts';

/** The registry that a user means: a host as in image names, or a URL of it as docker takes it. */
export function parseRegistry(text: string): string {
  const host = text.replace(/^https?:\/\//, '').replace(/\/.*$/s, '');
  if (host === 'docker.io' || host === 'index.docker.io' || host === 'registry-1.docker.io') return 'docker.io';
  try {
    if (parseReference(`${host}/x`).domain === host) return host;
  } catch {
    // Not even that.
  }
  throw new MinirunError(
    `invalid registry "${text}"`,
    'a host has a dot or a port in it, or is localhost',
    'Write it as in image names: registry.example or localhost:5000',
  );
}

/** The login for a registry that is here already. */
export function storedLogin(host: string): Promise<Credentials | undefined> {
  return findCredentials(host);
}

/** Keeps a login, once the registry has taken it. @throws RegistryError when it does not */
export async function login(host: string, credentials: Credentials, insecure: boolean): Promise<StoredAt> {
  await verifyLogin(host, credentials, insecure);
  return storeCredentials(host, credentials);
}

/** Forgets the login for a registry; false when there was none. */
export function logout(host: string): Promise<boolean> {
  return eraseCredentials(host);
}

/** Asks a registry for the base of its API, which is for everybody who is logged in. */
export async function verifyLogin(host: string, credentials: Credentials, insecure: boolean): Promise<void> {
  const what = `cannot log in to ${host}`;
  const endpoint = await registryEndpoint(host, insecure);
  const authorization = new Authorization(endpoint, { scopes: [], credentials });
  try {
    let answer = await endpoint.send('', {});
    const header = answer.status === 401 ? await authorization.renewed(answer, undefined) : undefined;
    if (header !== undefined) {
      await answer.discard();
      answer = await endpoint.send('', { headers: { authorization: header } });
    }
    const said = messageIn(await answer.bytes(64 * 1024));
    if (answer.status === 200) return;
    const words = said === undefined ? '' : ` (${said})`;
    if (answer.status === 401 || answer.status === 403)
      throw new RegistryError('denied', what, `the user name or the password is wrong${words}`);
    if (answer.status === 404) throw new RegistryError('not-found', what, 'it is no registry', 'Check the name');
    throw new RegistryError('refused', what, `it answers ${answer.statusLine}${words}`, 'Try again later');
  } catch (error) {
    if (!(error instanceof NetworkFailure)) throw error;
    throw new RegistryError('unreachable', what, error.message, remedyFor(host, error));
  }
}
