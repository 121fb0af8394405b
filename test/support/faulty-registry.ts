import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import type { FakeRegistryOptions, Fault, LoggedRequest } from './fake-registry.ts';
import type { Order } from './fake-registry-main.ts';
import type { Running, World } from './world.ts';

type Descriptor = Record<string, unknown> & { digest: string; size: number };

/** What of an image is to be another than it should. */
interface Lies {
  diffIds?: string[];
  layerType?: string;
  config?: Record<string, unknown>;
  /** Changes the layers as the manifest has them. */
  layers?: (descriptors: Descriptor[]) => unknown[];
}

/** An image as it was published. */
export interface Published {
  reference: string;
  digest: string;
  /** Digests of the blobs of its layers. */
  layers: string[];
  diffIds: string[];
}

const digestOf = (content: Buffer): string => `sha256:${createHash('sha256').update(content).digest('hex')}`;

/** The fake registry as a program on the loopback of a world's host, and the orders that it takes. */
export class FaultyRegistry {
  private seen = 0;
  private forgotten = 0;
  private files = 0;
  private turn: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly world: World,
    private readonly process: Running,
    readonly host: string,
  ) {}

  static async start(world: World, options: FakeRegistryOptions = {}): Promise<FaultyRegistry> {
    const config = path.join(fs.mkdtempSync(path.join(world.directory, 'registry-')), 'config.json');
    fs.writeFileSync(config, JSON.stringify({ options }));
    const program = path.resolve(import.meta.dir, 'fake-registry-main.ts');
    const process_ = await world.host.spawn([process.execPath, program, config], { timeout: 2 ** 31 - 1 });
    await process_.waitFor(/listening .*\n/);
    const host = /listening (\S+)/.exec(process_.output())?.[1] ?? '';
    const registry = new FaultyRegistry(world, process_, host);
    registry.seen = process_.output().length;
    return registry;
  }

  async stop(): Promise<void> {
    this.process.end();
    await this.process.exit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Says one thing and waits for the answer. */
  async order<T = unknown>(order: Order): Promise<T> {
    const answered = this.turn.then(async () => {
      this.process.write(`${JSON.stringify(order)}\n`);
      const from = this.seen;
      this.seen = await this.process.waitFor(/\n/, { from });
      return JSON.parse(this.process.output().slice(from, this.seen)) as T;
    });
    this.turn = answered.catch(() => {});
    return answered;
  }

  async fault(fault: Fault): Promise<void> {
    await this.order({ fault });
  }

  /** Requests since the last `forget`. */
  async requests(): Promise<LoggedRequest[]> {
    return (await this.order<LoggedRequest[]>({ requests: true })).slice(this.forgotten);
  }

  /** How often each blob was asked for, by digest; of one repository or of all. */
  async blobFetches(repository = ''): Promise<Map<string, number>> {
    const counts = new Map<string, number>();
    for (const { method, path: place } of await this.requests()) {
      const digest = /\/blobs\/(sha256:\w+)$/.exec(place)?.[1];
      if (method !== 'GET' || digest === undefined || !place.includes(repository)) continue;
      counts.set(digest, (counts.get(digest) ?? 0) + 1);
    }
    return counts;
  }

  /** Forgets requests and faults. */
  async forget(): Promise<void> {
    await this.order({ forgetFaults: true });
    await this.order({ cutStalled: true });
    this.forgotten += (await this.requests()).length;
  }

  /** Publishes an image of layers that are tar archives; they are sent as `pack` makes them, gzip unless said. */
  async publish(
    repository: string,
    tars: readonly Buffer[],
    lies: Lies = {},
    pack: (tar: Buffer) => Buffer = (tar) => gzipSync(tar, { level: 1 }),
  ): Promise<Published> {
    const diffIds = lies.diffIds ?? tars.map(digestOf);
    const config = {
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      config: { Cmd: ['/bin/sh'] },
      rootfs: { type: 'layers', diff_ids: diffIds },
      history: [{ created_by: repository }],
      ...lies.config,
    };
    const mediaType = lies.layerType ?? 'application/vnd.oci.image.layer.v1.tar+gzip';
    const layers: Descriptor[] = [];
    for (const tar of tars) layers.push({ mediaType, ...(await this.blob(repository, pack(tar))) });
    const document = {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        ...(await this.blob(repository, Buffer.from(JSON.stringify(config)))),
      },
      layers: lies.layers?.(structuredClone(layers)) ?? layers,
    };
    const { digest } = await this.order<{ digest: string }>({ manifest: { repository, tag: '1', document } });
    return {
      reference: `${this.host}/${repository}:1`,
      digest,
      layers: layers.map((layer) => layer.digest),
      diffIds,
    };
  }

  private async blob(repository: string, content: Buffer): Promise<{ digest: string; size: number }> {
    const file = path.join(this.world.directory, `blob-${this.files++}`);
    fs.writeFileSync(file, content);
    const added = await this.order<{ digest: string; size: number }>({ blob: { repository, file } });
    fs.rmSync(file);
    return added;
  }
}
