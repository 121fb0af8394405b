import fs from 'node:fs';
import type { OciDevice } from '../container/oci.ts';
import { InitError } from './failure.ts';
import { MS, mknodAt, mount, openInRoot, type SyscallError } from './libc.ts';

const S_IFREG = 0o100000;
const types = { c: 0o020000, b: 0o060000 } as const;

/**
 * Makes a device node in an open directory of the container's /dev. In a user namespace the kernel makes none: there the
 * machine's own is bound on an empty file.
 *
 * @throws InitError when the machine's file of that name is not that device
 */
export function makeDevice(directory: number, name: string, device: OciDevice): void {
  try {
    mknodAt(directory, name, types[device.type] | device.fileMode, device.major, device.minor);
    if (device.uid !== undefined && device.gid !== undefined)
      fs.lchownSync(`/proc/self/fd/${directory}/${name}`, device.uid, device.gid);
    return;
  } catch (error) {
    if ((error as SyscallError).code !== 'EPERM') throw error;
  }
  bindDevice(directory, name, device);
}

function bindDevice(
  directory: number,
  name: string,
  { path: place, hostPath: path = place, type, major, minor }: OciDevice,
): void {
  const refuse = (why: string) => new InitError(`cannot make ${path}`, why);
  let source: number;
  try {
    // O_PATH: what it is is looked at without opening it, which can have effects.
    source = fs.openSync(path, 0o10000000);
  } catch {
    throw refuse('a user namespace has no devices of its own, and this machine has none of that name');
  }
  try {
    const stat = fs.fstatSync(source);
    const isType = type === 'c' ? stat.isCharacterDevice() : stat.isBlockDevice();
    if (!isType || numbers(stat.rdev) !== `${major}:${minor}`)
      throw refuse(`this machine's is not the ${type === 'c' ? 'character' : 'block'} device ${major}:${minor}`);
    mknodAt(directory, name, S_IFREG | 0o644);
    const target = openInRoot(directory, name);
    try {
      mount(`/proc/self/fd/${source}`, `/proc/self/fd/${target}`, '', MS.BIND, '', path);
    } finally {
      fs.closeSync(target);
    }
  } finally {
    fs.closeSync(source);
  }
}

/** makedev(3): glibc's split of a device's number, as far as Linux uses it. */
function numbers(rdev: number): string {
  const number = BigInt(rdev);
  const major = (number >> 8n) & 0xfffn;
  const minor = (number & 0xffn) | ((number >> 12n) & 0xfff00n);
  return `${major}:${minor}`;
}
