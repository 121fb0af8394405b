import fs from 'node:fs';
import path from 'node:path';
import { MinirunError } from '../errors.ts';
import type { Volume } from './definition.ts';
import { parseDevice, parseMount, parseTmpfs, parseVolume, type WantedMount, volumeMount } from './mount-options.ts';
import type { OciDevice, OciMount } from './oci.ts';
import { invalid } from './options.ts';
import { isPropagated, propagationProblem } from './propagation.ts';
import { containerFiles, readSpec, requireContainer } from './store.ts';
import { anonymousName, checkVolumeOptions, newRecord, readVolume, refuseOther, volumeSource } from './volume-store.ts';

/** What of a command line is about files. */
export interface MountRequest {
  volume: string[];
  mount: string[];
  tmpfs: string[];
  volumesFrom: string[];
  device: string[];
  privileged: boolean;
}

/** What a container gets mounted beside the system's own, and what it keeps of that. */
interface Planned {
  mounts: OciMount[];
  volumes: Volume[];
  devices: OciDevice[];
}

/**
 * Reads and checks everything that is to be mounted; nothing is made yet.
 *
 * @param directory what relative paths count from
 * @returns the plan, once it is known what volumes the image wants
 */
export function planMounts(
  request: MountRequest,
  directory: string,
): {
  complete: (imageVolumes: readonly string[], image?: string) => Planned;
  /** For a container whose mounts belong to a user namespace of its own. @throws MinirunError */
  refusePropagation: () => void;
} {
  const given = [
    ...request.volume.map((text) => parseVolume(text, directory)),
    ...request.mount.map((text) => parseMount(text, directory)),
    ...request.tmpfs.map(parseTmpfs),
  ];
  refuseDuplicates(given);
  for (const mount of given) checkSource(mount);
  const inherited = request.volumesFrom.map(mountsOfOther);
  const devices = request.device.flatMap(nodesOf);
  return {
    refusePropagation: () => {
      const mount = given.find(isPropagated);
      if (mount === undefined) return;
      throw new MinirunError(
        `cannot mount ${mount.source}`,
        'mounts that come later cannot get into a user namespace, nor out of it',
        'Leave the propagation out, or give --userns=host',
        { code: 125 },
      );
    },
    complete: (imageVolumes, image) => complete({ given, inherited, devices }, request.privileged, imageVolumes, image),
  };
}

/** What another container has mounted, and which of that are volumes. */
interface Inherited {
  mounts: OciMount[];
  volumes: Volume[];
}

/** `--volumes-from CONTAINER[:ro|rw]`: directories of the host and volumes, as that container has them. */
function mountsOfOther(text: string): Inherited {
  const [, reference = text, list = ''] = /^([^:]*):(.*)$/.exec(text) ?? [];
  const modes = list.split(',').filter((mode) => mode !== 'z' && mode !== 'Z' && mode !== '');
  if (modes.length > 1 || !['', 'ro', 'rw'].includes(modes[0] ?? ''))
    throw invalid('--volumes-from', text, `unknown mode "${list}"`, 'Give ro or rw');
  const { definition } = requireContainer(reference);
  const mounts = readSpec(definition.id).mounts.filter(
    (mount) => mount.type === 'bind' && isUsers(mount, containerFiles(definition.id).directory),
  );
  return {
    mounts:
      modes[0] === 'ro'
        ? mounts.map((mount) => ({ ...mount, options: [...new Set([...mount.options, 'rro'])] }))
        : mounts,
    volumes: (definition.volumes ?? []).map(
      ({ name, destination, named }): Volume => ({
        name,
        destination,
        copy: false,
        ...(named === true ? { named } : { from: true }),
      }),
    ),
  };
}

/** Whether the user asked for a mount: those that every container has come before the files for /etc. */
export function isUsers(mount: OciMount, directory: string): boolean {
  if (mount.type === 'bind')
    return !mount.source.startsWith(`${directory}/`) && mount.destination !== '/sbin/minirun-init';
  return mount.type === 'tmpfs' && mount.destination !== '/dev' && mount.destination !== '/dev/shm';
}

/** `--device`: the node, or all below a directory, as they are on this machine. */
function nodesOf(text: string): OciDevice[] {
  const { host, container } = parseDevice(text);
  const stat = fs.statSync(host, { throwIfNoEntry: false });
  const node = nodeOf(host, container);
  if (node !== undefined) return [node];
  if (stat === undefined)
    throw new MinirunError(`cannot use device ${host}`, 'this machine has none of that name', 'See ls /dev', {
      code: 125,
    });
  const nodes = stat.isDirectory() ? nodesBelow(host, container) : [];
  if (nodes.length > 0) return nodes;
  throw new MinirunError(
    `cannot use device ${host}`,
    stat.isDirectory() ? 'there is no device in that directory' : 'it is no device',
    'Give -v for files and directories',
    { code: 125 },
  );
}

function nodesBelow(host: string, container: string): OciDevice[] {
  return fs.readdirSync(host, { withFileTypes: true }).flatMap((entry) => {
    const [from, to] = [path.join(host, entry.name), path.join(container, entry.name)];
    return entry.isDirectory() ? nodesBelow(from, to) : (nodeOf(from, to) ?? []);
  });
}

