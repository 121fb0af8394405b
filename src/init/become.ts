import fs from 'node:fs';
import path from 'node:path';
import { capabilityNames } from '../container/capabilities.ts';
import type { OciProcess } from '../container/oci.ts';
import { execMark } from '../container/protocol.ts';
import type { Filter } from '../seccomp/index.ts';
import { failure, InitError } from './failure.ts';
import { type Label, takeLabel } from './label.ts';
import * as libc from './libc.ts';
import { resolveUser } from './user.ts';

/** Standard streams, ready to be put on 0, 1 and 2. */
export interface Streams {
  stdin: number;
  stdout: number;
  stderr: number;
  /** Number of the terminal in the container's /dev/pts when the streams are one. */
  terminal?: number;
}

/**
 * The last steps, the same for the first process of a container and for `exec`: inside the root, turn this process
 * into the command. The order matters: seccomp comes before the capabilities are dropped, because without
 * no_new_privs loading a filter takes CAP_SYS_ADMIN, and after everything that the filter forbids. The fewer calls come
 * after it the better: a profile of the user's may know nothing of them.
 */
export function become(
  target: OciProcess,
  { filter, label }: { filter: Filter | undefined; label: Label | undefined },
  streams: Streams,
  status: number,
  awaitGo: () => void,
): never {
  const user = resolveUser(target.user.username, target.user.additionalGroups);
  const env = withDefaults(target.env, user.home, target.terminal);
  libc.setUmask(0o022);
  enterDirectory(target.cwd);
  for (const limit of target.rlimits) limitResource(limit.type, limit.soft, limit.hard);
  libc.joinNewSessionKeyring();

  libc.startSession();
  for (const fd of [streams.stdin, streams.stdout, streams.stderr]) giveTo(fd, user.uid, user.gid);
  libc.duplicate(streams.stdin, 0);
  libc.duplicate(streams.stdout, 1);
  libc.duplicate(streams.stderr, 2);
  if (streams.terminal !== undefined) libc.takeControllingTerminal(0);
  libc.closeOnExecFrom(3);

  const file = findCommand(target.args[0] ?? '', env);
  if (target.noNewPrivileges) libc.prctl(libc.PR.SET_NO_NEW_PRIVS, 1);
  if (label !== undefined) takeLabel(label);
  libc.resetSignals();
  const drop = planDrop(target);
  const load = () => {
    if (filter !== undefined) libc.loadSeccomp(filter.program, filter.flags);
  };
  try {
    if (!target.noNewPrivileges) load();
    takeIdentity(user, drop);
    // A change of credentials has cleared it: the command must die with `unshare` (prctl(2), PR_SET_PDEATHSIG).
    libc.prctl(libc.PR.SET_PDEATHSIG, 9);
  } catch (error) {
    throw filter === undefined ? error : forbidden(error);
  }
  if (target.noNewPrivileges) load();
  awaitGo();
  fs.writeSync(status, execMark);
  try {
    libc.execve(file, target.args, env);
  } catch (error) {
    reportAndExit(status, notInvoked(target.args[0] as string, error as libc.SyscallError));
  }
}

/** The error of a call that the filter, loaded just before, refused; any other as it is. */
function forbidden(error: unknown): unknown {
  if (!(error instanceof libc.SyscallError) || !['EPERM', 'EACCES', 'ENOSYS'].includes(error.code)) return error;
  return new InitError(
    'cannot drop privileges',
    `the seccomp profile does not allow ${error.call}`,
    'Allow it in the profile, or add --security-opt no-new-privileges, with which the profile is loaded later',
  );
}

/** Tells minirun why there will be no command, and ends this process with docker's code for it. */
export function reportAndExit(status: number, error: unknown): never {
  const message = failure(error);
  fs.writeSync(status, `${JSON.stringify(message)}\n`);
  process.exit(message.code);
}

/** Docker's variables: HOME unless it is set, TERM on a terminal. */
function withDefaults(env: readonly string[], home: string, terminal: boolean): string[] {
  const has = (name: string) => env.some((entry) => entry.startsWith(`${name}=`));
  const result = [...env];
  if (!has('HOME')) result.push(`HOME=${home}`);
  if (terminal && !has('TERM')) result.push('TERM=xterm');
  return result;
}

/** Enters the working directory, creating it as docker does, and makes sure that it is inside the root (CVE-2024-21626). */
function enterDirectory(directory: string): void {
  try {
    process.chdir(directory);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new InitError(
      `cannot enter the working directory ${directory}`,
      code === 'ENOTDIR' ? 'it is not a directory' : code === 'ENOENT' ? 'there is no such directory' : message,
      'Give another one with -w',
    );
  }
  // By a system call: /proc is the container's by now.
  if (!libc.isInsideRoot()) {
    throw new InitError(`refusing the working directory ${directory}`, 'it lies outside the container');
  }
}

