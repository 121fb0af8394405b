import type { Writable } from 'node:stream';
import { MinirunError } from '../errors.ts';
import { missingTool } from '../host/exec.ts';
import { ownBinary, which } from '../host/launch.ts';
import { startTool, type StreamingTool } from '../host/stream.ts';
import { type Packet, type PcapHeader, PcapReader } from '../network/pcap.ts';
import { stateRoot } from '../state/paths.ts';
import { forgetCapture, noteCapture } from './captures.ts';
import { hostName, inStack, placeName, readInterfaces, requireStack, runInStack, type Stack } from './stack.ts';
import { findId } from './store.ts';

/** What `capture` takes. */
export interface CaptureRequest {
  /** `web`, `web:eth0`, `host:minirun0` */
  sources: readonly string[];
  /** In libpcap's words (pcap-filter(7)); empty for everything. */
  filter: readonly string[];
  /** Bytes that are kept of a packet; tcpdump's default when absent. */
  snapLength?: number;
  /** Packets after which it ends. */
  count?: number;
  /** Whether the interface is to take what is not for it, too. */
  promiscuous: boolean;
  direction?: string;
}

/** An interface whose packets are to be captured. */
export interface Tap {
  stack: Stack;
  ifname: string;
  /** `web:eth0` */
  name: string;
}

/** Words with which a filter begins: never taken for a container behind the first word. */
const filterWords = new Set(
  (
    'and arp broadcast carp decnet dst ether fddi gateway greater host icmp icmp6 igmp igrp inbound ip ip6 len less ' +
    'link mpls multicast net not or outbound pim port portrange pppoed pppoes proto rarp sctp src tcp tr udp vlan vrrp wlan'
  ).split(' '),
);

/**
 * Tells the interfaces from the filter: before `--` is the one, behind it the other. Without `--`, the first word is an
 * interface, and so are those after it that name a container, up to the first that does not or that begins a filter.
 *
 * @param filterLength how many of the words stand behind a `--`; undefined where there is none
 */
export function splitWords(
  words: readonly string[],
  filterLength: number | undefined,
  isContainer: (reference: string) => boolean,
): { sources: string[]; filter: string[] } {
  const isSource = (word: string) => {
    const { reference, ifname } = splitSource(word);
    if (ifname === undefined) return !filterWords.has(word) && isContainer(reference);
    return reference === hostName || isContainer(reference);
  };
  let border = 1;
  if (filterLength !== undefined) border = words.length - filterLength;
  else while (border < words.length && isSource(words[border] as string)) border++;
  return { sources: words.slice(0, border), filter: words.slice(border) };
}

/** `CONTAINER[:IF]`. A container's name has no colon, an interface's may. */
function splitSource(word: string): { reference: string; ifname?: string } {
  const colon = word.indexOf(':');
  return colon < 0 ? { reference: word } : { reference: word.slice(0, colon), ifname: word.slice(colon + 1) };
}

/** Whether there is a container of that name or id. */
export function isContainer(reference: string): boolean {
  return findId(reference) !== undefined;
}

/**
 * Finds what is to be captured, and checks all of it before anything is started or written.
 *
 * @throws MinirunError when a container, an interface or tcpdump is missing, or the filter means nothing
 */
export async function findTaps(request: CaptureRequest): Promise<Tap[]> {
  const stacks = request.sources.map((word) => {
    const { reference, ifname } = splitSource(word);
    return { stack: requireStack(reference, 'capture packets of'), ifname };
  });
  if (which('tcpdump') === undefined) throw missingTool('tcpdump');
  const taps = await Promise.all(stacks.map(async ({ stack, ifname }) => tapOf(stack, ifname)));
  const twice = taps.find((tap, index) => taps.some(({ name }, other) => name === tap.name && other < index));
  if (twice !== undefined)
    throw new MinirunError(`cannot capture on ${twice.name} twice`, 'each interface can be named once', 'Name it once');
  await Promise.all(taps.map((tap) => checkFilter(tap, request)));
  return taps;
}

async function tapOf(stack: Stack, wanted: string | undefined): Promise<Tap> {
  // Tcpdump's word for all of them.
  if (wanted === 'any') return { stack, ifname: wanted, name: placeName({ stack, ifname: wanted }) };
  const interfaces = await readInterfaces(stack);
  const found =
    wanted === undefined
      ? // Tcpdump's choice: the first that is up, and the loopback interface only where there is nothing else.
        (interfaces.find(({ isUp, isLoopback }) => isUp && !isLoopback) ?? interfaces.find(({ isUp }) => isUp))
      : interfaces.find(({ ifname }) => ifname === wanted);
  if (found?.isUp === true) return { stack, ifname: found.ifname, name: placeName({ stack, ifname: found.ifname }) };
  const there = interfaces.map(({ ifname }) => ifname).join(', ');
  if (found !== undefined)
    throw new MinirunError(
      `cannot capture on ${placeName({ stack, ifname: found.ifname })}`,
      'that interface is down',
      `Set it up: ip link set ${found.ifname} up, in its namespace`,
    );
  throw new MinirunError(
    `cannot capture on ${wanted === undefined ? stack.name : placeName({ stack, ifname: wanted })}`,
    wanted === undefined ? 'none of its interfaces is up' : `it has no interface "${wanted}"`,
    `Name one of: ${there}, any`,
  );
}

