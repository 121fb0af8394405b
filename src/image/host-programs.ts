import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { runTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { buildImage } from './build.ts';
import { buildRootfs, readBusybox } from './busybox.ts';
import { type Elf, readElf } from './elf.ts';
import { findRecipe, type HostProgramsDefinition, type Recipe, type RootfsDefinition } from './recipes.ts';
import { parseReference } from './reference.ts';
import type { Source } from './source.ts';

/** Directories that some distributions make links of: the image has what this machine has. */
const mergedDirectories = ['/bin', '/sbin', '/lib', '/lib64', '/usr/bin', '/usr/sbin', '/usr/lib', '/usr/lib64'];

/** Where loaders look when nothing else says it. */
const libraryDirectories = ['/lib64', '/usr/lib64', '/lib', '/usr/lib', '/usr/local/lib'];

/**
 * Copies programs of this machine, with the libraries that they need, around a busybox.
 *
 * What a program needs is read from the files themselves; none of them is run.
 */
export function hostProgramsSource(definition: HostProgramsDefinition, recipe: Recipe): Source {
  return {
    isStandIn: false,
    async obtain(reference, { report }) {
      const notice = (line: string) => report.notice(line);
      const { content, applets } = await readBusybox();
      const { tree, found, missing } = await collectPrograms(definition);
      if (missing.size > 0) notice(lackOf(missing, recipe));
      const { Cmd: command, ...config } = recipe.config;
      const links = Object.entries(definition.links ?? {}).filter(([, program]) => found.includes(program));
      const isCommandMissing = [...missing.values()].flat().includes(command?.[0] ?? '');
      return buildImage(
        {
          reference,
          config: { ...config, Cmd: isCommandMissing ? ['sh'] : command },
          createdBy: `minirun: ${recipe.description}`,
          comment: `the host's ${found.join(', ')}`,
        },
        async (directory) => {
          await tree.copyTo(directory);
          // A program of the host goes before the applet of the same name, wherever in PATH that would be.
          const taken = new Set([...found, ...links.map(([link]) => path.basename(link))]);
          const others = applets.filter((applet) => !taken.has(path.basename(applet)));
          const base = baseOf(definition);
          const rootfs = { ...base, files: { ...base.files, ...definition.files } };
          buildRootfs(directory, rootfs, { content, applets: others });
          for (const [link, program] of links) fs.symlinkSync(program, path.join(directory, link));
          await writeLibraryCache(directory, tree.libraryDirectories());
        },
      );
    },
  };
}

/** What this machine has of a definition, and what it lacks, by the package that brings it. */
export async function collectPrograms(
  definition: HostProgramsDefinition,
): Promise<{ tree: HostTree; found: string[]; missing: Map<string, string[]> }> {
  const libraries = await readLibraryCache();
  const tree = new HostTree();
  for (const directory of mergedDirectories) tree.add(directory);
  const programs = addPrograms(tree, definition.programs, libraries);
  for (const name of definition.libraries ?? []) {
    const file = libraries.get(name);
    if (file !== undefined) addWithLibraries(tree, file, libraries);
  }
  for (const plugin of pluginsOf(definition, libraries)) addWithLibraries(tree, plugin, libraries);
  for (const file of definition.copies ?? []) tree.add(file, { recursive: true });
  return { tree, ...programs };
}

function baseOf({ base }: HostProgramsDefinition): RootfsDefinition {
  const source = findRecipe(parseReference(base))?.sources.find(({ type }) => type === 'busybox');
  if (source?.type !== 'busybox') throw new MinirunError(`cannot build on ${base}`, 'its recipe has no busybox source');
  return source.rootfs;
}

/** Adds every program that this machine has and that can run; says which it has not, by the package that brings them. */
function addPrograms(
  tree: HostTree,
  programs: Record<string, string[]>,
  libraries: ReadonlyMap<string, string>,
): { found: string[]; missing: Map<string, string[]> } {
  const found: string[] = [];
  const missing = new Map<string, string[]>();
  for (const [name, names] of Object.entries(programs)) {
    for (const program of names) {
      const file = which(program);
      if (file !== undefined && !isBusybox(file) && addWithLibraries(tree, file, libraries)) found.push(program);
      else missing.set(name, [...(missing.get(name) ?? []), program]);
    }
  }
  return { found, missing };
}

/** On some machines ping and others are busybox: the image has its own. */
function isBusybox(file: string): boolean {
  return path.basename(fs.realpathSync(file)).startsWith('busybox');
}

function lackOf(missing: ReadonlyMap<string, string[]>, recipe: Recipe): string {
  const name = recipe.reference.split('/').at(-1)?.split(':')[0];
  const programs = [...missing.values()].flat().join(', ');
  const install =
    which('apt-get') === undefined
      ? 'install them'
      : `apt-get install --no-install-recommends ${[...missing.keys()].join(' ')}`;
  return (
    `${name} is without ${programs}, which this machine lacks (busybox stands in for some). ` +
    `To have them: ${install}, then minirun pull ${name}`
  );
}

/**
 * Adds a program or library, what it is loaded by, and what it needs, and so on.
 *
 * @returns false, and adds nothing, when something of it is not here
 */
function addWithLibraries(tree: HostTree, file: string, libraries: ReadonlyMap<string, string>): boolean {
  const files = new Set<string>([file]);
  for (const each of files) {
    const real = fs.realpathSync(each);
    const elf = readElf(real);
    if (elf === undefined) {
      const interpreter = interpreterOf(real);
      if (interpreter === undefined || !fs.existsSync(interpreter)) return false;
      files.add(interpreter);
      continue;
    }
    if (elf.interpreter !== undefined) files.add(elf.interpreter);
    for (const name of elf.needed) {
      const library = findLibrary(name, elf, path.dirname(real), libraries);
      if (library === undefined) return false;
      files.add(library);
    }
  }
  for (const each of files) tree.add(each, { isLibrary: each !== file });
  return true;
}

/** The program that a script asks for in its first line. */
function interpreterOf(file: string): string | undefined {
  return /^#! *(\/\S+)/.exec(fs.readFileSync(file).toString('latin1', 0, 256))?.[1];
}

/** As the loader would find it: ld.so(8). */
function findLibrary(
  name: string,
  user: Elf,
  origin: string,
  libraries: ReadonlyMap<string, string>,
): string | undefined {
  const fits = (file: string) => fs.existsSync(file) && readElf(file)?.machine === user.machine;
  if (name.includes('/')) return fits(name) ? name : undefined;
  const runPath = user.runPath.map((directory) => directory.replace(/^\$\{?ORIGIN\}?/, origin));
  const candidates = [
    ...runPath.map((directory) => path.join(directory, name)),
    ...[libraries.get(name) ?? []].flat(),
    ...libraryDirectories.map((directory) => path.join(directory, name)),
  ];
  return candidates.find((candidate) => fits(candidate));
}

/** Shared libraries by name, as the loader's cache has them; empty where the C library has no cache. */
async function readLibraryCache(): Promise<ReadonlyMap<string, string>> {
  const ldconfig = which('ldconfig');
  if (ldconfig === undefined) return new Map();
  const machine = readElf(process.execPath)?.machine;
  const { stdout } = await runTool(ldconfig, ['-p']);
  const libraries = new Map<string, string>();
  for (const [, name, file] of stdout.matchAll(/^\t(\S+) \(.*\) => (\/.+)$/gm)) {
    if (name === undefined || file === undefined || libraries.has(name)) continue;
    // Two architectures may have a library of one name.
    if (fs.existsSync(file) && readElf(file)?.machine === machine) libraries.set(name, file);
  }
  return libraries;
}

/** What programs load by directory and not by name: `xtables` is where iptables has its modules. */
function pluginsOf({ plugins = [] }: HostProgramsDefinition, libraries: ReadonlyMap<string, string>): string[] {
  const directories = new Set([...[...libraries.values()].map((file) => path.dirname(file)), ...libraryDirectories]);
  const real = new Set([...directories].filter((each) => fs.existsSync(each)).map((each) => fs.realpathSync(each)));
  return [...real].flatMap((directory) =>
    plugins
      .map((plugin) => path.join(directory, plugin))
      .filter((each) => fs.existsSync(each))
      .flatMap((each) => fs.readdirSync(each).map((entry) => path.join(each, entry))),
  );
}

/** The loader in the image looks where the one of this machine does, which the programs were found by. */
async function writeLibraryCache(directory: string, directories: readonly string[]): Promise<void> {
  const ldconfig = which('ldconfig');
  if (ldconfig === undefined) return;
  fs.writeFileSync(path.join(directory, 'etc/ld.so.conf'), directories.map((each) => `${each}\n`).join(''));
  // Its failure costs only what lies outside of the directories that every loader knows.
  await runTool(ldconfig, ['-X', '-r', directory]);
  fs.rmSync(path.join(directory, 'var/cache/ldconfig'), { recursive: true, force: true });
}

/** Files of this machine, with every link and directory on the way to them. */
class HostTree {
  /** Where they really are; each is added once. */
  private readonly directories = new Set<string>();
  private readonly links = new Map<string, string>();
  private readonly files = new Set<string>();
  private readonly libraries = new Set<string>();

  /** Adds what a path leads to; nothing when there is none. */
  add(file: string, { recursive = false, isLibrary = false } = {}): void {
    const links = new Map<string, string>();
    const directories: string[] = [];
    const rest = file.split('/').filter(Boolean);
    let here = '/';
    for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
      here = path.join(here, name);
      const stat = fs.lstatSync(here, { throwIfNoEntry: false });
      if (stat === undefined || links.size > 40) return;
      if (stat.isSymbolicLink()) {
        const target = fs.readlinkSync(here);
        links.set(here, target);
        rest.unshift(...target.split('/').filter(Boolean));
        here = target.startsWith('/') ? '/' : path.dirname(here);
      } else if (stat.isDirectory()) directories.push(here);
      else if (!stat.isFile()) return;
    }
    for (const each of directories) this.directories.add(each);
    for (const [each, target] of links) this.links.set(each, target);
    if (this.directories.has(here)) {
      if (recursive) for (const entry of fs.readdirSync(here)) this.add(path.join(here, entry), { recursive });
      return;
    }
    this.files.add(here);
    if (isLibrary) this.libraries.add(path.dirname(here));
  }

  /** Where the libraries are. */
  libraryDirectories(): string[] {
    return [...this.libraries];
  }

  /** Copies everything below a directory that has nothing else yet. */
  async copyTo(root: string): Promise<void> {
    for (const each of [...this.directories].toSorted()) {
      fs.mkdirSync(path.join(root, each), { recursive: true });
      fs.chmodSync(path.join(root, each), fs.statSync(each).mode & 0o7777);
    }
    for (const [each, target] of this.links) fs.symlinkSync(target, path.join(root, each));
    // cp, because Node copies neither times nor the capabilities that ping has.
    const { exitCode, stderr } = await runTool('cp', ['-a', '--parents', '-t', root, ...this.files]);
    if (exitCode !== 0) throw new MinirunError('cannot copy programs of this machine', stderr.trim().split('\n')[0]);
  }
}
