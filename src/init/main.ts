import fs from 'node:fs';
import type { OciLinux, OciProcess } from '../container/oci.ts';
import type { Enter, Go, Join, Prepare, Ready, Request } from '../container/protocol.ts';
import type { Filter } from '../seccomp/index.ts';
import { become, reportAndExit } from './become.ts';
import { receive, send } from './channel.ts';
import { failure, InitError } from './failure.ts';
import { openLabel } from './label.ts';
import * as libc from './libc.ts';
import { detachShared, keptFlags, protectOwnBinary, Rootfs } from './mounts.ts';
import { mountOverlay } from './overlay.ts';
import { highestGroup } from './userns.ts';
import { closeHandedOver, makeStreams } from './streams.ts';

/**
 * Init: what minirun's own binary does inside the namespaces that `unshare` made, until it becomes the command.
 * It answers on file descriptor 3 (see `container/protocol.ts`) and never reads the state directory.
 */
export async function main(): Promise<void> {
  // Nobody may read this process's memory or files through /proc before it has dropped what it holds.
  libc.prctl(libc.PR.SET_DUMPABLE, 0);
  const request = receive<Request>();
  if (request.type === 'unpack') {
    const { unpack } = await import('./unpack.ts');
    return unpack(request);
  }
  if (request.type === 'open') {
    const { open } = await import('./open.ts');
    return open(request);
  }
  if (request.type === 'pack') {
    const { pack } = await import('./pack.ts');
    return pack(request);
  }
  if (request.type === 'shift') {
    const { shift } = await import('./shift.ts');
    return shift(request);
  }
  if (request.type === 'compare') {
    const { compare } = await import('./compare.ts');
    return compare(request);
  }
  if (request.type === 'archive') {
    const { archive } = await import('./archive.ts');
    return archive(request);
  }
  const status = libc.pipe();
  try {
    if (request.type === 'prepare') await prepare(request, status);
    else await join(request, status);
  } catch (error) {
    if (handedOver !== undefined) {
      awaitGo();
      reportAndExit(status.write, error);
    }
    const message = failure(error);
    send(message);
    process.exit(message.code);
  }
}

/** Descriptors that minirun opens between `ready` and `go`. From `ready` on it learns of failures by the status pipe. */
let handedOver: Ready['fds'] | undefined;
let mayGo = false;

/** Waits until minirun has opened its ends and the network is complete; from then on this process's copies are closed. */
function awaitGo(): void {
  if (mayGo) return;
  receive<Go>();
  mayGo = true;
  closeHandedOver(handedOver ?? {});
}

