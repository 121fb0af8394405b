import fs from 'node:fs';
import { hold, type Holder } from '../host/holder.ts';
import { ownBinary } from '../host/launch.ts';
import { holderArgv, type InUserNamespace } from './argv.ts';
import type { Definition } from './definition.ts';
import { reserveIds } from './id-ranges.ts';
import type { Networking } from './networking.ts';
import type { OciMount, OciSpec } from './oci.ts';
import { stage } from './staging.ts';
import { containerFiles } from './store.ts';
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
  /** Sources of mounts whose files keep the owners they have on the host. */
  foreign: string[];
}

/** Reserves the ids of a container that is in a user namespace of its own. */
export async function idsFor({ id, userns }: Definition): Promise<IdRange> {
  return reserveIds(id, userns?.size ?? 0, (each) => fs.existsSync(containerFiles(each).directory));
}

/** sysfs shows a network namespace, and root in a user namespace can mount it only for one that belongs to it (sysfs(5)). */
function sysOfHost(mount: OciMount): OciMount {
  if (mount.type !== 'sysfs') return mount;
  return { ...mount, type: 'bind', source: '/sys', options: ['bind', ...mount.options] };
}

/**
 * Makes a container's user namespace and what init cannot make in there. A namespace lives only as long as a process is in it,
 * and nobody is yet: so one is started that does nothing else, until init has taken its place.
 *
 * @throws MinirunError when the machine has none to give, or a file system cannot show other owners
 */
export async function makeUserNamespace(
  definition: Definition,
  spec: OciSpec,
  network: Networking,
): Promise<UserNamespace> {
  const files = containerFiles(definition.id);
  const ids = await idsFor(definition);
  const holder = await hold(holderArgv(network.kind === 'own'));
  try {
    const { pid } = holder;
    fs.writeFileSync(`/proc/${pid}/uid_map`, idMap(ids.uid, ids.size));
    fs.writeFileSync(`/proc/${pid}/gid_map`, idMap(ids.gid, ids.size));
    fs.mkdirSync(files.rootfs, { recursive: true, mode: 0o755 });
    const { root, mounts, foreign } = stage({
      holder: pid,
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
    const netns = network.kind === 'own' ? `/proc/${pid}/ns/net` : network.kind === 'joined' ? network.netns : undefined;
    return {
      ids,
      entry: { holder: pid, place: files.rootfs, netns, owner: `${ids.uid}:${ids.gid}` },
      holder,
      spec: { ...spec, root: { ...spec.root, path: root }, mounts },
      foreign: foreign.filter((source) => source !== '/sys' && !source.startsWith(`${files.directory}/`)),
    };
  } catch (error) {
    holder.end();
    throw error;
  }
}
