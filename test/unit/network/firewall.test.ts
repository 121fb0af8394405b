import { describe, expect, test } from 'bun:test';
import type { HostCommand, Step } from '../../../src/host/steps.ts';
import type { Network } from '../../../src/network/definition.ts';
import { familiesOf, planFirewall, planRules, sharedSteps } from '../../../src/network/firewall.ts';
import { defineNetwork, subnetOf } from '../../../src/network/store.ts';

const network = defineNetwork('lab', { subnets: [subnetOf('10.100.0.0/24')], bridge: 'mr-lab' });
const line = (command: HostCommand) =>
  command.tool === 'iptables' ? `${command.table} ${command.args.join(' ')}` : JSON.stringify(command);
const plan = (firewall: string[] = [], ipForward = true) =>
  planFirewall(network, { firewall, ipForward, firewall6: [], ipForward6: false });
const applied = (steps: readonly Step[]) => steps.flatMap((step) => step.apply.map(line));
const undone = (steps: readonly Step[]) => steps.toReversed().flatMap((step) => step.undo.map(line));
const rules = (steps: readonly Step[]) => steps.filter((step) => !sharedSteps[4].has(step.id));

/**
 * Runs commands as iptables would and prints the chains as iptables-save does.
 *
 * @param saved what was there before
 */
function iptablesSave(commands: readonly HostCommand[], saved: readonly string[] = []): string[] {
  const chains = new Map<string, string[]>();
  let table = '';
  for (const text of saved) {
    if (text.startsWith('*')) table = text.slice(1);
    if (text.startsWith(':')) chains.set(`${table} ${text.slice(1).split(' ')[0]}`, []);
    if (text.startsWith('-A ')) chains.get(`${table} ${text.split(' ')[1]}`)?.push(text.split(' ').slice(2).join(' '));
  }
  for (const builtIn of ['filter FORWARD', 'nat PREROUTING', 'nat OUTPUT', 'nat POSTROUTING', 'raw PREROUTING'])
    chains.set(builtIn, chains.get(builtIn) ?? []);
  for (const command of commands) {
    if (command.tool !== 'iptables') continue;
    const [action, chain, ...rest] = [...command.args] as [string, string, ...string[]];
    const key = `${command.table} ${chain}`;
    if (action === '-N') chains.set(key, []);
    const rules = chains.get(key);
    if (rules === undefined) throw new Error(`no chain ${key}`);
    if (action === '-A') rules.push(rest.join(' '));
    if (action === '-I') {
      const at = Number(rest[0]);
      if (at > rules.length + 1) throw new Error(`no position ${at} in ${key}`);
      rules.splice(at - 1, 0, rest.slice(1).join(' '));
    }
  }
  return ['raw', 'nat', 'filter'].flatMap((name) => {
    const own = [...chains].filter(([key]) => key.startsWith(`${name} `));
    return [
      `*${name}`,
      ...own.map(([key]) => `:${key.split(' ')[1]} - [0:0]`),
      ...own.flatMap(([key, rules]) => rules.map((rule) => `-A ${key.split(' ')[1]} ${rule}`)),
      'COMMIT',
    ];
  });
}

/** The rules of a chain in their order. */
const chainOf = (saved: readonly string[], chain: string) =>
  saved.flatMap((text) => (text.startsWith(`-A ${chain} `) ? [text.slice(`-A ${chain} `.length)] : []));

const present = iptablesSave(plan().flatMap((step) => step.apply));

