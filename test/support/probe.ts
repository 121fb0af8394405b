/**
 * Servers and clients for machines and namespaces of a fake world, as one program: `bun probe.ts`, for `Probe` below.
 *
 * Orders come one JSON object a line:
 * `{"serve": NAME, "ports": [80]}` answers NAME on these ports, TCP and UDP, IPv4 and IPv6; prints `serving`.
 * `{"listen": {"protocol", "address", "port"}}` holds a socket and answers nothing; prints `listening`.
 * `{"probe": [{"protocol", "address", "port"}…], "timeout": MS}` asks all at once; prints a JSON array of answers, null for none.
 * `{"stream": {"address", "port"}}` sends UDP from one port of its own for ever; prints `stream NAME` whenever another answers.
 * It ends when its input does.
 */
import dgram from 'node:dgram';
import net from 'node:net';
import readline from 'node:readline';
import type { Machine, Running } from './machine.ts';

export interface Target {
  protocol: 'tcp' | 'udp';
  address: string;
  port: number;
}

interface Order {
  serve?: string;
  ports?: number[];
  listen?: Target;
  probe?: Target[];
  timeout?: number;
  stream?: { address: string; port: number };
}

/** A running `probe.ts`. */
export class Probe {
  private read = 0;

  private constructor(private readonly running: Running) {}

  /** @param netns a named network namespace of the machine */
  static async start(machine: Machine, netns?: string): Promise<Probe> {
    const enter = netns === undefined ? [] : ['ip', 'netns', 'exec', netns];
    return new Probe(await machine.spawn([...enter, process.execPath, import.meta.path], { timeout: 2 ** 31 - 1 }));
  }

  async serve(name: string, ports: readonly number[]): Promise<void> {
    await this.order({ serve: name, ports: [...ports] }, 'serving\n');
  }

  async listen(target: Target): Promise<void> {
    await this.order({ listen: target }, 'listening\n');
  }

  /** What answers at each; null where nothing does. */
  async ask(targets: readonly Target[], timeout = 1500): Promise<(string | null)[]> {
    const line = await this.order({ probe: [...targets], timeout }, /\[.*\]\n/);
    return JSON.parse(line) as (string | null)[];
  }

  /** Sends UDP from one port for ever. Then `answeredBy` waits until a server has answered. */
  stream(address: string, port: number): void {
    this.running.write(`${JSON.stringify({ stream: { address, port } } satisfies Order)}\n`);
  }

  async answeredBy(name: string): Promise<void> {
    this.read = await this.running.waitFor(`stream ${name}\n`, { from: this.read });
  }

  async end(): Promise<void> {
    this.running.end();
    await this.running.exit;
  }

  private async order(order: Order, answer: string | RegExp): Promise<string> {
    const from = this.read;
    this.running.write(`${JSON.stringify(order)}\n`);
    this.read = await this.running.waitFor(answer, { from });
    return this.running.output().slice(from, this.read);
  }
}

const print = (line: string) => process.stdout.write(`${line}\n`);

function listenTcp(address: string, port: number, answer?: string): Promise<void> {
  const server = net.createServer((socket) => {
    socket.on('error', () => {});
    if (answer !== undefined) socket.end(answer);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, address, () => resolve());
  });
}

function listenUdp(address: string, port: number, answer?: string): Promise<void> {
  // IPv6 only: an IPv4 socket may have the same port.
  const socket = dgram.createSocket({ type: net.isIPv6(address) ? 'udp6' : 'udp4', ipv6Only: true });
  if (answer !== undefined) {
    socket.on('message', (_, { address: to, port: at }) => socket.send(answer, at, to, () => {}));
  }
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(port, address, () => {
      socket.on('error', () => {});
      resolve();
    });
  });
}

function askTcp({ address, port }: Target, timeout: number): Promise<string | null> {
  return new Promise((resolve) => {
    let text = '';
    const socket = net.connect(port, address);
    const timer = setTimeout(() => {
      socket.destroy();
      resolve(null);
    }, timeout);
    const done = () => {
      clearTimeout(timer);
      resolve(text === '' ? null : text);
    };
    socket.on('data', (chunk) => {
      text += chunk.toString();
    });
    socket.on('error', done);
    socket.on('close', done);
  });
}

function askUdp({ address, port }: Target, timeout: number): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = dgram.createSocket(net.isIPv6(address) ? 'udp6' : 'udp4');
    const send = () => socket.send('?', port, address, () => {});
    const again = setInterval(send, timeout / 4);
    const done = (answer: string | null) => {
      clearInterval(again);
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => done(null), timeout);
    socket.on('message', (message) => done(message.toString()));
    socket.on('error', () => {});
    send();
  });
}

function stream({ address, port }: { address: string; port: number }): void {
  const socket = dgram.createSocket('udp4');
  let last = '';
  socket.on('error', () => {});
  socket.on('message', (message) => {
    const name = message.toString().split(' ')[0] as string;
    if (name !== last) print(`stream ${name}`);
    last = name;
  });
  setInterval(() => socket.send('?', port, address, () => {}), 20);
}

async function obey({ serve, ports = [], listen, probe, timeout = 1500, stream: to }: Order): Promise<void> {
  if (serve !== undefined) {
    for (const port of ports) {
      await listenTcp('::', port, `${serve} ${port}`);
      await listenUdp('0.0.0.0', port, `${serve} ${port}`);
      await listenUdp('::', port, `${serve} ${port}`);
    }
    print('serving');
  }
  if (listen !== undefined) {
    await (listen.protocol === 'tcp' ? listenTcp : listenUdp)(listen.address, listen.port);
    print('listening');
  }
  if (probe !== undefined) {
    const answers = await Promise.all(
      probe.map((target) => (target.protocol === 'tcp' ? askTcp : askUdp)(target, timeout)),
    );
    print(JSON.stringify(answers));
  }
  if (to !== undefined) stream(to);
}

if (import.meta.main) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    obey(JSON.parse(line) as Order).catch((error: Error) => print(`failed: ${error.message}`));
  }
  process.exit(0);
}
