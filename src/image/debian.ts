import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { runTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { buildImage } from './build.ts';
import type { DebianDefinition, Recipe } from './recipes.ts';
import { familiarName } from './reference.ts';
import { type Source, SourceUnavailable } from './source.ts';

/** Where the packages come from. */
export interface Mirror {
  mirror: string;
  /** Whether it has the suite of updates, too: `trixie-updates`. */
  hasUpdates: boolean;
  security?: string;
}

/**
 * Builds a Debian of its essential packages and apt, by mmdebstrap or debootstrap, from the mirror that this machine's
 * apt uses. apt checks the signatures of what it fetches; then the packages' own scripts run as root in a chroot.
 */
export function debianSource(definition: DebianDefinition, recipe: Recipe): Source {
  return {
    isStandIn: false,
    async obtain(reference, { report }) {
      const notice = (line: string) => report.notice(line);
      const tool = ['mmdebstrap', 'debootstrap'].find((name) => which(name) !== undefined);
      if (tool === undefined) {
        throw unavailable(
          'this machine has neither mmdebstrap nor debootstrap',
          'Install one: apt-get install mmdebstrap',
        );
      }
      if (!fs.existsSync(definition.keyring)) {
        throw unavailable(
          `this machine does not have Debian's keys (${definition.keyring})`,
          'Install them: apt-get install debian-archive-keyring',
        );
      }
      const release = recipe.tags?.[reference.tag ?? ''] ?? 'stable';
      const mirror = (await machineMirror()) ?? { ...definition, hasUpdates: true };
      notice(
        `Building ${familiarName(reference)} from ${mirror.mirror} by ${tool}, ` +
          'which runs the scripts of the packages as root in a chroot',
      );
      return buildImage(
        { reference, config: recipe.config, createdBy: `minirun: ${tool} ${release} ${mirror.mirror}` },
        async (directory, staging) => {
          const begin = Date.now();
          const options = staging.file('apt.conf');
          fs.writeFileSync(options, await downloadOptions());
          const bootstrap = bootstrapCommand(tool, { definition, release, mirror, directory, options });
          const { exitCode, stderr, stdout } = await runTool(bootstrap[0] as string, bootstrap.slice(1));
          if (exitCode !== 0) {
            throw unavailable(
              `${tool}: ${complaintOf(`${stderr}\n${stdout}`)}`,
              `See whether this machine reaches ${mirror.mirror}: apt-get update`,
            );
          }
          const created = newest(directory, begin);
          tidy(new Tree(directory), definition, mirror);
          return { created: created.toISOString() };
        },
      );
    },
  };
}

function unavailable(why: string, remedy: string): SourceUnavailable {
  return new SourceUnavailable('cannot build a Debian', why, remedy);
}

/** The line that says what went wrong. Those after it are about what followed from that. */
function complaintOf(output: string): string {
  const lines = output.split('\n').filter((line) => line.trim() !== '');
  return (lines.find((line) => line.startsWith('E: ')) ?? lines.at(-1) ?? 'it failed')
    .replace(/^E: /, '')
    .replace(/\.+$/, '');
}

/**
 * The command that fills a directory. It runs in mount and process namespaces of its own: whatever it mounts is gone
 * with it, and it is gone with this process.
 *
 * @param plan.options a file with options of apt
 */
export function bootstrapCommand(
  tool: string,
  {
    definition: { keyring, components },
    release,
    mirror,
    directory,
    options,
  }: { definition: DebianDefinition; release: string; mirror: Mirror; directory: string; options: string },
): string[] {
  const enclosed = [
    'setpriv',
    '--pdeathsig',
    'KILL',
    'unshare',
    '--mount',
    '--pid',
    '--fork',
    '--kill-child',
    '--mount-proc',
  ];
  if (tool === 'debootstrap') {
    // It would go on without a signature otherwise.
    const checked = [`--keyring=${keyring}`, '--force-check-gpg'];
    const what = ['--variant=minbase', `--components=${components.join(',')}`];
    return [...enclosed, '--', tool, ...what, ...checked, release, directory, mirror.mirror];
  }
  const lines = sourcesOf(mirror, release).map(({ uri, suites }) =>
    suites.map((suite) => `deb [signed-by=${keyring}] ${uri} ${suite} ${components.join(' ')}`),
  );
  const what = ['--mode=root', '--variant=minbase', '--format=directory', `--aptopt=${options}`];
  return [...enclosed, '--', tool, ...what, release, directory, ...lines.flat()];
}

/** What `apt-get indextargets` is asked for, tab by tab. */
const targetFields = '$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(ORIGIN)';

/** The mirror that this machine's apt uses for Debian; undefined when it is no Debian, or has only others. */
async function machineMirror(): Promise<Mirror | undefined> {
  if (which('apt-get') === undefined) return undefined;
  const { exitCode, stdout } = await runTool('apt-get', [
    'indextargets',
    '--format',
    targetFields,
    'Identifier: Packages',
  ]);
  const isDebian =
    fs.existsSync('/etc/os-release') && /^ID="?debian"?$/m.test(fs.readFileSync('/etc/os-release', 'utf8'));
  return exitCode === 0 ? findMirror(stdout, isDebian) : undefined;
}

/**
 * Finds a mirror of Debian among the sources of apt.
 *
 * @param targets lines of `targetFields`. The origin is known only after an `apt-get update`
 * @param isDebian whether a source of unknown origin is taken for Debian's when it is called so
 */
export function findMirror(targets: string, isDebian: boolean): Mirror | undefined {
  const sources = targets.split('\n').flatMap((line) => {
    const [uri = '', release = '', component, origin = ''] = line.split('\t');
    // With a password in it, it must not come into the image.
    if (!/^https?:\/\/[^@]+$/.test(uri) || component !== 'main') return [];
    const isOurs = origin.startsWith('$') ? isDebian && /\/debian(-security)?\/*$/.test(uri) : origin === 'Debian';
    return isOurs ? [{ uri: uri.replace(/\/+$/, ''), release }] : [];
  });
  const main = sources.find(({ release }) => /^[a-z]+$/.test(release));
  if (main === undefined) return undefined;
  // Before Debian 11: buster/updates.
  const security = sources.find(({ release }) => /-security$|\/updates$/.test(release));
  return {
    mirror: main.uri,
    hasUpdates: sources.some(({ uri, release }) => uri === main.uri && release.endsWith('-updates')),
    ...(security === undefined ? {} : { security: security.uri }),
  };
}

/** How this machine's apt downloads: proxies, time-outs, what it takes for too old. Keys are not among it. */
async function downloadOptions(): Promise<string> {
  if (which('apt-config') === undefined) return '';
  const names = ['http', 'https', 'Retries', 'ForceIPv4', 'ForceIPv6', 'Check-Valid-Until', 'Check-Date'];
  const wanted = names.map((name) => `Acquire::${name}`);
  return (await runTool('apt-config', ['dump', '--no-empty', '--format', '%F "%v";%n', ...wanted])).stdout;
}

/** The time of the newest file that was not made by the building: that of a package. */
function newest(directory: string, begin: number): Date {
  let time = 0;
  // Not readdir's `recursive`: Bun 1.4 follows links by it.
  const visit = (parent: string): void => {
    for (const entry of fs.readdirSync(parent, { withFileTypes: true })) {
      const each = path.join(parent, entry.name);
      if (entry.isDirectory()) visit(each);
      if (!entry.isFile()) continue;
      const { mtimeMs } = fs.lstatSync(each);
      if (mtimeMs < begin - 1000 && mtimeMs > time) time = mtimeMs;
    }
  };
  visit(directory);
  return new Date(time);
}

/** Suites by where they are. */
function sourcesOf({ mirror, hasUpdates, security }: Mirror, release: string): { uri: string; suites: string[] }[] {
  return [
    { uri: mirror, suites: [release, ...(hasUpdates ? [`${release}-updates`] : [])] },
    ...(security === undefined ? [] : [{ uri: security, suites: [`${release}-security`] }]),
  ];
}

/** Takes away what an image does not need or should not know, and configures apt and dpkg as for every Debian image. */
function tidy(tree: Tree, definition: DebianDefinition, mirror: Mirror): void {
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(tree.read('/usr/lib/os-release'))?.[1];
  if (codename === undefined)
    throw new MinirunError('cannot build a Debian', 'what was built does not say which it is');
  const { exclude, include } = definition;
  tree.filter(exclude, include);
  for (const pattern of definition.remove) tree.remove(pattern);
  for (const [name, lines] of Object.entries(definition.files)) tree.write(name, lines, 0o644);
  for (const [name, lines] of Object.entries(definition.programs)) tree.write(name, lines, 0o755);
  const rules = [...exclude.map((each) => `path-exclude ${each}`), ...include.map((each) => `path-include ${each}`)];
  tree.write('/etc/dpkg/dpkg.cfg.d/docker', rules, 0o644);
  const sources = sourcesOf(mirror, codename).map(({ uri, suites }) => [
    'Types: deb',
    `URIs: ${uri}`,
    `Suites: ${suites.join(' ')}`,
    `Components: ${definition.components.join(' ')}`,
    `Signed-By: ${definition.keyring}`,
    '',
  ]);
  tree.write('/etc/apt/sources.list.d/debian.sources', sources.flat(), 0o644);
}

/** A root filesystem whose links lead anywhere: no path that goes through one is followed. */
export class Tree {
  constructor(private readonly root: string) {}

  /** The text of a file; empty when there is none. */
  read(name: string): string {
    const file = this.place(name);
    if (file === undefined) return '';
    return fs.lstatSync(file, { throwIfNoEntry: false })?.isFile() ? fs.readFileSync(file, 'utf8') : '';
  }

  /** Writes a new file in a directory that exists. */
  write(name: string, lines: readonly string[], mode: number): void {
    const file = this.place(name);
    if (file === undefined || !fs.existsSync(path.dirname(file))) return;
    fs.rmSync(file, { recursive: true, force: true });
    fs.writeFileSync(file, lines.map((line) => `${line}\n`).join(''), { flag: 'wx' });
    fs.chmodSync(file, mode);
  }

  /** Deletes what a path with `*` in its last part stands for. */
  remove(pattern: string): void {
    const directory = this.place(path.posix.dirname(pattern));
    const last = matcher(path.posix.basename(pattern));
    if (directory === undefined || !isDirectory(directory)) return;
    for (const entry of fs.readdirSync(directory)) {
      if (last.test(entry)) fs.rmSync(path.join(directory, entry), { recursive: true, force: true });
    }
  }

  /** Deletes the files that dpkg would not unpack, and the directories that are empty then: dpkg(1), path-exclude. */
  filter(exclude: readonly string[], include: readonly string[]): void {
    const excluded = exclude.map(matcher);
    const included = include.map(matcher);
    const visit = (name: string): void => {
      for (const entry of fs.readdirSync(path.join(this.root, name), { withFileTypes: true })) {
        const each = path.posix.join(name, entry.name);
        if (entry.isDirectory()) visit(each);
        if (!excluded.some((rule) => rule.test(each)) || included.some((rule) => rule.test(each))) continue;
        const file = path.join(this.root, each);
        if (!entry.isDirectory()) fs.rmSync(file);
        else if (fs.readdirSync(file).length === 0) fs.rmdirSync(file);
      }
    };
    for (const pattern of exclude) {
      const top = path.posix.dirname(pattern);
      const directory = this.place(top);
      if (directory !== undefined && isDirectory(directory)) visit(top);
    }
  }

  /** Where a name is; undefined when a directory on the way to it is a link, or is not there. */
  private place(name: string): string | undefined {
    const parts = name.split('/').filter(Boolean);
    let here = this.root;
    for (const part of parts.slice(0, -1)) {
      here = path.join(here, part);
      if (!isDirectory(here)) return undefined;
    }
    return path.join(here, parts.at(-1) ?? '');
  }
}

function isDirectory(file: string): boolean {
  return fs.lstatSync(file, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** `*` stands for any characters, a slash among them, as for dpkg. */
function matcher(pattern: string): RegExp {
  return new RegExp(`^${pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')}$`, 's');
}
