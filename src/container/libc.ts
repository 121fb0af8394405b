import { dlopen, FFIType, ptr } from 'bun:ffi';
import { closeSync, constants, existsSync } from 'node:fs';

/**
 * What minirun itself (not init) needs of libc: taking over a container's terminal and telling it the window size, and
 * pipes for a container in the background. With `staging.ts` the one file outside `init/` that is not for Node.
 */
const musl = `/lib/ld-musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`;
const { symbols: libc } = dlopen(existsSync('/etc/alpine-release') && existsSync(musl) ? musl : 'libc.so.6', {
  syscall: {
    args: [FFIType.i64_fast, FFIType.i64_fast, FFIType.i64_fast, FFIType.i64_fast],
    returns: FFIType.i64_fast,
  },
  ioctl: { args: [FFIType.i32, FFIType.u64_fast, FFIType.ptr], returns: FFIType.i32 },
  pipe2: { args: [FFIType.ptr, FFIType.i32], returns: FFIType.i32 },
});

/** The same numbers on every architecture: they were added after the tables were unified. */
const pidfdOpen = 434;
const pidfdGetfd = 438;

/** A descriptor of this process for descriptor `fd` of process `pid`: pidfd_getfd(2), Linux 5.6. */
export function takeDescriptor(pid: number, fd: number): number {
  const pidfd = Number(libc.syscall(pidfdOpen, pid, 0, 0));
  if (pidfd < 0) throw new Error(`pidfd_open of ${pid} failed`);
  try {
    const taken = Number(libc.syscall(pidfdGetfd, pidfd, fd, 0));
    if (taken < 0) throw new Error(`pidfd_getfd of ${pid} failed: it takes Linux 5.6`);
    return taken;
  } finally {
    closeSync(pidfd);
  }
}

const TIOCSWINSZ = 0x5414;

/** Sets the size of a terminal; the kernel tells its foreground job by SIGWINCH. */
export function resizeTerminal(fd: number, rows: number, columns: number): void {
  libc.ioctl(fd, TIOCSWINSZ, ptr(new Uint16Array([rows, columns, 0, 0])));
}

const O_CLOEXEC = 0o2000000;

/** A pipe, which Node does not make: its children get sockets, and nobody opens those as /dev/stdout. */
export function makePipe(): { read: number; write: number } {
  const fds = new Int32Array(2);
  if (libc.pipe2(ptr(fds), constants.O_RDONLY | O_CLOEXEC) < 0) throw new Error('pipe2 failed');
  return { read: fds[0] as number, write: fds[1] as number };
}
