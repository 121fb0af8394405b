import { soundFile } from '../state/files.ts';
import { kinds } from '../state/migrations.ts';
import type { ContainerState, Definition, Healthcheck } from './definition.ts';
import { shownStatus } from './status.ts';
import { containerFiles, healthShape } from './files.ts';
import type { Health, HealthResult, HealthStatus } from './health-record.ts';

/** Milliseconds. */
export interface HealthTimes {
  interval: number;
  timeout: number;
  startPeriod: number;
  startInterval: number;
  retries: number;
}

const logLength = 5;

/** The check's command, as a process has it; undefined when nothing is to be checked. Pure. */
export function checkCommand({ healthcheck }: Pick<Definition, 'healthcheck'>): string[] | undefined {
  const [kind, ...words] = healthcheck?.Test ?? [];
  if (kind === 'CMD') return words.length > 0 ? words : undefined;
  if (kind === 'CMD-SHELL') return ['/bin/sh', '-c', words.join(' ')];
  return undefined;
}

/** Docker's defaults where nothing, or 0, is given. Pure. */
export function healthTimes(healthcheck: Healthcheck = {}): HealthTimes {
  const milliseconds = (nanoseconds: number | undefined, usual: number) =>
    nanoseconds === undefined || nanoseconds <= 0 ? usual : nanoseconds / 1_000_000;
  const { Interval, Timeout, StartPeriod, StartInterval, Retries = 0 } = healthcheck;
  return {
    interval: milliseconds(Interval, 30_000),
    timeout: milliseconds(Timeout, 30_000),
    startPeriod: milliseconds(StartPeriod, 0),
    startInterval: milliseconds(StartInterval, 5000),
    retries: Retries > 0 ? Retries : 3,
  };
}

/** Milliseconds until the next check: docker's rule. @param age milliseconds since the container was started. Pure. */
export function untilNextCheck(status: HealthStatus, age: number, times: HealthTimes): number {
  return status === 'starting' && age < times.startPeriod ? times.startInterval : times.interval;
}

/**
 * What a result makes of a container's health: docker's rules. One success is enough; so many failures in a row as
 * `retries` says, of which those in the start period, before the first success, do not count. Pure.
 */
export function judge(before: Health, result: HealthResult, startedAt: string, times: HealthTimes): Health {
  const Log = [...before.Log, result].slice(-logLength);
  if (result.ExitCode === 0) return { ...before, Status: 'healthy', FailingStreak: 0, Log };
  const isStarting =
    before.Status === 'starting' && Date.parse(result.Start) - Date.parse(startedAt) < times.startPeriod;
  if (isStarting) return { ...before, Log };
  const FailingStreak = before.FailingStreak + 1;
  return { ...before, Status: FailingStreak >= times.retries ? 'unhealthy' : before.Status, FailingStreak, Log };
}

/** The health of a container that was just started. */
export const newHealth: Health = { schema: 1, Status: 'starting', FailingStreak: 0, Log: [] };

/** What the checks have found; nothing where the file is missing or damaged: the next check writes it anew. */
export function readHealth(id: string): Health {
  return soundFile(kinds.health, healthShape, containerFiles(id).health) ?? newHealth;
}

/**
 * A container's health as it is shown; undefined when nobody checks it. As docker has it, one that does not run is
 * unhealthy, once it has been started.
 */
export function shownHealth(definition: Definition, state: ContainerState): Omit<Health, 'schema'> | undefined {
  if (checkCommand(definition) === undefined) return undefined;
  const { Status, FailingStreak, Log } = readHealth(definition.id);
  const isRunning = shownStatus(state) === 'running' || state.startedAt === '';
  return { Status: isRunning ? Status : 'unhealthy', FailingStreak, Log };
}
