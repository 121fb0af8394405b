import { MinirunError } from '../errors.ts';
import { parseDuration } from './duration.ts';
import type { HealthAction, Healthcheck } from './definition.ts';

/** `--health-…` and `--no-healthcheck`, as they were typed. */
export interface HealthRequest {
  cmd?: string;
  interval?: string;
  timeout?: string;
  retries?: string;
  startPeriod?: string;
  startInterval?: string;
  onFailure?: string;
  none: boolean;
}

const invalid = (option: string, value: string, why: string, remedy: string) =>
  new MinirunError(`invalid --health-${option} "${value}"`, why, remedy, { code: 125 });

/**
 * What is to be checked: what was asked for, and where nothing was, what the image says. Pure.
 *
 * @throws MinirunError for what makes no sense
 */
export function healthcheckOf(request: HealthRequest, image: Healthcheck | undefined): Healthcheck | undefined {
  const { cmd, none, onFailure: _onFailure, ...rest } = request;
  const isGiven = cmd !== undefined || Object.values(rest).some((value) => value !== undefined);
  if (none) {
    if (isGiven)
      throw new MinirunError(
        '--no-healthcheck does not go with --health-…',
        'there is nothing to be said of a check that is not made',
        'Leave one of them out',
        { code: 125 },
      );
    return { Test: ['NONE'] };
  }
  const own: Healthcheck = {
    ...(cmd === undefined ? {} : { Test: testOf(cmd) }),
    ...nanoseconds('interval', request.interval, 'Interval'),
    ...nanoseconds('timeout', request.timeout, 'Timeout'),
    ...nanoseconds('start-period', request.startPeriod, 'StartPeriod'),
    ...nanoseconds('start-interval', request.startInterval, 'StartInterval'),
    ...(request.retries === undefined ? {} : { Retries: retriesOf(request.retries) }),
  };
  // Docker: what is 0 is as good as not given.
  const given = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== 0)) as Healthcheck;
  return isGiven ? { ...image, ...given } : image;
}

/** `--health-on-failure`. @throws MinirunError for another word */
export function healthActionOf({ onFailure = 'none' }: HealthRequest, isChecked: boolean): HealthAction | undefined {
  if (onFailure === 'none') return undefined;
  if (onFailure !== 'kill' && onFailure !== 'restart' && onFailure !== 'stop')
    throw invalid('on-failure', onFailure, 'there is no such action', 'Give none, kill, restart or stop');
  if (isChecked) return onFailure;
  throw new MinirunError(
    `--health-on-failure ${onFailure} needs a health check`,
    'neither the command line nor the image has one',
    'Add one: --health-cmd COMMAND',
    { code: 125 },
  );
}

/** A command for a shell; podman's `none`, and its JSON array of words for none. */
function testOf(text: string): string[] {
  if (text === '') throw invalid('cmd', text, 'it is empty', 'Give a command, or use --no-healthcheck');
  if (text === 'none') return ['NONE'];
  try {
    const words = JSON.parse(text) as unknown;
    if (Array.isArray(words) && words.length > 0 && words.every((word) => typeof word === 'string'))
      return ['CMD', 'CMD-SHELL', 'NONE'].includes(words[0] as string) ? words : ['CMD', ...words];
  } catch {
    // A command.
  }
  return ['CMD-SHELL', text];
}

function nanoseconds<K extends string>(option: string, text: string | undefined, key: K): Partial<Record<K, number>> {
  if (text === undefined) return {};
  const milliseconds = parseDuration(text);
  if (milliseconds === undefined) throw invalid(option, text, 'it is no duration', 'Give one like 30s, 1m30s or 500ms');
  if (milliseconds !== 0 && milliseconds < 1)
    throw invalid(option, text, 'less than a millisecond is too short', 'Give one like 30s, 1m30s or 500ms');
  return { [key]: Math.round(milliseconds * 1_000_000) } as Record<K, number>;
}

function retriesOf(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw invalid('retries', text, 'it is no number', 'Give how many failures in a row make it unhealthy');
}
