// Static imports: `bun build --compile` puts the recipes into the binary.
import alpine from '../../images/alpine/recipe.json' with { type: 'json' };
import busybox from '../../images/busybox/recipe.json' with { type: 'json' };
import type { ImageConfig } from './image.ts';
import { canonicalName, type Reference } from './reference.ts';

/** A built-in image: `images/<name>/recipe.json`. */
export interface Recipe {
  /** Canonical name of the image. */
  reference: string;
  description: string;
  /** Asked in this order. */
  sources: SourceDefinition[];
  /** The image config; a registry's own config goes before it. */
  config: ImageConfig;
}

export type SourceDefinition =
  | { type: 'registry'; reference: string }
  | { type: 'busybox'; rootfs: RootfsDefinition }
  /** The newest small root filesystem that Alpine publishes below `mirror`/`releases`. */
  | { type: 'minirootfs'; mirror: string; releases: string }
  /** Another recipe's image under this name, said to be so. */
  | { type: 'stand-in'; reference: string };

/** What lies around the busybox program. Everything belongs to root. */
export interface RootfsDefinition {
  /** Octal mode by path, parents first. */
  directories: Record<string, string>;
  /** Target by path. */
  symlinks: Record<string, string>;
  /** Lines by path. */
  files: Record<string, string[]>;
}

const recipes = [alpine, busybox] as Recipe[];

/** The built-in recipe for an image. */
export function findRecipe(reference: Reference): Recipe | undefined {
  const name = canonicalName(reference);
  return recipes.find((recipe) => recipe.reference === name);
}
