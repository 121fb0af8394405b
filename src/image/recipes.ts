// Static imports: `bun build --compile` puts the recipes into the binary.
import alpine from '../../images/alpine/recipe.json' with { type: 'json' };
import busybox from '../../images/busybox/recipe.json' with { type: 'json' };
import debian from '../../images/debian/recipe.json' with { type: 'json' };
import nettools from '../../images/nettools/recipe.json' with { type: 'json' };
import type { ImageConfig } from './image.ts';
import { canonicalName, parseReference, type Reference, shortName } from './reference.ts';

/** A built-in image: `images/<name>/recipe.json`. docs/images.md shows how to add one. */
export interface Recipe {
  /** Canonical name of the image. */
  reference: string;
  /** Every tag that the recipe is for, when there is more than one, and which release each means. */
  tags?: Record<string, string>;
  description: string;
  /** Asked in this order. */
  sources: SourceDefinition[];
  /** The image config; a registry's own config goes before it. */
  config: ImageConfig;
}

export type SourceDefinition =
  /** Its own registry, by the name that was asked for. */
  | { type: 'registry' }
  | { type: 'busybox'; rootfs: RootfsDefinition }
  /** The newest small root filesystem that Alpine publishes below `mirror`/`releases`. */
  | { type: 'minirootfs'; mirror: string; releases: string }
  | DebianDefinition
  | HostProgramsDefinition
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

/** A Debian made of its packages, with what https://github.com/debuerreotype/debuerreotype does for the official images. */
export interface DebianDefinition {
  type: 'debian';
  /** Used unless this machine's apt has a Debian mirror. */
  mirror: string;
  security: string;
  /** The public keys by which Debian's archive is checked. */
  keyring: string;
  components: string[];
  /** Paths that packages may not unpack, with `*` for any characters: dpkg's path-exclude, and then path-include. */
  exclude: string[];
  include: string[];
  /** What is deleted in the end: paths, with `*` in the last part. */
  remove: string[];
  /** Lines by path, written in the end. */
  files: Record<string, string[]>;
  /** The same, executable. */
  programs: Record<string, string[]>;
}

/** Programs of this machine with what they need, on top of a busybox. */
export interface HostProgramsDefinition {
  type: 'host-programs';
  /** The recipe whose `busybox` source lies below. */
  base: string;
  /** By the Debian package that brings them. */
  programs: Record<string, string[]>;
  /** Symbolic links by path, each to one of the programs beside it; left out where that is. */
  links?: Record<string, string>;
  /** Libraries that are loaded by name at run time, which nothing in a program says. Left out where they are not. */
  libraries?: string[];
  /** Directories of modules, relative to where libraries are. */
  plugins?: string[];
  /** Files and directories, left out where they are not. */
  copies?: string[];
  /** Lines by path; they go before those of the base. */
  files?: Record<string, string[]>;
}

const recipes = [alpine, busybox, debian, nettools] as unknown as Recipe[];

/** The built-in recipe for an image. */
export function findRecipe(reference: Reference): Recipe | undefined {
  const name = canonicalName(reference);
  return recipes.find((recipe) => namesOf(recipe).includes(name));
}

function namesOf({ reference, tags }: Recipe): string[] {
  if (tags === undefined) return [reference];
  const own = parseReference(reference);
  return Object.keys(tags).map((tag) => canonicalName({ ...own, tag }));
}

/** The short names of all of them: `alpine`. */
export function recipeNames(): string[] {
  return recipes.map(({ reference }) => shortName(parseReference(reference)));
}
