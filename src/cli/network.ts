import type { Command } from 'commander';
import type { Network } from '../network/definition.ts';
import type { ShownNetwork } from '../network/manage.ts';
import { MinirunError } from '../errors.ts';
import { forEach, reconcileFirst } from './each.ts';
import { registerGraph } from './graph.ts';
import { print } from './output/stdout.ts';

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `minirun network COMMAND` */
export function registerNetwork(program: Command): void {
  const network = program.command('network').summary('Create, list, show, change and remove networks');
  registerCreate(network);
  registerList(network);
  registerInspect(network);
  registerRemove(network);
  registerConnect(network);
  registerDisconnect(network);
  registerReload(network);
  registerPrune(network);
  registerGraph(network);
}

interface CreateOptions {
  driver: string;
  subnet: string[];
  gateway: string[];
  ipRange: string[];
  auxAddress: string[];
  ipv6?: boolean;
  internal?: boolean;
  isolate: string;
  route: string[];
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
    .option('-d, --driver <driver>', 'bridge, or macvlan: on the wire of an interface of the host', 'bridge')
    .option('--subnet <range>', 'range in CIDR form, IPv4 or IPv6 (repeatable; default: a free IPv4 one)', collect, [])
    .option('--gateway <address>', "the host's address in a range (repeatable; default: the first)", collect, [])
    .option('--ip-range <range>', 'hand out addresses of this part of a range only (repeatable)', collect, [])
    .option('--aux-address <name=address>', 'never hand this address out (repeatable)', collect, [])
    .option('--ipv6', 'an IPv6 range, too: a private one of its own unless --subnet names one')
    .option('--internal', 'no way out of it and none into it')
    .option('--isolate <bool>', 'false: other networks and machines that have a route to it get in', 'true')
    .option('--route <destination,gateway>', 'route that every container gets (repeatable)', collect, [])
    .option('--label <key[=value]>', 'label (repeatable)', collect, [])
    .option(
      '-o, --opt <key=value>',
      'bridge=NAME, mtu=BYTES, masquerade=false, icc=false, inhibit_ipv4=true (the host gets no address), parent=INTERFACE; docker’s long names too (repeatable)',
      collect,
      [],
    )
    .option('--explain', 'print the steps as a shell script instead of taking them')
    .action(async (name: string, options: CreateOptions) => {
      if (options.isolate !== 'true' && options.isolate !== 'false')
        throw new MinirunError(
          `invalid --isolate "${options.isolate}"`,
          'it is neither true nor false',
          'Give true or false',
        );
      await recoverFirst();
      const { createNetwork, draftNetwork } = await import('../network/manage.ts');
      const { parseLabel } = await import('../container/options.ts');
      const request = {
        name,
        driver: options.driver,
        subnets: options.subnet,
        gateways: options.gateway,
        ranges: options.ipRange,
        reserved: options.auxAddress,
        ipv6: options.ipv6 === true,
        internal: options.internal === true,
        isolate: options.isolate === 'true',
        routes: options.route,
        options: options.opt,
        labels: Object.fromEntries(options.label.map(parseLabel)),
      };
      if (options.explain === true) {
        const { explainNetwork } = await import('../network/explain.ts');
        print(await explainNetwork(draftNetwork(request)));
        return;
      }
      print(`${(await createNetwork(request)).id}\n`);
    });
}

interface ConnectOptions {
  ip?: string;
  ip6?: string;
  macAddress?: string;
  alias: string[];
  ifname?: string;
  gwPriority?: string;
}

function registerConnect(network: Command): void {
  network
    .command('connect')
    .summary('Put a container into a further network')
    .argument('<network>', 'name or id of the network')
    .argument('<container>', 'name or id of the container, running or not')
    .option('--ip <address>', 'IPv4 address')
    .option('--ip6 <address>', 'IPv6 address')
    .option('--mac-address <mac>', 'MAC address')
    .option('--alias <name>', 'further name in the network (repeatable)', collect, [])
    .option('--ifname <name>', 'name of the interface (default: the next ethN)')
    .option('--gw-priority <number>', 'the default route goes through the network with the highest')
    .action(async (name: string, container: string, options: ConnectOptions) => {
      await recoverFirst();
      const { parseAttachments } = await import('../network/options.ts');
      const { connectContainer } = await import('../container/networks.ts');
      const { ifname, gwPriority } = options;
      const fields = [
        ifname === undefined ? [] : `ifname=${ifname}`,
        gwPriority === undefined ? [] : `gw_priority=${gwPriority}`,
      ];
      const request = { ...options, network: [`${name}:${fields.flat().join(',')}`], networkAlias: options.alias };
      const [attachment] = parseAttachments(request, (each) => each);
      if (attachment !== undefined) await connectContainer(name, container, attachment);
    });
}

