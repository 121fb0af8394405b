import type { Command } from 'commander';
import type { Network } from '../network/definition.ts';
import { MinirunError } from '../errors.ts';
import { forEach, reconcileFirst } from './each.ts';

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `minirun network COMMAND` */
export function registerNetwork(program: Command): void {
  const network = program.command('network').summary('Create, list, show and remove networks');
  registerCreate(network);
  registerList(network);
  registerInspect(network);
  registerRemove(network);
  registerPrune(network);
}

interface CreateOptions {
  driver: string;
  subnet?: string;
  gateway?: string;
  label: string[];
  opt: string[];
  explain?: boolean;
}

function registerCreate(network: Command): void {
  network
    .command('create')
    .summary('Create a network')
    .description(
      'Create a network: a bridge with a range of addresses, from which all of its containers reach each other and the outside',
    )
    .argument('<name>', 'name of the network')
    .option('-d, --driver <driver>', 'bridge', 'bridge')
    .option('--subnet <range>', 'IPv4 range in CIDR form (default: a free one)')
    .option('--gateway <address>', "the host's address in it (default: the first)")
    .option('--label <key[=value]>', 'label (repeatable)', collect, [])
    .option(
      '-o, --opt <key=value>',
      'bridge=NAME names the bridge; docker’s com.docker.network.bridge.name does too',
      collect,
      [],
    )
    .option('--explain', 'print the steps as a shell script instead of taking them')
    .action(async (name: string, options: CreateOptions) => {
      if (options.driver !== 'bridge')
        throw new MinirunError(
          `invalid --driver "${options.driver}"`,
          'it is not built yet',
          'Give bridge, or leave it out',
        );
      await recoverFirst();
      const { createNetwork, draftNetwork } = await import('../network/manage.ts');
      const { parseLabel } = await import('../container/options.ts');
      const request = {
        name,
        subnet: options.subnet,
        gateway: options.gateway,
        bridge: bridgeOf(options.opt),
        labels: Object.fromEntries(options.label.map(parseLabel)),
      };
      if (options.explain === true) {
        const { explainNetwork } = await import('../network/explain.ts');
        process.stdout.write(await explainNetwork(draftNetwork(request)));
        return;
      }
      process.stdout.write(`${(await createNetwork(request)).id}\n`);
    });
}

function bridgeOf(options: readonly string[]): string | undefined {
  let bridge: string | undefined;
  for (const option of options) {
    const match = /^(?:com\.docker\.network\.bridge\.name|bridge)=(.*)$/.exec(option);
    if (match === null)
      throw new MinirunError(`invalid --opt "${option}"`, 'it is not built yet', 'Known is bridge=NAME');
    bridge = match[1];
  }
  return bridge;
}

function registerList(network: Command): void {
  network
    .command('ls')
    .alias('list')
    .summary('List networks')
    .option('-q, --quiet', 'only ids')
    .option('--no-trunc', 'whole ids')
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .option('-f, --filter <key=value>', 'name, id, driver, label, scope or type (repeatable)', collect, [])
    .action(
      async ({
        quiet,
        trunc,
        format,
        filter,
      }: {
        quiet?: boolean;
        trunc: boolean;
        format?: string;
        filter: string[];
      }) => {
        const { labelFilter, parseFilters, patternFilter } = await import('./output/filters.ts');
        const passes = parseFilters<Network>(filter, {
          name: patternFilter(({ name }) => name),
          id: patternFilter(({ id }) => id),
          driver: { matches: ({ driver }, value) => driver === value },
          scope: { matches: (_network, value) => value === 'local' },
          label: labelFilter(({ labels }) => labels),
          type: {
            values: ['builtin', 'custom'],
            matches: ({ automatic }, value) => automatic === (value === 'builtin'),
          },
        });
        await recoverFirst();
        const { listNetworks } = await import('../network/store.ts');
        const networks = listNetworks().filter(passes);
        const idOf = ({ id }: Network) => (trunc ? id.slice(0, 12) : id);
        if (quiet === true && format === undefined) {
          process.stdout.write(networks.map((each) => `${idOf(each)}\n`).join(''));
          return;
        }
        const { formatRows } = await import('./output/table.ts');
        const columns = [
          { name: 'ID', header: 'NETWORK ID', value: idOf },
          { name: 'Name', header: 'NAME', value: ({ name }: Network) => name },
          { name: 'Driver', header: 'DRIVER', value: ({ driver }: Network) => driver },
          { name: 'Scope', header: 'SCOPE', value: () => 'local' },
          { name: 'Subnet', header: 'SUBNET', value: ({ subnet }: Network) => subnet, hidden: true },
          { name: 'Gateway', header: 'GATEWAY', value: ({ gateway }: Network) => gateway, hidden: true },
          { name: 'Bridge', header: 'BRIDGE', value: ({ bridge }: Network) => bridge, hidden: true },
          { name: 'IPv6', header: 'IPV6', value: () => 'false', hidden: true },
          { name: 'Internal', header: 'INTERNAL', value: () => 'false', hidden: true },
          {
            name: 'Labels',
            header: 'LABELS',
            value: ({ labels }: Network) =>
              Object.entries(labels)
                .map((pair) => pair.join('='))
                .join(','),
            hidden: true,
          },
          {
            name: 'CreatedAt',
            header: 'CREATED AT',
            value: ({ created }: Network) => `${created.slice(0, 19).replace('T', ' ')} +0000 UTC`,
            hidden: true,
          },
        ];
        process.stdout.write(formatRows(format, columns, networks, ({ labels }) => labels));
      },
    );
}

