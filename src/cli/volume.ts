import type { Command } from 'commander';
import type { VolumeUsage } from '../container/usage.ts';
import type { VolumeListing } from '../container/volume-store.ts';
import { MinirunError } from '../errors.ts';
import { forEach, reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `minirun volume COMMAND` */
export function registerVolume(program: Command): void {
  const volume = program.command('volume').summary('Create, list, show and remove volumes');
  registerCreate(volume);
  registerList(volume);
  registerInspect(volume);
  registerRemove(volume);
  registerPrune(volume);
}

function registerCreate(volume: Command): void {
  volume
    .command('create')
    .summary('Create a volume')
    .description('Create a volume: a directory that minirun keeps, for containers to share, and to outlive them')
    .argument('[name]', 'name of the volume; one is made up if there is none')
    .option('-d, --driver <driver>', 'local, the only one', 'local')
    .option('--label <key[=value]>', 'label (repeatable)', collect, [])
    .option(
      '-o, --opt <key=value>',
      'type=none with o=bind and device=DIRECTORY: a directory of yours; type=tmpfs with o=size=…: in memory (repeatable)',
      collect,
      [],
    )
    .action(async (given: string | undefined, options: { driver: string; label: string[]; opt: string[] }) => {
      if (options.driver !== 'local')
        throw new MinirunError(
          `there is no volume driver "${options.driver}"`,
          'minirun keeps volumes on this machine only',
          'Leave -d out',
          { code: 125 },
        );
      const { checkVolumeName } = await import('../container/mount-options.ts');
      const { parseLabel } = await import('../container/options.ts');
      const { anonymousName, createVolume, newRecord } = await import('../container/volume-store.ts');
      const name = given === undefined || given === '' ? anonymousName() : checkVolumeName(given);
      const labels = Object.fromEntries(options.label.map(parseLabel));
      const driverOptions = Object.fromEntries(options.opt.map(parseLabel));
      await reconcileFirst();
      createVolume(newRecord(name, { labels, options: driverOptions, anonymous: given === undefined || given === '' }));
      print(`${name}\n`);
    });
}

function registerList(volume: Command): void {
  volume
    .command('ls')
    .alias('list')
    .summary('List volumes')
    .option('-q, --quiet', 'only names')
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .option('-f, --filter <key=value>', 'dangling, name, label or driver (repeatable)', collect, [])
    .action(async ({ quiet, format, filter }: { quiet?: boolean; format?: string; filter: string[] }) => {
      const { labelFilter, parseFilters, patternFilter } = await import('./output/filters.ts');
      const passes = parseFilters<VolumeListing>(filter, {
        dangling: {
          values: ['true', 'false', '1', '0'],
          matches: ({ containers }, value) => (containers.length === 0) === ['true', '1'].includes(value),
        },
        name: patternFilter(({ name }) => name),
        label: labelFilter(({ labels }) => labels),
        driver: { matches: (_volume, value) => value === 'local' },
      });
      await reconcileFirst();
      const { listVolumes } = await import('../container/volume-store.ts');
      const volumes = listVolumes().filter(passes);
      if (quiet === true && format === undefined) {
        print(volumes.map(({ name }) => `${name}\n`).join(''));
        return;
      }
      const { formatRows } = await import('./output/table.ts');
      const columns = [
        { name: 'Driver', header: 'DRIVER', value: () => 'local' },
        { name: 'Name', header: 'VOLUME NAME', value: ({ name }: VolumeListing) => name },
        { name: 'Scope', header: 'SCOPE', value: () => 'local', hidden: true },
        { name: 'Mountpoint', header: 'MOUNTPOINT', value: ({ directory }: VolumeListing) => directory, hidden: true },
        {
          name: 'Labels',
          header: 'LABELS',
          value: ({ labels }: VolumeListing) =>
            Object.entries(labels)
              .map((pair) => pair.join('='))
              .join(','),
          hidden: true,
        },
        {
          name: 'Links',
          header: 'LINKS',
          value: ({ containers }: VolumeListing) => String(containers.length),
          hidden: true,
        },
      ];
      print(formatRows(format, columns, volumes, ({ labels }) => labels));
    });
}

function registerInspect(volume: Command): void {
  volume
    .command('inspect')
    .summary('Show everything about volumes as JSON')
    .argument('<names...>')
    .option('-f, --format <format>', '"json" or a Go template')
    .action(async (names: string[], { format }: { format?: string }) => {
      await reconcileFirst();
      const { requireVolume } = await import('../container/volume-store.ts');
      const { describeVolume } = await import('./output/volumes.ts');
      const { inspectAll } = await import('./inspect.ts');
      await inspectAll(names, format, (name) => describeVolume(requireVolume(name)));
    });
}

function registerRemove(volume: Command): void {
  volume
    .command('rm')
    .alias('remove')
    .summary('Remove volumes that no container has')
    .argument('<names...>')
    .option('-f, --force', 'names that do not exist are no error')
    .action(async (names: string[], { force }: { force?: boolean }) => {
      await reconcileFirst();
      const { readVolume, removeVolume } = await import('../container/volume-store.ts');
      const { checkVolumeName } = await import('../container/mount-options.ts');
      await forEach(names, async (name) => {
        // Before it becomes part of a path.
        checkVolumeName(name);
        if (force === true && readVolume(name) === undefined) return;
        await removeVolume(name);
      });
    });
}

function registerPrune(volume: Command): void {
  volume
    .command('prune')
    .summary('Remove the volumes without a name of their own that no container has')
    .option('-a, --all', 'also those with a name')
    .option('-f, --force', 'do not ask')
    .option('--filter <key=value>', 'label, label! or all (repeatable)', collect, [])
    .action(async ({ all, force, filter }: { all?: boolean; force?: boolean; filter: string[] }) => {
      const { labelFilter, parseFilters } = await import('./output/filters.ts');
      const label = labelFilter<VolumeUsage>(({ labels }) => labels);
      const takesAll = all === true || filter.some((text) => /^\s*all\s*=\s*(1|true)\s*$/i.test(text));
      const passes = parseFilters<VolumeUsage>(filter, {
        all: { values: ['1', 'true', '0', 'false'], matches: () => true },
        label,
        'label!': { every: true, matches: (each, value) => !label.matches(each, value) },
      });
      const { confirmed } = await import('./output/question.ts');
      const warning = `This will remove ${takesAll ? 'all' : 'anonymous'} local volumes not used by at least one container.`;
      if (force !== true && !(await confirmed(warning))) return;
      await reconcileFirst();
      const { pruneVolumes } = await import('../container/prune.ts');
      const { humanSize } = await import('./output/units.ts');
      const { printPruned } = await import('./output/pruned.ts');
      const removals = pruneVolumes((each) => (takesAll || each.anonymous) && passes(each));
      print(`Total reclaimed space: ${humanSize(await printPruned('Deleted Volumes', removals))}\n`);
    });
}
