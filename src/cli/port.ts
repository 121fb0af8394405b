import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import type { PublishedPort } from '../network/definition.ts';
import { joinHostPort } from '../network/ports.ts';
import { reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

/** `minirun port CONTAINER [PORT[/PROTO]]` */
export function registerPort(program: Command): void {
  program
    .command('port')
    .summary('Show where a container’s ports are published')
    .description('Show on which addresses and ports of the host the ports of a running container are')
    .argument('<container>', 'name, id or beginning of an id')
    .argument('[port]', 'only this port of the container: PORT[/tcp|udp|sctp]')
    .action(async (name: string, port: string | undefined) => {
      await reconcileFirst();
      const { requireContainer } = await import('../container/store.ts');
      const { state } = requireContainer(name);
      const lines = port === undefined ? listPorts(state.ports ?? []) : findPort(state.ports ?? [], port, name);
      print(lines.map((line) => `${line}\n`).join(''));
    });
}

/** `80/tcp -> 0.0.0.0:8080`, a line for each, in docker's order. */
function listPorts(ports: readonly PublishedPort[]): string[] {
  return ports
    .map(
      ({ containerPort, protocol, hostIp, hostPort }) =>
        `${containerPort}/${protocol} -> ${joinHostPort(hostIp, hostPort)}`,
    )
    .toSorted(naturally);
}

/** @throws MinirunError when that port is not published */
function findPort(ports: readonly PublishedPort[], text: string, name: string): string[] {
  const match = /^(\d{1,5})(?:\/(\w*))?$/.exec(text);
  if (match === null || Number(match[1]) > 65535) {
    throw new MinirunError(
      `invalid port "${text}"`,
      'it is not of the form PORT[/tcp|udp|sctp]',
      `For example minirun port ${name} 80`,
    );
  }
  const protocol = (match[2] || 'tcp').toLowerCase();
  const found = ports.filter((each) => each.containerPort === Number(match[1]) && each.protocol === protocol);
  if (found.length > 0) return found.map(({ hostIp, hostPort }) => joinHostPort(hostIp, hostPort)).toSorted(naturally);
  throw new MinirunError(
    `port ${text} of container "${name}" is not published`,
    ports.length === 0 ? 'none of its ports is' : `published are ${listPorts(ports).join(', ')}`,
    'Publish it when the container is made: minirun run -p HOST:CONTAINER',
  );
}

/** Numbers by their value: 80 before 443. */
function naturally(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}
