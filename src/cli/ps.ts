import type { Command } from 'commander';
import type { ContainerState, Definition, Volume } from '../container/definition.ts';
import { shownHealth } from '../container/health.ts';
import { type ShownStatus, shownStatus, statusWord } from '../container/status.ts';
import type { Container } from '../container/store.ts';
import { MinirunError } from '../errors.ts';
import { networkNames } from '../container/networking.ts';
import { reconcileFirst } from './each.ts';
import { describePorts } from './output/ports.ts';
import { type Filter, labelFilter, parseFilters, patternFilter } from './output/filters.ts';
import type { Column } from './output/table.ts';
import { humanDuration } from './output/units.ts';
import { print } from './output/stdout.ts';

interface Options {
  all?: boolean;
  quiet?: boolean;
  trunc: boolean;
  filter: string[];
  format?: string;
  last?: string;
  latest?: boolean;
}

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `minirun ps` */
export function registerPs(program: Command): void {
  program
    .command('ps')
    .summary('List containers')
    .description('List containers; without -a those that run')
    .option('-a, --all', 'also those that do not run')
    .option('-q, --quiet', 'only ids')
    .option('--no-trunc', 'whole ids and commands')
    .option(
      '-f, --filter <key=value>',
      'id, name, label, status, exited, health, network, volume or ancestor (repeatable)',
      collect,
      [],
    )
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .option('-n, --last <number>', 'the last NUMBER that were created, in any state')
    .option('-l, --latest', 'the one that was created last, in any state')
    .action(async (options: Options) => {
      const passes = parseFilters(options.filter, await filtersFor(options.filter));
      const last = lastOf(options);
      await reconcileFirst();
      const { listContainers } = await import('../container/store.ts');
      const inAnyState =
        options.all === true || last !== undefined || options.filter.some((text) => /^\s*status\s*=/i.test(text));
      const containers = listContainers()
        .filter(({ state }) => state.status !== 'creating')
        .filter((container) => (inAnyState || isShownAlways(container)) && passes(container))
        .slice(0, last);
      const idOf = ({ definition }: Container) => (options.trunc ? definition.id.slice(0, 12) : definition.id);
      if (options.quiet === true && options.format === undefined) {
        print(containers.map((container) => `${idOf(container)}\n`).join(''));
        return;
      }
      const { formatRows } = await import('./output/table.ts');
      const { findSpec } = await import('../container/store.ts');
      const columns = columnsFor(idOf, options.trunc, (id) => findSpec(id)?.mounts ?? []);
      print(formatRows(options.format, columns, containers, ({ definition }) => definition.labels));
    });
}

function lastOf({ last, latest }: Options): number | undefined {
  if (latest === true) return 1;
  if (last === undefined || last === '-1') return undefined;
  if (/^\d+$/.test(last)) return last === '0' ? undefined : Number(last);
  throw new MinirunError(`invalid --last "${last}"`, 'it is not a number', 'Give how many containers to list');
}

const isShownAlways = ({ state }: Container) => ['running', 'restarting'].includes(shownStatus(state));

const statuses: readonly ShownStatus[] = ['created', 'running', 'restarting', 'exited'];

async function filtersFor(given: readonly string[]): Promise<Record<string, Filter<Container>>> {
  // Images and networks are looked up only when somebody asks for them.
  const asksFor = (key: string) => given.some((text) => text.trim().toLowerCase().startsWith(key));
  const findImage = asksFor('ancestor') ? (await import('../image/store.ts')).findImage : () => undefined;
  const { readSpec } = asksFor('volume') ? await import('../container/store.ts') : { readSpec: undefined };
  const mountsOf = (id: string) => readSpec?.(id).mounts.filter(({ type }) => type === 'bind') ?? [];
  const networks = asksFor('network') ? (await import('../network/store.ts')).listNetworks() : [];
  const name = patternFilter<Container>(({ definition }) => definition.name);
  // Docker's names begin with a slash, and scripts write ^/web$.
  const dockerName = patternFilter<Container>(({ definition }) => `/${definition.name}`);
  return {
    id: patternFilter(({ definition }) => definition.id),
    name: { matches: (container, value) => name.matches(container, value) || dockerName.matches(container, value) },
    label: labelFilter(({ definition }) => definition.labels),
    status: {
      values: [...statuses, 'paused', 'removing', 'dead'],
      matches: ({ state }, value) => statusWord(state) === value,
    },
    health: {
      values: ['starting', 'healthy', 'unhealthy', 'none'],
      matches: ({ definition, state }, value) => (shownHealth(definition, state)?.Status ?? 'none') === value,
    },
    exited: { matches: ({ state }, value) => state.status === 'exited' && String(state.exitCode) === value },
    network: {
      matches: ({ definition }, value) =>
        networkNames(definition).some(
          (name) => name === value || networks.some((each) => each.name === name && each.id.startsWith(value)),
        ),
    },
    volume: {
      matches: ({ definition }, value) =>
        definition.volumes?.some(({ name, destination }) => name === value || destination === value) === true ||
        mountsOf(definition.id).some(({ source, destination }) => source === value || destination === value),
    },
    ancestor: {
      matches: ({ definition: { image, imageId } }, value) =>
        image === value || (imageId !== '' && findImage(value)?.id === imageId),
    },
  };
}

