import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { skipOrFail } from '../support/skip.ts';

// The lint rules hold the directions of imports only as long as they bite: break each of them on purpose, in a tree of
// its own, and look at what the linter says.

const repository = path.resolve(import.meta.dir, '../..');
const oxlint = path.join(repository, 'node_modules/.bin/oxlint');

/** What each folder may import: the table of docs/architecture.md. */
const allowed: Record<string, string[]> = {
  cli: ['lab', 'doctor', 'rootless', 'container', 'image', 'network', 'state'],
  lab: ['container', 'network', 'image', 'state'],
  doctor: ['network', 'state', 'host'],
  rootless: ['network', 'state', 'host'],
  container: ['seccomp', 'network', 'image', 'state', 'host'],
  init: ['seccomp'],
  seccomp: [],
  image: ['state', 'host'],
  network: ['state', 'host'],
  state: ['host'],
  host: [],
};
const folders = Object.keys(allowed);

/** How a file can reach another one. */
const forms: Record<string, (specifier: string) => string> = {
  static: (specifier) => `import { thing } from '${specifier}';\nexport const used = thing;\n`,
  lazy: (specifier) => `export const used = await import('${specifier}');\n`,
  reexport: (specifier) => `export { thing } from '${specifier}';\n`,
};

const typeOnly = (specifier: string): string =>
  `import type { Thing } from '${specifier}';\nexport type Used = Thing;\n`;

let tree: string;
let status: number | null;
let complaints: Map<string, string[]>;
const planted: string[] = [];

function plant(file: string, text: string): void {
  const place = path.join(tree, file);
  fs.mkdirSync(path.dirname(place), { recursive: true });
  fs.writeFileSync(place, text);
  planted.push(file);
}

/** npm leaves oxlint's binary out under a Node.js that oxlint does not support. */
const missingLinter =
  spawnSync(oxlint, ['--version']).status === 0 ? undefined : 'oxlint does not run under this Node.js';

describe.skipIf(skipOrFail(missingLinter))('architecture', () => {
  beforeAll(() => {
    tree = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-architecture-'));
    // Without rules that need types: their program is only found in a tree with node_modules, and takes its time.
    const config = fs.readFileSync(path.join(repository, '.oxlintrc.json'), 'utf8');
    fs.writeFileSync(path.join(tree, '.oxlintrc.json'), config.replace('"typeAware": true', '"typeAware": false'));

    for (const folder of folders) plant(`src/${folder}/thing.ts`, 'export const thing = 1;\nexport type Thing = 1;\n');
    plant('src/errors.ts', 'export const thing = 1;\n');
    for (const from of folders) {
      plant(`src/${from}/errors.ts`, forms.static?.('../errors.ts') ?? '');
      plant(`src/${from}/main.ts`, forms.static?.('../main.ts') ?? '');
      for (const to of folders) {
        for (const [form, text] of Object.entries(forms)) {
          plant(`src/${from}/${form}-${to}.ts`, text(`../${to}/thing.ts`));
          plant(`src/${from}/deep/${form}-${to}.ts`, text(`../../${to}/thing.ts`));
        }
        plant(`src/${from}/type-${to}.ts`, typeOnly(`../${to}/thing.ts`));
      }
      for (const name of ['execa', 'node:child_process', 'child_process', 'bun', 'bun:ffi', 'bun:sqlite']) {
        plant(`src/${from}/package-${name.replace(':', '-')}.ts`, forms.lazy?.(name) ?? '');
      }
      plant(`src/${from}/global.ts`, "export const used = Bun.file('/etc/hosts');\n");
      plant(`src/${from}/print.ts`, "console.log('hi');\n");
      plant(`src/${from}/stream.ts`, "process.stdout.write('hi');\n");
    }
    plant('src/container/libc.ts', forms.lazy?.('bun:ffi') ?? '');
    for (const to of folders) plant(`src/main-${to}.ts`, forms.lazy?.(`./${to}/thing.ts`) ?? '');
    // The rules for src/*.ts hold for main.ts, which in turn is what the files named main.ts above want to import.
    plant('src/main.ts', 'export const thing = 1;\n');

    const run = spawnSync(oxlint, ['-f', 'json', 'src'], {
      cwd: tree,
      encoding: 'utf8',
      maxBuffer: 64 << 20,
    });
    status = run.status;
    complaints = new Map(planted.map((file) => [file, []]));
    const report = JSON.parse(run.stdout) as { diagnostics: { code: string; filename: string }[] };
    for (const { code, filename } of report.diagnostics) complaints.get(filename)?.push(code);
  });

  afterAll(() => fs.rmSync(tree, { recursive: true, force: true }));

  const refused = (file: string): boolean => {
    const found = complaints.get(file);
    if (found === undefined) throw new Error(`${file} was not planted`);
    return found.some((code) => /no-restricted-(imports|globals|properties)|no-console/.test(code));
  };

  test('the linter fails on the planted tree', () => {
    expect(status).toBe(1);
  });

  describe.each(folders)('src/%s', (from) => {
    test.each(folders.filter((to) => to !== from))('towards %s', (to) => {
      const expected = !(allowed[from] as string[]).includes(to);
      for (const form of Object.keys(forms)) {
        expect([form, refused(`src/${from}/${form}-${to}.ts`)]).toEqual([form, expected]);
        expect([form, refused(`src/${from}/deep/${form}-${to}.ts`)]).toEqual([form, expected]);
      }
      const typeMayPass = from === 'init' && to === 'container';
      expect(refused(`src/${from}/type-${to}.ts`)).toBe(expected && !typeMayPass);
    });

    test('may import errors.ts and its own files, but not main.ts', () => {
      expect(refused(`src/${from}/errors.ts`)).toBe(false);
      expect(refused(`src/${from}/static-${from}.ts`)).toBe(false);
      expect(refused(`src/${from}/main.ts`)).toBe(true);
    });

    test('runs programs and uses Bun only where that belongs', () => {
      for (const name of ['execa', 'node-child_process', 'child_process']) {
        expect([name, refused(`src/${from}/package-${name}.ts`)]).toEqual([name, from !== 'host']);
      }
      expect(refused(`src/${from}/package-bun-ffi.ts`)).toBe(from !== 'init');
      expect(refused(`src/${from}/package-bun-sqlite.ts`)).toBe(true);
      expect(refused(`src/${from}/package-bun.ts`)).toBe(true);
      expect(refused(`src/${from}/global.ts`)).toBe(from !== 'init');
    });

    test('prints only as a command', () => {
      expect(refused(`src/${from}/print.ts`)).toBe(from !== 'cli');
      // There are functions for that; elsewhere nobody prints unless it is what a container has written.
      expect(refused(`src/${from}/stream.ts`)).toBe(from === 'cli');
    });
  });

  test('what minirun itself needs of libc may use bun:ffi', () => {
    expect(refused('src/container/libc.ts')).toBe(false);
  });

  test.each(folders)('a file beside main.ts towards %s', (to) => {
    expect(refused(`src/main-${to}.ts`)).toBe(!['init', 'cli'].includes(to));
  });
});