function registerDisconnect(network: Command): void {
  network
    .command('disconnect')
    .summary('Take a container out of a network')
    .argument('<network>', 'name or id of the network')
    .argument('<container>', 'name or id of the container, running or not')
    .option('-f, --force', 'taken for docker’s sake')
    .action(async (name: string, container: string) => {
      await recoverFirst();
      const { disconnectContainer } = await import('../container/networks.ts');
      await disconnectContainer(name, container);
    });
}

function registerReload(network: Command): void {
  network
    .command('reload')
    .summary('Put back rules, bridges and ports that somebody has taken away')
    .description('Put back what is missing of all networks, for example after "iptables -F" or a reload of firewalld')
    .action(async () => {
      await recoverFirst();
      const { reload } = await import('../container/networks.ts');
      for (const name of await reload()) print(`${name}\n`);
    });
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
        const { isBuiltIn, shownNetworks } = await import('../network/manage.ts');
        const passes = parseFilters<ShownNetwork>(filter, {
          name: patternFilter(({ name }) => name),
          id: patternFilter(({ id }) => id),
          driver: { matches: ({ driver }, value) => driver === value },
          scope: { matches: (_network, value) => value === 'local' },
          label: labelFilter(({ labels }) => labels),
          type: {
            values: ['builtin', 'custom'],
            matches: (network, value) => isBuiltIn(network) === (value === 'builtin'),
          },
        });
        await recoverFirst();
        const networks = shownNetworks().filter(passes);
        const idOf = ({ id }: ShownNetwork) => (trunc ? id.slice(0, 12) : id);
        if (quiet === true && format === undefined) {
          print(networks.map((each) => `${idOf(each)}\n`).join(''));
          return;
        }
        const { formatRows } = await import('./output/table.ts');
        const columns = [
          { name: 'ID', header: 'NETWORK ID', value: idOf },
          { name: 'Name', header: 'NAME', value: ({ name }: ShownNetwork) => name },
          { name: 'Driver', header: 'DRIVER', value: ({ driver }: ShownNetwork) => driver },
          { name: 'Scope', header: 'SCOPE', value: () => 'local' },
          {
            name: 'Subnet',
            header: 'SUBNET',
            value: ({ subnets }: ShownNetwork) => subnets.map(({ subnet }) => subnet).join(','),
            hidden: true,
          },
          {
            name: 'Gateway',
            header: 'GATEWAY',
            value: ({ subnets }: ShownNetwork) => subnets.map(({ gateway }) => gateway).join(','),
            hidden: true,
          },
          { name: 'Bridge', header: 'BRIDGE', value: ({ bridge }: ShownNetwork) => bridge, hidden: true },
          {
            name: 'IPv6',
            header: 'IPV6',
            value: ({ subnets }: ShownNetwork) => String(subnets.some(({ subnet }) => subnet.includes(':'))),
            hidden: true,
          },
          {
            name: 'Internal',
            header: 'INTERNAL',
            value: ({ internal }: ShownNetwork) => String(internal),
            hidden: true,
          },
          {
            name: 'Labels',
            header: 'LABELS',
            value: ({ labels }: ShownNetwork) =>
              Object.entries(labels)
                .map((pair) => pair.join('='))
                .join(','),
            hidden: true,
          },
          {
            name: 'CreatedAt',
            header: 'CREATED AT',
            value: ({ created }: ShownNetwork) => `${created.slice(0, 19).replace('T', ' ')} +0000 UTC`,
            hidden: true,
          },
        ];
        print(formatRows(format, columns, networks, ({ labels }) => labels));
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
      const { describeNetwork, findShown } = await import('../network/manage.ts');
      const { inspectAll } = await import('./inspect.ts');
      const { membersOf } = await import('../container/networks.ts');
      await inspectAll(references, format, (reference) => describeNetwork(findShown(reference), membersOf));
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
      // Leases of containers that were deleted by hand, or by a script of `rm --explain`, are in nobody's way.
      await (await import('../container/reconcile.ts')).endAbandonedNetworks('all');
      const { findNetwork, removeNetwork, shownNetworks } = await import('../network/manage.ts');
      const { nameOfContainer } = await import('../state/names.ts');
      const isThere = (reference: string) =>
        shownNetworks().some(({ name, id }) => name === reference || id.startsWith(reference));
      await forEach(references, async (reference) => {
        if (force === true && !isThere(reference)) return;
        await removeNetwork(findNetwork(reference).name, nameOfContainer);
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
      if (unused.length > 0) print('Deleted Networks:\n');
      const { nameOfContainer } = await import('../state/names.ts');
      await forEach(
        unused.map(({ name }) => name),
        (name) => removeNetwork(name, nameOfContainer),
      );
      if (unused.length > 0) print('\n');
    });
}

/** Takes back what killed processes have left, of containers and of networks. */
async function recoverFirst(): Promise<void> {
  await reconcileFirst();
  const { finishInterruptedChanges } = await import('../network/manage.ts');
  await finishInterruptedChanges();
}
