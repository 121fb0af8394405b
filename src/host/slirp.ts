import net from 'node:net';
import { MinirunError } from '../errors.ts';
import type { ForwardCommand } from './steps.ts';

/** An answer of slirp4netns: slirp4netns(1), "API socket". */
interface Answer {
  return?: { entries?: Entry[] };
  error?: { desc?: string };
}

interface Entry {
  id: number;
  proto: string;
  host_addr: string;
  host_port: number;
}

/** Has slirp4netns listen on a port of the real machine. @throws MinirunError when it cannot */
export async function addForward({ socket, protocol, hostIp, hostPort }: ForwardCommand): Promise<void> {
  const answer = await ask(socket, addRequest({ protocol, hostIp, hostPort }));
  if (answer.error === undefined) return;
  throw new MinirunError(
    `cannot publish port ${hostPort}/${protocol}`,
    hostPort < 1024
      ? 'only root may take ports below 1024 of this machine (net.ipv4.ip_unprivileged_port_start)'
      : `a process of this machine has it, or ${hostIp} is no address of this machine`,
    'Choose another port of the host',
    { code: 125 },
  );
}

/** The request as the socket takes it. */
export function addRequest({ protocol, hostIp, hostPort }: Pick<ForwardCommand, 'protocol' | 'hostIp' | 'hostPort'>) {
  return {
    execute: 'add_hostfwd',
    arguments: { proto: protocol, host_addr: hostIp, host_port: hostPort, guest_port: hostPort },
  };
}

/** Takes that back; a slirp4netns that has ended has forgotten it. */
export async function removeForward({ socket, protocol, hostIp, hostPort }: ForwardCommand): Promise<void> {
  let entries: Entry[];
  try {
    entries = (await ask(socket, { execute: 'list_hostfwd' })).return?.entries ?? [];
  } catch {
    return;
  }
  for (const { id, proto, host_addr: address, host_port: port } of entries)
    if (proto === protocol && address === hostIp && port === hostPort)
      await ask(socket, { execute: 'remove_hostfwd', arguments: { id } });
}

/** One request a connection. */
function ask(socket: string, request: object): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let text = '';
    const failed = (error: Error) =>
      reject(
        new MinirunError('cannot publish ports', `slirp4netns does not answer: ${error.message}`, 'Try again', {
          code: 125,
        }),
      );
    const connection = net.connect(socket);
    connection.on('connect', () => connection.end(JSON.stringify(request)));
    connection.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    connection.on('error', failed);
    connection.on('close', () => {
      try {
        resolve(JSON.parse(text) as Answer);
      } catch {
        failed(new Error('no answer'));
      }
    });
  });
}
