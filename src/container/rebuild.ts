import fs from 'node:fs';
import path from 'node:path';
import { bootId, isAlive, type ProcessRef, processRef } from '../host/process.ts';
import { kinds } from '../state/migrations.ts';
import { peekFile, textOf } from '../state/files.ts';
import { paths } from '../state/paths.ts';
import { type ContainerState, type Definition, restingState } from './definition.ts';
import { containerFiles, namePattern, specShape, stateShape } from './files.ts';

/**
 * What can be said of a container whose definition is damaged: enough to list it, to look at it and to take everything of it
 * away. It is never started again, because nobody knows what it was not to be allowed.
 */
export function rebuiltDefinition(id: string, parts: Partial<Definition> = {}): Definition {
  const spec = peekFile(kinds.spec, specShape, containerFiles(id).spec);
  const endpoints = peekFile(kinds.state, stateShape, containerFiles(id).state)?.endpoints ?? [];
  const attachments = endpoints.map(({ network, aliases, gatewayPriority }) => ({ network, aliases, gatewayPriority }));
  const volumes = (spec?.mounts ?? []).flatMap(({ source, destination }) => {
    const { dir, base } = path.parse(source);
    const isOurs = base === '_data' && path.dirname(dir) === paths.volumes();
    return isOurs ? [{ name: path.basename(dir), destination, copy: false }] : [];
  });
  return {
    name: nameOf(id),
    created: birthOf(containerFiles(id).directory),
    image: '',
    imageId: '',
    layers: [],
    entrypoint: [],
    command: spec?.process?.args ?? [],
    network: endpoints[0]?.network ?? 'none',
    attachments,
    dns: [],
    dnsSearch: [],
    dnsOptions: [],
    addHosts: [],
    autoRemove: false,
    restart: { name: 'no', maximum: 0 },
    stopSignal: 15,
    stopTimeout: 10,
    tty: spec?.process?.terminal ?? false,
    openStdin: false,
    privileged: false,
    labels: {},
    volumes,
    ...parts,
    schema: 2,
    id,
    damaged: true,
  };
}

/** The name that is reserved for a container. */
function nameOf(id: string): string {
  const isIts = (name: string) => {
    try {
      return namePattern.test(name) && fs.readlinkSync(paths.name(name)) === id;
    } catch {
      return false;
    }
  };
  return fs.readdirSync(paths.names()).find(isIts) ?? id.slice(0, 12);
}

function birthOf(file: string): string {
  return (fs.statSync(file, { throwIfNoEntry: false })?.birthtime ?? new Date(0)).toISOString();
}

/**
 * Where a container seems to be in its life, when the file that says so is damaged: who owns it stands in the index of owners, what
 * runs of it in /proc. Whatever may have to be taken back belongs to a container that is not at rest.
 *
 * @param endpoints its places in networks, as far as that file did not say them
 */
export function rebuiltState(
  { id, name }: Pick<Definition, 'id' | 'name'>,
  parts: Partial<ContainerState> = {},
  endpoints: ContainerState['endpoints'] = [],
): ContainerState {
  const files = containerFiles(id);
  const owner = parts.owner ?? noted(id);
  const init = parts.init ?? (isAlive(owner) ? firstProcess(owner as ProcessRef) : undefined);
  const isLeft = owner !== undefined || fs.existsSync(files.steps);
  const ran = fs.existsSync(files.exit) || fs.existsSync(files.log);
  const netns = fs.existsSync(`/run/netns/${name}`) ? name : undefined;
  return {
    ...restingState,
    // In between two states nobody may touch it but its owner, and when that is dead it is brought to rest.
    status: !isLeft ? (ran ? 'exited' : 'created') : isAlive(init) ? 'running' : 'stopping',
    boot: bootId(),
    ...(isLeft ? { owner, init, netns } : {}),
    ...(isLeft || ran ? { startedAt: birthOf(fs.existsSync(files.steps) ? files.steps : files.directory) } : {}),
    exitCode: isLeft ? 0 : (exitCodeOf(files.exit) ?? 0),
    endpoints: isLeft ? endpoints : [],
    ...parts,
    schema: 2,
  };
}

/** The owner of a container by the index of owners: a living one, if there are several. */
function noted(id: string): ProcessRef | undefined {
  const entries = fs.readdirSync(paths.owners()).flatMap((entry) => {
    const [, container, pid, start] = /^([0-9a-f]{64})\.(\d+)\.(\d+)$/.exec(entry) ?? [];
    return container === id ? [{ pid: Number(pid), start: Number(start) }] : [];
  });
  return entries.find(isAlive) ?? entries[0];
}

/** The container's first process: the only child of the `unshare` that its owner has started. */
function firstProcess(owner: ProcessRef): ProcessRef | undefined {
  const children = (pid: number) => processes().filter((each) => each.parent === pid);
  const unshare = children(owner.pid).find(({ command }) => command === 'unshare');
  const first = unshare && children(unshare.pid)[0];
  return first && processRef(first.pid);
}

function processes(): { pid: number; parent: number; command: string }[] {
  return fs.readdirSync('/proc').flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      const stat = fs.readFileSync(`/proc/${entry}/stat`, 'latin1');
      const end = stat.lastIndexOf(')');
      const parent = Number(stat.slice(end + 2).split(' ')[1]);
      return [{ pid: Number(entry), parent, command: stat.slice(stat.indexOf('(') + 1, end) }];
    } catch {
      return [];
    }
  });
}

/** The exit code that a supervisor wrote down; undefined when it is none. */
export function exitCodeOf(file: string): number | undefined {
  const source = textOf(file)?.trim() ?? '';
  return /^\d{1,3}$/.test(source) ? Number(source) : undefined;
}
