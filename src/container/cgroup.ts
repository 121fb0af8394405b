import { versionOf } from '../host/cgroup/cgroup.ts';
import type { Hierarchy, Part } from '../host/cgroup/hierarchies.ts';
import { type Controller, controllersFor, type Resources } from '../host/cgroup/resources.ts';
import type { PartFacts } from '../host/cgroup/version.ts';
import type { HostCommand, Step, WriteCommand } from '../host/steps.ts';

/** The step that makes a container's cgroup; its undo names the directories. */
export const cgroupStep = 'cgroup.make';

/** The parts that a container's cgroup has in these hierarchies. Pure. */
export function partsIn(hierarchies: readonly Hierarchy[], id: string): Part[] {
  return hierarchies.flatMap(({ version, controllers, levels, problem }) => {
    const parent = levels.at(-1)?.directory;
    return problem === undefined && parent !== undefined
      ? [{ version, controllers, directory: `${parent}/${id}` }]
      : [];
  });
}

/**
 * The step that makes a container's cgroup: a directory in each hierarchy. It has no limits yet. Pure.
 *
 * @param needed the controllers that the user has asked for: that one of these cannot be had is an error
 */
export function planCgroup(hierarchies: readonly Hierarchy[], id: string, needed: readonly Controller[]): Step {
  const usable = hierarchies.filter(({ problem }) => problem === undefined);
  const parts = partsIn(hierarchies, id);
  return {
    id: cgroupStep,
    why:
      'A cgroup is a directory that stands for a group of processes: the kernel counts what they use and keeps them below the ' +
      'limits that are written into its files. Each hierarchy controls something else, so the container has a directory in each.',
    apply: usable.flatMap((hierarchy, index) => commandsFor(hierarchy, (parts[index] as Part).directory, needed)),
    undo: parts.map(({ directory }) => ({ tool: 'rmcgroup', path: directory })),
  };
}

function commandsFor(
  { version, controllers, levels }: Hierarchy,
  directory: string,
  needed: readonly Controller[],
): HostCommand[] {
  const mkdir = (path: string): HostCommand => ({ tool: 'mkdir', path, mode: 0o755 });
  if (version === 1 && controllers.includes('cpuset')) {
    // A new cpuset is empty, and no process can join it: each takes over what the one above has.
    const [root] = levels;
    const filled = levels
      .slice(1)
      .flatMap((level): HostCommand[] => [
        ...(level.exists ? [] : [mkdir(level.directory)]),
        ...(level.cpus === '' ? [write(`${level.directory}/cpuset.cpus`, root?.cpus ?? '')] : []),
        ...(level.mems === '' ? [write(`${level.directory}/cpuset.mems`, root?.mems ?? '')] : []),
      ]);
    const { cpus = '', mems = '' } = levels.findLast((level) => level.cpus !== '') ?? {};
    return [
      ...filled,
      mkdir(directory),
      write(`${directory}/cpuset.cpus`, cpus),
      write(`${directory}/cpuset.mems`, mems),
    ];
  }
  if (version === 1) return [mkdir(directory)];
  // In version 2 a cgroup has the controllers that the one above hands on.
  const handed = controllers.filter((each) => each !== 'freezer' && each !== 'cpuacct');
  const enabling = levels.flatMap((level): HostCommand[] => [
    ...(level.exists ? [] : [mkdir(level.directory)]),
    ...handed
      .filter((each) => !level.occupied && !level.enabled.includes(each))
      .map(
        (each): WriteCommand => ({
          ...write(`${level.directory}/cgroup.subtree_control`, `+${each}`),
          ...(needed.includes(each) ? {} : { optional: true }),
        }),
      ),
  ]);
  return [...enabling, mkdir(directory)];
}

function write(path: string, value: string): WriteCommand {
  return { tool: 'write', path, value };
}

/**
 * The step that sets limits, in a cgroup that is there. Pure.
 *
 * @param before the content of the files that are written, for the undo; absent when the cgroup goes as a whole
 * @returns undefined when there is nothing to set
 */
export function planLimits(
  parts: readonly Part[],
  resources: Resources,
  factsOf: (part: Part) => PartFacts,
  before?: (file: string) => string,
): Step | undefined {
  const apply = parts.flatMap((part) =>
    versionOf(part)
      .settings(resources, factsOf(part))
      .filter(({ controller }) => part.controllers.includes(controller))
      .map(({ file, value }) => write(`${part.directory}/${file}`, value)),
  );
  if (apply.length === 0) return undefined;
  return {
    id: 'cgroup.limit',
    why: `What all processes of the container together may have: ${controllersFor(resources).join(', ')}. The kernel enforces it.`,
    apply,
    undo:
      before === undefined
        ? []
        : apply.toReversed().map(({ path }) => ({ ...write(path, before(path)), optional: true })),
  };
}
