import { ip6tables, iptables, type IptablesCommand, type Step, type Table } from '../host/steps.ts';
import { encloses, type Family, parseDestination, parseSubnet } from './address.ts';
import type { NetworkDefinition } from './definition.ts';
import type { NetworkFacts } from './facts.ts';

/** Our chains; jumped to from the built-in ones, so that other tools' rules stay as they are. */
const forward = 'MINIRUN-FORWARD';
const isolate = 'MINIRUN-ISOLATE';
const user = 'MINIRUN-USER';
const postrouting = 'MINIRUN-POSTROUTING';
const raw = 'MINIRUN-RAW';
/** Where published ports are: `network/publish.ts` fills it. */
export const dnat = 'MINIRUN-DNAT';

interface Rule {
  table: Table;
  chain: string;
  rule: string[];
  why: string;
  id: string;
  /** Before the others of its chain, right behind the jump to the user's: what is accepted in any case. */
  first?: true;
}

/** Whether the host can lead somebody outside into a network. */
export function isOpenOutwards({ driver, internal, hostAddress }: NetworkDefinition): boolean {
  return driver === 'bridge' && !internal && hostAddress;
}

/** The families that a network has addresses of, IPv4 first. */
export function familiesOf({ subnets }: Pick<NetworkDefinition, 'subnets'>): Family[] {
  const found = new Set(subnets.map(({ subnet }) => parseSubnet(subnet).family));
  return ([4, 6] as const).filter((family) => found.has(family));
}

/** Rules of one network for one family. They name its bridge, so no other network's rules are like them. */
function rulesOf(network: NetworkDefinition, family: Family): Rule[] {
  const { bridge, internal, isolate: closed, icc, masquerade } = network;
  const subnets = network.subnets.filter(({ subnet }) => parseSubnet(subnet).family === family);
  const multicast = family === 4 ? '224.0.0.0/4' : 'ff00::/8';
  const filter = (chain: string, rule: string[], why: string, first?: true): Rule => ({
    id: chain === isolate ? 'firewall.isolate' : 'firewall.forward',
    table: 'filter',
    chain,
    rule,
    why,
    ...(first === undefined ? {} : { first }),
  });
  const nat = (rule: string[], why: string): Rule => ({
    id: 'firewall.masquerade',
    table: 'nat',
    chain: postrouting,
    rule,
    why,
  });
  return [
    filter(
      forward,
      ['-o', bridge, '-m', 'conntrack', '--ctstate', 'RELATED,ESTABLISHED', '-j', 'ACCEPT'],
      'Answers to what a container asked come back in.',
      true,
    ),
    ...(internal
      ? []
      : [
          filter(
            forward,
            ['-o', bridge, '-m', 'conntrack', '--ctstate', 'DNAT', '-j', 'ACCEPT'],
            'What was sent to a published port of the host comes in, from wherever it may be.',
            true as const,
          ),
        ]),
    ...(internal ? [] : opened(network, family)).map((destination) =>
      filter(
        forward,
        ['-i', bridge, '-d', destination, '-j', 'ACCEPT'],
        `The network has a route to ${destination} by way of the host.`,
        true,
      ),
    ),
    ...(icc
      ? []
      : [
          filter(
            isolate,
            ['-i', bridge, '-o', bridge, '-j', 'DROP'],
            'This network keeps its containers apart, also by way of the gateway.',
          ),
        ]),
    ...(internal
      ? [
          filter(isolate, ['!', '-i', bridge, '-o', bridge, '-j', 'DROP'], 'An internal network lets nobody in.'),
          filter(isolate, ['-i', bridge, '!', '-o', bridge, '-j', 'DROP'], 'And nobody out.'),
        ]
      : closed
        ? [
            filter(
              isolate,
              ['!', '-i', bridge, '-o', bridge, '-j', 'DROP'],
              'Nobody else gets in: neither other networks nor machines that route through this one.',
            ),
          ]
        : [filter(forward, ['-o', bridge, '-j', 'ACCEPT'], 'This network is open: who has a route to it may use it.')]),
    filter(
      forward,
      ['-i', bridge, '-j', 'ACCEPT'],
      'Whatever a container of this network sends is forwarded, also when another tool set the policy of FORWARD to DROP.',
    ),
    ...(masquerade && !internal
      ? subnets.map(({ subnet }) =>
          nat(
            ['-s', subnet, '!', '-d', multicast, '!', '-o', bridge, '-j', 'MASQUERADE'],
            "Nobody outside has a route to the containers' addresses, so what leaves carries the host's address; multicast stays as it is.",
          ),
        )
      : []),
    ...(internal || !network.hostAddress
      ? []
      : [
          ...subnets.map(({ subnet }) =>
            nat(
              ['-s', subnet, '-o', bridge, '-m', 'conntrack', '--ctstate', 'DNAT', '-j', 'MASQUERADE'],
              'A container that uses a published port of its own network must get the answer through the host, not around it.',
            ),
          ),
          nat(
            ['-s', family === 4 ? '127.0.0.0/8' : '::1/128', '-o', bridge, '-j', 'MASQUERADE'],
            "What the host sends to its own loopback and a published port there leads to a container, carries the bridge's address.",
          ),
        ]),
  ];
}

