import { MinirunError } from '../errors.ts';
import { architecture } from './architecture.ts';
import { type Descriptor, type ManifestList, mediaTypes, type Platform } from './manifest.ts';

/** What other tools call the architectures of Go: https://github.com/containerd/platforms, `normalizeArch`. */
const aliases: Record<string, Omit<Platform, 'os'>> = {
  i386: { architecture: '386' },
  x86_64: { architecture: 'amd64' },
  'x86-64': { architecture: 'amd64' },
  aarch64: { architecture: 'arm64' },
  armhf: { architecture: 'arm', variant: 'v7' },
  armel: { architecture: 'arm', variant: 'v6' },
};

/** Architectures that images for Linux are made for. */
const architectures = /^(386|amd64|arm|arm64|loong64|mips|mipsle|mips64|mips64le|ppc64|ppc64le|riscv64|s390x|sparc64)$/;

/** The platform of this machine. */
export function hostPlatform(): Platform {
  return normalize({ os: 'linux', architecture: architecture() });
}

/**
 * Reads `--platform` as docker does: `linux/arm/v7`, `linux/arm64`, `arm64`, `linux`.
 *
 * @throws MinirunError when it is none, or not one of Linux
 */
export function parsePlatform(text: string): Platform {
  const invalid = (why: string) =>
    new MinirunError(
      `invalid platform "${text}"`,
      why,
      'Write it as linux/ARCHITECTURE[/VARIANT], like linux/amd64 or linux/arm/v7',
    );
  const parts = text.toLowerCase().split('/');
  if (parts.length > 3 || !parts.every((part) => /^[a-z0-9_.-]+$/.test(part))) throw invalid('it is none');
  if (parts.length === 1) {
    const [only = ''] = parts;
    if (only === 'linux') return hostPlatform();
    parts.unshift('linux');
  }
  const [os = '', name = '', variant] = parts;
  if (os !== 'linux') throw invalid('minirun runs Linux containers only');
  const platform = normalize({ os, architecture: name, ...(variant === undefined ? {} : { variant }) });
  if (!architectures.test(platform.architecture)) throw invalid(`"${name}" is no architecture`);
  return platform;
}

/** A platform as images name it: `linux/arm/v7`. */
export function platformName({ os, architecture: name, variant }: Platform): string {
  return [os, name, ...(variant === undefined ? [] : [variant])].join('/');
}

/** Whether two platforms are the same, however they are written: `linux/arm` is `linux/arm/v7`. */
export function isSamePlatform(one: Platform, other: Platform): boolean {
  return isSame(normalize(one), normalize(other));
}

/** Whether a machine of the platform `wanted` runs what was made for `made`. */
export function isCompatible(made: Platform, wanted: Platform): boolean {
  const normal = normalize(made);
  return candidates(normalize(wanted)).some((each) => isSame(each, normal));
}

/**
 * The entry of an index that fits a platform best, as containerd chooses: the nearest variant, then the first in the
 * list; an entry that names no platform only when no other fits. Undefined when there is none.
 *
 * The entry may be an index itself. One without a platform says in its config what it is for.
 */
export function selectManifest(list: ManifestList, wanted: Platform): Descriptor | undefined {
  const entries = list.manifests.filter((entry) => isImage(entry));
  for (const candidate of candidates(normalize(wanted))) {
    const found = entries.find(({ platform }) => platform !== undefined && isSame(normalize(platform), candidate));
    if (found !== undefined) return found;
  }
  return entries.find(({ platform }) => platform === undefined);
}

const imageTypes: readonly string[] = [
  mediaTypes.ociIndex,
  mediaTypes.ociManifest,
  mediaTypes.dockerIndex,
  mediaTypes.dockerManifest,
];

/** Whether an entry of an index can be an image: BuildKit puts attestations there, others whatever they like. */
export function isImage({ mediaType, platform, annotations }: Descriptor): boolean {
  if (!imageTypes.includes(mediaType)) return false;
  if (platform?.os === 'unknown' || platform?.architecture === 'unknown') return false;
  return annotations?.['vnd.docker.reference.type'] !== 'attestation-manifest';
}

/** One way to write each platform: containerd's `Normalize`. */
function normalize({ os, architecture: name, variant }: Platform): Platform {
  const alias = aliases[name.toLowerCase()];
  const normal = alias?.architecture ?? name.toLowerCase();
  const level = normalVariant(normal, alias?.variant ?? variant?.toLowerCase());
  return { os: os.toLowerCase(), architecture: normal, ...(level === undefined ? {} : { variant: level }) };
}

function normalVariant(name: string, given: string | undefined): string | undefined {
  const variant = given === '' ? undefined : given;
  switch (name) {
    case '386':
      return undefined;
    case 'amd64':
      return variant === 'v1' ? undefined : variant;
    case 'arm64':
      return variant === '8' || variant === 'v8' ? undefined : variant;
    case 'arm':
      if (variant === undefined) return 'v7';
      return /^[5-8]$/.test(variant) ? `v${variant}` : variant;
    default:
      return variant;
  }
}

/** What a machine of this (normalised) platform can run, the best first: containerd's `platformVector`. */
function candidates(platform: Platform): Platform[] {
  const { os, architecture: name, variant } = platform;
  const of = (architectureName: string, level?: string): Platform =>
    normalize({ os, architecture: architectureName, ...(level === undefined ? {} : { variant: level }) });
  switch (name) {
    case 'amd64':
      return [platform, ...levelsBelow(variant, 1).map((level) => of('amd64', level)), of('386')];
    case 'arm':
      return [platform, ...levelsBelow(variant, 5).map((level) => of('arm', level))];
    case 'arm64': {
      const levels = arm64Levels(variant ?? 'v8');
      return [platform, ...levels.map((level) => of('arm64', level)), ...candidates(of('arm', 'v8'))];
    }
    default:
      return [platform];
  }
}

/** `v3` and a lowest level of 1 give `v2`, `v1`. */
function levelsBelow(variant: string | undefined, lowest: number): string[] {
  const level = Number(/^v(\d)$/.exec(variant ?? '')?.[1] ?? 0);
  return Array.from({ length: Math.max(0, level - lowest) }, (_, step) => `v${level - 1 - step}`);
}

/** The levels of the 64-bit ARM architecture below one. Version 9.x contains 8.(x+5). */
function arm64Levels(variant: string): string[] {
  const [, version, point] = /^v([89])(?:\.(\d))?$/.exec(variant) ?? [];
  if (version === undefined) return [];
  const below = (major: string, minor: number) =>
    Array.from({ length: minor }, (_, step) => minor - 1 - step).map(
      (each) => `v${major}${each === 0 ? '' : `.${each}`}`,
    );
  const minor = Number(point ?? 0);
  return version === '8' ? below('8', minor) : [...below('9', minor), ...below('8', minor + 6)];
}

function isSame(one: Platform, other: Platform): boolean {
  return one.os === other.os && one.architecture === other.architecture && one.variant === other.variant;
}