describe('a firewall without anything of ours', () => {
  const steps = plan();

  test('every chain is made before it is used', () => {
    const lines = applied(steps);
    for (const chain of ['MINIRUN-USER', 'MINIRUN-FORWARD', 'MINIRUN-POSTROUTING']) {
      const table = chain === 'MINIRUN-POSTROUTING' ? 'nat' : 'filter';
      const made = lines.indexOf(`${table} -N ${chain}`);
      const used = lines.findIndex((text) => text.includes(chain) && !text.includes('-N'));
      expect(made).toBeGreaterThanOrEqual(0);
      expect(used).toBeGreaterThan(made);
    }
  });

  test("ours is asked first, and the user's chain before anything of ours", () => {
    const lines = applied(steps);
    expect(lines).toContain('filter -I FORWARD 1 -j MINIRUN-FORWARD');
    const toUser = lines.indexOf('filter -I MINIRUN-FORWARD 1 -j MINIRUN-USER');
    expect(toUser).toBeGreaterThanOrEqual(0);
    expect(toUser).toBeLessThan(lines.findIndex((text) => text.startsWith('filter -A MINIRUN-FORWARD')));
  });

  test('the order in which a packet meets the rules', () => {
    expect(chainOf(present, 'MINIRUN-FORWARD')).toEqual([
      '-j MINIRUN-USER',
      '-o mr-lab -m conntrack --ctstate DNAT -j ACCEPT',
      '-o mr-lab -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      '-j MINIRUN-ISOLATE',
      '-i mr-lab -j ACCEPT',
    ]);
    expect(chainOf(present, 'MINIRUN-ISOLATE')).toEqual(['! -i mr-lab -o mr-lab -j DROP']);
    expect(chainOf(present, 'MINIRUN-POSTROUTING')[0]).toBe(
      '-s 10.100.0.0/24 ! -d 224.0.0.0/4 ! -o mr-lab -j MASQUERADE',
    );
    expect(chainOf(present, 'MINIRUN-RAW')).toEqual(['! -i lo -d 127.0.0.0/8 -j DROP']);
  });

  test('no policy is changed, no chain of others is made, flushed or deleted', () => {
    for (const text of [...applied(steps), ...undone(steps)]) {
      expect(text).not.toContain(' -P ');
      if (/ -[NFX] /.test(text)) expect(text).toMatch(/ -[NFX] MINIRUN-/);
    }
  });

  test("the user's chain is never flushed", () => {
    expect(undone(steps)).not.toContain('filter -F MINIRUN-USER');
  });
});

describe('the undo', () => {
  test('takes back each rule word for word, jumps before the chains they lead to', () => {
    const lines = undone(plan());
    for (const text of applied(rules(plan())))
      expect(lines).toContain(text.replace(' -A ', ' -D ').replace(/ -I (\S+) 2 /, ' -D $1 '));
    const jump = lines.indexOf('filter -D FORWARD -j MINIRUN-FORWARD');
    expect(jump).toBeGreaterThanOrEqual(0);
    expect(jump).toBeLessThan(lines.indexOf('filter -X MINIRUN-FORWARD'));
    // MINIRUN-FORWARD refers to it: it can go only after that.
    expect(lines.indexOf('filter -X MINIRUN-USER')).toBeGreaterThan(lines.indexOf('filter -F MINIRUN-FORWARD'));
  });

  test('is the same whatever was there before', () => {
    expect(undone(plan(present))).toEqual(undone(plan()));
  });
});

describe('what is there already', () => {
  test('is not added a second time', () => {
    expect(applied(plan(present))).toEqual([]);
  });

  test.each(present.filter((text) => text.startsWith('-A')))('only what is missing is added: %s', (missing) => {
    const lines = applied(plan(present.filter((text) => text !== missing)));
    expect(lines).toHaveLength(1);
    expect(lines[0]?.split(' ')).toEqual(expect.arrayContaining(missing.split(' ').slice(1)));
  });

  test("another network's rules are not taken for this one's", () => {
    const other = present.map((text) => text.replaceAll('mr-lab', 'mr-lab2').replaceAll('10.100.0.0', '10.101.0.0'));
    expect(applied(plan(other))).toEqual(applied(rules(plan())));
  });

  test('a chain that lost any one rule is in order again', () => {
    const two = iptablesSave(
      planRules({ ...network, bridge: 'mr-two', isolate: false }, 4, present).flatMap((step) => step.apply),
      present,
    );
    for (const missing of two.filter((text) => text.startsWith('-A'))) {
      const left = two.filter((text) => text !== missing);
      const chain = chainOf(
        iptablesSave(
          planRules(network, 4, left).flatMap((step) => step.apply),
          left,
        ),
        'MINIRUN-FORWARD',
      );
      const isolate = chain.indexOf('-j MINIRUN-ISOLATE');
      expect(`${missing}: ${chain.indexOf('-j MINIRUN-USER')}`).toBe(`${missing}: 0`);
      for (const [index, rule] of chain.entries()) {
        if (rule.includes('ctstate')) expect(`${missing}: ${index < isolate}`).toBe(`${missing}: true`);
        if (/^-[io] \S+ -j ACCEPT$/.test(rule)) expect(`${missing}: ${index > isolate}`).toBe(`${missing}: true`);
      }
    }
  });

  test('a rule of the same words in another table does not count', () => {
    const moved = present.map((text) => (text === '*filter' ? '*mangle' : text));
    expect(applied(plan(moved))).toContain('filter -A MINIRUN-FORWARD -i mr-lab -j ACCEPT');
  });
});

