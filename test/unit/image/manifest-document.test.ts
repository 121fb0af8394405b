import { describe, expect, test } from 'bun:test';
import { mediaTypes, type RawManifest } from '../../../src/image/manifest.ts';
import { parseImageConfig, parseManifestDocument } from '../../../src/image/manifest-document.ts';

const digest = `sha256:${'a'.repeat(64)}`;
const descriptor = { mediaType: mediaTypes.ociLayerGzip, digest, size: 10 };
const config = { mediaType: mediaTypes.ociConfig, digest, size: 2 };
const manifest = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [descriptor] };
const index = {
  schemaVersion: 2,
  mediaType: mediaTypes.ociIndex,
  manifests: [{ ...config, mediaType: mediaTypes.ociManifest }],
};

function raw(document: unknown, mediaType: string = mediaTypes.ociManifest): RawManifest {
  return { digest, mediaType, body: Buffer.from(typeof document === 'string' ? document : JSON.stringify(document)) };
}

describe('manifests', () => {
  test('an image of either kind', () => {
    expect(parseManifestDocument(raw(manifest))).toEqual({
      kind: 'manifest',
      manifest: { mediaType: mediaTypes.ociManifest, config, layers: [descriptor] },
    });
    const docker = {
      ...manifest,
      mediaType: mediaTypes.dockerManifest,
      config: { ...config, mediaType: mediaTypes.dockerConfig },
      layers: [
        {
          ...descriptor,
          mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
          urls: ['https://x.example/l'],
        },
      ],
    };
    const parsed = parseManifestDocument(raw(docker, mediaTypes.dockerManifest));
    expect(parsed.kind === 'manifest' && parsed.manifest.layers[0]?.urls).toEqual(['https://x.example/l']);
  });

  test('an index, with entries of any type', () => {
    const platform = { os: 'linux', architecture: 'arm', variant: 'v7', 'os.version': '1' };
    const manifests = [
      { ...config, mediaType: 'application/vnd.what', platform },
      { ...config, mediaType: mediaTypes.ociManifest },
    ];
    const parsed = parseManifestDocument(raw({ ...index, manifests }, mediaTypes.ociIndex));
    expect(parsed.kind === 'index' && parsed.list.manifests.map((each) => each.platform)).toEqual([
      { os: 'linux', architecture: 'arm', variant: 'v7' },
      undefined,
    ]);
  });

  test('its own type is optional, and the server may not know one', () => {
    const { mediaType: _, ...bare } = manifest;
    const parsed = parseManifestDocument(raw(bare, 'application/octet-stream'));
    expect(parsed.kind === 'manifest' && parsed.manifest.mediaType).toBe(mediaTypes.ociManifest);
  });

  test.each([
    ['{', /not JSON/],
    ['[]', /no JSON object/],
    [{ ...manifest, schemaVersion: 3 }, /schemaVersion/],
    [{ schemaVersion: 1, name: 'x', fsLayers: [] }, /too old/],
    [{ ...manifest, ...index, mediaType: undefined }, /at the same time/],
    [{ schemaVersion: 2 }, /neither/],
    [{ ...manifest, mediaType: mediaTypes.ociIndex }, /not what its type says/],
    [index, /not what its type says/],
    [{ ...manifest, config: { ...config, digest: 'sha256:../../etc' } }, /config\.digest is no digest/],
    [{ ...manifest, layers: [{ ...descriptor, digest: 'md5:aa' }] }, /layers\[0\]\.digest/],
    [{ ...manifest, layers: [{ ...descriptor, size: -1 }] }, /size/],
    [{ ...manifest, layers: [{ ...descriptor, size: 2 ** 60 }] }, /size/],
    [{ ...manifest, layers: [{ ...descriptor, size: '10' }] }, /size/],
    [{ ...manifest, layers: [null] }, /no object/],
    [{ ...manifest, layers: {} }, /no list/],
    [{ ...manifest, config: undefined }, /config is no object/],
    [{ ...manifest, config: { ...config, mediaType: 'application/vnd.cncf.helm.config.v1+json' } }, /Helm chart/],
    [
      {
        ...manifest,
        artifactType: 'application/x\u001b[31m',
        config: { ...config, mediaType: 'application/vnd.oci.empty.v1+json' },
      },
      /type application\/x\?\[31m/,
    ],
    [{ ...manifest, layers: [{ ...descriptor, mediaType: 'application/vnd.in-toto+json' }] }, /no archive/],
    [{ ...manifest, layers: [{ ...descriptor, mediaType: `${mediaTypes.ociLayerGzip}+encrypted` }] }, /encrypted/],
  ])('refuses %j', (document, message) => {
    expect(() => parseManifestDocument(raw(document))).toThrow(message);
  });

  test('refuses more than 4 MiB', () => {
    expect(() => parseManifestDocument(raw(' '.repeat(4 * 1024 * 1024 + 1)))).toThrow(/4 MiB/);
  });
});

describe('image configs', () => {
  const rootfs = { type: 'layers', diff_ids: [digest] };
  const parse = (document: unknown) => parseImageConfig(Buffer.from(JSON.stringify(document)));

  test('keep what is known, drop what is null', () => {
    const parsed = parse({
      architecture: 'amd64',
      os: 'linux',
      created: '2020-01-01T00:00:00Z',
      config: {
        Env: ['A=b'],
        Cmd: ['sh'],
        Entrypoint: null,
        Labels: { a: 'b', c: null },
        ExposedPorts: { '80/tcp': {} },
        Volumes: { '/data': {} },
        Healthcheck: { Test: ['NONE'], Interval: 5, Retries: null },
        Hostname: 'x',
      },
      rootfs,
      history: [{ created_by: 'x', empty_layer: true }, {}],
      container: 'y',
    });
    expect(parsed).toEqual({
      architecture: 'amd64',
      os: 'linux',
      created: '2020-01-01T00:00:00Z',
      config: {
        Env: ['A=b'],
        Cmd: ['sh'],
        Labels: { a: 'b', c: '' },
        ExposedPorts: { '80/tcp': {} },
        Volumes: { '/data': {} },
        Healthcheck: { Test: ['NONE'], Interval: 5 },
      },
      rootfs: { type: 'layers', diff_ids: [digest] },
      history: [{ created_by: 'x', empty_layer: true }, {}],
    });
  });

  test('need nothing but a rootfs', () => {
    expect(parse({ rootfs }).config).toEqual({});
    expect(parse({ config: null, rootfs: { type: 'layers', diff_ids: null } }).rootfs.diff_ids).toEqual([]);
  });

  test.each([
    [{}, /rootfs is no object/],
    [{ rootfs: { type: 'windows' } }, /not "layers"/],
    [{ rootfs: { type: 'layers', diff_ids: ['../x'] } }, /diff_ids\[0\] is no digest/],
    [{ rootfs, config: [] }, /config is no object/],
    [{ rootfs, config: { Env: 'A=b' } }, /config\.Env is no list/],
    [{ rootfs, config: { Cmd: [1] } }, /config\.Cmd\[0\] is no text/],
    [{ rootfs, config: { Cmd: ['a\0b'] } }, /zero byte/],
    [{ rootfs, config: { User: 0 } }, /config\.User is no text/],
    [{ rootfs, config: { Volumes: ['/x'] } }, /Volumes is no object/],
    [{ rootfs, config: { Healthcheck: { Interval: '5s' } } }, /Interval is no number/],
    [{ rootfs, history: {} }, /history is no list/],
    [{ rootfs, os: 5 }, /os is no text/],
  ])('refuse %j', (document, message) => {
    expect(() => parse(document)).toThrow(message);
  });
});