/** Destinations beyond the host that the network's own routes lead to by way of the host. */
function opened({ routes, subnets }: NetworkDefinition, family: Family): string[] {
  return routes.flatMap(({ destination, gateway }) => {
    const range = parseDestination(destination);
    const beyond =
      subnets.some((each) => each.gateway === gateway) &&
      !subnets.some(({ subnet }) => encloses(parseSubnet(subnet), range));
    return beyond && range.family === family ? [destination] : [];
  });
}

/**
 * Steps that all networks with addresses of a family share: whichever is down last undoes them (see `handOver` in
 * `network/lifecycle.ts`).
 */
export const sharedSteps: Record<Family, ReadonlySet<string>> = {
  4: new Set(['forward.sysctl', 'firewall.chains']),
  6: new Set(['forward6.sysctl', 'firewall6.chains']),
};

/** Steps that let the network's containers reach each other and the outside, and keep others out. */
export function planFirewall(
  network: NetworkDefinition,
  facts: Pick<NetworkFacts, 'firewall' | 'ipForward' | 'firewall6' | 'ipForward6'>,
): Step[] {
  return familiesOf(network).flatMap((family) => [
    planForwarding(family, family === 4 ? facts.ipForward : facts.ipForward6),
    ...planRules(network, family, family === 4 ? facts.firewall : facts.firewall6),
  ]);
}

/** The step that makes the host pass packets of a family on. @param on whether it does already */
export function planForwarding(family: Family, on: boolean): Step {
  const key = family === 4 ? 'net.ipv4.ip_forward' : 'net.ipv6.conf.all.forwarding';
  return {
    id: family === 4 ? 'forward.sysctl' : 'forward6.sysctl',
    why: 'The kernel passes packets from one interface to another only when it is told to be a router.',
    apply: on ? [] : [{ tool: 'sysctl', key, value: '1' }],
    undo: on ? [] : [{ tool: 'sysctl', key, value: '0' }],
  };
}

/** The chains and the rules of one family. What `saved` (of iptables-save) has already is not made again. */
export function planRules(network: NetworkDefinition, family: Family, saved: readonly string[]): Step[] {
  const present = firewallPresence(saved);
  const tables = family === 4 ? iptables : ip6tables;
  return [
    {
      id: family === 4 ? 'firewall.chains' : 'firewall6.chains',
      why: `Chains of our own, jumped to first. ${user} is for your rules: minirun makes it, never changes what is in it, and deletes it only when it is empty.${family === 4 ? ' Nothing that comes from elsewhere may name the loopback addresses of this host.' : ''}`,
      apply: chainCommands(present, family),
      undo: [
        tables('filter', '-D', 'FORWARD', '-j', forward),
        tables('filter', '-F', forward),
        tables('filter', '-X', forward),
        tables('filter', '-F', isolate),
        tables('filter', '-X', isolate),
        tables('nat', '-D', 'POSTROUTING', '-j', postrouting),
        tables('nat', '-F', postrouting),
        tables('nat', '-X', postrouting),
        ...dnatJumps.map(([from, rule]) => tables('nat', '-D', from, ...rule)),
        tables('nat', '-F', dnat),
        tables('nat', '-X', dnat),
        ...(family === 4
          ? [tables('raw', '-D', 'PREROUTING', '-j', raw), tables('raw', '-F', raw), tables('raw', '-X', raw)]
          : []),
        tables('filter', '-X', user),
      ],
    },
    ...rulesOf(network, family).map(
      ({ id, chain, table, rule, why, first }): Step => ({
        id: family === 4 ? id : id.replace('firewall', 'firewall6'),
        why,
        apply: present.rule(table, chain, rule)
          ? []
          : [first === undefined ? tables(table, '-A', chain, ...rule) : tables(table, '-I', chain, '2', ...rule)],
        undo: [tables(table, '-D', chain, ...rule)],
      }),
    ),
  ];
}