test('ip_forward is switched off again only by who switched it on', () => {
  const sysctl = (ipForward: boolean) => plan([], ipForward).find((step) => step.id === 'forward.sysctl');
  expect(sysctl(true)).toMatchObject({ apply: [], undo: [] });
  expect(sysctl(false)?.apply).toEqual([{ tool: 'sysctl', key: 'net.ipv4.ip_forward', value: '1' }]);
  expect(sysctl(false)?.undo).toEqual([{ tool: 'sysctl', key: 'net.ipv4.ip_forward', value: '0' }]);
});

describe('what a network may be like', () => {
  const saved = (given: Partial<Network>, family: 4 | 6 = 4) =>
    iptablesSave(planRules({ ...network, ...given }, family, []).flatMap((step) => step.apply));
  const isolation = (given: Partial<Network>) => chainOf(saved(given), 'MINIRUN-ISOLATE');
  const nat = (given: Partial<Network>, family: 4 | 6 = 4) => chainOf(saved(given, family), 'MINIRUN-POSTROUTING');
  const masquerade = '-s 10.100.0.0/24 ! -d 224.0.0.0/4 ! -o mr-lab -j MASQUERADE';

  test('internal: nobody in, nobody out, not even to a published port', () => {
    expect(isolation({ internal: true })).toEqual(['! -i mr-lab -o mr-lab -j DROP', '-i mr-lab ! -o mr-lab -j DROP']);
    expect(nat({ internal: true })).toEqual([]);
    expect(saved({ internal: true }).join()).not.toContain('-o mr-lab -m conntrack --ctstate DNAT');
  });

  test('open to others', () => {
    expect(isolation({ isolate: false })).toEqual([]);
    expect(chainOf(saved({ isolate: false }), 'MINIRUN-FORWARD')).toContain('-o mr-lab -j ACCEPT');
  });

  test('its containers kept apart, also by way of the gateway', () => {
    expect(isolation({ icc: false })[0]).toBe('-i mr-lab -o mr-lab -j DROP');
  });

  test('without masquerading', () => {
    expect(nat({})).toContain(masquerade);
    expect(nat({ masquerade: false })).not.toContain(masquerade);
  });

  test('a route by way of the host opens just that; one by way of a container opens nothing', () => {
    const routes = [
      { destination: '10.101.0.0/24', gateway: '10.100.0.1' },
      { destination: '10.102.0.0/24', gateway: '10.100.0.7' },
      { destination: '10.100.0.128/25', gateway: '10.100.0.1' },
    ];
    const chain = chainOf(saved({ routes }), 'MINIRUN-FORWARD');
    const open = chain.indexOf('-i mr-lab -d 10.101.0.0/24 -j ACCEPT');
    expect(open).toBeGreaterThan(0);
    expect(open).toBeLessThan(chain.indexOf('-j MINIRUN-ISOLATE'));
    expect(chain.filter((rule) => rule.includes(' -d '))).toHaveLength(1);
    expect(
      chainOf(saved({ routes, internal: true }), 'MINIRUN-FORWARD').filter((rule) => rule.includes(' -d ')),
    ).toEqual([]);
  });

  test('several ranges of both families: each in its own firewall', () => {
    const subnets = ['10.100.0.0/24', '10.101.0.0/24', 'fd00:7::/64'].map((range) => subnetOf(range));
    expect(familiesOf({ subnets })).toEqual([4, 6]);
    expect(familiesOf({ subnets: subnets.slice(2) })).toEqual([6]);
    expect(nat({ subnets }).filter((rule) => rule.includes('! -o'))).toEqual([
      masquerade,
      masquerade.replace('10.100', '10.101'),
    ]);
    expect(nat({ subnets }, 6)[0]).toBe('-s fd00:7::/64 ! -d ff00::/8 ! -o mr-lab -j MASQUERADE');
    const steps = planFirewall(
      { ...network, subnets },
      { firewall: [], ipForward: true, firewall6: [], ipForward6: false },
    );
    const tools = (ids: RegExp) =>
      new Set(
        steps
          .filter(({ id }) => ids.test(id))
          .flatMap((step) => step.apply.map((each) => JSON.stringify(each).includes('"family":6'))),
      );
    expect(tools(/^firewall\./)).toEqual(new Set([false]));
    expect(tools(/^firewall6\./)).toEqual(new Set([true]));
    expect(steps.find(({ id }) => id === 'forward6.sysctl')?.apply).toEqual([
      { tool: 'sysctl', key: 'net.ipv6.conf.all.forwarding', value: '1' },
    ]);
  });

  test('a network that only IPv4 has does not touch IPv6', () => {
    expect(plan().some(({ id }) => id.includes('6'))).toBe(false);
  });
});