function limitResource(type: string, soft: number, hard: number): void {
  try {
    libc.setRlimit(type, soft, hard);
  } catch (error) {
    throw new InitError(
      `cannot set the limit ${type.replace('RLIMIT_', '').toLowerCase()}=${soft}:${hard}`,
      (error as libc.SyscallError).code === 'EPERM'
        ? 'raising a hard limit takes CAP_SYS_RESOURCE, which minirun lacks here'
        : (error as libc.SyscallError).reason,
      'Give lower values with --ulimit',
    );
  }
}

/** Gives a pipe or a terminal to the container's user, so that opening /dev/stdout works for any user. */
function giveTo(fd: number, uid: number, gid: number): void {
  const stat = fs.fstatSync(fd);
  const isTerminal = stat.isCharacterDevice() && stat.rdev >> 8 >= 136;
  if (!stat.isFIFO() && !isTerminal) return;
  if (stat.uid === uid) return;
  try {
    // A terminal keeps its group `tty`: mesg(1) and write(1) rely on it.
    fs.fchownSync(fd, uid, isTerminal ? stat.gid : gid);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
    throw new InitError(
      `cannot run as user ${uid}, group ${gid}`,
      "the container's user namespace has no such id",
      'Give it more (--userns, without root /etc/subuid), or another user with -u',
    );
  }
}

/** What a process may have, as bits; the rest is dropped. */
interface Drop {
  bounding: bigint;
  effective: bigint;
  permitted: bigint;
  inheritable: bigint;
}

function planDrop(target: OciProcess): Drop {
  // By system calls alone: /proc is the container's by now.
  const own = libc.permittedCapabilities();
  const set = (names: readonly string[]) =>
    names.reduce((bits, name) => bits | (1n << BigInt(capabilityNames.indexOf(name))), 0n) & own;
  const { bounding, effective, permitted, inheritable } = target.capabilities;
  return {
    bounding: set(bounding),
    effective: set(effective),
    permitted: set(permitted),
    inheritable: set(inheritable),
  };
}

/** Drops everything that the process may not have: bounding set first, while it still may. */
function takeIdentity(
  user: { uid: number; gid: number; groups: number[] },
  { bounding, effective, permitted, inheritable }: Drop,
): void {
  for (let number = 0; libc.isCapability(number); number++) {
    if ((bounding & (1n << BigInt(number))) === 0n) libc.prctl(libc.PR.CAPBSET_DROP, number);
  }
  libc.prctl(libc.PR.SET_KEEPCAPS, 1);
  libc.setIds(user.uid, user.gid, user.groups);
  libc.prctl(libc.PR.SET_KEEPCAPS, 0);
  // An ordinary user starts without effective ones, as after any setuid(2); setuid programs still get them.
  const isRoot = user.uid === 0;
  libc.setCapabilities(isRoot ? effective : 0n, isRoot ? permitted : 0n, inheritable);
}

/** The file that a command name stands for: execvp(3)'s search of PATH. */
function findCommand(command: string, env: readonly string[]): string {
  if (command.includes('/')) return command;
  const search =
    env.find((entry) => entry.startsWith('PATH='))?.slice(5) ||
    '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  let denied: string | undefined;
  for (const directory of search.split(':')) {
    const file = path.join(directory || '.', command);
    const stat = fs.statSync(file, { throwIfNoEntry: false });
    if (stat === undefined || stat.isDirectory()) continue;
    if ((stat.mode & 0o111) !== 0) return file;
    denied = file;
  }
  if (denied !== undefined)
    throw new InitError(
      `cannot run "${command}"`,
      `${denied} is not executable`,
      `Make it executable: chmod +x ${denied}`,
      126,
    );
  throw new InitError(
    `cannot run "${command}"`,
    'no such command in $PATH of the container',
    'Check the spelling, or give a full path',
    127,
  );
}

function notInvoked(command: string, error: libc.SyscallError): InitError {
  const stat = fs.statSync(command, { throwIfNoEntry: false });
  if (error.code === 'ENOENT' && stat === undefined) {
    return new InitError(
      `cannot run "${command}"`,
      'no such file in the container',
      'Check the path, or name a command in $PATH',
      127,
    );
  }
  if (error.code === 'ENOENT') {
    return new InitError(
      `cannot run "${command}"`,
      'its interpreter or dynamic loader is not in the container',
      'Use an image that has it, or a static binary',
      127,
    );
  }
  if (stat?.isDirectory()) return new InitError(`cannot run "${command}"`, 'it is a directory', 'Name a program', 126);
  if (error.code === 'EACCES')
    return new InitError(
      `cannot run "${command}"`,
      'permission denied',
      'Make it executable for the user that runs it',
      126,
    );
  if (error.code === 'ENOEXEC') {
    return new InitError(
      `cannot run "${command}"`,
      'exec format error',
      'Use a binary for this machine, or give the script a first line such as #!/bin/sh',
      126,
    );
  }
  return new InitError(`cannot run "${command}"`, error.reason, undefined, 126);
}