async function prepare(
  { spec, overlay, netns, staged, stdio, ownCgroup }: Prepare,
  status: { read: number; write: number },
): Promise<void> {
  const detached = detachShared(spec.mounts);
  // 1. The root filesystem, and a mount of it on itself: pivot_root wants a mount point.
  if (staged) {
    // As it came from the host's user namespace it is locked, and cannot be moved (mount_namespaces(7)).
    libc.mount(spec.root.path, spec.root.path, '', libc.MS.BIND | libc.MS.REC, '');
  } else if (overlay === undefined) {
    libc.mount(spec.root.path, spec.root.path, '', libc.MS.BIND | libc.MS.REC, '');
    libc.mount('', spec.root.path, '', libc.MS.BIND | libc.MS.REMOUNT | libc.MS.NODEV | keptFlags(spec.root.path), '');
  } else {
    mountOverlay(spec.root.path, overlay);
  }
  const root = new Rootfs(spec.root.path, detached);

  // 2. What lies on it, except /sys: sysfs shows the network namespace of the process that mounts it.
  const needsNetwork = (destination: string) => destination === '/sys' || destination.startsWith('/sys/');
  for (const entry of spec.mounts) {
    if (needsNetwork(entry.destination)) continue;
    root.mount(entry);
    if (entry.destination === '/dev' && entry.type === 'tmpfs') root.populateDev(spec.linux.devices);
  }
  libc.setHostname(spec.hostname);
  const names = [root.nameOf('/dev'), root.nameOf('/dev/pts')] as const;
  const { streams, fds } = makeStreams(stdio, names, spec.process.consoleSize);
  if (streams.terminal !== undefined) root.mountConsole(streams.stdin);
  root.makeDirectory(spec.process.cwd);
  for (const directory of spec.linux.readonlyPaths) if (directory !== '/proc/sys') root.makeReadonly(directory);
  for (const file of spec.linux.maskedPaths) if (!needsNetwork(file)) root.mask(file);
  const filter = await filterOf(spec.linux.seccomp, spec.process);
  const label = openLabel(spec.process.apparmorProfile);

  // 3. The network is being wired by minirun meanwhile; its namespace and interfaces come first.
  handedOver = { status: status.read, ...fds };
  send({ type: 'ready', pid: Number(fs.readlinkSync('/proc/self')), fds: handedOver });
  const { sysctl } = receive<Enter>();
  if (netns !== undefined) libc.enterNamespace(netns);
  // The root of a cgroup namespace is where its maker is: that of unshare was made before minirun has moved this process.
  if (ownCgroup) libc.unshare(libc.CLONE_NEWCGROUP);
  for (const entry of spec.mounts) if (needsNetwork(entry.destination)) root.mount(entry);

  // 4. Sysctls while /proc/sys is writable, then what the container must not see or change.
  for (const [key, value] of Object.entries({ ...sysctl, ...spec.linux.sysctl })) writeSysctl(root, key, value);
  if (spec.linux.readonlyPaths.includes('/proc/sys')) root.makeReadonly('/proc/sys');
  for (const file of spec.linux.maskedPaths) if (needsNetwork(file)) root.mask(file);
  if (spec.root.readonly) root.makeRootReadonly();
  // In a user namespace it is read-only already, and nobody in there could change that.
  if (!staged) protectOwnBinary();

  // 5. The old root goes away, and this process becomes the command, once the network is complete.
  root.enter();
  libc.pivotRootHere();
  become(spec.process, { filter, label }, streams, status.write, awaitGo);
}

async function join(request: Join, status: { read: number; write: number }): Promise<void> {
  // Whoever is root in a user namespace is nobody to the files of the host: no protection is needed, and none possible.
  if (!request.inUserNamespace) protectOwnBinary();
  // Threads share root and working directory, and a process that shares them may not enter a mount namespace.
  libc.unshare(libc.CLONE_FS);
  const own = Number(fs.readlinkSync('/proc/self'));
  const label = openLabel(request.process.apparmorProfile);
  libc.enterNamespace(`/proc/${request.pid}/ns/mnt`);
  process.chdir('/');
  const filter = await filterOf(request.seccomp, request.process);
  const { streams, fds } = makeStreams(request.stdio, ['/dev', '/dev/pts'], request.process.consoleSize);
  handedOver = { status: status.read, ...fds };
  send({ type: 'ready', pid: own, fds: handedOver });
  become(request.process, { filter, label }, streams, status.write, awaitGo);
}

/** The compiled seccomp filter; loaded lazily because `--privileged` does without. */
async function filterOf(seccomp: OciLinux['seccomp'], { capabilities }: OciProcess): Promise<Filter | undefined> {
  if (seccomp === 'unconfined') return undefined;
  const { seccompFilter } = await import('../seccomp/index.ts');
  return seccompFilter(seccomp, capabilities.bounding);
}

/** A range of groups up to the highest there is: the kernel takes none that the user namespace lacks. */
function withGroupsThatExist(range: string): string {
  const [first = '0', last = '0'] = range.trim().split(/\s+/);
  return Number(last) === 2147483647 ? `${first} ${highestGroup()}` : range;
}

/** Writes a sysctl of the container's namespaces. */
function writeSysctl(root: Rootfs, key: string, value: string): void {
  const file = `sys/${key.replaceAll('/', '\0').replaceAll('.', '/').replaceAll('\0', '.')}`;
  try {
    root.writeProc(file, key === 'net.ipv4.ping_group_range' ? withGroupsThatExist(value) : value);
  } catch (error) {
    if (error instanceof InitError) throw error;
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new InitError(
      `cannot set sysctl ${key}=${value}`,
      missing ? 'this kernel has none of that name' : 'the kernel refuses that value',
      'Leave --sysctl out, or correct it',
    );
  }
}
