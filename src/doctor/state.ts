import fs from 'node:fs';
import path from 'node:path';
import { messageOf } from '../errors.ts';
import { runTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { bootId, isAlive, type ProcessRef } from '../host/process.ts';
import { peekFile } from '../state/files.ts';
import { kinds } from '../state/migrations.ts';
import { readRecord } from '../state/machine.ts';
import { paths, stateRoot } from '../state/paths.ts';
import { object, optional, processShape, text } from '../state/shape.ts';
import { type Check, isRoot, missing, ok, warning } from './check.ts';
import { asRoot } from './packages.ts';

/** Below this many bytes an image of usual size does not fit. */
const littleSpace = 500_000_000;

/** The state directory: what it is, what it lies on, and what killed processes have left in it. */
export async function checkState(): Promise<Check[]> {
  return [checkDirectory(), checkSpace(), await checkOverlay(), checkLeftovers()];
}

function checkDirectory(): Check {
  const name = 'state directory';
  const root = stateRoot();
  let stat: fs.Stats | undefined;
  try {
    stat = fs.statSync(root, { throwIfNoEntry: false });
  } catch {
    return warning(name, `${root} cannot be looked at`, 'sudo minirun doctor');
  }
  if (stat === undefined) return ok(name, `${root} (the first container makes it)`);
  if (!stat.isDirectory())
    return missing(name, `${root} is no directory`, `minirun --root DIR, or ${asRoot(`rm ${root}`)}`);
  if ((stat.mode & 0o077) === 0) return ok(name, root);
  const mode = (stat.mode & 0o7777).toString(8).padStart(4, '0');
  return warning(
    name,
    `${root} has mode ${mode}: users could reach setuid files of images`,
    asRoot(`chmod 0700 ${root}`),
  );
}

/** The state directory, or the first folder above it that is there. */
function existingPart(): string {
  let directory = stateRoot();
  while (!fs.existsSync(directory)) directory = path.dirname(directory);
  return directory;
}

function checkSpace(): Check {
  const { bavail, bsize } = fs.statfsSync(existingPart());
  const free = bavail * bsize;
  const text = `${(free / 1e9).toFixed(1)} GB free`;
  return free < littleSpace
    ? warning('disk space', `only ${text}`, 'minirun rm, minirun rmi, or --root on another disk')
    : ok('disk space', text);
}

/** Mounts an overlay with the state directory's file system below it, in a mount namespace that ends with the probe. */
async function checkOverlay(): Promise<Check> {
  const name = 'overlayfs';
  const known = /\boverlay$/m.test(fs.readFileSync('/proc/filesystems', 'latin1'));
  if (!isRoot() || which('unshare') === undefined) {
    return known ? ok(name, 'in the kernel') : warning(name, 'not tried', 'sudo minirun doctor');
  }
  const script = `set -e; d=$(mktemp -d "$1/.doctor-XXXXXX"); trap 'umount "$d/m" 2>/dev/null; rm -rf "$d"' EXIT
mkdir "$d/l" "$d/u" "$d/w" "$d/m"; echo lower >"$d/l/f"; cd "$d"
mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m; echo upper >m/f; cd /`;
  const { exitCode, stderr } = await runTool('unshare', ['--mount', 'sh', '-c', script, 'doctor', existingPart()]);
  if (exitCode === 0) return ok(name, `works in ${existingPart()}`);
  const reason = stderr.trim().split('\n')[0] ?? '';
  const remedy = known
    ? 'minirun --root DIR (or MINIRUN_ROOT) with DIR on ext4, xfs, btrfs or tmpfs'
    : asRoot('modprobe overlay');
  return missing(name, `cannot be mounted in ${existingPart()}: ${reason}`, remedy);
}

/** The part of a container's state that says whether somebody answers for it; see `container/definition.ts`. */
interface Owned {
  status: string;
  boot: string;
  owner?: ProcessRef;
}

const ownedShape = object<Owned>({ status: text, boot: text, owner: optional(processShape) });

function checkLeftovers(): Check {
  const name = 'leftovers';
  let entries: string[];
  try {
    entries = fs.readdirSync(paths.containers());
  } catch (error) {
    const unreadable = (error as NodeJS.ErrnoException).code !== 'ENOENT';
    return unreadable ? warning(name, 'not looked for', 'sudo minirun doctor') : ok(name, 'none');
  }
  let states: { id: string; state: Partial<Owned> | undefined }[];
  try {
    states = readStates(entries);
  } catch (error) {
    return warning(name, messageOf(error), 'use the newer minirun');
  }
  const dead = states.filter(({ state }) => state !== undefined && !isSettled(state));
  if (dead.length === 0) return ok(name, 'none');
  const ids = dead.map(({ id }) => id.slice(0, 12)).join(', ');
  return warning(
    name,
    `of killed processes: container ${ids}; the next minirun command takes them back`,
    'minirun ps -a',
  );
}

function readStates(entries: readonly string[]) {
  return entries
    .filter((entry) => /^[0-9a-f]{64}$/.test(entry))
    .map((id) => ({ id, state: peekFile(kinds.state, ownedShape, path.join(paths.container(id), 'state.json')) }));
}

/** That of the machine in small where there is one: this command looks at it from outside. */
function ownBoot(): string | undefined {
  return isRoot() ? bootId() : readRecord()?.boot;
}

/** Whether the container is at rest or its owner lives. */
function isSettled({ status, boot, owner }: Partial<Owned>): boolean {
  if (status === 'created' || status === 'exited') return true;
  return boot === ownBoot() && isAlive(owner);
}