/** Lets tcpdump compile the filter for that interface: what can be said of it depends on its kind. */
async function checkFilter(tap: Tap, { filter }: CaptureRequest): Promise<void> {
  const { exitCode, stderr } = await runInStack(tap.stack, [
    'tcpdump',
    '-Z',
    'root',
    '-i',
    tap.ifname,
    '-d',
    '--',
    ...filter,
  ]);
  if (exitCode === 0) return;
  throw refusalOf(tap, stderr, filter);
}

function refusalOf(tap: Tap, stderr: string, filter: readonly string[]): MinirunError {
  const why = stderr
    .split('\n')
    .filter((line) => line.startsWith('tcpdump: '))
    .at(-1)
    ?.slice('tcpdump: '.length);
  const isFilter = filter.length > 0;
  return new MinirunError(
    isFilter ? `cannot capture "${filter.join(' ')}" on ${tap.name}` : `cannot capture on ${tap.name}`,
    why ?? 'tcpdump has ended without a word',
    isFilter ? 'See pcap-filter(7); containers come before the filter: minirun capture A B -- FILTER' : undefined,
  );
}

/** A capture that is going on. */
export interface RunningTap {
  tap: Tap;
  tool: StreamingTool;
  /** What tcpdump says when it begins: `link-type EN10MB (Ethernet), snapshot length 262144 bytes`. */
  description: string;
}

/**
 * Starts tcpdump on each interface. Each ends when its container does (`endCaptures`), or by `end`.
 *
 * @param stdout where the pcap stream goes; an open file or a pipe
 * @param endsWithThis false for captures that go on without this process
 * @returns when all of them capture
 */
export async function startTaps(
  taps: readonly Tap[],
  request: CaptureRequest,
  stdout: 'pipe' | number,
  endsWithThis: boolean,
): Promise<RunningTap[]> {
  const started = taps.map((tap) => {
    const tool = startTool(inStack(tap.stack, tcpdumpArgv(tap, request)), { stdout, endsWithThis });
    note(tap, tool);
    return { tap, tool };
  });
  try {
    return await Promise.all(
      started.map(async ({ tap, tool }) => {
        const line = await tool.line(/^tcpdump: listening on /);
        if (line === undefined) throw refusalOf(tap, tool.stderr(), request.filter);
        return { tap, tool, description: line.slice(line.indexOf(', ') + 2) };
      }),
    );
  } catch (error) {
    for (const { tool } of started) {
      tool.stdout?.resume();
      tool.end();
    }
    throw error;
  }
}

function tcpdumpArgv({ ifname }: Tap, { filter, snapLength, count, promiscuous, direction }: CaptureRequest): string[] {
  return [
    'tcpdump',
    // It only copies packets here and looks into none, so it need not become another user first, who might not be let write.
    '-Z',
    'root',
    '-i',
    ifname,
    // Each packet at once, and the file complete whenever it ends.
    '-U',
    '--immediate-mode',
    '--time-stamp-precision=nano',
    ...(snapLength === undefined ? [] : ['-s', String(snapLength)]),
    ...(count === undefined ? [] : ['-c', String(count)]),
    ...(promiscuous ? [] : ['-p']),
    ...(direction === undefined ? [] : ['-Q', direction]),
    '-w',
    '-',
    '--',
    ...filter,
  ];
}

/** Sees to it that the capture ends with its container, and with that whose network it shares. */
function note({ stack: { container } }: Tap, tool: StreamingTool): void {
  if (container === undefined) return;
  const { id, network } = container.definition;
  const ids = [id, ...(network.startsWith('container:') ? [network.slice('container:'.length)] : [])];
  for (const each of ids) if (!noteCapture(each, tool.ref)) tool.end();
  const forget = () => {
    for (const each of ids) forgetCapture(each, tool.ref);
  };
  tool.exited.then(forget, forget);
}

/** What a capture has seen, in tcpdump's words at its end; undefined when it was cut short. */
export function statisticsOf({ tool }: RunningTap): { captured: number; dropped: number } | undefined {
  const text = tool.stderr();
  const captured = /^(\d+) packets? captured$/m.exec(text)?.[1];
  const dropped = /^(\d+) packets? dropped by kernel$/m.exec(text)?.[1];
  return captured === undefined ? undefined : { captured: Number(captured), dropped: Number(dropped ?? 0) };
}

/** Milliseconds for which packets are held back, so that those of another interface which are older come first. */
const holdTime = 100;

/** Bytes of packets that are held back at most; a slow reader then slows tcpdump down. */
const holdSize = 64 * 1024 * 1024;

/** A packet and which of the captures it is from. */
export interface TappedPacket extends Packet {
  index: number;
}

