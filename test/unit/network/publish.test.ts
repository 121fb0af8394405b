import { describe, expect, test } from 'bun:test';
import { commandText } from '../../../src/host/executor.ts';
import type { PublishedPort } from '../../../src/network/definition.ts';
import { planPorts } from '../../../src/network/publish.ts';

const target = { ipv4: { address: '10.90.0.2' }, ipv6: { address: 'fd00::2' }, hostIfnames: [] };

/** `0.0.0.0 8080 80 tcp` */
function port(text: string): PublishedPort {
  const [hostIp = '', hostPort, containerPort, protocol = 'tcp'] = text.split(' ');
  return {
    hostIp,
    hostPort: Number(hostPort),
    containerPort: Number(containerPort),
    protocol: protocol as PublishedPort['protocol'],
  };
}

const plan = (texts: string[], conntrack = false) => planPorts(target, texts.map(port), { conntrack });
const applied = (texts: string[], conntrack = false) =>
  plan(texts, conntrack).flatMap((step) => step.apply.map(commandText));

describe('a port is a rule', () => {
  test.each([
    ['0.0.0.0 8080 80 tcp', 'iptables', '-p tcp --dport 8080 -j DNAT --to-destination 10.90.0.2:80'],
    ['127.0.0.1 8080 80 tcp', 'iptables', '-d 127.0.0.1 -p tcp --dport 8080 -j DNAT --to-destination 10.90.0.2:80'],
    ['0.0.0.0 53 53 udp', 'iptables', '-p udp --dport 53 -j DNAT --to-destination 10.90.0.2:53'],
    ['0.0.0.0 9 9 sctp', 'iptables', '-p sctp --dport 9 -j DNAT --to-destination 10.90.0.2:9'],
    [':: 8080 80 tcp', 'ip6tables', '-p tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80'],
    ['::1 8080 80 tcp', 'ip6tables', '-d ::1 -p tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80'],
  ])('%s', (text, tool, rule) => {
    expect(applied([text])).toEqual([`${tool} -w -t nat -A MINIRUN-DNAT ${rule}`]);
  });

  test('neighbours of the same number on both sides are one', () => {
    expect(applied(['0.0.0.0 8001 8001', '0.0.0.0 8000 8000', '0.0.0.0 8002 8002', '0.0.0.0 8004 8004'])).toEqual([
      'iptables -w -t nat -A MINIRUN-DNAT -p tcp --dport 8000:8002 -j DNAT --to-destination 10.90.0.2',
      'iptables -w -t nat -A MINIRUN-DNAT -p tcp --dport 8004 -j DNAT --to-destination 10.90.0.2:8004',
    ]);
    expect(applied([':: 8000 8000', ':: 8001 8001'])).toEqual([
      'ip6tables -w -t nat -A MINIRUN-DNAT -p tcp --dport 8000:8001 -j DNAT --to-destination [fd00::2]',
    ]);
  });

  test('others are not: shifted ones, other protocols, other addresses', () => {
    expect(applied(['0.0.0.0 8000 9000', '0.0.0.0 8001 9001'])).toHaveLength(2);
    expect(applied(['0.0.0.0 8000 8000', '0.0.0.0 8001 8001 udp'])).toHaveLength(2);
    expect(applied(['0.0.0.0 8000 8000', '127.0.0.1 8001 8001'])).toHaveLength(2);
    expect(applied(['0.0.0.0 8000 80', '0.0.0.0 8001 8001', '0.0.0.0 8002 8002'])).toEqual([
      'iptables -w -t nat -A MINIRUN-DNAT -p tcp --dport 8000 -j DNAT --to-destination 10.90.0.2:80',
      'iptables -w -t nat -A MINIRUN-DNAT -p tcp --dport 8001:8002 -j DNAT --to-destination 10.90.0.2',
    ]);
  });

  test('none for a family that the container does not have', () => {
    const only4 = { ipv4: { address: '10.90.0.2' }, hostIfnames: [] };
    expect(planPorts(only4, [port(':: 80 80')], { conntrack: true })).toEqual([]);
  });

  test("a container's ports on bridges send back what it sends to itself", () => {
    const steps = planPorts({ ...target, hostIfnames: ['mr1', 'mr2'] }, [port('0.0.0.0 80 80')], { conntrack: false });
    expect(steps.flatMap((step) => step.apply.map(commandText)).slice(0, 2)).toEqual([
      'ip link set mr1 type bridge_slave hairpin on',
      'ip link set mr2 type bridge_slave hairpin on',
    ]);
  });

  test('the undo deletes that rule', () => {
    for (const step of plan(['0.0.0.0 8080 80', '127.0.0.1 53 53 udp', ':: 1 1', ':: 2 2'], true)) {
      const texts = step.apply.map(commandText).map((text) => text.replace(' -A ', ' -D '));
      expect(step.undo.map(commandText)).toEqual(texts);
    }
  });
});

describe('flows of UDP that are known already', () => {
  test('are forgotten after the rule is there, and after it is gone', () => {
    const [step] = plan(['0.0.0.0 53 53 udp'], true);
    const forget = 'conntrack -D -p udp --dport 53 >/dev/null 2>&1 || :';
    expect(step?.apply.at(-1)).toEqual({ tool: 'run', argv: ['sh', '-c', forget], lane: 'firewall' });
    expect(step?.undo.map((command) => command.tool)).toEqual(['iptables', 'run']);
    expect(step?.why).toContain('forget');
  });

  test('of that address and family only; a range in one process', () => {
    const scripts = (text: string[]) =>
      plan(text, true).flatMap((step) =>
        step.apply.flatMap((command) => (command.tool === 'run' ? [command.argv[2]?.split(' >')[0]] : [])),
      );
    expect(scripts(['127.0.0.1 53 53 udp'])).toEqual(['conntrack -D -p udp -d 127.0.0.1 --dport 53']);
    expect(scripts([':: 53 53 sctp'])).toEqual(['conntrack -D -f ipv6 -p sctp --dport 53']);
    expect(scripts(['0.0.0.0 53 53 udp', '0.0.0.0 54 54 udp'])).toEqual([
      'for port in $(seq 53 54); do conntrack -D -p udp --dport $port',
    ]);
  });

  test('are left alone for TCP, and where the tool is missing', () => {
    expect(applied(['0.0.0.0 80 80 tcp'], true)).toHaveLength(1);
    expect(applied(['0.0.0.0 80 80 udp'], false)).toHaveLength(1);
  });
});
