import { describe, expect, test } from 'bun:test';
import type { HostCommand, Step } from '../../../src/host/steps.ts';
import { planFirewall, sharedSteps } from '../../../src/network/firewall.ts';
import { defineNetwork } from '../../../src/network/store.ts';

const network = defineNetwork('lab', '10.100.0.0/24', { bridge: 'mr-lab' });
const line = (command: HostCommand) =>
  command.tool === 'iptables' ? `${command.table} ${command.args.join(' ')}` : JSON.stringify(command);
const plan = (firewall: string[] = [], ipForward = true) => planFirewall(network, { firewall, ipForward });
const applied = (steps: readonly Step[]) => steps.flatMap((step) => step.apply.map(line));
const undone = (steps: readonly Step[]) => steps.toReversed().flatMap((step) => step.undo.map(line));
const rules = (steps: readonly Step[]) => steps.filter((step) => !sharedSteps.has(step.id));

/** What iptables-save prints when the plan has been applied, in its own order of words. */
const present = `*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:MINIRUN-POSTROUTING - [0:0]
-A POSTROUTING -j MINIRUN-POSTROUTING
-A MINIRUN-POSTROUTING -s 10.100.0.0/24 ! -d 224.0.0.0/4 ! -o mr-lab -j MASQUERADE
COMMIT
*filter
:FORWARD DROP [3:212]
:MINIRUN-FORWARD - [0:0]
:MINIRUN-USER - [0:0]
-A FORWARD -j MINIRUN-FORWARD
-A MINIRUN-FORWARD -j MINIRUN-USER
-A MINIRUN-FORWARD -o mr-lab -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A MINIRUN-FORWARD -i mr-lab -j ACCEPT
COMMIT`.split('\n');

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

  test('both directions are accepted, and what leaves the bridge is masqueraded, multicast excepted', () => {
    expect(applied(rules(steps))).toEqual([
      'filter -A MINIRUN-FORWARD -o mr-lab -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      'filter -A MINIRUN-FORWARD -i mr-lab -j ACCEPT',
      'nat -A MINIRUN-POSTROUTING -s 10.100.0.0/24 ! -d 224.0.0.0/4 ! -o mr-lab -j MASQUERADE',
    ]);
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
    for (const text of applied(rules(plan()))) expect(lines).toContain(text.replace(' -A ', ' -D '));
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
    expect(applied(plan(other))).toHaveLength(3);
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
