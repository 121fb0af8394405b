/**
 * bun bin/arrange.ts DIRECTORY: a copy of the sources in DIRECTORY that is bundled into fewer pieces (ADR 22).
 *
 * The bundler puts modules into one file when the same dynamic imports reach them. With some 170 dynamic imports hardly two
 * modules are alike, and a start would load seventy files. In the copy each dynamic import also reaches `core`, the modules
 * that every start of a container needs: those become one file.
 */
import fs from 'node:fs';
import path from 'node:path';

/** What `run` loads first; with all that these import, they are the core. */
const starting = [
  'state/root.ts',
  'state/reserve.ts',
  'container/reconcile.ts',
  'container/create.ts',
  'container/run.ts',
];

const repository = path.dirname(import.meta.dir);
const directory = process.argv[2];
if (directory === undefined) throw new Error('usage: bun bin/arrange.ts DIRECTORY');
const sources = path.join(directory, 'src');
const detours = path.join(sources, 'by-way-of-core');

fs.rmSync(directory, { recursive: true, force: true });
fs.cpSync(path.join(repository, 'src'), sources, { recursive: true });
for (const name of ['images', 'package.json', 'tsconfig.json'])
  fs.symlinkSync(path.join(repository, name), path.join(directory, name));
// The packages, and one in the place of another: proper-lockfile asks for graceful-fs, which loads node:stream, two of a
// start's milliseconds. What that adds to node:fs (it waits when too many files are open) it is not used for: minirun
// gives proper-lockfile the file system that it is to use (state/lock.ts).
const installed = path.join(repository, 'node_modules');
const packages = path.join(directory, 'node_modules');
fs.mkdirSync(packages);
for (const name of fs.readdirSync(installed)) {
  if (name === 'graceful-fs') continue;
  // A package looks for others from where it really is.
  if (name === 'proper-lockfile') fs.cpSync(path.join(installed, name), path.join(packages, name), { recursive: true });
  else fs.symlinkSync(path.join(installed, name), path.join(packages, name));
}
fs.mkdirSync(path.join(packages, 'graceful-fs'));
fs.writeFileSync(path.join(packages, 'graceful-fs/index.js'), "module.exports = require('node:fs');\n");
fs.mkdirSync(detours);

const importOf = (from: string, to: string): string => {
  const relative = path.relative(path.dirname(from), to);
  return relative.startsWith('.') ? relative : `./${relative}`;
};

/** The file by way of which a module is imported dynamically. */
function detourTo(module: string): string {
  const file = path.join(detours, path.relative(sources, module).replaceAll('/', '--'));
  fs.writeFileSync(file, `import './core.ts';\nexport * from '${importOf(file, module)}';\n`);
  return file;
}

for (const name of fs.readdirSync(sources, { recursive: true, encoding: 'utf8' })) {
  // The first file chooses between the command line and init, which are to have as little in common as they can.
  if (!name.endsWith('.ts') || name === 'main.ts' || /^(init|by-way-of-core)\//.test(name)) continue;
  const file = path.join(sources, name);
  const text = fs.readFileSync(file, 'utf8');
  const changed = text.replaceAll(
    /\bimport\(\s*'(\.[^']+\.ts)'\s*\)/g,
    (_, target: string) => `import('${importOf(file, detourTo(path.resolve(path.dirname(file), target)))}')`,
  );
  if (changed !== text) fs.writeFileSync(file, changed);
}
const core = path.join(detours, 'core.ts');
fs.writeFileSync(core, starting.map((name) => `import '${importOf(core, path.join(sources, name))}';\n`).join(''));
