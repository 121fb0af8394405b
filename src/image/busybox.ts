import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { runTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { buildImage } from './build.ts';
import { isStatic } from './elf.ts';
import type { Recipe, RootfsDefinition } from './recipes.ts';
import { type Source, SourceUnavailable } from './source.ts';

/** Builds a root filesystem around this machine's static busybox. */
export function busyboxSource({ rootfs }: { rootfs: RootfsDefinition }, recipe: Recipe): Source {
  return {
    isStandIn: false,
    async obtain(reference) {
      const busybox = await readBusybox();
      return buildImage(
        { reference, config: recipe.config, createdBy: `minirun: ${recipe.description}` },
        (directory) => {
          buildRootfs(directory, rootfs, busybox);
        },
      );
    },
  };
}

/** A static busybox. */
export interface Busybox {
  content: Buffer;
  /** Paths without the leading slash, as `busybox --list-full` prints them. */
  applets: string[];
}

/** This machine's static busybox. @throws SourceUnavailable when it has none */
export async function readBusybox(): Promise<Busybox> {
  const program = findStaticBusybox();
  const { exitCode, stdout } = await runTool(program, ['--list-full']);
  if (exitCode !== 0) throw new MinirunError(`cannot use ${program}`, 'it does not list its applets (--list-full)');
  return { content: fs.readFileSync(program), applets: stdout.split('\n').filter(Boolean) };
}

/** The busybox of this machine that needs no libraries. */
function findStaticBusybox(): string {
  const found = ['busybox.static', 'busybox-static', 'busybox'].flatMap((name) => which(name) ?? []);
  const program = found.find(isStatic);
  if (program !== undefined) return program;
  throw new SourceUnavailable(
    'cannot build the busybox image',
    found[0] === undefined
      ? 'this machine has no busybox'
      : `${found[0]} is not static: it would lack its libraries there`,
    'Install a static one: apt-get install busybox-static',
  );
}

/** Fills a directory. */
export function buildRootfs(directory: string, rootfs: RootfsDefinition, { content, applets }: Busybox): void {
  const place = (name: string) => path.join(directory, name);
  for (const [name, mode] of Object.entries(rootfs.directories)) {
    fs.mkdirSync(place(name), { recursive: true });
    fs.chmodSync(place(name), Number.parseInt(mode, 8));
  }
  for (const [name, target] of Object.entries(rootfs.symlinks)) fs.symlinkSync(target, place(name));
  for (const [name, lines] of Object.entries(rootfs.files)) {
    fs.writeFileSync(place(name), lines.map((line) => `${line}\n`).join(''));
    fs.chmodSync(place(name), 0o644);
  }
  const busybox = '/bin/busybox';
  fs.writeFileSync(place(busybox), content);
  fs.chmodSync(place(busybox), 0o755);
  for (const applet of applets) {
    // Some builds list an applet without a directory (linuxrc).
    if (applet === busybox.slice(1) || !applet.includes('/')) continue;
    // A directory that the recipe does not have: this machine's busybox has been built with other paths.
    fs.mkdirSync(path.dirname(place(applet)), { recursive: true, mode: 0o755 });
    try {
      fs.symlinkSync(busybox, place(applet));
    } catch (error) {
      // Twice the same where /sbin is /usr/sbin.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}
