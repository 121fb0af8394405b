import fs from 'node:fs';
import path from 'node:path';
import tls from 'node:tls';
import { MinirunError, messageOf } from '../../errors.ts';
import { readSettings } from '../../state/settings.ts';

/** What `fetch` of Bun takes as `tls`. */
export interface Tls {
  ca?: string;
  cert?: string;
  key?: string;
  rejectUnauthorized?: boolean;
}

/** Where distributions keep the certificates of the authorities they trust, as Go's crypto/x509 looks for them. */
const systemBundles = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** Docker's place for certificates of single registries: a folder for each HOST or HOST:PORT. */
const dockerCertificates = '/etc/docker/certs.d';

const known = new Map<string, Promise<Tls>>();

/**
 * Whom to trust as `host` (with its port), and how to prove who we are. The whole bundle as one text: Bun parses it
 * once for all connections with the same text, in 2 ms for 144 certificates, and 0.3 ms for each further connection.
 */
export function tlsFor(host: string, insecure: boolean): Promise<Tls> {
  const key = `${host} ${insecure}`;
  let found = known.get(key);
  if (found === undefined) known.set(key, (found = load(host, insecure)));
  return found;
}

async function load(host: string, insecure: boolean): Promise<Tls> {
  const { registries } = await readSettings();
  const names = namesOf(host);
  const folders = names.map((name) => path.join(dockerCertificates, name));
  const own = folders.flatMap((folder) => list(folder, '.crt')).map(read);
  for (const name of names) {
    const file = registries[name]?.ca;
    if (file !== undefined) own.push(read(file));
  }
  return {
    ca: [systemRoots(), ...own].join('\n'),
    ...clientCertificate(folders),
    ...(insecure ? { rejectUnauthorized: false } : {}),
  };
}

/** Names under which a host is known to the user; the registry of docker.io is at another place. */
function namesOf(host: string): string[] {
  return host === 'registry-1.docker.io' ? [host, 'docker.io'] : [host];
}

let roots: string | undefined;

/** What this machine trusts; without a bundle of its own, what Bun brings along. */
function systemRoots(): string {
  if (roots !== undefined) return roots;
  const named = process.env.SSL_CERT_FILE;
  const file = named || systemBundles.find((each) => fs.existsSync(each));
  roots = file === undefined ? tls.rootCertificates.join('\n') : read(file);
  return roots;
}

/** `NAME.cert` with `NAME.key`, as docker has them. */
function clientCertificate(folders: string[]): Pick<Tls, 'cert' | 'key'> {
  for (const cert of folders.flatMap((folder) => list(folder, '.cert'))) {
    const key = cert.replace(/\.cert$/, '.key');
    if (!fs.existsSync(key)) {
      throw new MinirunError(`cannot use ${cert}`, `its key ${path.basename(key)} is missing`, 'Put it beside it');
    }
    return { cert: read(cert), key: read(key) };
  }
  return {};
}

function list(folder: string, ending: string): string[] {
  try {
    return fs
      .readdirSync(folder)
      .filter((name) => name.endsWith(ending))
      .toSorted()
      .map((name) => path.join(folder, name));
  } catch {
    return [];
  }
}

function read(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch (error) {
    throw new MinirunError(`cannot read the certificates in ${file}`, messageOf(error));
  }
}
