import fs from 'node:fs';
import { faultPoint } from '../host/fault.ts';
import { hold, type Holder } from '../host/holder.ts';
import { MinirunError } from '../errors.ts';
import { helperArgv, launch, ownBinary } from '../host/launch.ts';
import { writeJson } from '../state/json.ts';
import type { OwnersFile } from './files.ts';
import { holderArgv, initEnvironment, type InUserNamespace } from './argv.ts';
import type { Definition } from './definition.ts';
import { reserveIds } from './id-ranges.ts';
import { hasOwnNetwork, type Networking } from './networking.ts';
import type { OciMount, OciSpec } from './oci.ts';
import { raisedLimitsArgv } from './raised-limits.ts';
import { containerFiles, readOwners, readState } from './store.ts';
import type { Failure, IdRange, Shift, Shifted } from './protocol.ts';
import type { Staged, StagingRequest } from './staging.ts';
import { idMap } from './user-namespace.ts';
import { volumeData } from './volume-store.ts';

/** A user namespace that a container is about to begin in. */
export interface UserNamespace {
  ids: IdRange;
  /** Where init is to begin. */
  entry: InUserNamespace;
  /** A process in its network namespace, which is to get a name; absent when that is not its own. */
  holder?: number;
  /** Lets go of what keeps it, when init is in it. Twice is no error. */
  release: () => void;
  /** The spec with root and sources as init finds them there. */
  spec: OciSpec;
  /** What the user should know. */
  warnings: string[];
}

/** Reserves the ids of a container in a user namespace; with that of another it has that one's. */
export async function idsFor({ id, userns }: Definition): Promise<IdRange> {
  const holder = userns?.of ?? id;
  const wanted = readOwners(holder);
  return reserveIds(holder, userns?.size ?? 0, (each) => fs.existsSync(containerFiles(each).directory), wanted);
}

/**
 * A namespace lives only as long as a process is in it, and nobody is in the new one yet: this starts one that does nothing
 * else. It takes some milliseconds, so who knows early that it will be needed begins early. Undefined when another container's
 * is to be shared.
 */
export function beginHolding(definition: Definition): Promise<Holder> | undefined {
  if (definition.userns?.of !== undefined) return undefined;
  const holder = hold(holderArgv(hasOwnNetwork(definition)));
  // Whoever waits for it sees a rejection; nobody may.
  holder.catch(() => {});
  return holder;
}

/**
 * Makes the mounts; where there are no idmapped ones, gives all files of the root filesystem to the container's ids first.
 * That copies each of them into the container, once.
 */
async function stageRoot(
  definition: Definition,
  request: Omit<StagingRequest, 'root' | 'given'>,
  warnings: string[],
): Promise<Staged> {
  const { id, rootfs, layers } = definition;
  const { stage, CannotMap } = await import('./staging.ts');
  if (rootfs !== undefined) return stage({ ...request, root: { path: rootfs }, given: [] });
  const root = { lower: layers, directory: containerFiles(id).directory };
  const asItIs = () => stage({ ...request, root: { ...root, mapped: false }, given: givenPlaces(definition) });
  if (readOwners(id) !== undefined) return asItIs();
  try {
    return stage({ ...request, root: { ...root, mapped: true }, given: [] });
  } catch (error) {
    const { uid, gid, size } = request.ids;
    // Whose a file is could not be told from whose it is to be.
    if (!(error instanceof CannotMap) || uid < size || gid < size) throw error;
  }
  warnings.push(await giveFiles(definition, request.ids));
  return asItIs();
}

/** What of a container's volumes is given to its ids, too: nobody else has these. */
function givenPlaces({ volumes = [] }: Definition): string[] {
  return volumes.filter(({ named, from }) => !named && !from).map(({ name }) => volumeData(name));
}

/** Gives the files of a container and of its anonymous volumes to its ids. @returns what that has cost */
async function giveFiles(definition: Definition, owners: IdRange): Promise<string> {
  const { id, layers } = definition;
  const files = containerFiles(id);
  const helper = launch(helperArgv(), initEnvironment);
  helper.send({
    type: 'shift',
    root: files.rootfs,
    overlay: { lower: layers, upper: files.upper, work: files.work },
    directories: givenPlaces(definition),
    owners,
  } satisfies Shift);
  const answer = (await helper.receive()) as Shifted | Failure | undefined;
  if (answer?.type === 'failed') throw new MinirunError(answer.what, answer.why, answer.remedy, { code: answer.code });
  if (answer === undefined)
    throw new MinirunError('cannot give files to the user namespace', helper.stderr().trim() || 'init ended');
  await helper.exited;
  faultPoint('userns.given');
  writeJson(files.owners, { schema: 1, ...owners } satisfies OwnersFile);
  const megabytes = (answer.bytes / 1e6).toFixed(1);
  return (
    `copied all ${answer.files} files of the image (${megabytes} MB) into the container, so that they belong to its user namespace: ` +
    'the file system of the state directory, or this kernel, has no idmapped mounts. --userns=host does without'
  );
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
  held = beginHolding(definition),
): Promise<UserNamespace> {
  const files = containerFiles(definition.id);
  const ids = await idsFor(definition);
  // Loaded while the holder starts.
  await import('./staging.ts');
  const holder = await held;
  const open: number[] = [];
  const release = () => {
    for (const fd of open.splice(0)) fs.closeSync(fd);
    holder?.end();
  };
  try {
    faultPoint('userns.held');
    const userns = holder === undefined ? namespaceOf(definition.userns?.of ?? '') : mapIds(holder.pid, ids);
    fs.mkdirSync(files.rootfs, { recursive: true, mode: 0o755 });
    const request: Omit<StagingRequest, 'root' | 'given'> = {
      userns,
      ids,
      place: files.rootfs,
      binary: ownBinary,
      mounts: network.kind === 'host' ? spec.mounts.map(sysOfHost) : spec.mounts,
      devices: spec.linux.devices,
    };
    const warnings: string[] = [];
    const { root, mounts, foreign, held: made } = await stageRoot(definition, request, warnings);
    open.push(made.namespace, made.place);
    // Files of the container's own, which minirun writes as root of the host.
    for (const source of foreign) if (source.startsWith(`${files.directory}/`)) fs.chownSync(source, ids.uid, ids.gid);
    const strange = foreign.filter((source) => !source.startsWith(`${files.directory}/`) && !isKernels(source));
    warnings.push(...strange.map(foreignWarning));
    faultPoint('userns.staged');
    const netns =
      network.kind === 'own' ? `/proc/${holder?.pid}/ns/net` : network.kind === 'joined' ? network.netns : undefined;
    return {
      ids,
      entry: {
        mounts: `/proc/${process.pid}/fd/${made.namespace}`,
        userns,
        place: `/proc/${process.pid}/fd/${made.place}`,
        netns,
        owner: `${ids.uid}:${ids.gid}`,
        limits: raisedLimitsArgv(spec.process.rlimits),
      },
      holder: holder?.pid,
      release,
      spec: { ...spec, root: { ...spec.root, path: root }, mounts },
      warnings,
    };
  } catch (error) {
    release();
    throw error;
  }
}
