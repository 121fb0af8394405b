import { expect, test } from 'bun:test';
import { strayPorts, strayRules } from '../../../src/network/audit.ts';
import { defineNetwork } from '../../../src/network/store.ts';
import type { KernelInterface } from '../../../src/network/interfaces.ts';
import { iptables } from '../../../src/host/steps.ts';

const lab = {
  ...defineNetwork('lab', { subnets: [{ subnet: '10.77.0.0/24', gateway: '10.77.0.1' }] }),
  bridge: 'mr-lab',
};
const up = { ...lab, up: true };

const saved = (...rules: string[]) => ({ 4: ['*filter', ...rules], 6: [] });
const nat = (...rules: string[]) => ({ 4: ['*nat', ...rules], 6: [] });
const texts = (...args: Parameters<typeof strayRules>) => strayRules(...args).map(({ text }) => text);

test('rules of a network that is down are for nobody, unless somebody is at it', () => {
  const rules = saved('-A MINIRUN-FORWARD -i mr-lab -j ACCEPT');
  expect(texts(rules, [lab], [], [])).toEqual(['iptables -t filter MINIRUN-FORWARD -i mr-lab -j ACCEPT']);
  expect(texts(rules, [up], [], [])).toEqual([]);
  expect(texts(rules, [{ ...lab, claim: { pid: 1, start: 1 } }], [], [])).toEqual([]);
  expect(texts(rules, [{ ...lab, leases: { '10.77.0.2': 'a' } }], [], [])).toEqual([]);
});

test('a rule that is there twice is taken away once', () => {
  const rule = '-A MINIRUN-FORWARD -i mr-lab -j ACCEPT';
  const stray = strayRules(saved(rule, rule), [up], [], []);
  expect(stray.map(({ step }) => step.apply)).toEqual([
    [iptables('filter', '-D', 'MINIRUN-FORWARD', '-i', 'mr-lab', '-j', 'ACCEPT')],
  ]);
});

test('what is of others stays: other bridges, other chains, the chain of the user', () => {
  const rules = saved(
    '-A MINIRUN-FORWARD -i mr-other -j ACCEPT',
    '-A MINIRUN-FORWARD -i mr-other -j ACCEPT',
    '-A FORWARD -i mr-lab -j ACCEPT',
    '-A MINIRUN-USER -i mr-lab -j ACCEPT',
    '-A MINIRUN-FORWARD -j MINIRUN-USER',
  );
  expect(texts(rules, [lab], [], [])).toEqual([]);
  expect(texts(saved('-A MINIRUN-FORWARD -i mr-other -j ACCEPT'), [lab], [], ['mr-other'])).toHaveLength(1);
});

test('a published port that leads to an address of ours is somebody’s, or nobody’s', () => {
  const rule = '-p tcp -m tcp --dport 80 -j DNAT --to-destination';
  const published = [
    {
      id: 'port.publish',
      why: '',
      apply: [
        iptables('nat', '-A', 'MINIRUN-DNAT', ...'-p tcp --dport 80 -j DNAT --to-destination 10.77.0.2:80'.split(' ')),
      ],
      undo: [],
    },
  ];
  expect(texts(nat(`-A MINIRUN-DNAT ${rule} 10.77.0.2:80`), [up], published, [])).toEqual([]);
  expect(texts(nat(`-A MINIRUN-DNAT ${rule} 10.77.0.3:80`), [up], published, [])).toHaveLength(1);
  expect(texts(nat(`-A MINIRUN-DNAT ${rule} 10.78.0.3:80`), [up], published, [])).toEqual([]);
});

test('a port of a bridge of ours without a lease is left over; another interface never is', () => {
  const port = (ifname: string, master?: string, kind = 'veth'): KernelInterface =>
    ({ ifname, master, linkinfo: { info_kind: kind }, addr_info: [] }) as unknown as KernelInterface;
  const interfaces = [
    port('mr0a4d0002', 'mr-lab'),
    port('mr0a4d0003', 'mr-lab'),
    port('mr0a4d0004'),
    port('mr0a4d0005', 'br0'),
    port('veth12', 'mr-lab'),
    port('mr0a4d0006', 'mr-lab', 'dummy'),
    port('mr6012345678901'.slice(0, 15), 'mr-lab'),
  ];
  expect(strayPorts(interfaces, [up], new Set(['mr0a4d0002']))).toEqual(['mr0a4d0003', 'mr6012345678901']);
});
