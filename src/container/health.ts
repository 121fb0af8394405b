import { readJson } from '../state/json.ts';
import type { ContainerState, Definition, Healthcheck } from './definition.ts';
import { shownStatus } from './status.ts';
import { containerFiles } from './store.ts';

export type HealthStatus = 'starting' | 'healthy' | 'unhealthy';

/** One check that has been made. */
export interface HealthResult {
  /** RFC 3339. */
  Start: string;
  End: string;
  /** 0 is healthy; -1 when it took too long, or could not be run. */
  ExitCode: number;
  Output: string;
}

/** `containers/<id>/health.json`: what the checks have found since the container was started. */
export interface Health {
  schema: 1;
  Status: HealthStatus;
  /** Failures since the last success, as far as they count. */
  FailingStreak: number;
  /** The last five. */
  Log: HealthResult[];
  /** The status that the last event told of, when that is another one: its writer was killed, perhaps. */
  told?: HealthStatus;
}

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

export const healthFile = (id: string): string => `${containerFiles(id).directory}/health.json`;

/** The health of a container that was just started. */
export const newHealth: Health = { schema: 1, Status: 'starting', FailingStreak: 0, Log: [] };

/** What the checks have found; nothing where the file is missing or damaged: the next check writes it anew. */
export function readHealth(id: string): Health {
  try {
    return readJson<Health>(healthFile(id)) ?? newHealth;
  } catch {
    return newHealth;
  }
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
