import fs from 'node:fs';
import path from 'node:path';
import { killPoint } from '../host/fault.ts';
import { startTime } from '../host/process.ts';
import { damaged, setAside } from './files.ts';
import { makeRoom } from './reserve.ts';

/** What a JSON file holds, or undefined when it does not exist; for files that are not of the state. @throws SyntaxError when it is damaged */
export function readJson<T>(file: string): T | undefined {
  let text: string;
  try {
    text = fs.readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  return JSON.parse(text) as T;
}

let serial = 0;

/**
 * Replaces a JSON file atomically: a reader sees the old content or the new, never a part.
 *
 * @param durable false for what is void after a power cut anyway (it names processes, namespaces, mounts): no fsync
 */
export function writeJson(file: string, value: unknown, options: { durable?: boolean } = {}): void {
  try {
    replaceJson(file, value, options);
  } catch (error) {
    if (!makeRoom(error)) throw error;
    replaceJson(file, value, options);
  }
}

function replaceJson(file: string, value: unknown, { durable = true }: { durable?: boolean }): void {
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}.${serial++}`);
  const fd = fs.openSync(temporary, 'wx', 0o600);
  killPoint('json.opened');
  try {
    fs.writeFileSync(fd, `${JSON.stringify(value, null, 1)}\n`);
    if (durable) fs.fsyncSync(fd);
  } catch (error) {
    // A full disk is not to be filled further.
    fs.rmSync(temporary, { force: true });
    throw error;
  } finally {
    fs.closeSync(fd);
  }
  killPoint('json.written');
  try {
    // What stood there may be all that is left of something: whoever wants to know what has happened finds it.
    if (damaged.has(file)) setAside(file);
    fs.renameSync(temporary, file);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw error;
  }
}

/** Removes the new contents that killed processes did not get to put in place. */
export function sweepTemporaries(directory: string): void {
  for (const entry of abandonedTemporaries(directory)) fs.rmSync(path.join(directory, entry), { force: true });
}

/** The names of those in a directory. */
export function abandonedTemporaries(directory: string): string[] {
  return fs.readdirSync(directory).filter((entry) => {
    const pid = /^\..+\.json\.(\d+)\.\d+$/.exec(entry)?.[1];
    return pid !== undefined && startTime(Number(pid)) === undefined;
  });
}
