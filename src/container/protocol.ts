import type { OciLinux, OciMount, OciProcess, OciSpec } from './oci.ts';

/**
 * What minirun and init say to each other: one JSON object a line on a socket, which is init's file descriptor 3.
 *
 *     minirun                        init
 *     prepare | join   ──────────►
 *                      ◄──────────   ready | failed
 *     enter            ──────────►     (not for `join`)
 *     go               ──────────►
 *                                    (status pipe: `exec`, then end of file when execve took place; or a Failure)
 *     dismissal        ──────────►     (in place of `enter` or `go`)
 *
 * A socket that closes before `go` means that minirun died: init exits and the namespaces die with it.
 */
export type Request = Prepare | Join | Open | Unpack | Pack | Compare | Archive | Shift;

/** Build a container: mounts, then wait, then become its process. */
export interface Prepare {
  type: 'prepare';
  spec: OciSpec;
  /** An overlay to mount on `spec.root.path`; absent when that is a root filesystem already. */
  overlay?: Overlay;
  /** The network namespace to enter on `go`; absent for the host's, and when init is in it from the start. */
  netns?: string;
  /**
   * It is in a user namespace, and what it cannot make there is prepared: root and sources of the spec are below its working
   * directory (`container/staging.ts`).
   */
  staged?: boolean;
  stdio: Stdio;
  /** It is put into a cgroup of its own before `enter`: that is to be the root of those it sees. */
  ownCgroup?: true;
}

/** The ids of the host that a container's ids stand for: its 0 is `uid` and `gid`, and so on for `size` of them. */
export interface IdRange {
  uid: number;
  gid: number;
  size: number;
}

/**
 * Give all files of an overlay, and of further directories, to the ids of a user namespace. Init answers `shifted` or
 * `failed`, and ends.
 */
export interface Shift {
  type: 'shift';
  /** Where the overlay is to be mounted. */
  root: string;
  overlay: Overlay;
  directories: string[];
  owners: IdRange;
}

/** Directories of an overlay, topmost first; without `upper` and `work` nothing can be changed. */
export interface Overlay {
  lower: readonly string[];
  upper?: string;
  work?: string;
}

/** Become a further process of a running container (`exec`). */
export interface Join {
  type: 'join';
  /** Host pid of the container's first process. */
  pid: number;
  process: OciProcess;
  seccomp: OciLinux['seccomp'];
  stdio: Stdio;
  /** It is in a user namespace that is not the host's. */
  inUserNamespace?: boolean;
}

/**
 * Open directories of a root filesystem, so that they can be copied from through /proc/PID/fd. Init answers `opened` or
 * `failed`, and keeps them until the socket closes.
 */
export interface Open {
  type: 'open';
  /** The root filesystem, or where its overlay is to be mounted. */
  root: string;
  overlay?: Overlay;
  directories: string[];
}

/**
 * Make the files of a tar archive in a directory that becomes the root. Nothing of a container: init answers `receiving`,
 * is told `go` when minirun has opened the pipe, and then answers `unpacked` or `failed` and ends.
 */
export interface Unpack {
  type: 'unpack';
  directory: string;
  /** The archive is a layer: names that begin with `.wh.` hide what lower layers have. */
  whiteouts: boolean;
  /** The archive is refused as soon as it is beyond one: bytes of all files, holes included, and entries. */
  limits?: { bytes?: number; entries?: number };
}

/**
 * Write a directory, which becomes the root, as the archive of a layer. Init answers `reading`, waits for `go`, writes
 * into its pipe, and answers `packed` or `failed`.
 */
export interface Pack {
  type: 'pack';
  directory: string;
  /** To be mounted on the directory before, read-only. */
  overlay?: Overlay;
  /** Instead of the directory: the root of a running process, without what is mounted below it. */
  process?: { pid: number; start: number };
  /** What these ids own belongs to others in the archive: `Shift` has given it to them. */
  owners?: IdRange;
}

/** Tell what one directory changes of others that lie below it in an overlay. Init answers `changed`, some times, and `compared`. */
export interface Compare {
  type: 'compare';
  /** Any directory to mount on. */
  directory: string;
  upper: string;
  /** Topmost first. */
  lower: readonly string[];
}

/**
 * One side of `cp`. Init enters the root and then either answers `reading`, waits for `go` and writes a tar archive into
 * its pipe until it answers `packed`; or makes the files of the archive on its standard input and answers `unpacked`.
 */
