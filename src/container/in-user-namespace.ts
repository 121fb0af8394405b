import fs from 'node:fs';
import { faultPoint } from '../host/fault.ts';
import { hold, type Holder } from '../host/holder.ts';
import { ownBinary } from '../host/launch.ts';
import { holderArgv, type InUserNamespace } from './argv.ts';
import type { Definition } from './definition.ts';
import { reserveIds } from './id-ranges.ts';
import { hasOwnNetwork, type Networking } from './networking.ts';
import type { OciMount, OciSpec } from './oci.ts';
import { raisedLimitsArgv } from './raised-limits.ts';
import { containerFiles, readState } from './store.ts';
import { idMap, type IdRange } from './user-namespace.ts';

/** A user namespace that a container is about to begin in. */
export interface UserNamespace {
  ids: IdRange;
  /** Where init is to begin. */
  entry: InUserNamespace;
  /** Keeps it until init is in it. */
  holder: Holder;
  /** The spec with root and sources as init finds them there. */
  spec: OciSpec;
  /** What the user should know. */
  warnings: string[];
}

/** Reserves the ids of a container in a user namespace; with that of another it has that one's. */
export async function idsFor({ id, userns }: Definition): Promise<IdRange> {
  return reserveIds(userns?.of ?? id, userns?.size ?? 0, (each) => fs.existsSync(containerFiles(each).directory));
}

/**
 * A namespace lives only as long as a process is in it, and nobody is in the new one yet: this starts one that does nothing
 * else. It takes some milliseconds, so who knows early that it will be needed begins early.
 */
export function beginHolding(definition: Definition): Promise<Holder> {
  const user = definition.userns?.of === undefined;
  const holder = hold(holderArgv({ user, network: user && hasOwnNetwork(definition) }));
  // Whoever waits for it sees a rejection; nobody may.
  holder.catch(() => {});
  return holder;
}

/** Whether nobody cares who owns the files there. */
const isKernels = (source: string) => /^\/(sys|proc|dev)(\/|$)/.test(source);

function foreignWarning(source: string): string {
  return (
    `${source} keeps the owners it has on the host, because its file system or this kernel has no idmapped mounts: ` +
    "in the container its files belong to nobody, and the container's root has no rights to them beyond anybody's"
  );
}

/** Says whom the ids in a new user namespace stand for. @returns a path of that namespace */
function mapIds(pid: number, { uid, gid, size }: IdRange): string {
  fs.writeFileSync(`/proc/${pid}/uid_map`, idMap(uid, size));
  fs.writeFileSync(`/proc/${pid}/gid_map`, idMap(gid, size));
  return `/proc/${pid}/ns/user`;
}

/** The user namespace of a running container. */
function namespaceOf(id: string): string {
  return `/proc/${readState(id)?.init?.pid}/ns/user`;
}

/** sysfs shows a network namespace, and root in a user namespace can mount it only for one that belongs to it (sysfs(5)). */
function sysOfHost(mount: OciMount): OciMount {
  if (mount.type !== 'sysfs') return mount;
  return { ...mount, type: 'bind', source: '/sys', options: ['bind', ...mount.options] };
}

/**
 * Makes a container's user namespace and what init cannot make in there.
 *
 * @param held the beginning of it
 * @throws MinirunError when the machine has none to give, or a file system cannot show other owners
 */
export async function makeUserNamespace(
  definition: Definition,
  spec: OciSpec,
  network: Networking,
  held: Promise<Holder> = beginHolding(definition),
): Promise<UserNamespace> {
  const files = containerFiles(definition.id);
  const ids = await idsFor(definition);
  // Loaded while the holder starts.
  const { stage } = await import('./staging.ts');
  const holder = await held;
  try {
    faultPoint('userns.held');
    const { pid } = holder;
    const userns = definition.userns?.of === undefined ? mapIds(pid, ids) : namespaceOf(definition.userns.of);
    fs.mkdirSync(files.rootfs, { recursive: true, mode: 0o755 });
    const { root, mounts, foreign } = stage({
      holder: pid,
      userns,
      ids,
      place: files.rootfs,
      binary: ownBinary,
      root:
        definition.rootfs === undefined
          ? { lower: definition.layers, directory: files.directory }
          : { path: definition.rootfs },
      mounts: network.kind === 'host' ? spec.mounts.map(sysOfHost) : spec.mounts,
      devices: spec.linux.devices,
    });
    faultPoint('userns.staged');
    const netns =
      network.kind === 'own' ? `/proc/${pid}/ns/net` : network.kind === 'joined' ? network.netns : undefined;
    return {
      ids,
      entry: {
        holder: pid,
        userns,
        place: files.rootfs,
        netns,
        owner: `${ids.uid}:${ids.gid}`,
        limits: raisedLimitsArgv(spec.process.rlimits),
      },
      holder,
      spec: { ...spec, root: { ...spec.root, path: root }, mounts },
      warnings: foreign.filter((source) => !isKernels(source)).map(foreignWarning),
    };
  } catch (error) {
    holder.end();
    throw error;
  }
}
