import { MinirunError } from '../errors.ts';
import { architecture } from './architecture.ts';
import type { ImageConfig } from './image.ts';
import {
  type Descriptor,
  type HistoryEntry,
  type Manifest,
  type ManifestList,
  mediaTypes,
  type OciImageConfig,
  type Platform,
  type RawManifest,
} from './manifest.ts';
import { isDigest } from './reference.ts';

/** Bytes. Registries take no larger manifest, and containerd and docker read none. */
export const largestManifest = 4 * 1024 * 1024;
/** Bytes. A config has a history entry for each instruction and all labels. */
const largestConfig = 8 * 1024 * 1024;

export type ManifestDocument = { kind: 'manifest'; manifest: Manifest } | { kind: 'index'; list: ManifestList };

/** Configs of things that are no images, for the message. */
const otherThings: Record<string, string> = {
  'application/vnd.docker.plugin.v1+json': 'a docker plugin',
  'application/vnd.cncf.helm.config.v1+json': 'a Helm chart',
  'application/vnd.dev.cosign.simplesigning.v1+json': 'a signature',
  'application/vnd.wasm.config.v0+json': 'a WebAssembly module',
};

/** Configs of images. Docker takes the third one too: old versions of it pushed images that way. */
const imageConfigs: readonly string[] = [mediaTypes.ociConfig, mediaTypes.dockerConfig, 'application/octet-stream'];

type Json = Record<string, unknown>;

/**
 * Reads a manifest or an index, and checks everything of it that is used.
 *
 * @throws MinirunError when it is damaged, ambiguous, of the old format, or not one of an image
 */
export function parseManifestDocument(raw: RawManifest): ManifestDocument {
  const invalid = (why: string, remedy?: string) => new MinirunError(`cannot use manifest ${raw.digest}`, why, remedy);
  const check = new Checker(invalid);
  if (raw.body.length > largestManifest) throw invalid('it is larger than 4 MiB');
  const document = check.json(raw.body);
  const isList = document.manifests != null;
  const isManifest = document.layers != null || document.config != null;
  refuseOldFormat(document, raw.mediaType, invalid);
  if (document.schemaVersion !== 2) throw invalid('its schemaVersion is not 2');
  // Two tools could see two different images in it (CVE-2021-41190).
  if (isList && isManifest) throw invalid('it is an image and a list of images at the same time');
  if (!isList && !isManifest) throw invalid('it is neither an image nor a list of images');
  const own = document.mediaType == null ? undefined : check.text(document.mediaType, 'mediaType');
  for (const mediaType of [own, raw.mediaType]) {
    if (mediaType === undefined || kinds[mediaType] === undefined || (kinds[mediaType] === 'index') === isList)
      continue;
    throw invalid(`it is not what its type says (${mediaType})`);
  }
  if (isList) {
    const manifests = check
      .list(document.manifests, 'manifests')
      .map((each, place) => check.descriptor(each, `manifests[${place}]`));
    return { kind: 'index', list: { mediaType: own ?? known(raw.mediaType) ?? mediaTypes.ociIndex, manifests } };
  }
  const config = check.descriptor(document.config, 'config');
  refuseArtifact(config, document, invalid);
  const layers = check
    .list(document.layers ?? [], 'layers')
    .map((each, place) => check.descriptor(each, `layers[${place}]`));
  for (const { mediaType } of layers) refuseForeignLayer(mediaType, invalid);
  return {
    kind: 'manifest',
    manifest: { mediaType: own ?? known(raw.mediaType) ?? mediaTypes.ociManifest, config, layers },
  };
}

type Invalid = (why: string, remedy?: string) => MinirunError;

const kinds: Record<string, 'index' | 'manifest'> = {
  [mediaTypes.ociIndex]: 'index',
  [mediaTypes.dockerIndex]: 'index',
  [mediaTypes.ociManifest]: 'manifest',
  [mediaTypes.dockerManifest]: 'manifest',
};

const known = (mediaType: string): string | undefined => (kinds[mediaType] === undefined ? undefined : mediaType);

