import type { Command } from 'commander';
import type { LinkRequest, LinkView } from '../container/linking.ts';
import { MinirunError } from '../errors.ts';
import { forEach, reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `minirun link COMMAND` */
export function registerLink(program: Command): void {
  const link = program
    .command('link')
    .summary('Join containers, and the host, by cables of their own')
    .description(
      'Join containers, and the host, by cables of their own. An END is CONTAINER:INTERFACE, host:INTERFACE, or phys:INTERFACE for an interface of the host that moves into the container',
    );
  registerAdd(link);
  registerList(link);
  registerRemove(link);
  registerSet(link);
  registerState(link, 'up');
  registerState(link, 'down');
}

interface AddOptions {
  name?: string;
  addr: string[];
  peerAddr: string[];
  mac?: string;
  peerMac?: string;
  mtu?: string;
  rate?: string;
  delay?: string;
  loss?: string;
  force?: boolean;
  explain?: boolean;
}

function registerAdd(link: Command): void {
  link
    .command('add')
    .summary('Join two network stacks by a veth pair, or move an interface of the host into a container')
    .argument('<end>', 'the first end: web:eth1, host:veth0')
    .argument('<peer>', 'the second end: db:eth1, host:veth1, phys:enp3s1')
    .option('--name <name>', 'name of the link (default: made of its ends)')
    .option('--addr <address/length>', 'address of the first end, IPv4 or IPv6 (repeatable)', collect, [])
    .option('--peer-addr <address/length>', 'address of the second end (repeatable)', collect, [])
    .option('--mac <address>', 'MAC address of the first end')
    .option('--peer-mac <address>', 'MAC address of the second end')
    .option('--mtu <bytes>', 'largest packet')
    .option('--rate <rate>', 'most that passes in each direction: 10mbit')
    .option('--delay <time>', 'how long each packet takes: 20ms')
    .option('--loss <percentage>', 'how many packets are lost: 1%')
    .option('--force', 'also what the kernel would do, but to no good')
    .option('--explain', 'print the steps as a shell script instead of taking them')
    .action(async (end: string, peer: string, options: AddOptions) => {
      const { parseDelay, parseLoss, parseRate } = await import('../network/shape.ts');
      const { addLink, explainLink } = await import('../container/linking.ts');
      const shape = Object.entries({
        rate: options.rate === undefined ? undefined : parseRate(options.rate),
        delay: options.delay === undefined ? undefined : parseDelay(options.delay),
        loss: options.loss === undefined ? undefined : parseLoss(options.loss),
      }).filter(([, value]) => value !== undefined);
      const request: LinkRequest = {
        end,
        peer,
        name: options.name,
        addresses: options.addr,
        peerAddresses: options.peerAddr,
        mac: options.mac,
        peerMac: options.peerMac,
        mtu: mtuOf(options.mtu),
        shape: Object.fromEntries(shape),
        force: options.force === true,
      };
      await reconcileFirst();
      print(options.explain === true ? await explainLink(request) : `${(await addLink(request)).name}\n`);
    });
}

function registerList(link: Command): void {
  link
    .command('ls')
    .alias('list')
    .summary('List links')
    .option('-q, --quiet', 'only names')
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .action(async ({ quiet, format }: { quiet?: boolean; format?: string }) => {
      await reconcileFirst();
      const { viewLinks } = await import('../container/linking.ts');
      const views = viewLinks();
      if (quiet === true && format === undefined) {
        print(views.map((view) => `${view.link.name}\n`).join(''));
        return;
      }
      const { formatRows } = await import('./output/table.ts');
      const addresses = (index: 0 | 1) => (view: LinkView) => view.link.ends[index].addresses.join(',');
      const columns = [
        { name: 'Name', header: 'NAME', value: (view: LinkView) => view.link.name },
        { name: 'End', header: 'END', value: (view: LinkView) => view.ends[0] },
        { name: 'Addresses', header: 'ADDRESSES', value: addresses(0) },
        { name: 'Peer', header: 'PEER', value: (view: LinkView) => view.ends[1] },
        { name: 'PeerAddresses', header: 'PEER ADDRESSES', value: addresses(1) },
        { name: 'State', header: 'STATE', value: (view: LinkView) => view.state },
        { name: 'Shaping', header: 'SHAPING', value: (view: LinkView) => view.shaping },
        { name: 'MTU', header: 'MTU', value: (view: LinkView) => String(view.link.mtu ?? ''), hidden: true },
        { name: 'Kind', header: 'KIND', value: (view: LinkView) => view.link.kind, hidden: true },
        { name: 'CreatedAt', header: 'CREATED AT', value: (view: LinkView) => view.link.created, hidden: true },
      ];
      print(formatRows(format, columns, views));
    });
}

function registerRemove(link: Command): void {
  link
    .command('rm')
    .alias('remove')
    .alias('del')
    .summary('Take links away')
    .argument('<links...>', 'names, or an end of each: web:eth1')
    .action(async (references: string[]) => {
      await reconcileFirst();
      const { removeLink } = await import('../container/linking.ts');
      await forEach(references, removeLink);
    });
}

function registerSet(link: Command): void {
  link
    .command('set')
    .summary('Change MTU, rate, delay or loss of a link')
    .argument('<link>', 'its name, or one of its ends: web:eth1')
    .option('--mtu <bytes>', 'largest packet')
    .option('--rate <rate>', 'most that passes in each direction: 10mbit; none takes it away')
    .option('--delay <time>', 'how long each packet takes: 20ms, none')
    .option('--loss <percentage>', 'how many packets are lost: 1%, none')
    .action(async (reference: string, options: Pick<AddOptions, 'mtu' | 'rate' | 'delay' | 'loss'>) => {
      if (Object.keys(options).length === 0)
        throw new MinirunError('nothing to set', undefined, 'Give --mtu, --rate, --delay or --loss');
      const { parseDelay, parseLoss, parseRate } = await import('../network/shape.ts');
      const { setLink } = await import('../container/linking.ts');
      const settings = {
        mtu: mtuOf(options.mtu),
        rate: options.rate === undefined ? undefined : (parseRate(options.rate) ?? null),
        delay: options.delay === undefined ? undefined : (parseDelay(options.delay) ?? null),
        loss: options.loss === undefined ? undefined : (parseLoss(options.loss) ?? null),
      };
      await reconcileFirst();
      await setLink(reference, settings);
    });
}

function registerState(link: Command, state: 'up' | 'down'): void {
  link
    .command(state)
    .summary(state === 'up' ? 'Bring links up again' : 'Bring links down; they stay')
    .argument('<links...>', 'names for both ends, or one end: web:eth1')
    .action(async (references: string[]) => {
      await reconcileFirst();
      const { setLinkState } = await import('../container/linking.ts');
      await forEach(references, (reference) => setLinkState(reference, state === 'up'), { prints: false });
    });
}

/** `--mtu`; what is none is refused where the addresses are known. @throws MinirunError when it is no number */
function mtuOf(text: string | undefined): number | undefined {
  if (text === undefined || /^\d{1,9}$/.test(text)) return text === undefined ? undefined : Number(text);
  throw new MinirunError(`invalid --mtu "${text}"`, 'it is no number of bytes', 'Give one such as 1500');
}
