import fs from 'node:fs';
import { InitError } from './failure.ts';

/** Numeric identity of a process, and the home directory that its passwd entry names. */
export interface Identity {
  uid: number;
  gid: number;
  groups: number[];
  home: string;
}

/** Larger ids turn negative in programs that keep them in an int (CVE-2024-40635). */
const largestId = 2 ** 31 - 1;
const largestFile = 4 * 1024 * 1024;

/**
 * Resolves docker's `-u` forms in the passwd and group files of the current root: `name`, `uid`, and either with
 * `:group` or `:gid`. A number needs no entry. Supplementary groups are those whose entry lists the user's name.
 */
export function resolveUser(specification: string, additional: readonly string[] = []): Identity {
  const [user = '', group] = specification.split(':', 2);
  const entries = parse('/etc/passwd');
  const wanted = user === '' ? '0' : user;
  const number = idOf(wanted);
  const entry =
    entries.find((fields) => fields[0] === wanted) ?? entries.find((fields) => entryId(fields[2]) === number);
  if (entry === undefined && number === undefined) {
    throw new InitError(
      `unknown user "${user}"`,
      "the image's /etc/passwd has no such name",
      'Give a numeric uid, or a name that the image has',
    );
  }
  const uid = entry === undefined ? (number as number) : entryId(entry[2]);
  const name = entry?.[0];
  const groups = parse('/etc/group');
  let gid = entry === undefined ? 0 : entryId(entry[3]);
  const supplementary = new Set(additional.map((each) => groupId(each, groups)));
  if (group !== undefined && group !== '') gid = groupId(group, groups);
  else if (name !== undefined) {
    for (const fields of groups) {
      if ((fields[3] ?? '').split(',').includes(name)) supplementary.add(entryId(fields[2]));
    }
  }
  for (const id of [uid, gid, ...supplementary]) checkId(id);
  supplementary.add(gid);
  return { uid, gid, groups: [...supplementary], home: entry?.[5] || (uid === 0 ? '/root' : '/') };
}

/** A group by its name, or by an id that needs no entry. */
function groupId(group: string, entries: readonly string[][]): number {
  const number = idOf(group);
  const found = entries.find((fields) => fields[0] === group);
  if (found !== undefined) return entryId(found[2]);
  if (number !== undefined) return number;
  throw new InitError(
    `unknown group "${group}"`,
    "the image's /etc/group has no such name",
    'Give a numeric gid, or a name that the image has',
  );
}

function idOf(text: string): number | undefined {
  if (!/^\d+$/.test(text)) return undefined;
  const id = Number(text);
  checkId(id);
  return id;
}

/** An id as an entry has it; none is not root's. */
function entryId(text = ''): number {
  return /^\d+$/.test(text) ? Number(text) : Number.NaN;
}

function checkId(id: number): void {
  if (!Number.isInteger(id) || id < 0 || id > largestId) {
    throw new InitError(`user or group id ${id} is out of range`, `ids go from 0 to ${largestId}`);
  }
}

/** The entries of a colon-separated file; none when it is missing. A link or a device is not read (CVE-2024-9676). */
function parse(file: string): string[][] {
  let fd: number;
  try {
    fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK);
  } catch {
    return [];
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile() || stat.size > largestFile) return [];
    return fs
      .readFileSync(fd, 'utf8')
      .split('\n')
      .filter((line) => line.includes(':'))
      .map((line) => line.trim().split(':'));
  } finally {
    fs.closeSync(fd);
  }
}
