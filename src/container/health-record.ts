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