function columnsFor(
  idOf: (container: Container) => string,
  truncates: boolean,
  mountsOf: (id: string) => { type: string; source: string; destination: string }[],
): Column<Container>[] {
  const now = Date.now();
  const since = (time: string) => humanDuration(Math.max(0, now - Date.parse(time)));
  return [
    { name: 'ID', header: 'CONTAINER ID', value: idOf },
    { name: 'Image', header: 'IMAGE', value: ({ definition }) => definition.image },
    { name: 'Command', header: 'COMMAND', value: (container) => shownCommand(container, truncates) },
    { name: 'RunningFor', header: 'CREATED', value: ({ definition }) => `${since(definition.created)} ago` },
    {
      name: 'CreatedAt',
      header: 'CREATED AT',
      value: ({ definition }) => dockerTime(definition.created),
      hidden: true,
    },
    {
      name: 'Status',
      header: 'STATUS',
      value: (container) => statusLine(container, since) + (container.definition.damaged === true ? ' (damaged)' : ''),
    },
    { name: 'State', header: 'STATE', value: ({ state }) => statusWord(state), hidden: true },
    {
      name: 'Ports',
      header: 'PORTS',
      value: ({ definition, state }) =>
        shownStatus(state) === 'running' ? describePorts(state.ports ?? [], definition.exposedPorts ?? []) : '',
    },
    { name: 'Names', header: 'NAMES', value: ({ definition }) => definition.name },
    {
      name: 'Labels',
      header: 'LABELS',
      value: ({ definition }) =>
        Object.entries(definition.labels)
          .map((pair) => pair.join('='))
          .join(','),
      hidden: true,
    },
    {
      name: 'Networks',
      header: 'NETWORKS',
      value: ({ definition }) => networkNames(definition).join(','),
      hidden: true,
    },
    {
      name: 'Mounts',
      header: 'MOUNTS',
      value: ({ definition }) => shownMounts(mountsOf(definition.id), definition, truncates),
      hidden: true,
    },
    {
      name: 'LocalVolumes',
      header: 'LOCAL VOLUMES',
      value: ({ definition }) => String(definition.volumes?.length ?? 0),
      hidden: true,
    },
    { name: 'Size', header: 'SIZE', value: () => '0B', hidden: true },
  ];
}

/** The first characters of a text that is too long, and an ellipsis. */
function shortened(text: string, most: number): string {
  const characters = Array.from(text);
  return characters.length <= most ? text : `${characters.slice(0, most - 1).join('')}…`;
}

function shownCommand({ definition }: Container, truncates: boolean): string {
  const [program = '', ...args] = [...definition.entrypoint, ...definition.command];
  const line = [program, ...args.map((arg) => (arg.includes(' ') ? `'${arg}'` : arg))].join(' ');
  return JSON.stringify(truncates ? shortened(line, 20) : line);
}

function statusLine({ definition, state }: Container, since: (time: string) => string): string {
  switch (shownStatus(state)) {
    case 'created':
      return 'Created';
    case 'running':
      return `Up ${since(state.startedAt)}${state.paused ? ' (Paused)' : healthWords(definition, state)}`;
    case 'restarting':
      return `Restarting (${state.exitCode}) ${since(state.finishedAt)} ago`;
    case 'exited':
      return `Exited (${state.exitCode}) ${since(state.finishedAt)} ago${state.oomKilled ? ' (OOM)' : ''}`;
  }
}

/** Docker's: `(healthy)`, `(health: starting)`. */
function healthWords(definition: Definition, state: ContainerState): string {
  const status = shownHealth(definition, state)?.Status;
  if (status === undefined) return '';
  return status === 'starting' ? ' (health: starting)' : ` (${status})`;
}

/** Volumes, and directories of the host that the user mounted; minirun's own files for /etc are none. */
function shownMounts(
  mounts: readonly { type: string; source: string; destination: string }[],
  { id, volumes = [] }: { id: string; volumes?: readonly Volume[] },
  truncates: boolean,
): string {
  return mounts
    .filter(({ type, source }) => type === 'bind' && !source.includes(`/containers/${id}/`))
    .map(({ source, destination }) => volumes.find((each) => each.destination === destination)?.name ?? source)
    .map((text) => (truncates ? shortened(text, 15) : text))
    .join(',');
}

/** `2026-01-02 15:04:05 +0000 UTC` */
function dockerTime(time: string): string {
  return `${time.slice(0, 19).replace('T', ' ')} +0000 UTC`;
}
