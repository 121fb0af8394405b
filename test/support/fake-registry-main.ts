/**
 * The fake registry as a program, for a machine of a fake world: `bun fake-registry-main.ts [CONFIG]`.
 *
 * CONFIG is JSON: `options` as FakeRegistry.start takes them, `images` (`repository`, `tag`, `config`, `layers` as paths
 * of files, `layerType`), `manifests` (`repository`, `tag`, `document`, `mediaType`) and `faults`. Prints
 * `listening HOST:PORT` when it is ready. Then one JSON object a line on standard input, each answered by a line:
 * `{"fault": …}`, `{"forgetFaults": true}`, `{"cutStalled": true}`, `{"expireTokens": true}`, `{"image": …}`,
 * `{"blob": {"repository", "file"}}`, `{"manifest": …}`, `{"requests": true}`.
 * It ends when its input does.
 */
import fs from 'node:fs';
import readline from 'node:readline';
import { FakeRegistry, type FakeRegistryOptions, type Fault } from './fake-registry.ts';

interface ImageFiles {
  repository: string;
  tag?: string;
  config: object;
  /** Paths. */
  layers: string[];
  layerType?: string;
}

interface ManifestDocument {
  repository: string;
  tag?: string;
  document: object;
  mediaType?: string;
}

interface Config {
  options?: FakeRegistryOptions;
  images?: ImageFiles[];
  manifests?: ManifestDocument[];
  faults?: Fault[];
}

/** What it can be told, one at a time. */
export interface Order {
  fault?: Fault;
  forgetFaults?: true;
  cutStalled?: true;
  expireTokens?: true;
  image?: ImageFiles;
  blob?: { repository: string; file: string };
  manifest?: ManifestDocument;
  requests?: true;
}

const file = process.argv[2];
const config: Config = file === undefined ? {} : (JSON.parse(fs.readFileSync(file, 'utf8')) as Config);
const registry = await FakeRegistry.start(config.options);

function addImage({ repository, tag, layers, ...image }: ImageFiles): string {
  return registry.addImage(repository, tag, { ...image, layers: layers.map((each) => fs.readFileSync(each)) });
}

function obey(order: Order): unknown {
  if (order.fault !== undefined) registry.fault(order.fault);
  if (order.forgetFaults === true) registry.forgetFaults();
  if (order.cutStalled === true) registry.cutStalled();
  if (order.expireTokens === true) registry.expireTokens();
  if (order.blob !== undefined) return registry.addBlob(order.blob.repository, fs.readFileSync(order.blob.file));
  if (order.manifest !== undefined) {
    const { repository, tag, document, mediaType } = order.manifest;
    return { digest: registry.addManifest(repository, tag, document, mediaType) };
  }
  if (order.image !== undefined) return { digest: addImage(order.image) };
  return order.requests === true ? registry.requests : {};
}

for (const image of config.images ?? []) addImage(image);
for (const { repository, tag, document, mediaType } of config.manifests ?? [])
  registry.addManifest(repository, tag, document, mediaType);
for (const fault of config.faults ?? []) registry.fault(fault);
process.stdout.write(`listening ${registry.host}\n`);
for await (const line of readline.createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(obey(JSON.parse(line) as Order))}\n`);
}
await registry.stop();
