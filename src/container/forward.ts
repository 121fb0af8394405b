import { MinirunError } from '../errors.ts';
import { smallMachine } from '../host/machine.ts';
import type { Step } from '../host/steps.ts';
import type { PublishedPort } from '../network/definition.ts';
import { isIpv6, type PortRequest } from '../network/ports.ts';

/**
 * The same ports for the rules of a machine in small: whatever address of the real machine they are of, they come in at the
 * one address that slirp4netns has inside. It has no IPv6 for this.
 */
export function portsInside(ports: readonly PublishedPort[]): PublishedPort[] {
  const seen = new Set<string>();
  return ports.flatMap((port) => {
    const key = `${port.protocol} ${port.hostPort}`;
    if (isIpv6(port.hostIp) || seen.has(key)) return [];
    seen.add(key);
    return [{ ...port, hostIp: '0.0.0.0' }];
  });
}

/** Steps that lead ports of the real machine to those of the machine in small; none where this is the real one. Pure. */
export function planForwards(ports: readonly PublishedPort[], socket: string | undefined): Step[] {
  if (socket === undefined) return [];
  return ports.flatMap(({ protocol, hostIp, hostPort }): Step[] => {
    if (isIpv6(hostIp) || protocol === 'sctp') return [];
    const command = { tool: 'forward' as const, socket, protocol, hostIp, hostPort };
    return [
      {
        id: 'port.forward',
        why: `slirp4netns, which runs outside as an ordinary process, listens on port ${hostPort}/${protocol} of ${hostIp} and passes on what comes.`,
        apply: [command],
        undo: [{ ...command, remove: true }],
      },
    ];
  });
}

/**
 * Refuses what cannot be published from a machine in small, before any effect. The addresses of the real machine are not
 * to be seen from there: slirp4netns will say.
 *
 * @returns false on the real machine, where nothing is refused
 * @throws MinirunError (125)
 */
export function checkForwardable(requests: readonly PortRequest[]): boolean {
  const machine = smallMachine();
  if (machine === undefined) return false;
  const refuse = (why: string, remedy: string) =>
    new MinirunError('cannot publish ports without root', why, remedy, { code: 125 });
  if (machine.portSocket === undefined)
    throw refuse(
      'it takes slirp4netns, which was not here (or the state directory has too long a path) when the first container started',
      'Install it as root (apt-get install slirp4netns), end all containers, and try again',
    );
  for (const { protocol, hostIp } of requests) {
    if (protocol === 'sctp') throw refuse('slirp4netns has no SCTP', 'Publish TCP or UDP ports only');
    if (hostIp !== undefined && isIpv6(hostIp))
      throw refuse('slirp4netns listens on IPv4 only', 'Give an IPv4 address');
  }
  return true;
}
