import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import { runTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { architecture } from './architecture.ts';
import type { Recipe, RootfsDefinition } from './recipes.ts';
import { type Source, SourceUnavailable } from './source.ts';
import { Staging } from './staging.ts';
import { storeImage } from './store.ts';
import type { OciImageConfig } from './manifest.ts';

/** Part of what the layer's digest is made of: raise it when the code below makes something else of the same recipe. */
const builder = 'minirun busybox rootfs 1';

/** Builds a root filesystem around this machine's static busybox. */
export function busyboxSource({ rootfs }: { rootfs: RootfsDefinition }, recipe: Recipe): Source {
  return {
    isStandIn: false,
    async obtain(reference) {
      const program = findStaticBusybox();
      const content = fs.readFileSync(program);
      const { exitCode, stdout } = await runTool(program, ['--list-full']);
      if (exitCode !== 0) throw new MinirunError(`cannot use ${program}`, 'it does not list its applets (--list-full)');
      // Not the digest of a tar: the layer never was one. It is stable for the same program and recipe.
      const hash = createHash('sha256');
      for (const part of [builder, JSON.stringify(rootfs)]) hash.update(`${part}\0`);
      const diffId = `sha256:${hash.update(content).digest('hex')}`;
      const staging = new Staging();
      try {
        const directory = staging.newLayer();
        const size = buildRootfs(directory, rootfs, content, stdout.split('\n').filter(Boolean));
        const config: OciImageConfig = {
          architecture: architecture(),
          os: 'linux',
          config: recipe.config,
          rootfs: { type: 'layers', diff_ids: [diffId] },
          history: [{ created_by: `minirun: ${recipe.description}` }],
        };
        return await storeImage({
          references: [reference],
          config: JSON.stringify(config),
          layers: [{ diffId, size, directory }],
          staging,
        });
      } finally {
        staging.remove();
      }
    },
  };
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

/** Whether a file is a 64-bit ELF program that asks for no interpreter (PT_INTERP), which is what loads libraries: elf(5). */
export function isStatic(file: string): boolean {
  const interpreter = 3;
  const elf = Buffer.alloc(4096);
  const fd = fs.openSync(file, 'r');
  try {
    const length = fs.readSync(fd, elf);
    const is64Bit = elf[4] === 2;
    const isLittleEndian = elf[5] === 1;
    if (length < 64 || elf.toString('latin1', 0, 4) !== '\x7fELF' || !is64Bit || !isLittleEndian) return false;
    const table = Number(elf.readBigUInt64LE(32));
    const entrySize = elf.readUInt16LE(54);
    const entries = elf.readUInt16LE(56);
    if (table + entries * entrySize > length) return false;
    for (let entry = 0; entry < entries; entry++) {
      if (elf.readUInt32LE(table + entry * entrySize) === interpreter) return false;
    }
    return true;
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Fills a directory and returns the bytes of all files in it.
 *
 * @param applets paths without the leading slash, as `busybox --list-full` prints them
 */
export function buildRootfs(directory: string, rootfs: RootfsDefinition, program: Buffer, applets: string[]): number {
  const place = (name: string) => path.join(directory, name);
  for (const [name, mode] of Object.entries(rootfs.directories)) {
    fs.mkdirSync(place(name), { recursive: true });
    fs.chmodSync(place(name), Number.parseInt(mode, 8));
  }
  for (const [name, target] of Object.entries(rootfs.symlinks)) fs.symlinkSync(target, place(name));
  let size = program.length;
  for (const [name, lines] of Object.entries(rootfs.files)) {
    const text = lines.map((line) => `${line}\n`).join('');
    size += Buffer.byteLength(text);
    fs.writeFileSync(place(name), text);
    fs.chmodSync(place(name), 0o644);
  }
  const busybox = '/bin/busybox';
  fs.writeFileSync(place(busybox), program);
  fs.chmodSync(place(busybox), 0o755);
  for (const applet of applets) {
    // Some builds list an applet without a directory (linuxrc).
    if (applet === busybox.slice(1) || !applet.includes('/')) continue;
    try {
      fs.symlinkSync(busybox, place(applet));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // A directory that the recipe does not have: this machine's busybox has been built with other paths.
      if (code !== 'ENOENT') throw error;
      fs.mkdirSync(path.dirname(place(applet)), { recursive: true, mode: 0o755 });
      fs.symlinkSync(busybox, place(applet));
    }
  }
  return size;
}
