import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

let root = process.env.MINIRUN_ROOT || defaultStateRoot();

/** For root /var/lib/minirun, for other users where the XDG Base Directory Specification has their data. */
function defaultStateRoot(): string {
  if (process.getuid?.() === 0) return '/var/lib/minirun';
  const { XDG_DATA_HOME: data = '' } = process.env;
  if (path.isAbsolute(data)) return path.join(data, 'minirun');
  const home = homeDirectory();
  return home === undefined ? `/tmp/minirun-${process.getuid?.()}` : path.join(home, '.local/share/minirun');
}

/** The user's home directory; undefined for one who has none, neither in the environment nor in /etc/passwd. */
export function homeDirectory(): string | undefined {
  try {
    return os.homedir();
  } catch {
    return undefined;
  }
}

/** Moves the state directory (`--root`, `MINIRUN_ROOT`); before anything reads it. */
export function setStateRoot(directory: string): void {
  root = path.resolve(directory);
}

/** The state directory, absolute. */
export function stateRoot(): string {
  return root;
}

/** Where things are kept below the state directory. */
export const paths = {
  images: () => path.join(root, 'images'),
  containers: () => path.join(root, 'containers'),
  container: (id: string) => path.join(root, 'containers', id),
  names: () => path.join(root, 'names'),
  name: (name: string) => path.join(root, 'names', name),
  volumes: () => path.join(root, 'volumes'),
  volume: (name: string) => path.join(root, 'volumes', name),
  owners: () => path.join(root, 'owners'),
  owner: (entry: string) => path.join(root, 'owners', entry),
  events: () => path.join(root, 'events'),
  networks: () => path.join(root, 'networks'),
  network: (name: string) => path.join(root, 'networks', `${name}.json`),
  ports: () => path.join(root, 'ports.json'),
  ids: () => path.join(root, 'ids.json'),
  links: () => path.join(root, 'links'),
  link: (name: string) => path.join(root, 'links', `${name}.json`),
  hostRoutes: () => path.join(root, 'host-routes.json'),
  changing: () => path.join(root, 'changing.json'),
  marker: () => path.join(root, 'schema.json'),
  /** Of the machine in small in which an ordinary user's containers are: `src/rootless/`. */
  machine: () => path.join(root, 'machine'),
};

/** The folders of the state directory. */
const folders = ['images', 'containers', 'names', 'owners', 'events', 'volumes', 'networks', 'links'];

/**
 * Creates the state directory and its folders where missing. Mode 0700 because users of the host must not reach
 * setuid files inside images (CVE-2021-41091).
 *
 * @returns the name of a folder that is something else, which somebody has put there
 */
export function ensureStateRoot(): string | undefined {
  const there = new Map(entriesOf(root).map((entry) => [entry.name, entry]));
  return folders.find((name) => {
    const entry = there.get(name);
    if (entry === undefined) fs.mkdirSync(path.join(root, name), { recursive: true, mode: 0o700 });
    // Some keep their images on another disk: a link to a directory does.
    else return !entry.isDirectory() && !fs.statSync(path.join(root, name), { throwIfNoEntry: false })?.isDirectory();
    return false;
  });
}

function entriesOf(directory: string): fs.Dirent[] {
  try {
    return fs.readdirSync(directory, { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return [];
  }
}
