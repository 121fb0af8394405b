import type { ImageConfig } from './image.ts';

/** Media types of the image-spec and of docker's schema 2: https://github.com/opencontainers/image-spec */
export const mediaTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  ociLayerZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayerGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
} as const;

/** A piece of content, as the image-spec describes it. */
export interface Descriptor {
  mediaType: string;
  /** Checked to be a well-formed digest. */
  digest: string;
  /** Bytes. */
  size: number;
  /** Where a nondistributable layer may be fetched from. */
  urls?: string[];
  platform?: Platform;
  annotations?: Record<string, string>;
}

export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
}

/** An image manifest of either kind. */
export interface Manifest {
  mediaType: string;
  config: Descriptor;
  /** The lowest first. */
  layers: Descriptor[];
}

/** An image index or docker's manifest list. */
export interface ManifestList {
  mediaType: string;
  manifests: Descriptor[];
}

/** A manifest or an index as it was fetched or read. */
export interface RawManifest {
  /** Digest of `body`. */
  digest: string;
  mediaType: string;
  /** Byte for byte. */
  body: Buffer;
}

/** An OCI image config. Byte for byte it is what the image's id is the digest of. */
export interface OciImageConfig {
  architecture: string;
  os: string;
  variant?: string;
  /** RFC 3339. */
  created?: string;
  author?: string;
  config: ImageConfig;
  rootfs: { type: 'layers'; diff_ids: string[] };
  history?: HistoryEntry[];
}

export interface HistoryEntry {
  created?: string;
  created_by?: string;
  author?: string;
  comment?: string;
  /** Such an entry made no layer. */
  empty_layer?: boolean;
}
