import fs from 'node:fs';
import path from 'node:path';
import { MinirunError, messageOf } from '../errors.ts';

/** What the config file says; docs/registries.md describes it. */
export interface Settings {
  /** By host as it stands in image names: `docker.io`, `localhost:5000`. */
  registries: Record<string, RegistrySettings>;
  limits: {
    /** Bytes that a layer may unpack to. */
    layerSize?: number;
    /** Files that a layer may have. */
    layerEntries?: number;
  };
  /** Whether a layer has to be on the disk before it counts as being here. */
  syncLayers?: true;
}

export interface RegistrySettings {
  /** Base URLs to ask before the registry itself, in this order. */
  mirrors: string[];
  /** Whether plain HTTP and certificates that nobody vouches for will do. */
  insecure: boolean;
  /** A file of certificates (PEM) to trust for this host, too. */
  ca?: string;
}

/** The config file; `MINIRUN_CONFIG` names another. */
export function settingsFile(): string {
  return process.env.MINIRUN_CONFIG || '/etc/minirun/config.yaml';
}

let known: { file: string; settings: Promise<Settings> } | undefined;

/** The settings of this machine, read once. @throws MinirunError when the file is not as it must be */
export function readSettings(): Promise<Settings> {
  const file = settingsFile();
  if (known?.file !== file) known = { file, settings: load(file) };
  return known.settings;
}

async function load(file: string): Promise<Settings> {
  let source: string;
  try {
    source = fs.readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if ((code === 'ENOENT' || code === 'ENOTDIR') && !process.env.MINIRUN_CONFIG) return { registries: {}, limits: {} };
    throw new MinirunError(
      `cannot read the config file ${file}`,
      code === 'ENOENT' ? 'there is no such file' : messageOf(error),
      process.env.MINIRUN_CONFIG ? 'Correct or unset MINIRUN_CONFIG' : undefined,
    );
  }
  return parseSettings(source, file);
}

/** Reads the text of a config file. @throws MinirunError that names the file, the key and what to write */
export async function parseSettings(source: string, file: string): Promise<Settings> {
  const { parse } = await import('yaml');
  let document: unknown;
  try {
    document = parse(source);
  } catch (error) {
    throw new MinirunError(`cannot use the config file ${file}`, `it is not YAML: ${messageOf(error).split('\n')[0]}`);
  }
  const reader = new Reader(file);
  const keys = ['registries', 'limits', 'sync-layers'];
  const { registries, limits, 'sync-layers': sync = false } = reader.object(document, '', keys);
  if (typeof sync !== 'boolean')
    throw reader.invalid('sync-layers', 'it is neither true nor false', 'Write sync-layers: true');
  const settings: Settings = {
    registries: {},
    limits: readLimits(reader, limits),
    ...(sync ? { syncLayers: true } : {}),
  };
  for (const [host, value] of Object.entries(reader.object(registries, 'registries'))) {
    if (!/^(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d+)?$/.test(host)) {
      throw reader.invalid(
        `registries."${host}"`,
        'it is no host',
        'Write the host as in image names: docker.io or localhost:5000',
      );
    }
    settings.registries[host] = readRegistry(reader, `registries."${host}"`, value);
  }
  refusePlainMirrors(reader, settings);
  return settings;
}

function readRegistry(reader: Reader, name: string, value: unknown): RegistrySettings {
  const { mirrors = [], insecure = false, ca } = reader.object(value, name, ['mirrors', 'insecure', 'ca']);
  if (!Array.isArray(mirrors)) {
    throw reader.invalid(`${name}.mirrors`, 'it is no list', 'Write mirrors: ["https://mirror.example"]');
  }
  if (typeof insecure !== 'boolean') {
    throw reader.invalid(`${name}.insecure`, 'it is neither true nor false', 'Write insecure: true');
  }
  if (ca !== undefined && (typeof ca !== 'string' || !path.isAbsolute(ca))) {
    throw reader.invalid(`${name}.ca`, 'it is no absolute path', 'Write ca: "/path/to/ca.crt"');
  }
  return {
    mirrors: mirrors.map((each: unknown, place) => readMirror(reader, `${name}.mirrors[${place}]`, each)),
    insecure,
    ...(ca === undefined ? {} : { ca }),
  };
}

