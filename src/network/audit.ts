import { ip6tables, iptables, type Step, type Table } from '../host/steps.ts';
import { contains, type Family, parseSubnet, readAddress, readCidr } from './address.ts';
import type { Network } from './definition.ts';
import { familiesOf, normalisedRule, planRules } from './firewall.ts';
import type { KernelInterface } from './interfaces.ts';

/**
 * What of minirun's is in the kernel and in the firewall, compared with what is on record. Pure: `container/audit.ts` reads both.
 */

/** A rule as iptables-save prints it. */
interface SavedRule {
  family: Family;
  table: Table;
  chain: string;
  words: string[];
}

function savedRules(family: Family, lines: readonly string[]): SavedRule[] {
  const rules: SavedRule[] = [];
  let table = '';
  for (const line of lines) {
    if (line.startsWith('*')) table = line.slice(1).trim();
    if (!line.startsWith('-A ')) continue;
    const [chain = '', ...words] = line.slice(3).trim().split(' ');
    rules.push({ family, table: table as Table, chain, words });
  }
  return rules;
}

/** In our own chains, but that of the user. */
function isOurs({ chain }: SavedRule): boolean {
  return chain.startsWith('MINIRUN-') && chain !== 'MINIRUN-USER';
}

function keyOf({ family, table, chain, words }: SavedRule): string {
  return `${family} ${table} ${normalisedRule([chain, ...words])}`;
}

/** A rule that nobody needs, and the step that takes it away. */
export interface StrayRule {
  /** As iptables prints it. */
  text: string;
  step: Step;
}

/**
 * Rules in our chains that are about these networks and stand for nothing: of a network that is down, of a port that is
 * not published any more or leads elsewhere now, or a second time. Rules of bridges that are none of these networks' may be
 * those of another state directory, and are left alone.
 *
 * @param published the steps of all ports that are published
 * @param gone bridges of networks of which nothing else is known any more
 */
export function strayRules(
  saved: Readonly<Record<Family, readonly string[]>>,
  networks: readonly Network[],
  published: readonly Step[],
  gone: readonly string[],
): StrayRule[] {
  const bridged = networks.filter(({ driver }) => driver === 'bridge');
  const atRest = bridged.filter(
    ({ up, claim, leases }) => !up && claim === undefined && Object.keys(leases).length === 0,
  );
  const down = new Set([...atRest.map(({ bridge }) => bridge), ...gone]);
  const known = new Set([...bridged.map(({ bridge }) => bridge), ...gone]);
  const ranges = bridged.flatMap(({ subnets }) => subnets.map(({ subnet }) => parseSubnet(subnet)));
  const wanted = new Set(
    published.flatMap(({ apply }) =>
      apply.flatMap((command) =>
        command.tool === 'iptables'
          ? [`${command.family ?? 4} ${command.table} ${normalisedRule(command.args.slice(1))}`]
          : [],
      ),
    ),
  );
  const seen = new Set<string>();
  const stray: StrayRule[] = [];
  for (const family of [4, 6] as const) {
    for (const rule of savedRules(family, saved[family]).filter(isOurs)) {
      const key = keyOf(rule);
      const bridges = rule.words.filter((_, index) => /^-[io]$/.test(rule.words[index - 1] ?? ''));
      const target = destinationOf(rule);
      const ownTarget =
        target !== undefined && ranges.some((range) => range.family === family && contains(range, target));
      const isOwn = ownTarget || bridges.some((bridge) => known.has(bridge));
      const isTwice = isOwn && seen.has(key);
      seen.add(key);
      if (isTwice || (ownTarget && !wanted.has(key)) || bridges.some((bridge) => down.has(bridge)))
        stray.push(strayRule(rule, isTwice));
    }
  }
  return stray;
}

/** Where a rule of a published port leads. */
function destinationOf({ chain, words }: SavedRule): ReturnType<typeof readAddress> {
  const target = words[words.indexOf('--to-destination') + 1];
  if (chain !== 'MINIRUN-DNAT' || target === undefined) return undefined;
  return readAddress(/^\[(.*)\]/.exec(target)?.[1] ?? target.replace(/:\d+$/, ''));
}

function strayRule({ family, table, chain, words }: SavedRule, isTwice: boolean): StrayRule {
  const command = (family === 6 ? ip6tables : iptables)(table, '-D', chain, ...words);
  return {
    text: `${family === 6 ? 'ip6tables' : 'iptables'} -t ${table} ${chain} ${words.join(' ')}${isTwice ? ' (twice)' : ''}`,
    step: { id: 'audit.rule', why: 'Nobody needs this rule any more.', apply: [command], undo: [] },
  };
}

/** How many rules and chains a network that is up lacks. */
export function missingRuleCount(network: Network, saved: Readonly<Record<Family, readonly string[]>>): number {
  return familiesOf(network).flatMap((family) =>
    planRules(network, family, saved[family]).flatMap(({ apply }) => apply),
  ).length;
}

/** The bridge's addresses that a network should have and the kernel has not, in CIDR form. */
export function missingGateways(network: Network, bridge: KernelInterface): string[] {
  if (!network.hostAddress) return [];
  return network.subnets.flatMap(({ subnet, gateway }) => {
    const wanted = `${gateway}/${parseSubnet(subnet).prefixLength}`;
    return hasAddress(bridge, wanted) ? [] : [wanted];
  });
}

/** Whether an interface has an address in CIDR form, however it is written. */
export function hasAddress({ addr_info: list }: KernelInterface, cidr: string): boolean {
  const wanted = readCidr(cidr);
  return list.some(({ local, prefixlen }) => {
    const address = readAddress(local);
    return (
      wanted !== undefined &&
      address?.family === wanted.address.family &&
      address.value === wanted.address.value &&
      prefixlen === wanted.prefixLength
    );
  });
}

/**
 * Host ends of veth pairs that are of these networks for certain (named as only minirun names them, and plugged into one of
 * their bridges), and whose container is gone.
 *
 * @param held the names that go with the addresses that are leased
 */
export function strayPorts(
  interfaces: readonly KernelInterface[],
  networks: readonly Network[],
  held: ReadonlySet<string>,
): string[] {
  const bridges = new Set(networks.flatMap(({ driver, bridge }) => (driver === 'bridge' ? [bridge] : [])));
  return interfaces.flatMap(({ ifname, master, linkinfo }) =>
    linkinfo?.info_kind === 'veth' &&
    /^mr([0-9a-f]{8}|6[0-9a-f]{12})$/.test(ifname) &&
    !held.has(ifname) &&
    master !== undefined &&
    bridges.has(master)
      ? [ifname]
      : [],
  );
}
