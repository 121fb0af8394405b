import { describe, expect, test } from 'bun:test';
import { type Descriptor, mediaTypes, type Platform } from '../../../src/image/manifest.ts';
import {
  hostPlatform,
  isCompatible,
  parsePlatform,
  platformName,
  selectManifest,
} from '../../../src/image/platform.ts';

const digest = (digit: string) => `sha256:${digit.repeat(64)}`;

function entry(platform: string | undefined, more: Partial<Descriptor> = {}): Descriptor {
  const [os = '', architecture = '', variant] = platform?.split('/') ?? [];
  return {
    mediaType: mediaTypes.ociManifest,
    digest: digest('1'),
    size: 1,
    ...(platform === undefined
      ? {}
      : { platform: { os, architecture, ...(variant === undefined ? {} : { variant }) } }),
    ...more,
  };
}

/** The platform that is chosen of several; `none` for an entry without one. */
function choose(wanted: string, ...offered: (string | undefined)[]): string | undefined {
  const list = { mediaType: mediaTypes.ociIndex, manifests: offered.map((each) => entry(each)) };
  const found = selectManifest(list, parsePlatform(wanted));
  return found === undefined ? undefined : found.platform === undefined ? 'none' : platformName(found.platform);
}

describe('names of platforms', () => {
  test.each([
    ['linux/amd64', 'linux/amd64'],
    ['linux/x86_64', 'linux/amd64'],
    ['amd64', 'linux/amd64'],
    ['linux/amd64/v1', 'linux/amd64'],
    ['linux/amd64/v3', 'linux/amd64/v3'],
    ['linux/arm64/v8', 'linux/arm64'],
    ['aarch64', 'linux/arm64'],
    ['linux/arm', 'linux/arm/v7'],
    ['linux/arm/6', 'linux/arm/v6'],
    ['armhf', 'linux/arm/v7'],
    ['armel', 'linux/arm/v6'],
    ['i386', 'linux/386'],
    ['Linux/RISCV64', 'linux/riscv64'],
  ])('%s', (text, name) => {
    expect(platformName(parsePlatform(text))).toBe(name);
  });

  test('linux alone is this machine', () => {
    expect(parsePlatform('linux')).toEqual(hostPlatform());
  });

  test.each(['', 'windows/amd64', 'linux/', 'linux/vax', 'linux/arm/v7/x', 'linux/../x', 'vax'])(
    'refuses "%s"',
    (text) => {
      expect(() => parsePlatform(text)).toThrow(/invalid platform/);
    },
  );
});

describe('the choice in an index', () => {
  test.each([
    ['linux/amd64', ['linux/arm64', 'linux/amd64'], 'linux/amd64'],
    ['linux/amd64', ['linux/386', 'linux/amd64'], 'linux/amd64'],
    ['linux/amd64', ['linux/386'], 'linux/386'],
    ['linux/amd64', ['linux/amd64/v2', 'linux/amd64'], 'linux/amd64'],
    ['linux/amd64', ['linux/amd64/v3'], undefined],
    ['linux/amd64/v2', ['linux/amd64', 'linux/amd64/v2', 'linux/amd64/v3'], 'linux/amd64/v2'],
    ['linux/amd64/v3', ['linux/amd64/v1'], 'linux/amd64/v1'],
    ['linux/arm/v7', ['linux/arm/v5', 'linux/arm/v6'], 'linux/arm/v6'],
    ['linux/arm/v6', ['linux/arm/v7'], undefined],
    ['linux/arm/v7', ['linux/arm'], 'linux/arm'],
    ['linux/arm64', ['linux/arm/v7', 'linux/arm64/v8'], 'linux/arm64/v8'],
    ['linux/arm64', ['linux/arm/v5', 'linux/arm/v7'], 'linux/arm/v7'],
    ['linux/arm64/v9', ['linux/arm64/v8.5', 'linux/arm64/v8'], 'linux/arm64/v8.5'],
    ['linux/arm64', ['linux/arm64/v8.1'], undefined],
    ['linux/amd64', ['windows/amd64', 'unknown/unknown'], undefined],
    ['linux/amd64', [undefined, 'linux/amd64'], 'linux/amd64'],
    ['linux/amd64', [undefined, 'linux/arm64'], 'none'],
  ] as [string, (string | undefined)[], string | undefined][])('%s of %p is %p', (wanted, offered, chosen) => {
    expect(choose(wanted, ...offered)).toBe(chosen as string);
  });

  test('passes over attestations, and over what is of an unknown type', () => {
    const manifests = [
      entry('linux/amd64', { annotations: { 'vnd.docker.reference.type': 'attestation-manifest' } }),
      entry('linux/amd64', { mediaType: 'application/vnd.example+json' }),
      entry('linux/amd64', { digest: digest('2') }),
    ];
    const wanted: Platform = { os: 'linux', architecture: 'amd64' };
    expect(selectManifest({ mediaType: mediaTypes.ociIndex, manifests }, wanted)?.digest).toBe(digest('2'));
  });
});

test('whether a machine can run what was made for a platform', () => {
  const amd64 = parsePlatform('linux/amd64');
  expect(isCompatible({ os: 'linux', architecture: '386' }, amd64)).toBe(true);
  expect(isCompatible({ os: 'linux', architecture: 'x86_64' }, amd64)).toBe(true);
  expect(isCompatible({ os: 'linux', architecture: 'arm64' }, amd64)).toBe(false);
  expect(isCompatible({ os: 'windows', architecture: 'amd64' }, amd64)).toBe(false);
});