function registerInspect(network: Command): void {
  network
    .command('inspect')
    .summary('Show everything about networks as JSON')
    .argument('<networks...>', 'names, ids or beginnings of ids')
    .option('-f, --format <format>', '"json" or a Go template')
    .action(async (references: string[], { format }: { format?: string }) => {
      await recoverFirst();
      const { describeNetwork, findNetwork } = await import('../network/manage.ts');
      const { inspectAll } = await import('./inspect.ts');
      const nameOf = await containerNames();
      await inspectAll(references, format, (reference) => describeNetwork(findNetwork(reference), nameOf));
    });
}

function registerRemove(network: Command): void {
  network
    .command('rm')
    .alias('remove')
    .summary('Remove networks')
    .argument('<networks...>', 'names, ids or beginnings of ids')
    .option('-f, --force', 'names that do not exist are no error')
    .action(async (references: string[], { force }: { force?: boolean }) => {
      await recoverFirst();
      const { findNetwork, removeNetwork } = await import('../network/manage.ts');
      const { listNetworks } = await import('../network/store.ts');
      const nameOf = await containerNames();
      const isThere = (reference: string) =>
        listNetworks().some(({ name, id }) => name === reference || id.startsWith(reference));
      await forEach(references, async (reference) => {
        if (force === true && !isThere(reference)) return;
        await removeNetwork(findNetwork(reference).name, nameOf);
      });
    });
}

function registerPrune(network: Command): void {
  network
    .command('prune')
    .summary('Remove all networks that no container is in')
    .option('-f, --force', 'do not ask')
    .option('--filter <key=value>', 'label (repeatable)', collect, [])
    .action(async ({ force, filter }: { force?: boolean; filter: string[] }) => {
      const { labelFilter, parseFilters } = await import('./output/filters.ts');
      const passes = parseFilters<Network>(filter, { label: labelFilter(({ labels }) => labels) });
      const { confirmed } = await import('./output/question.ts');
      const warning = 'This will remove all custom networks not used by at least one container.';
      if (force !== true && !(await confirmed(warning))) return;
      await recoverFirst();
      const { removeNetwork } = await import('../network/manage.ts');
      const { listNetworks } = await import('../network/store.ts');
      const unused = listNetworks().filter(
        (each) => !each.automatic && Object.keys(each.leases).length === 0 && passes(each),
      );
      if (unused.length > 0) process.stdout.write('Deleted Networks:\n');
      const nameOf = await containerNames();
      await forEach(
        unused.map(({ name }) => name),
        (name) => removeNetwork(name, nameOf),
      );
      if (unused.length > 0) process.stdout.write('\n');
    });
}

/** Takes back what killed processes have left, of containers and of networks. */
async function recoverFirst(): Promise<void> {
  await reconcileFirst();
  const { finishInterruptedChanges } = await import('../network/manage.ts');
  await finishInterruptedChanges();
}

/** What to call the container with an id. */
async function containerNames(): Promise<(id: string) => string> {
  const { readContainer } = await import('../container/store.ts');
  return (id) => readContainer(id)?.definition.name ?? id.slice(0, 12);
}
