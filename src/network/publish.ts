import { ip6tables, iptables, type RunCommand, type Step } from '../host/steps.ts';
import type { PublishedPort } from './definition.ts';
import { isAnyAddress, isIpv6, joinHostPort } from './ports.ts';

/** The chain of table nat that packets to an address of the host go through; made and jumped to by the network's firewall. */
const chain = 'MINIRUN-DNAT';

/** What of a container's place in a network its published ports lead to. */
interface Target {
  network: string;
  bridge: string;
  ipv4?: { address: string };
  ipv6?: { address: string };
}

/** Neighbouring ports of the host that keep their number inside: they are one rule. Or a single port. */
interface Range {
  protocol: PublishedPort['protocol'];
  hostIp: string;
  first: number;
  last: number;
  containerPort: number;
}

/**
 * Steps that lead ports of the host to a container: a rule each, or for a range of ports that are the same on both sides.
 *
 * Other ranges get a rule for each port. iptables has a form for them (`--to-destination A:9000-9002/8000`, taken by nft and
 * legacy alike), but the kernel then looks for another port of the range when a client's own port is in use already:
 * that would be another service.
 *
 * @param facts.conntrack whether the host has that tool
 */
export function planPorts(target: Target, ports: readonly PublishedPort[], facts: { conntrack: boolean }): Step[] {
  return rangesOf(ports).flatMap((range): Step[] => {
    const { protocol, hostIp, first, last, containerPort } = range;
    const six = isIpv6(hostIp);
    const address = (six ? target.ipv6 : target.ipv4)?.address;
    if (address === undefined) return [];
    const command = six ? ip6tables : iptables;
    const destination = first !== last ? (six ? `[${address}]` : address) : joinHostPort(address, containerPort);
    const rule = [
      ...(isAnyAddress(hostIp) ? [] : ['-d', hostIp]),
      '-p',
      protocol,
      '--dport',
      first === last ? String(first) : `${first}:${last}`,
      '-j',
      'DNAT',
      '--to-destination',
      destination,
    ];
    const forget = facts.conntrack && protocol !== 'tcp' ? [forgetFlows(range)] : [];
    return [
      {
        id: 'port.publish',
        why: whyOf(range, destination, forget.length > 0),
        apply: [command('nat', '-A', chain, ...rule), ...forget],
        undo: [command('nat', '-D', chain, ...rule), ...forget],
      },
    ];
  });
}

function whyOf({ protocol, hostIp, first, last }: Range, destination: string, forgets: boolean): string {
  const ports = first === last ? `Port ${first}/${protocol}` : `Ports ${first}-${last}/${protocol}`;
  const where = isAnyAddress(hostIp) ? 'the host' : hostIp;
  const rule = `${ports} of ${where} leads to the container: what arrives there gets ${destination} as its destination (DNAT).`;
  return forgets
    ? `${rule} ${protocol.toUpperCase()} has no end of a connection, so the kernel is told to forget those to that port: it would go on sending them where they went before.`
    : rule;
}

/**
 * The rules are asked about the first packet of a connection only; the rest goes where that went. conntrack exits with 1
 * when there was nothing to forget.
 */
function forgetFlows({ protocol, hostIp, first, last }: Range): RunCommand {
  const family = isIpv6(hostIp) ? ' -f ipv6' : '';
  const where = isAnyAddress(hostIp) ? '' : ` -d ${hostIp}`;
  const forget = (port: string) => `conntrack -D${family} -p ${protocol}${where} --dport ${port} >/dev/null 2>&1 || :`;
  const script =
    first === last ? forget(String(first)) : `for port in $(seq ${first} ${last}); do ${forget('$port')}; done`;
  return { tool: 'run', argv: ['sh', '-c', script], lane: 'firewall' };
}

function rangesOf(ports: readonly PublishedPort[]): Range[] {
  const ranges: Range[] = [];
  const order = (port: PublishedPort) => `${port.protocol} ${port.hostIp}`;
  const sorted = ports.toSorted((a, b) =>
    order(a) < order(b) ? -1 : order(a) > order(b) ? 1 : a.hostPort - b.hostPort,
  );
  for (const { protocol, hostIp, hostPort, containerPort } of sorted) {
    const before = ranges.at(-1);
    const same = hostPort === containerPort && before?.protocol === protocol && before.hostIp === hostIp;
    if (same && before.first === before.containerPort && before.last === hostPort - 1) before.last = hostPort;
    else ranges.push({ protocol, hostIp, first: hostPort, last: hostPort, containerPort });
  }
  return ranges;
}
