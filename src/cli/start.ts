import type { Command } from 'commander';
import { isAtRest, shownStatus } from '../container/status.ts';
import type { Container } from '../container/store.ts';
import { MinirunError } from '../errors.ts';
import { forEach, reconcileFirst } from './each.ts';
import { type Filter, labelFilter, parseFilters, patternFilter } from './output/filters.ts';
import { stdoutStream } from './output/stdout.ts';

interface Options {
  attach?: boolean;
  interactive?: boolean;
  all?: boolean;
  filter: string[];
}

const collect = (value: string, previous: string[]): string[] => [...previous, value];

const filters: Record<string, Filter<Container>> = {
  id: patternFilter(({ definition }) => definition.id),
  name: patternFilter(({ definition }) => definition.name),
  label: labelFilter(({ definition }) => definition.labels),
  status: {
    values: ['created', 'exited'],
    matches: ({ state }, value) => shownStatus(state) === value,
  },
  'restart-policy': {
    values: ['no', 'on-failure', 'always', 'unless-stopped'],
    matches: ({ definition }, value) => definition.restart.name === value,
  },
  'should-start-on-boot': {
    values: ['true', 'false'],
    matches: ({ definition: { restart }, state }, value) => {
      const should = restart.name === 'always' || (restart.name === 'unless-stopped' && !state.stoppedByUser);
      return String(should) === value;
    },
  },
};

function refusal(what: string, why: string, remedy: string): MinirunError {
  return new MinirunError(what, why, remedy, { code: 125 });
}

/** Those that can be started, the oldest first. */
async function restingNames(passes: (container: Container) => boolean): Promise<string[]> {
  const { listContainers } = await import('../container/store.ts');
  return listContainers()
    .filter((container) => isAtRest(container.state) && passes(container))
    .map(({ definition }) => definition.name)
    .toReversed();
}

export function registerStart(program: Command): void {
  program
    .command('start')
    .summary('Start containers that are at rest')
    .argument('[container...]')
    .option('-a, --attach', 'stay with it: pass its output on and return its exit code')
    .option('-i, --interactive', 'attach its standard input too')
    .option('--all', 'all containers, or with --filter all that pass')
    .option(
      '-f, --filter <key=value>',
      'name, id, label, status, restart-policy or should-start-on-boot (repeatable)',
      collect,
      [],
    )
    .action(async (given: string[], options: Options) => {
      const passes = parseFilters(options.filter, filters);
      const isSearch = options.all === true || options.filter.length > 0;
      if (given.length > 0 && isSearch)
        throw refusal('--all and --filter do not go with names', 'they say themselves which', 'Leave the names out');
      if (given.length === 0 && !isSearch)
        throw refusal('no container given', 'start needs to know what to start', 'Name containers, or use --all');
      await reconcileFirst('index');
      const names = isSearch ? await restingNames(passes) : given;
      const { startDetached, startForeground } = await import('../container/run.ts');
      const { requireContainer } = await import('../container/store.ts');
      const notice = (line: string) => process.stderr.write(`minirun: ${line}\n`);
      const attach = options.attach === true || options.interactive === true;
      if (attach && (isSearch || names.length > 1))
        throw refusal('cannot attach to several containers', 'there is one terminal', 'Start one at a time with -a');
      await forEach(
        names,
        async (name) => {
          const { definition, state } = requireContainer(name);
          const before = state.startedAt === '' ? 'created' : 'exited';
          if (state.paused) {
            throw new MinirunError(
              `cannot start container "${name}"`,
              'it is paused',
              `Let it go on: minirun unpause ${name}`,
            );
          }
          if (attach && definition.tty) stdoutStream();
          if (attach) process.exitCode = await startForeground(definition.id, before, { sigProxy: true, notice });
          else if (state.status !== 'running') await startDetached(definition.id, before, { notice });
        },
        { prints: !attach },
      );
    });
}