/** A mirror's base URL without a slash at its end. */
function readMirror(reader: Reader, name: string, value: unknown): string {
  const url = typeof value === 'string' ? parseUrl(value) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '') {
    throw reader.invalid(
      name,
      'it is no http or https URL',
      'Write it as https://mirror.example or https://mirror.example/prefix',
    );
  }
  if (url.username !== '' || url.password !== '') {
    throw reader.invalid(name, 'it has a password in it', `Take it out, and log in: minirun login ${url.host}`);
  }
  return url.href.replace(/\/+$/, '');
}

function parseUrl(text: string): URL | undefined {
  try {
    return new URL(text);
  } catch {
    return undefined;
  }
}

/** Whoever is on the way of plain HTTP could choose what a tag means. */
function refusePlainMirrors(reader: Reader, { registries }: Settings): void {
  for (const [host, { mirrors }] of Object.entries(registries)) {
    for (const mirror of mirrors) {
      const url = new URL(mirror);
      if (url.protocol === 'https:' || isLoopback(url.hostname) || registries[url.host]?.insecure === true) continue;
      throw reader.invalid(
        `registries."${host}".mirrors`,
        `${mirror} is plain HTTP and not on this machine`,
        `Use https, or allow it: registries: { "${url.host}": { insecure: true } }`,
      );
    }
  }
}

/** Whether a host's name is this very machine's. Names that merely resolve to it are not: a resolver says that. */
export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(hostname);
}

const units: Record<string, number> = { b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

function readLimits(reader: Reader, value: unknown): Settings['limits'] {
  const limits = reader.object(value, 'limits', ['layer-size', 'layer-entries']);
  const size = limits['layer-size'];
  const entries = limits['layer-entries'];
  const checked: Settings['limits'] = {};
  if (size !== undefined) {
    const text = typeof size === 'number' || typeof size === 'string' ? `${size}` : '';
    const [, number, unit = 'b'] = /^(\d+(?:\.\d+)?)\s*([bkmgt])?(?:i?b)?$/i.exec(text) ?? [];
    const bytes = Math.floor(Number(number) * (units[unit.toLowerCase()] as number));
    if (!Number.isSafeInteger(bytes) || bytes < 1)
      throw reader.invalid('limits.layer-size', 'it is no size', 'Write layer-size: 20g');
    checked.layerSize = bytes;
  }
  if (entries !== undefined) {
    if (!Number.isSafeInteger(entries) || (entries as number) < 1)
      throw reader.invalid('limits.layer-entries', 'it is no number above 0', 'Write layer-entries: 1000000');
    checked.layerEntries = entries as number;
  }
  return checked;
}

class Reader {
  constructor(private readonly file: string) {}

  invalid(key: string, why: string, remedy: string): MinirunError {
    return new MinirunError(`invalid ${key} in ${this.file}`, why, remedy);
  }

  /** The keys of a mapping, which may be left out or empty; with `allowed`, no others. */
  object(value: unknown, name: string, allowed?: readonly string[]): Record<string, unknown> {
    if (value == null) return {};
    if (typeof value !== 'object' || Array.isArray(value)) {
      throw this.invalid(name || 'content', 'it has no keys', 'See docs/registries.md for an example');
    }
    const unknown = Object.keys(value).find((key) => allowed !== undefined && !allowed.includes(key));
    if (unknown !== undefined) {
      const key = name === '' ? `"${unknown}"` : `${name}."${unknown}"`;
      throw this.invalid(key, 'there is no such key', `Use ${allowed?.join(', ')}`);
    }
    return value as Record<string, unknown>;
  }
}