/** Where packets to an address of the host are looked at: on their way in, and when the host itself sends them. */
const dnatJumps: [string, string[]][] = ['PREROUTING', 'OUTPUT'].map((from) => [
  from,
  ['-m', 'addrtype', '--dst-type', 'LOCAL', '-j', dnat],
]);

function chainCommands(present: Presence, family: Family): IptablesCommand[] {
  const commands: IptablesCommand[] = [];
  const tables = family === 4 ? iptables : ip6tables;
  const chain = (table: Table, name: string) => {
    if (!present.chain(table, name)) commands.push(tables(table, '-N', name));
  };
  const rule = (table: Table, at: 'append' | number, from: string, words: string[]) => {
    if (present.rule(table, from, words)) return;
    commands.push(
      at === 'append' ? tables(table, '-A', from, ...words) : tables(table, '-I', from, String(at), ...words),
    );
  };
  for (const name of [user, isolate, forward]) chain('filter', name);
  // Where somebody has deleted only this one: behind what is accepted in any case, before what is accepted otherwise.
  rule('filter', present.position('filter', forward, isPlainAccept), forward, ['-j', isolate]);
  rule('filter', 1, forward, ['-j', user]);
  rule('filter', 1, 'FORWARD', ['-j', forward]);
  for (const name of [postrouting, dnat]) chain('nat', name);
  rule('nat', 'append', 'POSTROUTING', ['-j', postrouting]);
  for (const [from, words] of dnatJumps) rule('nat', 'append', from, words);
  if (family === 4) {
    chain('raw', raw);
    rule('raw', 'append', raw, ['!', '-i', 'lo', '-d', '127.0.0.0/8', '-j', 'DROP']);
    rule('raw', 1, 'PREROUTING', ['-j', raw]);
  }
  return commands;
}

/** `-i BRIDGE -j ACCEPT` or `-o BRIDGE -j ACCEPT`: a rule that stands behind the jump to MINIRUN-ISOLATE. */
function isPlainAccept(rule: string): boolean {
  return /^-[io] \S+ -j ACCEPT$/.test(rule);
}

interface Presence {
  chain(table: Table, name: string): boolean;
  /** Place of the first rule of a chain that is like that, counted from 1; behind its last rule when none is. */
  position(table: Table, chain: string, matches: (rule: string) => boolean): number;
  rule(table: Table, chain: string, rule: readonly string[]): boolean;
}

/** What of ours is there already, from iptables-save's lines. Matches and their order are as iptables prints them. */
function firewallPresence(lines: readonly string[]): Presence {
  const chains = new Set<string>();
  const rules = new Set<string>();
  const inOrder = new Map<string, string[]>();
  let table = '';
  for (const line of lines) {
    if (line.startsWith('*')) table = line.slice(1).trim();
    else if (line.startsWith(':')) chains.add(`${table} ${line.slice(1).split(' ')[0]}`);
    else if (line.startsWith('-A ')) {
      const [chain = '', ...rule] = line.slice(3).trim().split(' ');
      rules.add(`${table} ${normalisedRule([chain, ...rule])}`);
      inOrder.set(`${table} ${chain}`, [...(inOrder.get(`${table} ${chain}`) ?? []), rule.join(' ')]);
    }
  }
  return {
    chain: (name, chain) => chains.has(`${name} ${chain}`),
    position: (name, chain, matches) => {
      const all = inOrder.get(`${name} ${chain}`) ?? [];
      const index = all.findIndex(matches);
      return index < 0 ? all.length + 1 : index + 1;
    },
    rule: (name, chain, rule) => rules.has(`${name} ${normalisedRule([chain, ...rule])}`),
  };
}

/**
 * Word order differs between what is typed and what iptables-save prints; the set of words does not, but for what it adds:
 * the match that `-p` implies, and the length of a whole address.
 */
export function normalisedRule(words: readonly string[]): string {
  const implied = (word: string, index: number) =>
    (word === '-m' && protocols.has(words[index + 1] ?? '')) || (words[index - 1] === '-m' && protocols.has(word));
  return words
    .filter((word, index) => !implied(word, index))
    .map((word) => word.replace(/\/(32|128)$/, ''))
    .toSorted()
    .join(' ');
}

const protocols = new Set(['tcp', 'udp', 'sctp']);

/** Of steps that add rules, what is not there yet. */
export function missingRules(steps: readonly Step[], saved: Record<Family, readonly string[]>): Step[] {
  const present = { 4: firewallPresence(saved[4]), 6: firewallPresence(saved[6]) };
  const isThere = ({ family, table, args }: IptablesCommand) =>
    present[family ?? 4].rule(table, args[1] as string, args.slice(2));
  return steps.filter(({ apply }) => !apply.some((command) => command.tool === 'iptables' && isThere(command)));
}