function refuseOldFormat(document: Json, mediaType: string, invalid: Invalid): void {
  if (document.schemaVersion !== 1 && !/\bdocker\.distribution\.manifest\.v1\+/.test(mediaType)) return;
  throw invalid(
    "it is too old: docker's image format of before 2016 (schema 1)",
    'Ask its publisher for a new build, or convert it once with an old docker or with skopeo copy',
  );
}

function refuseArtifact(config: Descriptor, document: Json, invalid: Invalid): void {
  if (imageConfigs.includes(config.mediaType)) return;
  const artifact = typeof document.artifactType === 'string' ? document.artifactType : undefined;
  const what = otherThings[config.mediaType] ?? `something of the type ${oneLine(artifact ?? config.mediaType)}`;
  throw invalid(`it is no container image but ${what}`);
}

function refuseForeignLayer(mediaType: string, invalid: Invalid): void {
  if (mediaType.includes('+encrypted')) {
    throw invalid('a layer of it is encrypted', 'Decrypt it first: skopeo copy --decryption-key');
  }
  if (!/\btar\b/.test(mediaType) && mediaType !== 'application/octet-stream')
    throw invalid(`a layer of it is no archive but ${oneLine(mediaType)}`);
}

/**
 * Reads an image config, and checks the types of all that is used later. What is missing gets a harmless value.
 *
 * @throws MinirunError when it is damaged
 */
export function parseImageConfig(bytes: Uint8Array): OciImageConfig {
  const check = new Checker((why) => new MinirunError('cannot use the config of the image', why));
  if (bytes.length > largestConfig) throw check.invalid(`it is larger than ${largestConfig / 1024 / 1024} MiB`);
  const document = check.json(bytes);
  const rootfs = check.object(document.rootfs, 'rootfs');
  if (rootfs.type !== 'layers') throw check.invalid('the type of its rootfs is not "layers"');
  const diffIds = check.list(rootfs.diff_ids ?? [], 'rootfs.diff_ids').map((each, place) => {
    const name = `rootfs.diff_ids[${place}]`;
    return check.digest(each, name);
  });
  const optional = (name: string) =>
    document[name] == null ? {} : { [name]: check.text(document[name], name, 64 * 1024) };
  return {
    architecture: architecture(),
    os: 'linux',
    ...optional('architecture'),
    ...optional('os'),
    ...optional('variant'),
    ...optional('created'),
    ...optional('author'),
    config: checkContainerConfig(document.config ?? {}, check),
    rootfs: { type: 'layers', diff_ids: diffIds },
    ...(document.history == null ? {} : { history: checkHistory(document.history, check) }),
  };
}

/** The part that a container takes over; Go writes null for what is empty. */
function checkContainerConfig(value: unknown, check: Checker): ImageConfig {
  const config = check.object(value, 'config');
  const checked: Json = {};
  for (const [key, each] of Object.entries(config)) {
    const test = Object.hasOwn(configTypes, key) ? configTypes[key as keyof typeof configTypes] : undefined;
    // What minirun does not know is none of a container's business.
    if (test === undefined || each === null) continue;
    checked[key] = test(each, `config.${key}`, check);
  }
  return checked;
}

type Test = (value: unknown, name: string, check: Checker) => unknown;

const text: Test = (value, name, check) => check.text(value, name, 1024 * 1024);
const texts: Test = (value, name, check) =>
  check.list(value, name).map((each, place) => check.text(each, `${name}[${place}]`, 1024 * 1024));
const set: Test = (value, name, check) =>
  Object.fromEntries(Object.keys(check.object(value, name)).map((key) => [key, {}]));

