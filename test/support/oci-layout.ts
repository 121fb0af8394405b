import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { Header } from 'tar/header';
import { Pax } from 'tar/pax';
import type { EntryTypeName } from 'tar/types';
import { mediaTypes } from '../../src/image/manifest.ts';

/** A thing in a tar archive. Without a type it is a file. */
export interface TarEntry {
  path: string;
  type?: EntryTypeName;
  content?: string | Buffer;
  /** Permissions, octal as a number; 0644, and 0755 for directories. */
  mode?: number;
  uid?: number;
  gid?: number;
  /** Seconds since 1970. */
  mtime?: number;
  linkpath?: string;
  devmaj?: number;
  devmin?: number;
}

/** A tar archive of these entries, just as they are given: it may be one that no tar would write. */
export function tarOf(entries: readonly TarEntry[]): Buffer {
  const blocks = entries.flatMap(({ content = '', mtime = 0, ...entry }) => {
    const data = Buffer.from(content);
    const type = entry.type ?? 'File';
    const fields = {
      mode: type === 'Directory' ? 0o755 : 0o644,
      uid: 0,
      gid: 0,
      ...entry,
      type,
      size: data.length,
      mtime: new Date(mtime * 1000),
    };
    const header = new Header(fields);
    const needsPax = header.encode();
    const { path, linkpath, uid, gid, size } = fields;
    return [
      ...(needsPax ? [new Pax({ path, linkpath, uid, gid, size }).encode()] : []),
      header.block as Buffer,
      data,
      Buffer.alloc((512 - (data.length % 512)) % 512),
    ];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

/** An image for an OCI layout. */
export interface LayoutImage {
  /** Uncompressed tar archives, the lowest first. */
  layers: readonly Buffer[];
  /** The image config's `config`, with the image-spec's names. */
  config?: Record<string, unknown>;
  /** Its name in the layout: `org.opencontainers.image.ref.name`. */
  name?: string;
  architecture?: string;
  gzip?: boolean;
}

const digestOf = (data: Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`;

/** The files of an OCI image layout: path → content. */
export function layoutOf(images: readonly LayoutImage[]): Map<string, Buffer> {
  const files = new Map([['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}') as Buffer]]);
  const blob = (mediaType: string, content: Buffer | object) => {
    const data = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content));
    const digest = digestOf(data);
    files.set(`blobs/sha256/${digest.slice('sha256:'.length)}`, data);
    return { mediaType, digest, size: data.length };
  };
  const manifests = images.map(({ layers, config = {}, name, architecture, gzip = true }) => {
    const configBlob = blob(mediaTypes.ociConfig, {
      architecture: architecture ?? (process.arch === 'x64' ? 'amd64' : 'arm64'),
      os: 'linux',
      created: '2026-01-02T03:04:05Z',
      config,
      rootfs: { type: 'layers', diff_ids: layers.map(digestOf) },
      history: layers.map((_, index) => ({ created_by: `layer ${index}` })),
    });
    const manifest = blob(mediaTypes.ociManifest, {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: configBlob,
      layers: layers.map((layer) =>
        gzip ? blob(mediaTypes.ociLayerGzip, gzipSync(layer)) : blob(mediaTypes.ociLayer, layer),
      ),
    });
    return name === undefined ? manifest : { ...manifest, annotations: { 'org.opencontainers.image.ref.name': name } };
  });
  files.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests })));
  return files;
}

/** An OCI image layout as one tar archive, as `skopeo copy oci-archive:` and `minirun load` take it. */
export function archiveOf(images: readonly LayoutImage[]): Buffer {
  return tarOf([...layoutOf(images)].map(([path, content]) => ({ path, content })));
}
