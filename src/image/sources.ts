import { MinirunError } from '../errors.ts';
import { busyboxSource } from './busybox.ts';
import { recordEvent } from '../state/events.ts';
import { debianSource } from './debian.ts';
import { transferEvent } from './events.ts';
import { hostProgramsSource } from './host-programs.ts';
import type { Image } from './image.ts';
import { minirootfsSource } from './minirootfs.ts';
import { hostPlatform, isCompatible } from './platform.ts';
import { findRecipe, type Recipe, recipeNames, type SourceDefinition } from './recipes.ts';
import { familiarName, parseReference, type Reference, shortName } from './reference.ts';
import { type Source, SourceUnavailable, type Wanted } from './source.ts';
import { sweepImages } from './collect.ts';
import { tagImage } from './store.ts';

/** Gets an image from the first of its sources that has it. @throws MinirunError when there is none */
export async function obtainImage(
  reference: Reference,
  { standIns, ...wanted }: Wanted & { standIns: boolean },
): Promise<Image> {
  const name = shortName(reference);
  const foreign = wanted.platform !== undefined && !isCompatible(wanted.platform, hostPlatform());
  const sources = sourcesOf(reference).filter(
    (source) => (standIns || !source.isStandIn) && (source.isRegistry === true || !foreign),
  );
  if (standIns && sources.some(({ isRegistry }) => isRegistry))
    wanted.report.notice(`Unable to find image '${familiarName(reference)}' locally`);
  const failed: SourceUnavailable[] = [];
  for (const source of sources) {
    try {
      // A pull does it itself, when it has said what it needs of what an earlier one has left.
      if (source.isRegistry !== true) await sweepImages();
      const image = await source.obtain(reference, wanted, failed);
      recordEvent(transferEvent('pull', reference));
      return image;
    } catch (error) {
      if (!(error instanceof SourceUnavailable)) throw error;
      failed.push(error);
    }
  }
  const last = failed.at(-1);
  if (last === undefined) {
    throw new MinirunError(
      `cannot get image "${name}"`,
      'none of its sources may be asked',
      `Import it from a file: minirun import TARBALL ${name}`,
    );
  }
  const isUnknown = findRecipe(reference) === undefined && reference.domain === 'docker.io';
  const remedy = isUnknown ? `${last.remedy}; these need no registry: ${recipeNames().join(', ')}` : last.remedy;
  // One source speaks for itself.
  if (failed.length === 1) throw new MinirunError(last.what, last.why, remedy);
  throw new MinirunError(`cannot get image "${name}"`, failed.map((error) => reasonOf(error)).join('; '), remedy);
}

function reasonOf(error: SourceUnavailable): string {
  return error.why === undefined ? error.what : `${error.what}: ${error.why}`;
}

/** Where an image may come from, in the order to ask: what its recipe says, or the registry of its name. */
function sourcesOf(reference: Reference): Source[] {
  const recipe = findRecipe(reference);
  if (recipe === undefined) return [registrySource()];
  return recipe.sources.map((definition) => sourceOf(definition, recipe));
}

function sourceOf(definition: SourceDefinition, recipe: Recipe): Source {
  switch (definition.type) {
    case 'registry':
      return registrySource();
    case 'busybox':
      return busyboxSource(definition, recipe);
    case 'minirootfs':
      return minirootfsSource(definition, recipe);
    case 'debian':
      return debianSource(definition, recipe);
    case 'host-programs':
      return hostProgramsSource(definition, recipe);
    case 'stand-in':
      return standInSource(definition.reference);
  }
}

/** The registry of an image's own name. Loaded only when asked: an image that is made here needs no client. */
function registrySource(): Source {
  return {
    isStandIn: false,
    isRegistry: true,
    async obtain(reference, wanted) {
      const { pullImage } = await import('./pull.ts');
      const { Damaged, Unstorable } = await import('./staged-layer.ts');
      const { RegistryError } = await import('./registry/failure.ts');
      try {
        return (await pullImage(reference, wanted)).image;
      } catch (error) {
        const isDamage = error instanceof Damaged || (error instanceof RegistryError && error.kind === 'damaged');
        const isOurs = !(error instanceof MinirunError) || error instanceof Unstorable;
        const isFinal = isDamage || isOurs || (error.code ?? 0) > 125;
        if (isFinal) throw error;
        throw new SourceUnavailable(error.what, error.why, error.remedy);
      }
    },
  };
}

/** The image of another recipe under this name. Its mark makes `run` warn every time and shows in `images`. */
function standInSource(name: string): Source {
  return {
    isStandIn: true,
    async obtain(reference, wanted, failed) {
      const other = parseReference(name);
      const image = await obtainImage(other, { ...wanted, standIns: false });
      const reasons = failed.map(reasonOf).join('; ');
      const familiar = familiarName(reference);
      const mark =
        `${familiar} is only a stand-in made of this machine's ${other.path.split('/').at(-1)}` +
        `${reasons === '' ? '' : ` (${reasons})`}; --pull=always tries to get the real one`;
      return tagImage(image.id, [reference], mark);
    },
  };
}
