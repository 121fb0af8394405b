import { iptables, type IptablesCommand, type Step } from '../host/steps.ts';
import type { NetworkDefinition } from './definition.ts';
import type { NetworkFacts } from './facts.ts';

/** Our chains; jumped to from the built-in ones, so that other tools' rules stay as they are. */
const forward = 'MINIRUN-FORWARD';
const user = 'MINIRUN-USER';
const postrouting = 'MINIRUN-POSTROUTING';

/** Rules of one network. They name its bridge, so no other network's rules are like them. */
function rulesOf({
  bridge,
  subnet,
}: NetworkDefinition): { chain: string; table: 'filter' | 'nat'; rule: string[]; why: string }[] {
  return [
    {
      chain: forward,
      table: 'filter',
      rule: ['-o', bridge, '-m', 'conntrack', '--ctstate', 'RELATED,ESTABLISHED', '-j', 'ACCEPT'],
      why: 'Answers to what a container asked come back in.',
    },
    {
      chain: forward,
      table: 'filter',
      rule: ['-i', bridge, '-j', 'ACCEPT'],
      why: 'Whatever a container of this network sends is forwarded, also when another tool set the policy of FORWARD to DROP.',
    },
    {
      chain: postrouting,
      table: 'nat',
      rule: ['-s', subnet, '!', '-d', '224.0.0.0/4', '!', '-o', bridge, '-j', 'MASQUERADE'],
      why: "Nobody outside has a route to the containers' addresses, so what leaves carries the host's address; multicast stays as it is.",
    },
  ];
}

/** Steps that all networks share: whoever is down last undoes them (see `handOver` in `network/store.ts`). */
export const sharedSteps: ReadonlySet<string> = new Set(['forward.sysctl', 'firewall.chains']);

/** Steps that let the network's containers reach each other and the outside. */
export function planFirewall(network: NetworkDefinition, facts: Pick<NetworkFacts, 'firewall' | 'ipForward'>): Step[] {
  const present = firewallPresence(facts.firewall);
  return [
    {
      id: 'forward.sysctl',
      why: 'The kernel passes packets from one interface to another only when it is told to be a router.',
      apply: facts.ipForward ? [] : [{ tool: 'sysctl', key: 'net.ipv4.ip_forward', value: '1' }],
      undo: facts.ipForward ? [] : [{ tool: 'sysctl', key: 'net.ipv4.ip_forward', value: '0' }],
    },
    {
      id: 'firewall.chains',
      why: `Chains of our own, jumped to first. ${user} is for your rules: minirun makes it, never changes what is in it, and deletes it only when it is empty.`,
      apply: chainCommands(present),
      undo: [
        iptables('filter', '-D', 'FORWARD', '-j', forward),
        iptables('filter', '-F', forward),
        iptables('filter', '-X', forward),
        iptables('nat', '-D', 'POSTROUTING', '-j', postrouting),
        iptables('nat', '-F', postrouting),
        iptables('nat', '-X', postrouting),
        iptables('filter', '-X', user),
      ],
    },
    ...rulesOf(network).map(
      ({ chain, table, rule, why }): Step => ({
        id: `firewall.${chain === postrouting ? 'masquerade' : 'forward'}`,
        why,
        apply: present.rule(table, chain, rule) ? [] : [iptables(table, '-A', chain, ...rule)],
        undo: [iptables(table, '-D', chain, ...rule)],
      }),
    ),
  ];
}

function chainCommands(present: Presence): IptablesCommand[] {
  const commands: IptablesCommand[] = [];
  if (!present.chain(user)) commands.push(iptables('filter', '-N', user));
  if (!present.chain(forward)) commands.push(iptables('filter', '-N', forward));
  if (!present.rule('filter', forward, ['-j', user])) commands.push(iptables('filter', '-I', forward, '1', '-j', user));
  if (!present.rule('filter', 'FORWARD', ['-j', forward]))
    commands.push(iptables('filter', '-I', 'FORWARD', '1', '-j', forward));
  if (!present.chain(postrouting)) commands.push(iptables('nat', '-N', postrouting));
  if (!present.rule('nat', 'POSTROUTING', ['-j', postrouting]))
    commands.push(iptables('nat', '-A', 'POSTROUTING', '-j', postrouting));
  return commands;
}

interface Presence {
  chain(name: string): boolean;
  rule(table: string, chain: string, rule: readonly string[]): boolean;
}

/** What of ours is there already, from iptables-save's lines. Matches and their order are as iptables prints them. */
function firewallPresence(lines: readonly string[]): Presence {
  const chains = new Set<string>();
  const rules = new Set<string>();
  let table = '';
  for (const line of lines) {
    if (line.startsWith('*')) table = line.slice(1).trim();
    else if (line.startsWith(':')) chains.add(line.slice(1).split(' ')[0] as string);
    else if (line.startsWith('-A ')) rules.add(`${table} ${normalised(line.slice(3).trim().split(' '))}`);
  }
  return {
    chain: (name) => chains.has(name),
    rule: (name, chain, rule) => rules.has(`${name} ${normalised([chain, ...rule])}`),
  };
}

/** Word order differs between what is typed and what iptables-save prints; the set of words does not. */
function normalised(words: readonly string[]): string {
  return words.toSorted().join(' ');
}
