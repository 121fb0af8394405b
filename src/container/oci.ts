import type { Resources } from '../host/cgroup/resources.ts';
import type { OciSeccomp } from '../seccomp/oci.ts';

/**
 * The parts of the OCI runtime-spec's `config.json` that minirun writes and obeys, with the spec's own names.
 * @see https://github.com/opencontainers/runtime-spec/blob/main/config.md
 */

/** A container's definition; `containers/<id>/config.json`. */
export interface OciSpec {
  ociVersion: '1.2.0';
  hostname: string;
  root: { path: string; readonly: boolean };
  process: OciProcess;
  mounts: OciMount[];
  linux: OciLinux;
  annotations: Record<string, string>;
}

/** The process that a container runs, or that `exec` adds to it. */
export interface OciProcess {
  terminal: boolean;
  /** Rows and columns of the terminal; the spec calls the columns `width`. */
  consoleSize?: { height: number; width: number };
  /** Not the spec's form: `username` may be any of docker's `-u` forms; it is resolved in the image by init. */
  user: OciUser;
  args: string[];
  env: string[];
  cwd: string;
  capabilities: OciCapabilities;
  rlimits: OciRlimit[];
  noNewPrivileges: boolean;
  /** A profile of AppArmor, or `unconfined`. Absent: the default one where the machine has AppArmor. */
  apparmorProfile?: string;
  /** How soon the kernel ends it when memory runs out; absent: as whoever starts it. */
  oomScoreAdj?: number;
}

export interface OciUser {
  /** `name`, `uid`, `name:group`, `uid:gid`; empty for root. */
  username: string;
  /** `--group-add`: names of the image's groups, or ids. In place of OCI's additionalGids: names are looked up inside the root. */
  additionalGroups?: string[];
}

export interface OciCapabilities {
  bounding: string[];
  effective: string[];
  permitted: string[];
  inheritable: string[];
  ambient: string[];
}

export interface OciRlimit {
  /** `RLIMIT_NOFILE` and so on. */
  type: string;
  soft: number;
  hard: number;
}

export interface OciMount {
  destination: string;
  type: string;
  source: string;
  /** Options as mount(8) takes them, and the runtime spec's for all that is mounted below as well: `rro`, `rnodev`. */
  options: string[];
  /** Not in the spec: what of the source is mounted. Links on the way to it do not lead out of the source. */
  subpath?: string;
}

export interface OciDevice {
  path: string;
  type: 'c' | 'b';
  major: number;
  minor: number;
  fileMode: number;
  uid?: number;
  gid?: number;
  /** Not in the spec: the node of the host that it is to be like. */
  hostPath?: string;
}

export interface OciLinux {
  namespaces: { type: 'pid' | 'network' | 'mount' | 'ipc' | 'uts' | 'cgroup' | 'user'; path?: string }[];
  sysctl: Record<string, string>;
  devices: OciDevice[];
  maskedPaths: string[];
  readonlyPaths: string[];
  /** The spec's form for a profile that was given; `default` stands for the one that is compiled in, `unconfined` for none. */
  seccomp: 'default' | 'unconfined' | OciSeccomp;
  /** Its cgroup, from the mount point of each hierarchy; absent for a container that is given none at its start. */
  cgroupsPath?: string;
  resources?: Resources;
}
