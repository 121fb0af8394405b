import type { Part } from '../host/cgroup/hierarchies.ts';
import type { ProcessRef } from '../host/process.ts';
import type { ImageConfig } from '../image/image.ts';
import type { Attachment, Endpoint, PublishedPort } from '../network/definition.ts';
import type { PortRequest } from '../network/ports.ts';

/** `--restart`. */
export interface RestartPolicy {
  name: 'no' | 'on-failure' | 'always' | 'unless-stopped';
  /** Most restarts under `on-failure`; 0 is no bound. */
  maximum: number;
}

/** A volume that a container has. */
export interface Volume {
  /** Its name: 64 hexadecimal digits when it has none of its own. */
  name: string;
  /** Where the container has it. */
  destination: string;
  /** What the image has there is copied into it when it is empty. */
  copy: boolean;
  /** It has a name of its own, and outlives its containers. */
  named?: true;
  /** It came with another container (`--volumes-from`). */
  from?: true;
  /** For a volume that is made with this use of it. */
  make?: { options: Record<string, string>; labels: Record<string, string> };
}

/**
 * What a container is, beside its OCI spec: `containers/<id>/definition.json`. Only its name, its networks, its restart policy and what `update` shows ever change,
 * under the lock.
 */
export interface Definition {
  schema: 2;
  /** 64 hexadecimal digits. */
  id: string;
  name: string;
  /** RFC 3339. */
  created: string;
  /** As the user named it; the directory for `--rootfs`. */
  image: string;
  imageId: string;
  /** Unpacked layers, topmost first; empty when `rootfs` is used. */
  layers: string[];
  /** A directory used as it is, writable, without an overlay. */
  rootfs?: string;
  entrypoint: string[];
  command: string[];
  /** `none`, `host`, `container:ID` or the name of its first network. */
  network: string;
  /** Its networks. Their order is that of `attachmentsOf`. */
  attachments: Attachment[];
  /** `-p`, and `-P`. */
  publish?: PortRequest[];
  publishAll?: boolean;
  dns: string[];
  dnsSearch: string[];
  dnsOptions: string[];
  /** `--add-host` as lines of /etc/hosts: address, name. */
  addHosts: [string, string][];
  autoRemove: boolean;
  restart: RestartPolicy;
  /** Number of the signal that `stop` sends. */
  stopSignal: number;
  /** Seconds that `stop` waits before SIGKILL. */
  stopTimeout: number;
  /** `-t`. */
  tty: boolean;
  /** `-i`. */
  openStdin: boolean;
  privileged: boolean;
  /** `--userns`: absent in that of the host. */
  userns?: {
    /** How many ids it has. Which they are stands in `ids.json`. */
    size: number;
    /** Id of the container whose user namespace it shares, because it shares its network. */
    of?: string;
  };
  labels: Record<string, string>;
  /** Those of the image and of `--expose`: `80/tcp`. Absent in containers of an older minirun, as what follows. */
  exposedPorts?: string[];
  volumes?: Volume[];
  /** `--volumes-from`, as it was given. */
  volumesFrom?: string[];
  /** `--shm-size`, bytes. */
  shmSize?: number;
  /** `--cpus` in billionths, to be shown; what it stands for is in the spec. */
  nanoCpus?: number;
  /** What could be read of a file that was damaged: enough to look at the container and to remove it, not to start it. */
  damaged?: boolean;
  /** What was asked for and what the image says. */
  healthcheck?: Healthcheck;
  /** What happens when it becomes unhealthy, beside saying so. */
  healthOnFailure?: HealthAction;
  /** The words after `minirun run` or `create`, and where they were typed: for `generate systemd --new`. */
  typed?: { words: string[]; directory: string };
}

/** What an image's HEALTHCHECK and `--health-…` say, as docker keeps it: times in nanoseconds, 0 for the usual. */
export type Healthcheck = NonNullable<ImageConfig['Healthcheck']>;

/** `--health-on-failure`: podman's. */
export type HealthAction = 'kill' | 'restart' | 'stop';

/** `creating` is the time between the reservation of the name and the first state that others may act on. */
export type Status = 'creating' | 'created' | 'starting' | 'running' | 'stopping' | 'restarting' | 'exited';

/** Where a container is in its life: `containers/<id>/state.json`. */
export interface ContainerState {
  schema: 2;
  status: Status;
  /** The boot in which `owner`, `init` and `endpoints` mean anything. */
  boot: string;
  /**
   * The process that answers for the container now: the one that starts it, then the one in whose foreground it
   * runs or its supervisor, then whoever tears it down. When it is dead and the container is not at rest, any
   * minirun command reclaims what is left.
   */
  owner?: ProcessRef;
  /** The container's first process, by the host's count. */
  init?: ProcessRef;
  /** Name of its network namespace under /run/netns, when it has one of its own. */
  netns?: string;
  endpoints: Endpoint[];
  /** The cgroup that all of its processes are in; `late`: what they had used before is not counted in it. */
  cgroup?: { parts: Part[]; late?: true };
  /** By `pause`. Set before its processes are stopped and cleared after they go on. */
  paused?: boolean;
  /** The kernel has killed one of its processes because its memory was used up. */
  oomKilled?: boolean;
  /** Ports of the host that lead to it. */
  ports?: PublishedPort[];
  exitCode: number;
  /** RFC 3339; empty before. */
  startedAt: string;
  finishedAt: string;
  restartCount: number;
  /** Milliseconds that were waited before the last restart; doubles while it keeps ending early. */
  restartDelay: number;
  /** Set by `stop` and `kill`: the restart policy does not apply then. */
  stoppedByUser: boolean;
  /** Made by `run`, whose command has not begun yet: if that is cut short, nothing is to stay. */
  unborn: boolean;
  /** Set by a plain `rm`: the anonymous volumes stay. Whoever has to remove the container otherwise removes them too. */
  keepsVolumes?: boolean;
  /** Made, but no event has told of it yet: then none tells of its end either. */
  unannounced?: boolean;
  /** Why it could not be started, or what went wrong. */
  error: string;
}

export const restingState: Omit<ContainerState, 'status' | 'boot'> = {
  schema: 2,
  endpoints: [],
  exitCode: 0,
  startedAt: '',
  finishedAt: '',
  restartCount: 0,
  restartDelay: 0,
  stoppedByUser: false,
  unborn: false,
  error: '',
};
