import { MinirunError } from '../errors.ts';
import { applySteps } from '../host/executor.ts';
import { faultPoint, killPoint } from '../host/fault.ts';
import { launchBackground, ownBinary } from '../host/launch.ts';
import { bootId, isAlive, isSame, signalProcess } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { lastRecorded } from '../state/events.ts';
import { sweepTemporaries, writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { stateRoot } from '../state/paths.ts';
import type { Definition } from './definition.ts';
import { recordContainer } from './events.ts';
import { checkCommand, healthTimes, judge, newHealth, readHealth, untilNextCheck } from './health.ts';
import { probe } from './health-probe.ts';
import type { HealthResult } from './health-record.ts';
import { requireRunning } from './stop.ts';
import { type Container, containerFiles, readContainer, readSteps, requireContainer } from './store.ts';

/** Exit code of a due check that finds no container to be checked any more: its loop ends then. */
export const noMoreChecks = 3;

/**
 * The process that sees to a container's checks: a shell that sleeps, and calls minirun for each. It leads a process group.
 * `setpriv` ends a sleep that lost its shell. When minirun itself fails, the next check comes after the usual time.
 *
 * Arguments: the file with its pid, by which it is known; seconds until the first check; seconds between checks; the
 * binary, the state directory, the container's id.
 */
const loop =
  [
    'file=$1 next=$2 usual=$3 bin=$4 root=$5 id=$6',
    'while setpriv --pdeathsig KILL sleep "$next"',
    'do next=$("$bin" --root "$root" healthcheck run --due "$id")',
  ].join('; ') + ` || { [ $? = ${noMoreChecks} ] && exit; next=$usual; }; done`;

/** Starts the loop in a session of its own, and writes its pid down before this ends. */
const starter = 'cd /; setsid sh -c "$0" minirun-health "$@" </dev/null >/dev/null 2>&1 & echo $! >"$1"';

/** Its id. */
export const checksStep = 'health.checks';

/** The step that has a container checked; none when nothing is to be checked. Pure. */
export function planChecks(definition: Definition): Step[] {
  if (checkCommand(definition) === undefined) return [];
  const { id, healthcheck } = definition;
  const times = healthTimes(healthcheck);
  const first = untilNextCheck('starting', 0, times) / 1000;
  const file = containerFiles(id).healthPid;
  const words = [file, String(first), String(times.interval / 1000), ownBinary, stateRoot(), id];
  return [
    {
      id: checksStep,
      why: 'A shell that sleeps between two health checks and calls minirun for each: there is no daemon that could.',
      apply: [{ tool: 'daemon', pidFile: file, argv: ['sh', '-c', starter, loop, ...words] }],
      undo: [{ tool: 'end', pidFile: file, group: true }],
    },
  ];
}

/** Has a container checked that is about to run. The step is on record before it is taken, as any other. */
export async function beginChecks(definition: Definition): Promise<void> {
  const { id } = definition;
  const steps = planChecks(definition);
  if (steps.length === 0) return;
  // Of checks that were cut short when it ended the last time.
  sweepTemporaries(containerFiles(id).directory);
  // What earlier checks have found is kept, as by docker.
  writeJson(containerFiles(id).health, { ...newHealth, Log: readHealth(id).Log }, { durable: false });
  writeJson(containerFiles(id).steps, [...readSteps(id), ...steps], { durable: false });
  faultPoint('health.recorded');
  await applySteps(steps);
}

/**
 * The check that is due, for the loop.
 *
 * @returns seconds until the next one; undefined when the container has ended
 */
export async function checkDue(id: string): Promise<number | undefined> {
  const container = readContainer(id);
  const command = container && checkCommand(container.definition);
  if (container === undefined || command === undefined) return undefined;
  const { definition, state } = container;
  if (state.boot !== bootId() || !isAlive(state.init)) return undefined;
  const times = healthTimes(definition.healthcheck);
  // Its start is not written down yet, or it is being taken down, which ends this.
  if (state.status !== 'running') return Math.min(0.1, times.interval / 1000);
  // A check in a paused container would wait with it, and then have failed: docker's rule.
  if (state.paused) return times.interval / 1000;
  const health = await check(container, command);
  return untilNextCheck(health.Status, Date.now() - Date.parse(state.startedAt), times) / 1000;
}

/** A check out of turn. @returns whether the container is well @throws MinirunError when there is nothing to check */
export async function checkNow(reference: string): Promise<boolean> {
  const container = requireContainer(reference);
  const { name } = container.definition;
  const command = checkCommand(container.definition);
  if (command === undefined)
    throw new MinirunError(
      `cannot check container "${name}"`,
      'it has no health check',
      'Give it one when it is created: --health-cmd COMMAND',
      { code: 125 },
    );
  requireRunning(container, 'check');
  const { result } = await check(container, command);
  return result.ExitCode === 0;
}

/** Runs a check, notes what it has found, and does what is to be done then. */
async function check(container: Container, command: string[]) {
  const { definition, state } = container;
  const { id, healthOnFailure } = definition;
  const times = healthTimes(definition.healthcheck);
  const result = await probe(container, command, times.timeout);
  faultPoint('health.probed');
  const { health, becameUnhealthy } = await note(container, result);
  if (becameUnhealthy && healthOnFailure !== undefined) {
    const now = readContainer(id);
    // It may have ended by itself meanwhile.
    if (now !== undefined && now.state.init?.start === state.init?.start) act(now, healthOnFailure);
  }
  return { ...health, result };
}

/** Writes a result down and tells of a change: once, also when who tells is killed just then. */
async function note({ definition, state }: Container, result: HealthResult) {
  const { id, healthcheck } = definition;
  return withLock(() => {
    const before = readHealth(id);
    const now = readContainer(id)?.state;
    // A result of what has ended, or of what has been started anew, means nothing.
    if (now?.status !== 'running' || !isSame(now.init, state.init)) return { health: before, becameUnhealthy: false };
    const { told, ...judged } = judge(before, result, state.startedAt, healthTimes(healthcheck));
    const isNew = judged.Status !== before.Status;
    const announce = (status: string) => recordContainer(definition, `health_status: ${status}`);
    if (told !== undefined && lastStatus(id) !== before.Status) announce(before.Status);
    if (isNew) {
      writeJson(containerFiles(id).health, { ...judged, told: before.Status }, { durable: false });
      killPoint('health.noted');
      announce(judged.Status);
    }
    writeJson(containerFiles(id).health, judged, { durable: false });
    return { health: judged, becameUnhealthy: isNew && judged.Status === 'unhealthy' };
  });
}

/** The status that the last event told of. */
function lastStatus(id: string): string | undefined {
  const actions = ['starting', 'healthy', 'unhealthy'].map((status) => `health_status: ${status}`);
  return lastRecorded(id, actions)?.action.split(': ')[1];
}

/**
 * Does what is to be done with an unhealthy container. By `kill` it ends as by itself: a restart policy applies, and a
 * service manager sees it. The others are minirun's own commands; they outlive this process, which ends with the container.
 */
function act({ definition, state }: Container, action: NonNullable<Definition['healthOnFailure']>): void {
  if (action !== 'kill') {
    launchBackground([ownBinary, '--root', stateRoot(), action, definition.id]);
  } else if (signalProcess(state.init, 'SIGKILL')) {
    recordContainer(definition, 'kill', { signal: '9' });
  }
}
