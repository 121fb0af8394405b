/**
 * What a tree of files is, entry by entry: `bun tree.ts DIRECTORY` prints one JSON object a line.
 *
 * A program of its own, so that it can run in another mount namespace: a container's tree is `/proc/PID/root` there.
 */
import { dlopen, FFIType, ptr } from 'bun:ffi';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import type { Machine } from './machine.ts';

/** One entry. Names and targets are bytes: what is not plain UTF-8 stands as `\xHH`, a backslash as `\\`. */
export interface Entry {
  /** From the root of the tree on, which is `/`. */
  name: string;
  type: 'file' | 'directory' | 'symlink' | 'fifo' | 'socket' | 'character device' | 'block device';
  /** Permissions with setuid, setgid and sticky, in octal; none for a symbolic link, which has no own. */
  mode?: string;
  uid: number;
  gid: number;
  /** Nanoseconds since 1970. */
  mtime: string;
  /** Bytes; of files only. */
  size?: number;
  /** sha256 of the content of a file. */
  content?: string;
  target?: string;
  /** `MAJOR:MINOR` */
  device?: string;
  /** Value in hexadecimal digits by name. */
  xattrs?: Record<string, string>;
  /** First name of the group of hard links that it belongs to. */
  links?: string;
}

export type Tree = Map<string, Entry>;

/** Not of the file but of the file system that holds it. */
const foreign = /^(trusted\.overlay\.|security\.selinux$|security\.ima$|security\.evm$)/;

const { symbols: libc } = dlopen('libc.so.6', {
  llistxattr: { args: [FFIType.ptr, FFIType.ptr, FFIType.u64_fast], returns: FFIType.i64_fast },
  lgetxattr: { args: [FFIType.ptr, FFIType.ptr, FFIType.ptr, FFIType.u64_fast], returns: FFIType.i64_fast },
});

const zero = Buffer.from([0]);
const slash = Buffer.from('/');
const buffer = Buffer.alloc(65536);

/** Extended attributes of a file itself, in the order of their names. */
function xattrsOf(path: Buffer): Record<string, string> | undefined {
  const file = Buffer.concat([path, zero]);
  const length = Number(libc.llistxattr(ptr(file), ptr(buffer), buffer.length));
  if (length <= 0) return undefined;
  const names = buffer
    .subarray(0, length - 1)
    .toString('latin1')
    .split('\0')
    .toSorted();
  const found: Record<string, string> = {};
  for (const name of names) {
    if (foreign.test(name)) continue;
    const key = Buffer.from(`${name}\0`, 'latin1');
    const size = Number(libc.lgetxattr(ptr(file), ptr(key), ptr(buffer), buffer.length));
    found[name] = size < 0 ? 'unreadable' : buffer.subarray(0, size).toString('hex');
  }
  return Object.keys(found).length === 0 ? undefined : found;
}