function nodeOf(hostPath: string, place: string): OciDevice | undefined {
  const stat = fs.statSync(hostPath, { throwIfNoEntry: false });
  const type = stat?.isCharacterDevice() ? 'c' : stat?.isBlockDevice() ? 'b' : undefined;
  if (stat === undefined || type === undefined) return undefined;
  // makedev(3): minor numbers have bits on both sides of the major one's.
  const [major, minor] = [(stat.rdev >> 8) & 0xfff, (stat.rdev & 0xff) | ((stat.rdev >> 12) & 0xfff00)];
  return { path: place, type, major, minor, fileMode: stat.mode & 0o777, uid: stat.uid, gid: stat.gid, hostPath };
}

function refuseDuplicates(mounts: readonly WantedMount[]): void {
  const seen = new Set<string>();
  for (const { destination } of mounts) {
    if (seen.has(destination)) {
      throw new MinirunError(`duplicate mount point ${destination}`, 'two mounts name it', 'Leave one of them out', {
        code: 125,
      });
    }
    seen.add(destination);
  }
}

function checkSource(mount: WantedMount): void {
  const { type, source, make } = mount;
  if (type === 'bind' && !fs.existsSync(source)) {
    throw new MinirunError(
      `cannot mount ${source}`,
      'there is no such file or directory on this machine',
      `Create it first: mkdir -p ${source}`,
      { code: 125 },
    );
  }
  if (isPropagated(mount)) {
    const mountinfo = fs.readFileSync('/proc/self/mountinfo', 'utf8');
    const problem = propagationProblem(fs.realpathSync(source), mount.options, mountinfo);
    if (problem !== undefined)
      throw new MinirunError(`cannot mount ${source}`, problem.why, problem.remedy, { code: 125 });
  }
  if (type !== 'volume' || make === undefined) return;
  checkVolumeOptions(source, make.options);
  refuseOther(readVolume(source), newRecord(source, make));
}

function complete(
  {
    given,
    inherited,
    devices,
  }: { given: readonly WantedMount[]; inherited: readonly Inherited[]; devices: OciDevice[] },
  privileged: boolean,
  imageVolumes: readonly string[],
  image = '',
): Planned {
  const places = new Set(imageVolumes.map((place) => path.posix.resolve('/', place)));
  if (places.has('/')) {
    throw new MinirunError(
      `cannot run image "${image}"`,
      'it declares its whole root as a volume',
      'Build it with a VOLUME that names a directory',
      { code: 125 },
    );
  }
  // What the user says goes before what another container has, and that before what the image wants.
  const taken = new Map<string, { mount: OciMount; volume?: Volume }>();
  for (const { mounts, volumes } of inherited) {
    for (const mount of mounts)
      taken.set(mount.destination, { mount, volume: volumes.find((each) => each.destination === mount.destination) });
  }
  for (const { destination } of given) taken.delete(destination);
  const wanted = [...places].filter(
    (place) => !taken.has(place) && !given.some(({ destination }) => destination === place),
  );
  const volumes = [...taken.values()].flatMap(({ volume }) => volume ?? []);
  const own = [...given, ...wanted.map((place) => volumeMount(place, []))].map((mount) =>
    mount.type === 'tmpfs'
      ? mount
      : withoutDevices(mount.type === 'volume' ? useVolume(mount, volumes) : mount, privileged),
  );
  // A node can be made in /dev alone, which is a file system without `nodev`.
  const isOwnDev = !taken.has('/dev') && !given.some(({ destination }) => destination === '/dev');
  const isNode = (device: OciDevice) => isOwnDev && device.path.startsWith('/dev/');
  return {
    mounts: [
      ...[...taken.values()].map(({ mount }) => mount),
      ...own,
      ...devices
        .filter((device) => !isNode(device))
        .map(({ path: destination, hostPath = '' }): OciMount => {
          return { destination, type: 'bind', source: hostPath, options: ['bind', 'rprivate'] };
        }),
    ],
    volumes,
    devices: devices.filter(isNode),
  };
}

/** Notes that a container has a volume. @returns what is mounted for it */
function useVolume({ make, ...mount }: WantedMount, volumes: Volume[]): OciMount {
  const { source, destination, options } = mount;
  const name = source || anonymousName();
  const copy = !options.includes('nocopy');
  volumes.push({
    name,
    destination,
    copy,
    ...(source === '' ? {} : { named: true }),
    ...(make === undefined ? {} : { make }),
  });
  const place = volumeSource(readVolume(name) ?? newRecord(name, make ?? {}));
  const own = options.filter((option) => option !== 'nocopy');
  // It takes no devices, not even with --privileged: an image that holds one would get at the machine's disks.
  const nodev = own.includes('dev') ? [] : ['rnodev'];
  return {
    ...mount,
    type: 'bind',
    source: place.directory,
    options: [...new Set([...own, ...nodev, ...place.options])],
  };
}

/**
 * Docker keeps a container from devices by a cgroup, which minirun does not need: devices work in /dev only. That is to
 * hold for what is mounted, too. Who mounts one device, or says `dev`, or --privileged, wants otherwise.
 */
function withoutDevices(mount: OciMount, privileged: boolean): OciMount {
  const options = mount.options.filter((option) => option !== 'dev');
  const isMeant =
    privileged || mount.options.includes('dev') || mount.options.includes('rnodev') || isDevice(mount.source);
  return { ...mount, options: isMeant ? options : [...options, 'rnodev'] };
}

function isDevice(file: string): boolean {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  return stat?.isCharacterDevice() === true || stat?.isBlockDevice() === true;
}
