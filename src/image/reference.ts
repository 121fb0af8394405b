import { MinirunError } from '../errors.ts';

/** The name of an image, with docker's defaults filled in: `alpine` is docker.io/library/alpine:latest. */
export interface Reference {
  /** Host of the registry, maybe with a port: `docker.io`, `localhost:5000`. */
  domain: string;
  /** Repository within it: `library/alpine`. */
  path: string;
  /** Absent when there is a digest: that alone says which image is meant. */
  tag?: string;
  /** `sha256:` and 64 hexadecimal digits. */
  digest?: string;
}

const defaultDomain = 'docker.io';
const officialPrefix = 'library/';

// The grammar of github.com/distribution/reference.
const label = '[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?';
const domainPattern = new RegExp(`^(?:${label}(?:\\.${label})*|\\[[0-9a-fA-F:]+\\])(?::[0-9]+)?$`);
const pathPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const tagPattern = /^\w[\w.-]{0,127}$/;

/** Hexadecimal digits of each digest algorithm that may name something here. */
const digestLengths: Record<string, number> = { sha256: 64, sha384: 96, sha512: 128 };

/** Whether a text is a well-formed digest. What is not must never become a path or a part of a URL (CVE-2024-3727). */
export function isDigest(text: string): boolean {
  const match = /^([a-z0-9]+):([0-9a-f]+)$/.exec(text);
  return match !== null && digestLengths[match[1] as string] === (match[2] as string).length;
}

/** Reads an image's name as docker does. @throws MinirunError when it is none */
export function parseReference(text: string): Reference {
  const invalid = (why: string, remedy = 'Write it as [HOST[:PORT]/]NAME[:TAG]') =>
    new MinirunError(`invalid image name "${text}"`, why, remedy);
  if (text === '') throw invalid('it is empty');
  if (/^[0-9a-f]{64}$/.test(text)) throw invalid('64 hexadecimal digits are an image id', 'Choose another name');

  const at = text.indexOf('@');
  const digest = at === -1 ? undefined : text.slice(at + 1);
  const named = at === -1 ? text : text.slice(0, at);
  if (digest !== undefined && !isDigest(digest)) {
    throw invalid('what follows the @ is no digest', 'Write the digest as sha256: and 64 hexadecimal digits');
  }

  // A colon is a tag's only after the last slash; before it stands a port.
  const colon = named.lastIndexOf(':');
  const tagged = colon > named.lastIndexOf('/');
  const tag = tagged ? named.slice(colon + 1) : undefined;
  const repository = tagged ? named.slice(0, colon) : named;
  if (tag !== undefined && !tagPattern.test(tag)) {
    throw invalid('a tag has up to 128 letters, digits, dots, dashes and underscores');
  }

  const { domain, path } = splitDomain(repository);
  if (!domainPattern.test(domain)) throw invalid(`"${domain}" is no host name`);
  if (!pathPattern.test(path)) {
    if (pathPattern.test(path.toLowerCase()))
      throw invalid('names of images are lower case', `Write ${text.replace(repository, repository.toLowerCase())}`);
    throw invalid('a name has lower-case letters and digits, with single dots, underscores or dashes between them');
  }
  if (domain.length + 1 + path.length > 255) throw invalid('it is longer than 255 characters', 'Choose a shorter name');
  return digest === undefined ? { domain, path, tag: tag ?? 'latest' } : { domain, path, digest };
}

/** Docker's rule: the first part is a host only when it could not be a user's name. */
function splitDomain(repository: string): { domain: string; path: string } {
  const slash = repository.indexOf('/');
  const first = slash === -1 ? '' : repository.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
  const domain = !isHost || first === 'index.docker.io' ? defaultDomain : first;
  const path = isHost ? repository.slice(slash + 1) : repository;
  return { domain, path: domain === defaultDomain && !path.includes('/') ? officialPrefix + path : path };
}

/** Tag or digest with its separator. */
function suffix({ tag, digest }: Reference): string {
  return digest === undefined ? `:${tag}` : `@${digest}`;
}

/** The full name, the same for every way to write it: `docker.io/library/alpine:latest`. */
export function canonicalName(reference: Reference): string {
  return `${reference.domain}/${reference.path}${suffix(reference)}`;
}

/** The repository as docker shows it: `alpine`, `user/tool`, `localhost:5000/tool`. */
export function familiarRepository({ domain, path }: Reference): string {
  if (domain !== defaultDomain) return `${domain}/${path}`;
  const short = path.startsWith(officialPrefix) ? path.slice(officialPrefix.length) : path;
  return short.includes('/') ? path : short;
}

/** The name as docker shows it: `alpine:latest`. */
export function familiarName(reference: Reference): string {
  return familiarRepository(reference) + suffix(reference);
}

/** The shortest way to write the name: `alpine` for `alpine:latest`. For messages and commands to type. */
export function shortName(reference: Reference): string {
  return reference.tag === 'latest' ? familiarRepository(reference) : familiarName(reference);
}
