import { MinirunError } from '../errors.ts';
import { busyboxSource } from './busybox.ts';
import type { Image } from './image.ts';
import { minirootfsSource } from './minirootfs.ts';
import { findRecipe, type Recipe, type SourceDefinition } from './recipes.ts';
import { familiarName, parseReference, type Reference, shortName } from './reference.ts';
import { type Source, SourceUnavailable } from './source.ts';
import { sweepImages } from './collect.ts';
import { tagImage } from './store.ts';

/** Gets an image from the first of its sources that has it. @throws MinirunError when there is none */
export async function obtainImage(
  reference: Reference,
  { standIns, notice }: { standIns: boolean; notice: (line: string) => void },
): Promise<Image> {
  const name = shortName(reference);
  const sources = sourcesOf(reference);
  const failed: SourceUnavailable[] = [];
  if (sources.length > 0) await sweepImages();
  for (const source of sources) {
    if (source.isStandIn && !standIns) continue;
    try {
      return await source.obtain(reference, notice, failed);
    } catch (error) {
      if (!(error instanceof SourceUnavailable)) throw error;
      failed.push(error);
    }
  }
  const last = failed.at(-1);
  if (last === undefined) throw notHere(name, sources.length > 0);
  throw new MinirunError(`cannot get image "${name}"`, failed.map((error) => reasonOf(error)).join('; '), last.remedy);
}

function notHere(name: string, isRecipe: boolean): MinirunError {
  return new MinirunError(
    `cannot find image "${name}"`,
    isRecipe
      ? 'none of its sources may be asked'
      : 'it is not on this machine, and pulling from registries is not built yet',
    `Import it from a file: minirun import TARBALL ${name}`,
  );
}

function reasonOf(error: SourceUnavailable): string {
  return error.why === undefined ? error.what : `${error.what}: ${error.why}`;
}

/**
 * Where an image may come from, in the order to ask: what its recipe says. The seam for registries: any other name will
 * have one source, its registry.
 */
function sourcesOf(reference: Reference): Source[] {
  const recipe = findRecipe(reference);
  if (recipe === undefined) return [];
  return recipe.sources.flatMap((definition) => sourceOf(definition, recipe) ?? []);
}

function sourceOf(definition: SourceDefinition, recipe: Recipe): Source | undefined {
  switch (definition.type) {
    case 'registry':
      // Absent until minirun speaks to registries.
      return undefined;
    case 'busybox':
      return busyboxSource(definition, recipe);
    case 'minirootfs':
      return minirootfsSource(definition, recipe);
    case 'stand-in':
      return standInSource(definition.reference);
  }
}

/** The image of another recipe under this name. Its mark makes `run` warn every time and shows in `images`. */
function standInSource(name: string): Source {
  return {
    isStandIn: true,
    async obtain(reference, notice, failed) {
      const other = parseReference(name);
      const image = await obtainImage(other, { standIns: false, notice });
      const reasons = failed.map(reasonOf).join('; ');
      const wanted = familiarName(reference);
      const mark =
        `${wanted} is only a stand-in made of this machine's ${other.path.split('/').at(-1)}` +
        `${reasons === '' ? '' : ` (${reasons})`}; --pull=always tries to get the real one`;
      return tagImage(image.id, [reference], mark);
    },
  };
}