/**
 * Brings the packets of several captures into the order of their times, as far as they come in time for that, and writes
 * them in a form.
 *
 * @param form makes the beginning, once all captures have told what they are, and each packet
 * @param count packets after which all captures are ended
 * @returns how many of each were written, when all captures have ended and everything is written
 */
export async function mergeTaps(
  running: readonly RunningTap[],
  form: { begin: (headers: PcapHeader[]) => Buffer; packet: (packet: TappedPacket) => Buffer },
  output: Writable,
  count = Number.POSITIVE_INFINITY,
): Promise<number[]> {
  const written = running.map(() => 0);
  const held: { packet: TappedPacket; arrived: number }[] = [];
  let heldBytes = 0;
  let left = count;
  let isBegun = false;
  const readers = running.map(() => new PcapReader());
  const end = () => {
    for (const { tool } of running) tool.end();
  };

  const write = async (isLast: boolean) => {
    if (!isBegun) {
      const headers = readers.flatMap(({ header }) => header ?? []);
      // One that has ended before it could say anything has no packets either.
      if (headers.length < running.length && !isLast) return;
      const usual: PcapHeader = headers[0] ?? { linkType: 1, snapLength: 262144 };
      isBegun = true;
      await put(output, form.begin(readers.map(({ header = usual }) => header)));
    }
    held.sort((a, b) => (a.packet.time < b.packet.time ? -1 : a.packet.time > b.packet.time ? 1 : 0));
    const now = Date.now();
    const hold = running.length > 1 && !isLast ? holdTime : 0;
    // Nothing overtakes one that still has to wait.
    const waiting = held.findIndex(({ arrived }) => now - arrived < hold);
    const due = held.splice(0, Math.min(waiting < 0 ? held.length : waiting, left));
    heldBytes -= due.reduce((sum, { packet }) => sum + packet.data.length, 0);
    left -= due.length;
    for (const { packet } of due) written[packet.index] = (written[packet.index] ?? 0) + 1;
    if (due.length > 0) await put(output, Buffer.concat(due.map(({ packet }) => form.packet(packet))));
    if (left <= 0) end();
  };
  // One at a time: they wait for the output.
  let turn = Promise.resolve();
  const takeTurn = (isLast = false) => {
    turn = turn.then(() => write(isLast));
    return turn;
  };

  const timer = running.length > 1 ? setInterval(() => void takeTurn().catch(end), holdTime / 4) : undefined;
  try {
    await Promise.all(
      running.map(async ({ tool }, index) => {
        for await (const piece of tool.stdout ?? []) {
          const packets = (readers[index] as PcapReader).push(piece as Buffer);
          const arrived = Date.now();
          for (const packet of packets) {
            held.push({ packet: { ...packet, index }, arrived });
            heldBytes += packet.data.length;
          }
          if (timer === undefined) await takeTurn();
          else
            while (heldBytes > holdSize && left > 0) await new Promise((resolve) => setTimeout(resolve, holdTime / 4));
        }
        await tool.exited;
      }),
    );
    await takeTurn(true);
  } catch (error) {
    end();
    throw error;
  } finally {
    clearInterval(timer);
  }
  return written;
}

/** Writes, and waits where the reader is slow. @throws Error EPIPE when the reader is gone */
async function put(output: Writable, data: Buffer): Promise<void> {
  if (data.length === 0) return;
  if (output.destroyed) throw Object.assign(new Error('the reader is gone'), { code: 'EPIPE' });
  await new Promise<void>((resolve, reject) => {
    output.write(data, (error) => (error == null ? resolve() : reject(error)));
  });
}

/**
 * Starts the tcpdump that turns packets into text. It reads a pcap stream and touches no network, so it may drop root's
 * powers, as it does where its package has a user for that: what takes hostile packets apart should have none.
 *
 * @param taps where the packets come from. With one, the text goes to `stdout`, and it is written in its stack, where the
 *   interfaces of `any` have their names; with several it can be read, and each packet begins with its number
 * @param options tcpdump's, about how packets are shown
 */
export function startPrinter(taps: readonly Tap[], options: readonly string[], stdout: number): StreamingTool {
  const [only, ...others] = taps;
  const argv = ['tcpdump', '-r', '-', '-n', '-l', ...options];
  return only !== undefined && others.length === 0
    ? startTool(inStack(only.stack, argv), { stdin: 'pipe', stdout, endsWithThis: false })
    : startTool([...argv, '--number'], { stdin: 'pipe', stdout: 'pipe', endsWithThis: false });
}

/**
 * Starts `minirun capture` anew, so that it goes on in the background.
 *
 * @param args its arguments
 * @returns its pid, when it captures
 */
export async function captureInBackground(args: readonly string[]): Promise<number> {
  const tool = startTool([ownBinary, '--root', stateRoot(), 'capture', ...args], {
    stdout: 'ignore',
    endsWithThis: false,
  });
  const line = await tool.line(/^listening on /);
  if (line === undefined)
    throw new MinirunError('cannot capture in the background', tool.stderr().trim().split('\n').at(-1));
  tool.release();
  return tool.ref.pid;
}
