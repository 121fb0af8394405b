import { MinirunError } from '../../errors.ts';
import { settingsFile } from '../../state/settings.ts';

/**
 * What kind of failure it was: no connection; not allowed (or, at registries that keep it secret, not there); not there;
 * the registry cannot or does not want to now; it sent something wrong.
 */
export type FailureKind = 'unreachable' | 'denied' | 'not-found' | 'refused' | 'damaged';

/** A registry did not do what it was asked for. */
export class RegistryError extends MinirunError {
  constructor(
    readonly kind: FailureKind,
    what: string,
    why: string,
    remedy?: string,
    cause?: unknown,
  ) {
    super(what, why, remedy, { cause });
  }
}

/** What to do about a connection to a host that failed. */
export function remedyFor(
  host: string,
  { isUntrusted, isPlain }: { isUntrusted?: boolean; isPlain?: boolean },
): string {
  if (isUntrusted === true)
    return `Put the certificate of the authority into /etc/docker/certs.d/${host}/ca.crt, or see docs/registries.md`;
  if (isPlain === true)
    return `If plain HTTP will do, say so in ${settingsFile()}: registries: { "${host}": { insecure: true } }`;
  return 'Check the name, and the network of this machine';
}

const longestMessage = 300;

/** The words of a registry or token service, which may be anybody's: one line, nothing for a terminal, not too long. */
export function messageIn(body: Uint8Array): string | undefined {
  let document: unknown;
  try {
    document = JSON.parse(Buffer.from(body).toString());
  } catch {
    return undefined;
  }
  const { errors, details, message, error_description: description } = (document ?? {}) as Record<string, unknown>;
  const texts = Array.isArray(errors)
    ? errors.map((each: unknown) => {
        const { code, message: text } = (each ?? {}) as Record<string, unknown>;
        return typeof text === 'string' && text !== '' ? text : code;
      })
    : [details, message, description];
  const first = texts.find((each) => typeof each === 'string' && each.trim() !== '');
  return typeof first === 'string' ? plain(first) : undefined;
}

function plain(text: string): string {
  const line = text
    .replaceAll(/[\s\p{C}]+/gu, ' ')
    .trimStart()
    .replace(/[\s.!]+$/, '');
  return line.length > longestMessage ? `${line.slice(0, longestMessage)}…` : line;
}
