import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { MinirunError, messageOf } from '../errors.ts';
import { architecture } from './architecture.ts';
import { unpackLayer } from './layer.ts';
import type { Recipe } from './recipes.ts';
import { type Source, SourceUnavailable } from './source.ts';
import { Staging } from './staging.ts';
import { storeImage } from './store.ts';
import type { OciImageConfig } from './manifest.ts';

/** Milliseconds until a server must have begun to answer, and that it may then be silent. */
const timeouts = { connect: 5_000, silence: 30_000 };
const largestIndex = 1024 * 1024;
const largestDownload = 1024 * 1024 * 1024;

/** A file that Alpine publishes, as its list of releases describes it. */
export interface Release {
  file: string;
  version: string;
  /** RFC 3339. */
  created?: string;
  size: number;
  /** 64 hexadecimal digits. */
  sha256: string;
}

/** Alpine's own archive of a small root filesystem; `MINIRUN_ALPINE_MIRROR` names another mirror. */
export function minirootfsSource({ mirror, releases }: { mirror: string; releases: string }, recipe: Recipe): Source {
  return {
    isStandIn: false,
    async obtain(reference, notice) {
      const base = `${(process.env.MINIRUN_ALPINE_MIRROR || mirror).replace(/\/+$/, '')}/${releases}/${alpineArchitecture()}`;
      const release = await findRelease(await fetchText(`${base}/latest-releases.yaml`), base);
      notice(`Downloading Alpine ${release.version} from ${base}/${release.file}`);
      const staging = new Staging();
      try {
        const archive = staging.file('archive');
        await download(`${base}/${release.file}`, archive, release);
        const directory = staging.newLayer();
        const { diffId, size } = await unpackLayer(fs.createReadStream(archive), directory);
        const config: OciImageConfig = {
          architecture: architecture(),
          os: 'linux',
          ...(release.created === undefined ? {} : { created: release.created }),
          config: recipe.config,
          rootfs: { type: 'layers', diff_ids: [diffId] },
          history: [{ created_by: `minirun: ${release.file}` }],
        };
        return await storeImage({
          references: [reference],
          config: JSON.stringify(config),
          layers: [{ diffId, size, directory }],
          staging,
        });
      } finally {
        staging.remove();
      }
    },
  };
}

function alpineArchitecture(): string {
  return process.arch === 'arm64' ? 'aarch64' : 'x86_64';
}

/** The entry of the small root filesystem in Alpine's `latest-releases.yaml`. Nothing in it is trusted to be a path. */
export async function findRelease(text: string, source: string): Promise<Release> {
  const damaged = (why: string) =>
    new MinirunError(
      `cannot use the list of releases at ${source}`,
      why,
      'Set MINIRUN_ALPINE_MIRROR to another mirror',
    );
  const { parse } = await import('yaml');
  let list: unknown;
  try {
    // Every value as the text that it is: a version 3.20 is no number.
    list = parse(text, { schema: 'failsafe' });
  } catch (error) {
    throw damaged(`it is not YAML: ${messageOf(error).split('\n')[0]}`);
  }
  const entries = Array.isArray(list) ? (list as Record<string, unknown>[]) : [];
  const entry = entries.find((each) => each?.flavor === 'alpine-minirootfs');
  if (entry === undefined) throw damaged('it has no entry alpine-minirootfs');
  const { file, version, date, time, size, sha256 } = entry;
  if (typeof file !== 'string' || !/^\w[\w.+-]*$/.test(file)) throw damaged('its file name is not one');
  if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) throw damaged('its sha256 is not one');
  if (typeof size !== 'string' || !/^[1-9]\d{0,15}$/.test(size) || Number(size) > largestDownload)
    throw damaged('its size is not one');
  const instant = new Date(`${String(date)}T${String(time)}Z`);
  const created = Number.isNaN(instant.getTime()) ? undefined : instant.toISOString();
  return { file, version: String(version), created, size: Number(size), sha256 };
}

async function fetchText(url: string): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const chunk of fetchBody(url)) {
    length += chunk.length;
    if (length > largestIndex)
      throw new MinirunError(`cannot use ${url}`, 'it is larger than a list of releases can be');
    parts.push(chunk);
  }
  return Buffer.concat(parts).toString();
}

/** Fetches a file whose size and digest are known, checking both while it arrives. */
async function download(url: string, file: string, { size, sha256 }: Release): Promise<void> {
  const hash = createHash('sha256');
  let length = 0;
  const fd = fs.openSync(file, 'wx', 0o600);
  try {
    for await (const chunk of fetchBody(url)) {
      length += chunk.length;
      if (length > size) break;
      hash.update(chunk);
      fs.writeSync(fd, chunk);
    }
  } finally {
    fs.closeSync(fd);
  }
  if (length < size)
    throw new SourceUnavailable(`cannot download ${url}`, `it ended after ${length} of ${size} bytes`, 'Try again');
  if (length > size || hash.digest('hex') !== sha256) {
    throw new MinirunError(
      `refusing ${url}`,
      length > size ? `it is longer than the ${size} bytes that it should have` : 'its sha256 is not the published one',
      'Try again, or set MINIRUN_ALPINE_MIRROR to another mirror',
    );
  }
}

/** The body of an answer, chunk by chunk. @throws SourceUnavailable when the server cannot be reached or refuses */
async function* fetchBody(url: string): AsyncGenerator<Buffer> {
  const unavailable = (why: string) =>
    new SourceUnavailable(
      `cannot download ${url}`,
      why,
      'Check the network of this machine, or set MINIRUN_ALPINE_MIRROR to a mirror',
    );
  const controller = new AbortController();
  try {
    const response = await inTime(fetch(url, { signal: controller.signal }), timeouts.connect, unavailable);
    if (!response.ok || response.body === null) {
      throw unavailable(`the server answers ${response.status} ${response.statusText}`.trim());
    }
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await inTime(reader.read(), timeouts.silence, unavailable);
      if (done) return;
      yield Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    }
  } finally {
    // After an error, or when the reader has had enough: what goes on would keep this process alive.
    controller.abort();
  }
}

/** Waits for one step of a download. A race, because an abort signal alone does not end the look-up of a name in Bun. */
async function inTime<T>(step: Promise<T>, limit: number, unavailable: (why: string) => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(unavailable(`no answer within ${limit / 1000} seconds`)), limit);
  });
  // The loser of the race is aborted later, and nobody waits for it then.
  step.catch(() => {});
  try {
    return await Promise.race([step, late]);
  } catch (error) {
    throw error instanceof SourceUnavailable ? error : unavailable(plainWords(error));
  } finally {
    clearTimeout(timer);
  }
}

const words: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the connection was cut',
  EAI_AGAIN: 'its name cannot be looked up now',
  EHOSTUNREACH: 'there is no way to it',
  ENETUNREACH: 'there is no network',
  ENOTFOUND: 'its name is not known',
  ETIMEDOUT: 'no answer',
};

/** Why a fetch failed; Node hides it in the cause. */
function plainWords(error: unknown): string {
  const { code, cause } = error as { code?: string; cause?: { code?: string } };
  return words[cause?.code ?? code ?? ''] ?? messageOf(error).replace(/[.?!]+$/, '');
}
