import type { IdRange, Shift } from '../container/protocol.ts';
import { send } from './channel.ts';
import { failure, InitError } from './failure.ts';
import * as files from './files.ts';
import * as libc from './libc.ts';
import { mountOverlay } from './overlay.ts';
import { reasonOf } from './unpack.ts';

/**
 * Gives all files of an overlay, and of directories, to the ids of a user namespace, and ends this process: what is done where
 * no idmapped mount can do without. A file that has been given is left as it is, so this can be done again.
 */
export function shift({ root, overlay, directories, owners }: Shift): never {
  try {
    libc.prctl(libc.PR.SET_PDEATHSIG, 9);
    mountOverlay(root, overlay);
    const done = { files: 0, bytes: 0 };
    for (const directory of [root, ...directories]) give(Buffer.from(directory).toString('latin1'), owners, done);
    send({ type: 'shifted', ...done });
    process.exit(0);
  } catch (error) {
    const known =
      error instanceof InitError ? error : new InitError('cannot give files to the user namespace', reasonOf(error));
    send(failure(known));
    process.exit(125);
  }
}

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

function give(place: string, owners: IdRange, done: { files: number; bytes: number }): void {
  const stat = files.stat(place);
  const kind = stat.mode & S_IFMT;
  const uid = shifted(stat.uid, owners.uid, owners.size);
  const gid = shifted(stat.gid, owners.gid, owners.size);
  if (uid !== stat.uid || gid !== stat.gid) {
    const capability = kind === S_IFREG ? files.getXattr(place, capabilities) : undefined;
    files.setOwner(place, uid, gid);
    // That has taken these away: chown(2).
    if (kind !== S_IFLNK && (stat.mode & 0o6000) !== 0) files.setMode(place, stat.mode & 0o7777);
    if (capability !== undefined) files.setXattr(place, capabilities, inNamespace(capability, owners.uid));
    done.files++;
    if (kind === S_IFREG) done.bytes += stat.size;
  }
  if (kind !== S_IFDIR) return;
  const fd = files.openToRead(place, { directory: true });
  const names = files.list(fd);
  files.close(fd);
  for (const name of names) give(`${place}/${name}`, owners, done);
}

function shifted(id: number, first: number, size: number): number {
  return id < size ? id + first : id;
}

const capabilities = 'security.capability';

/**
 * File capabilities for programs of a user namespace: struct vfs_ns_cap_data of linux/capability.h, which is the other form
 * with another version and the id of that namespace's root at its end.
 */
function inNamespace(value: Buffer, root: number): Buffer {
  if (value.length !== 20) return value;
  const result = Buffer.concat([value, Buffer.alloc(4)]);
  result.writeUInt32LE((0x03000000 | (value.readUInt32LE(0) & 0x00ffffff)) >>> 0, 0);
  result.writeUInt32LE(root, 20);
  return result;
}

/** The same, taken back. */
export function outOfNamespace(value: Buffer): Buffer {
  if (value.length !== 24) return value;
  const result = Buffer.from(value.subarray(0, 20));
  result.writeUInt32LE((0x02000000 | (value.readUInt32LE(0) & 0x00ffffff)) >>> 0, 0);
  return result;
}