export interface Archive {
  type: 'archive';
  root: ArchiveRoot;
  /** For messages: `in the container`, `on this machine`. */
  where: string;
  action: ReadFiles | WriteFiles;
}

/** A running process's root; that of a container at rest, to be mounted, with its volumes; this machine's own. */
export type ArchiveRoot =
  | { kind: 'process'; pid: number; start: number; inUserNamespace?: boolean }
  | {
      kind: 'rootfs';
      directory: string;
      /** Absent when the directory is a root filesystem already. */
      overlay?: Overlay;
      mounts: OciMount[];
      readonly: boolean;
      /** As in `Pack`. */
      owners?: IdRange;
    }
  | { kind: 'host' };

export interface ReadFiles {
  type: 'read';
  /** Absolute; `/.` at its end stands for what is in a directory, `/` for a directory. */
  path: string;
  followLink: boolean;
}

export interface WriteFiles {
  type: 'write';
  /** Absolute; `/` at its end stands for a directory that is there. */
  path: string;
  /** The one thing in the archive, as `reading` tells it; absent for an archive of the user's own. */
  source?: { name: string; directory: boolean };
  /** Who gets the files; absent to leave them to whom the archive says. */
  owner?: { uid: number; gid: number };
  /** Make no devices, and no programs that change who runs them. */
  careful: boolean;
}

/**
 * Where the process's standard streams come from. `pipe`: init makes three pipes, minirun opens their other ends
 * through /proc; `pty`: init makes a terminal in the container's own devpts; numbers: file descriptors that
 * init inherited; `null`: /dev/null.
 */
type Source = 'null' | 'pipe' | number;
export type Stdio = 'pty' | { stdin: Source; stdout: Source; stderr: Source };

/** The network namespace and its interfaces are there: init may enter it and do everything but run the command. */
export interface Enter {
  type: 'enter';
  /** Of the interfaces, beside those of the spec. */
  sysctl: Record<string, string>;
}

/** The network is complete and minirun has opened its ends of the streams: init may run the command. */
export interface Go {
  type: 'go';
}

/** There will be no command: init ends. In place of `enter` or `go`. */
export interface Dismissal {
  type: 'dismissal';
}

export type Answer = Ready | Opened | Receiving | Unpacked | Reading | Packed | Changed | Compared | Shifted | Failure;

/** Everything is mounted. The file descriptors are init's; minirun opens them as /proc/PID/fd/N. */
export interface Ready {
  type: 'ready';
  /** Init's pid as the host counts. */
  pid: number;
  fds: { status: number; stdin?: number; stdout?: number; stderr?: number; terminal?: number };
}

/** There is a pipe for the archive: init's descriptor, which minirun opens as those of `ready`. */
export interface Receiving {
  type: 'receiving';
  fd: number;
}

/** The archive has ended and all of it is there. */
export interface Unpacked {
  type: 'unpacked';
  /** Of all regular files. */
  bytes: number;
  entries: number;
  /** Whether the archive had its end mark: without a known digest only that tells a whole one from one cut off. */
  ended: boolean;
  /** Whether the archive's root says that it hides all that lower layers have. */
  opaque: boolean;
}

/** The descriptors are init's; undefined (`null`) for what does not exist. */
export interface Opened {
  type: 'opened';
  fds: (number | null)[];
}

/** There is something to be read. The descriptor is init's, as those of `ready`. */
export interface Reading {
  type: 'reading';
  fd: number;
  /** What its one thing is called in the archive: `.` when only what is in a directory was asked for. */
  name: string;
  directory: boolean;
}

/** All of it is written. */
export interface Packed {
  type: 'packed';
}

/** `A`, `C` or `D`, a space, and the name in the container as a byte string; a part of all. */
export interface Changed {
  type: 'changed';
  changes: string[];
}

export interface Compared {
  type: 'compared';
}

/** What was given to somebody else. */
export interface Shifted {
  type: 'shifted';
  files: number;
  /** Of regular files. */
  bytes: number;
}

/** Something failed inside init, ready for the user. */
export interface Failure {
  type: 'failed';
  what: string;
  why?: string;
  remedy?: string;
  /** 125, 126 or 127, as docker's. */
  code: number;
}

/** What init writes to the status pipe just before execve. */
export const execMark = 'exec\n';
