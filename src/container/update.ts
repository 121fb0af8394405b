import { MinirunError } from '../errors.ts';
import { controllersFor, type Resources } from '../host/cgroup/resources.ts';
import { faultPoint } from '../host/fault.ts';
import { writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { ensureCgroup, setLimits } from './cgroups.ts';
import { recordContainer } from './events.ts';
import { checkLimits, type LimitRequest, parseLimits } from './limits.ts';
import { parseRestart } from './options.ts';
import { cgroupParent } from './spec.ts';
import { containerFiles, isRunning, readContainer, readSpec, requireContainer } from './store.ts';

/** What `update` takes, as it was typed. */
export interface UpdateRequest {
  limits?: LimitRequest;
  restart?: string;
}

/**
 * Changes limits and restart policy of a container: at once when it is running, and for whenever it is started. What is not
 * given stays.
 *
 * @returns warnings
 */
export async function updateContainer(reference: string, { limits, restart }: UpdateRequest): Promise<string[]> {
  const container = requireContainer(reference);
  const { definition, state } = container;
  const { id, name } = definition;
  const policy = restart === undefined ? undefined : parseRestart(restart);
  if (policy !== undefined && policy.name !== 'no' && definition.autoRemove)
    throw new MinirunError(
      `cannot update container "${name}"`,
      'it is removed when it ends (--rm), and so cannot be started again',
      'Leave --restart out',
    );
  let warnings: string[] = [];
  if (limits !== undefined) {
    const before = readSpec(id).linux.resources;
    const wanted = parseLimits(limits, before);
    warnings = checkLimits(wanted);
    const { resources = {} } = wanted;
    if (isRunning(state) && state.status === 'running') {
      const purpose = `cannot update container "${name}"`;
      const parts = await ensureCgroup(container, controllersFor(resources), purpose);
      await setLimits(parts, changed(resources, before), true);
    }
    faultPoint('update.applied');
    await withLock(() => {
      const spec = readSpec(id);
      const cgroupsPath = spec.linux.cgroupsPath ?? `${cgroupParent}/${id}`;
      writeJson(containerFiles(id).spec, { ...spec, linux: { ...spec.linux, cgroupsPath, resources } });
    });
  }
  const nanoCpus = limits === undefined ? definition.nanoCpus : nanoCpusAfter(limits, definition.nanoCpus);
  faultPoint('update.limited');
  await withLock(() => {
    // Read again: `rename` may have come meanwhile.
    const now = readContainer(id)?.definition;
    if (now === undefined || (policy === undefined && nanoCpus === now.nanoCpus)) return;
    writeJson(containerFiles(id).definition, { ...now, nanoCpus, restart: policy ?? now.restart });
  });
  recordContainer(definition, 'update');
  return warnings;
}

/** The parts of the limits that are to be written: a part that is as before may be one that the machine has changed itself. */
function changed(after: Resources, before: Resources = {}): Resources {
  const keys = Object.keys(after) as (keyof Resources)[];
  return Object.fromEntries(
    keys.filter((key) => JSON.stringify(after[key]) !== JSON.stringify(before[key])).map((key) => [key, after[key]]),
  );
}

/** What `--cpus` is shown as: a quota or a period of one's own takes its place. */
function nanoCpusAfter(limits: LimitRequest, before: number | undefined): number | undefined {
  if (limits.cpus !== undefined && Number(limits.cpus) > 0) return parseLimits({ cpus: limits.cpus }).nanoCpus;
  return limits.cpuQuota === undefined && limits.cpuPeriod === undefined ? before : undefined;
}