/** Bytes as text, so that different bytes are different texts. */
function textOf(bytes: Buffer): string {
  const text = bytes.toString('utf8');
  const whole = Buffer.from(text, 'utf8').equals(bytes);
  const plain = whole ? text : bytes.toString('latin1');
  const unprintable = whole ? /[[\p{Cc}\\]--[\x80-\x9f]]/gv : /[^\x20-\x5b\x5d-\x7e]/g;
  return plain.replace(unprintable, (character) =>
    character === '\\' ? '\\\\' : `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

const types: Record<number, Entry['type']> = {
  0o010000: 'fifo',
  0o020000: 'character device',
  0o040000: 'directory',
  0o060000: 'block device',
  0o100000: 'file',
  0o120000: 'symlink',
  0o140000: 'socket',
};

/** Directories of a container that are mounts of its own: what is in them is none of the image. */
const mounted = new Set(['/proc', '/sys', '/dev']);

/** Calls `found` with every entry below a directory, and that itself, each after its parent. */
function walk(root: string, found: (entry: Entry, path: Buffer) => void): void {
  const groups = new Map<string, string>();
  const visit = (path: Buffer, name: Buffer): void => {
    const stat = fs.lstatSync(path, { bigint: true });
    const type = types[Number(stat.mode) & 0o170000] as Entry['type'];
    const text = name.length === 0 ? '/' : textOf(name);
    const entry: Entry = {
      name: text,
      type,
      ...(type === 'symlink' ? {} : { mode: (Number(stat.mode) & 0o7777).toString(8).padStart(4, '0') }),
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      mtime: String(stat.mtimeNs),
    };
    if (type === 'symlink') entry.target = textOf(fs.readlinkSync(path, { encoding: 'buffer' }));
    if (type === 'file') entry.size = Number(stat.size);
    if (type.endsWith('device')) {
      const rdev = stat.rdev;
      entry.device = `${((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn)}:${(rdev & 0xffn) | ((rdev >> 12n) & ~0xffn)}`;
    }
    const xattrs = xattrsOf(path);
    if (xattrs !== undefined) entry.xattrs = xattrs;
    if (type !== 'directory' && stat.nlink > 1n) {
      const inode = `${stat.dev}:${stat.ino}`;
      entry.links = groups.get(inode) ?? text;
      groups.set(inode, entry.links);
    }
    found(entry, path);
    if (type !== 'directory' || mounted.has(text)) return;
    const names = fs.readdirSync(path, { encoding: 'buffer' }) as unknown as Buffer[];
    for (const child of names.toSorted((one, other) => Buffer.compare(one, other))) {
      visit(Buffer.concat([path, slash, child]), Buffer.concat([name, slash, child]));
    }
  };
  // The dot: /proc/PID/root is a link.
  visit(Buffer.from(`${root}/.`), Buffer.alloc(0));
}

function digestOf(path: Buffer): string {
  return createHash('sha256').update(fs.readFileSync(path)).digest('hex');
}

/** The tree below a directory, as a process of a machine sees it. */
export async function readTree(machine: Machine, directory: string): Promise<Tree> {
  const { code, stdout, stderr } = await machine.run([process.execPath, import.meta.path, directory], {
    timeout: 60_000,
  });
  if (code !== 0) throw new Error(`cannot list ${directory}: ${stderr}`);
  const entries = stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Entry);
  // A name that is alone in the tree is no hard link, whatever the number of links says.
  const members = new Map<string, number>();
  for (const { links } of entries) if (links !== undefined) members.set(links, (members.get(links) ?? 0) + 1);
  for (const entry of entries) if (entry.links !== undefined && (members.get(entry.links) ?? 0) < 2) delete entry.links;
  return new Map(entries.map((entry) => [entry.name, entry]));
}

/**
 * What minirun puts into every container, as docker does; and the root itself: the layers of buildah have no entry of it,
 * and without one umoci makes it 0755 of 1970, containers-storage 0555 of now.
 */
const ofContainer = /^\/$|^\/(proc|sys|dev)$|^\/etc\/(hosts|hostname|resolv\.conf)$/;

/** What differs between two trees, in words, one entry and property each; times as whole seconds. */
export function compareTrees(wanted: Tree, found: Tree, ignore: RegExp = ofContainer): string[] {
  const differences: string[] = [];
  for (const name of [...new Set([...wanted.keys(), ...found.keys()])].toSorted()) {
    if (ignore.test(name)) continue;
    const [one, other] = [wanted.get(name), found.get(name)];
    if (one === undefined) differences.push(`${name}: should not be there (${other?.type})`);
    else if (other === undefined) differences.push(`${name}: is missing (${one.type})`);
    else {
      for (const property of properties) {
        const [a, b] = [shown(one, property), shown(other, property)];
        if (a !== b) differences.push(`${name}: ${property} is ${b}, should be ${a}`);
      }
    }
  }
  return differences;
}

const properties = [
  'type',
  'mode',
  'uid',
  'gid',
  'mtime',
  'size',
  'content',
  'target',
  'device',
  'xattrs',
  'links',
] as const;

function shown(entry: Entry, property: (typeof properties)[number]): string {
  // Archives of most tools have whole seconds.
  if (property === 'mtime') return String(BigInt(entry.mtime) / 1_000_000_000n);
  const value = entry[property];
  return typeof value === 'object' ? JSON.stringify(value) : String(value ?? 'none');
}

if (import.meta.main) {
  const lines: string[] = [];
  walk(process.argv[2] as string, (entry, path) => {
    if (entry.type === 'file') entry.content = digestOf(path);
    lines.push(JSON.stringify(entry));
  });
  process.stdout.write(`${lines.join('\n')}\n`);
}
