import os from 'node:os';
import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import type { EventType, RecordedEvent } from '../state/events.ts';
import { reconcileFirst } from './each.ts';
import { type Filter, labelFilter, parseFilters } from './output/filters.ts';
import { printable } from './output/printable.ts';
import { stdoutStream } from './output/stdout.ts';

interface Options {
  since?: string;
  until?: string;
  filter: string[];
  format?: string;
}

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `minirun events` */
export function registerEvents(program: Command): void {
  program
    .command('events')
    .summary('Show what happens to containers, images, networks and volumes')
    .description('Show what happens from now on, until it is interrupted; with --since also what has happened before')
    .option('--since <time>', 'from then on: a time, seconds since 1970, or a duration like 10m')
    .option('--until <time>', 'up to then')
    .option(
      '-f, --filter <key=value>',
      'type, event, container, image, network, volume, label or scope (repeatable)',
      collect,
      [],
    )
    .option('--format <format>', '"json", or a Go template')
    .action(async (options: Options) => {
      const passes = parseFilters(options.filter, filters);
      const show = await formFor(options.format);
      const { nanosecondsOf, parseMoment } = await import('../container/log-stamp.ts');
      const now = Date.now();
      const moment = (name: 'since' | 'until') => {
        const text = options[name];
        return text === undefined ? undefined : nanosecondsOf(parseMoment(`--${name}`, text, now));
      };
      const period = { since: moment('since'), until: moment('until') };
      await reconcileFirst();
      const { readEvents } = await import('../container/event-stream.ts');
      const ending = new AbortController();
      for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
        process.on(name, () => {
          process.exitCode = 128 + os.constants.signals[name];
          ending.abort();
        });
      }
      // Whoever reads it has had enough (`| head`).
      stdoutStream().on('error', () => ending.abort());
      for await (const event of readEvents(period, ending.signal)) {
        if (passes(event)) await new Promise<void>((resolve) => stdoutStream().write(show(event), () => resolve()));
      }
    });
}

/** Docker's keys. */
const filters: Record<string, Filter<RecordedEvent>> = {
  type: { values: ['container', 'image', 'network', 'volume'], matches: ({ type }, value) => type === value },
  // `health_status` and `exec_create` stand for all of their kind, whatever follows the colon.
  event: { matches: ({ action }, value) => action === value || action.startsWith(`${value}:`) },
  container: byName('container'),
  network: byName('network'),
  volume: byName('volume'),
  image: {
    matches: ({ type, id, attributes }, value) => {
      const name = (type === 'image' ? attributes.name : attributes.image) ?? '';
      return [id, name, withoutTag(id), withoutTag(name)].includes(value);
    },
  },
  label: labelFilter(({ attributes }) => attributes),
  scope: { values: ['local', 'swarm'], matches: (_event, value) => value === 'local' },
};

/** By name, or by the beginning of the id. */
function byName(wanted: EventType): Filter<RecordedEvent> {
  return {
    matches: ({ type, id, attributes }, value) =>
      type === wanted && (attributes.name === value || (value !== '' && id.startsWith(value))),
  };
}

function withoutTag(name: string): string {
  return name.replace(/:[^:/]+$/, '');
}

/** What makes a line of an event. @throws MinirunError for a template that means nothing */
async function formFor(format: string | undefined): Promise<(event: RecordedEvent) => string> {
  const wanted = format?.trim() ?? '';
  if (wanted === '') return textLine;
  if (wanted === 'json' || wanted === '{{json .}}') return jsonLine;
  if (wanted.startsWith('table'))
    throw new MinirunError('cannot show events as a table', 'nobody knows what is still to come', 'Use a template');
  const { Template } = await import('./output/template.ts');
  const template = new Template(wanted);
  return (event) => `${template.render(dockerFields(event))}\n`;
}

/** Docker's: `2026-01-02T15:04:05.000000000Z container start ID (image=…, name=…)`. */
function textLine({ time, type, action, id, attributes }: RecordedEvent): string {
  const pairs = Object.entries(attributes)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`);
  const words = [localTime(time), type, action, id, ...(pairs.length > 0 ? [`(${pairs.join(', ')})`] : [])];
  // A label may hold anything; a line is to stay one.
  return `${printable(words.join(' ').replaceAll('\n', ' '))}\n`;
}

/** RFC 3339 with nine digits, by this machine's clock. */
function localTime(nanoseconds: string): string {
  const milliseconds = Number(BigInt(nanoseconds) / 1_000_000n);
  const moment = new Date(milliseconds);
  const offset = -moment.getTimezoneOffset();
  const local = new Date(milliseconds + offset * 60_000).toISOString().slice(0, 19);
  const fraction = nanoseconds.slice(-9).padStart(9, '0');
  const two = (number: number) => String(number).padStart(2, '0');
  const distance = Math.abs(offset);
  const zone = offset === 0 ? 'Z' : `${offset < 0 ? '-' : '+'}${two(Math.floor(distance / 60))}:${two(distance % 60)}`;
  return `${local}.${fraction}${zone}`;
}

/** Docker's names of everything. */
function dockerFields({ time, type, action, id, attributes }: RecordedEvent) {
  const isAboutContainer = type === 'container';
  return {
    Status: isAboutContainer || type === 'image' ? action : '',
    ID: isAboutContainer || type === 'image' ? id : '',
    From: isAboutContainer ? (attributes.image ?? '') : '',
    Type: type,
    Action: action,
    Actor: { ID: id, Attributes: attributes },
    Scope: 'local',
    Time: Number(BigInt(time) / 1_000_000_000n),
    TimeNano: time,
  };
}

/** As docker's API writes it. */
function jsonLine(event: RecordedEvent): string {
  const { Status, ID, From, Type, Action, Actor, Scope, Time, TimeNano } = dockerFields(event);
  const about = {
    ...(Status === '' ? {} : { status: Status, id: ID }),
    ...(From === '' ? {} : { from: From }),
    Type,
    Action,
    Actor,
    scope: Scope,
    time: Time,
  };
  // A number that JavaScript's are too short for.
  return `${JSON.stringify(about).slice(0, -1)},"timeNano":${TimeNano}}\n`;
}