const configTypes: Record<keyof ImageConfig, Test> = {
  Env: texts,
  Entrypoint: texts,
  Cmd: texts,
  OnBuild: texts,
  Shell: texts,
  WorkingDir: text,
  User: text,
  StopSignal: text,
  ExposedPorts: set,
  Volumes: set,
  Labels: (value, name, check) =>
    Object.fromEntries(
      Object.entries(check.object(value, name)).map(([key, each]) => [
        key,
        // A label without a value has been seen as null.
        each === null ? '' : check.text(each, `${name}.${oneLine(key)}`, 1024 * 1024),
      ]),
    ),
  ArgsEscaped: (value, name, check) => {
    if (typeof value !== 'boolean') throw check.invalid(`its ${name} is neither true nor false`);
    return value;
  },
  Healthcheck: (value, name, check) => {
    const health = check.object(value, name);
    const checked: Json = {};
    if (health.Test != null) checked.Test = texts(health.Test, `${name}.Test`, check);
    for (const key of ['Interval', 'Timeout', 'StartPeriod', 'Retries']) {
      if (health[key] == null) continue;
      if (!Number.isFinite(health[key])) throw check.invalid(`its ${name}.${key} is no number`);
      checked[key] = health[key];
    }
    return checked;
  },
};

function checkHistory(value: unknown, check: Checker): HistoryEntry[] {
  return check.list(value, 'history').map((each, place) => {
    const name = `history[${place}]`;
    const entry = check.object(each, name);
    const checked: Json = {};
    for (const key of ['created', 'created_by', 'author', 'comment']) {
      if (entry[key] != null) checked[key] = check.text(entry[key], `${name}.${key}`, 1024 * 1024);
    }
    if (entry.empty_layer === true) checked.empty_layer = true;
    return checked;
  });
}

/** Reads JSON that anybody may have written. */
class Checker {
  constructor(readonly invalid: Invalid) {}

  json(bytes: Uint8Array): Json {
    let value: unknown;
    try {
      value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    } catch {
      throw this.invalid('it is not JSON');
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw this.invalid('it is no JSON object');
    return value as Json;
  }

  object(value: unknown, name: string): Json {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw this.invalid(`its ${name} is no object`);
    return value as Json;
  }

  list(value: unknown, name: string): unknown[] {
    if (!Array.isArray(value)) throw this.invalid(`its ${name} is no list`);
    return value;
  }

  text(value: unknown, name: string, longest = 4096): string {
    if (typeof value !== 'string') throw this.invalid(`its ${name} is no text`);
    if (value.length > longest) throw this.invalid(`its ${name} is longer than ${longest} characters`);
    // No path, variable or argument can hold one.
    if (value.includes('\0')) throw this.invalid(`its ${name} has a zero byte`);
    return value;
  }

  digest(value: unknown, name: string): string {
    if (typeof value !== 'string' || !isDigest(value)) throw this.invalid(`its ${name} is no digest`);
    return value;
  }

  descriptor(value: unknown, name: string): Descriptor {
    const fields = this.object(value, name);
    const { size, urls, platform, annotations } = fields;
    if (!Number.isSafeInteger(size) || (size as number) < 0) throw this.invalid(`the size of its ${name} is none`);
    return {
      mediaType: fields.mediaType == null ? '' : this.text(fields.mediaType, `${name}.mediaType`, 255),
      digest: this.digest(fields.digest, `${name}.digest`),
      size: size as number,
      ...(urls == null ? {} : { urls: this.list(urls, `${name}.urls`).map((url) => this.text(url, `${name}.urls`)) }),
      ...(platform == null ? {} : { platform: this.platform(platform, `${name}.platform`) }),
      ...(annotations == null ? {} : { annotations: this.annotations(annotations, `${name}.annotations`) }),
    };
  }

  private platform(value: unknown, name: string): Platform {
    const { os, architecture: machine, variant } = this.object(value, name);
    return {
      os: this.text(os ?? '', `${name}.os`, 64),
      architecture: this.text(machine ?? '', `${name}.architecture`, 64),
      ...(variant == null || variant === '' ? {} : { variant: this.text(variant, `${name}.variant`, 64) }),
    };
  }

  private annotations(value: unknown, name: string): Record<string, string> {
    const entries = Object.entries(this.object(value, name));
    return Object.fromEntries(entries.map(([key, each]) => [key, this.text(each, name, 1024 * 1024)]));
  }
}

/** A text of a stranger for a message. */
function oneLine(value: string): string {
  return value.replace(/[^\x20-\x7e]+/g, '?').slice(0, 100);
}
