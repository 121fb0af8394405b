import type { Command } from 'commander';
import type { Stats } from '../container/stats.ts';
import type { Container } from '../container/store.ts';
import { reconcileFirst } from './each.ts';
import type { Column } from './output/table.ts';
import { binarySize, humanSize } from './output/units.ts';
import { print, stdoutStream } from './output/stdout.ts';

interface Options {
  all?: boolean;
  format?: string;
  stream: boolean;
  trunc: boolean;
}

/** Milliseconds between two looks: while it goes on, and for a single one. */
const interval = 1000;
const singleInterval = 500;

/** `minirun stats [CONTAINER...]` */
export function registerStats(program: Command): void {
  program
    .command('stats')
    .summary('Show what containers use of the machine')
    .description('Show what containers use of the machine, again every second; without names all that run')
    .argument('[container...]')
    .option('-a, --all', 'also those that do not run')
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .option('--no-stream', 'once')
    .option('--no-trunc', 'whole ids')
    .action(async (names: string[], options: Options) => {
      await reconcileFirst();
      const { listContainers, requireContainer } = await import('../container/store.ts');
      const { compare, sampleContainers } = await import('../container/stats.ts');
      const { formatRows } = await import('./output/table.ts');
      const { shownStatus } = await import('../container/status.ts');
      // Said before the first look when one of them is not there.
      const ids = names.map((name) => requireContainer(name).definition.id);
      const chosen = (): Container[] => {
        const there = listContainers().filter(({ state }) => state.status !== 'creating');
        if (names.length > 0) return ids.flatMap((id) => there.find(({ definition }) => definition.id === id) ?? []);
        return there.filter(({ state }) => options.all === true || shownStatus(state) === 'running');
      };
      const columns = columnsFor(options.trunc);
      const show = (stats: readonly Stats[]) => formatRows(options.format, columns, stats);
      let before = sampleContainers(chosen());
      const next = async (milliseconds: number) => {
        await new Promise((resolve) => setTimeout(resolve, milliseconds));
        const now = sampleContainers(chosen());
        const stats = compare(before, now);
        before = now;
        return stats;
      };
      if (!options.stream) {
        print(show(await next(singleInterval)));
        return;
      }
      const live = stdoutStream().isTTY;
      // Nothing is known of processor times yet, but there is something to be seen.
      print(live ? `\x1b[2J${frame(show(compare([], before)))}` : '');
      for (;;) {
        const stats = await next(live || before.length === 0 ? interval : singleInterval);
        // The last of those that were named has been removed.
        if (names.length > 0 && stats.length === 0) return;
        print(live ? frame(show(stats)) : show(stats));
      }
    });
}

/** A picture over the one before: each line ends the rest of what was there, and the last one all below. */
function frame(text: string): string {
  return `\x1b[H${text.replaceAll('\n', '\x1b[K\n')}\x1b[J`;
}

function columnsFor(truncates: boolean): Column<Stats>[] {
  const id = ({ container: { definition } }: Stats) => (truncates ? definition.id.slice(0, 12) : definition.id);
  const pair = (left: string, right: string) => `${left} / ${right}`;
  const percent = (value: number) => `${value.toFixed(2)}%`;
  const whileRunning = (text: (stats: Stats) => string) => (stats: Stats) => (stats.running ? text(stats) : '--');
  return [
    { name: 'Container', header: 'CONTAINER', value: id, hidden: true },
    { name: 'ID', header: 'CONTAINER ID', value: id },
    { name: 'Name', header: 'NAME', value: ({ container }) => container.definition.name },
    { name: 'CPUPerc', header: 'CPU %', value: whileRunning(({ cpuPercent }) => percent(cpuPercent)) },
    {
      name: 'MemUsage',
      header: 'MEM USAGE / LIMIT',
      value: ({ running, memory, memoryLimit }) =>
        running ? pair(binarySize(memory), binarySize(memoryLimit)) : '-- / --',
    },
    {
      name: 'MemPerc',
      header: 'MEM %',
      value: whileRunning(({ memory, memoryLimit }) => percent(memoryLimit === 0 ? 0 : (memory / memoryLimit) * 100)),
    },
    {
      name: 'NetIO',
      header: 'NET I/O',
      value: whileRunning(({ received, sent }) => pair(humanSize(received, 3), humanSize(sent, 3))),
    },
    {
      name: 'BlockIO',
      header: 'BLOCK I/O',
      value: whileRunning(({ read, written }) => pair(humanSize(read, 3), humanSize(written, 3))),
    },
    { name: 'PIDs', header: 'PIDS', value: whileRunning(({ pids }) => String(pids)) },
  ];
}
