import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { MinirunError, messageOf } from '../errors.ts';
import { buildImage } from './build.ts';
import { unpackLayer } from './layer.ts';
import type { Recipe } from './recipes.ts';
import { fetchBody } from './registry/transport.ts';
import { type Source, SourceUnavailable } from './source.ts';

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
    async obtain(reference, { report }) {
      const notice = (line: string) => report.notice(line);
      const base = `${(process.env.MINIRUN_ALPINE_MIRROR || mirror).replace(/\/+$/, '')}/${releases}/${alpineArchitecture()}`;
      const release = await findRelease(await fetchText(`${base}/latest-releases.yaml`), base);
      notice(`Downloading Alpine ${release.version} from ${base}/${release.file}`);
      return buildImage(
        { reference, config: recipe.config, created: release.created, createdBy: `minirun: ${release.file}` },
        async (directory, staging) => {
          const archive = staging.file('archive');
          await download(`${base}/${release.file}`, archive, release);
          return { layer: await unpackLayer(fs.createReadStream(archive), directory) };
        },
      );
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
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of fetchFile(url)) {
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
    for await (const chunk of fetchFile(url)) {
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

/** A file of the mirror, part by part. @throws SourceUnavailable when the server cannot be reached or refuses */
function fetchFile(url: string): AsyncGenerator<Uint8Array> {
  return fetchBody(
    url,
    (why) =>
      new SourceUnavailable(
        `cannot download ${url}`,
        why,
        'Check the network of this machine, or set MINIRUN_ALPINE_MIRROR to a mirror',
      ),
  );
}
