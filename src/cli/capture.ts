import type { Command } from 'commander';
import fs from 'node:fs';
import path from 'node:path';
import type { Writable } from 'node:stream';
import type { CaptureRequest, RunningTap, Tap } from '../container/capture.ts';
import { MinirunError, messageOf } from '../errors.ts';
import { reconcileFirst } from './each.ts';
import { printable } from './output/printable.ts';
import { version } from './version.ts';
import { print, stdoutStream } from './output/stdout.ts';

interface Options {
  write?: string;
  count?: number;
  snaplen?: number;
  detach?: boolean;
  promiscuous: boolean;
  direction?: string;
  // How packets are shown.
  verbose: number;
  linkLevel?: boolean;
  ascii?: boolean;
  hex?: boolean;
  quick?: boolean;
  time: boolean;
}

/** `minirun capture CONTAINER[:IF]... [FILTER...]` */
export function registerCapture(program: Command): void {
  program
    .command('capture')
    .summary('Capture the packets of containers')
    .description(
      'Capture the packets of containers, with the tcpdump of this machine: the image need not have one. Several containers at once become one pcapng file, or lines that begin with where the packet was seen',
    )
    .usage('[OPTIONS] CONTAINER[:IF] [CONTAINER[:IF]…] [--] [FILTER…]')
    .argument(
      '<words...>',
      'running containers, or host, each with an interface if it is not to be the first, or any; then a filter as in pcap-filter(7). Before -- are containers only. Without it, the first word is one, and those behind it that name one',
    )
    .option('-w, --write <file>', 'write the packets to a file; - is standard output')
    .option('-c, --count <number>', 'end after so many packets', positive('--count'))
    .option('-s, --snaplen <bytes>', 'keep so many bytes of each packet (default: all)', positive('--snaplen'))
    .option('-d, --detach', 'return as soon as packets are captured, and go on in the background; prints the pid')
    .option('-p, --no-promiscuous', 'only what is for the interface')
    .option('-Q, --direction <direction>', 'in, out or inout')
    .option('-n', 'addresses and ports as numbers (they always are)')
    .option('-e, --link-level', 'show the Ethernet header, too')
    .option('-v, --verbose', 'show more (repeatable)', (_value: string, before: number) => before + 1, 0)
    .option('-A, --ascii', 'show what is in the packets as text')
    .option('-X, --hex', 'show what is in the packets in hexadecimal, too')
    .option('-q, --quick', 'show less')
    .option('-t, --no-time', 'show no times')
    .action(async (words: string[], options: Options) => {
      const { findTaps, isContainer, splitWords } = await import('../container/capture.ts');
      refuseSenseless(options);
      await reconcileFirst();
      const { sources, filter } = splitWords(words, wordsBehindBorder(), isContainer);
      const request = {
        sources,
        filter,
        count: options.count,
        snapLength: options.snaplen,
        promiscuous: options.promiscuous,
        direction: options.direction,
      };
      const taps = await findTaps(request);
      // In the background nobody reads any more what it says in the end; and a reader of its output may have read enough.
      process.stderr.on('error', () => {});
      stdoutStream().on('error', () => {});
      if (options.write === undefined) await show(taps, request, showingOf(options));
      else if (options.detach === true) await detach(taps, request, path.resolve(options.write));
      else await write(taps, request, options.write);
    });
}

function positive(flag: string): (text: string) => number {
  return (text) => {
    if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
    throw new MinirunError(`invalid ${flag} "${text}"`, 'it is not a whole number above 0', 'Give one');
  };
}

function refuseSenseless({ write, detach, direction }: Options): void {
  if (direction !== undefined && !['in', 'out', 'inout'].includes(direction))
    throw new MinirunError(`invalid --direction "${direction}"`, 'there is no such direction', 'Use in, out or inout');
  if (detach === true && (write === undefined || write === '-'))
    throw new MinirunError('cannot capture in the background without a file', undefined, 'Give one: -w FILE');
  if (write === '-' && stdoutStream().isTTY)
    throw new MinirunError(
      'cannot write packets to a terminal',
      'they are not text',
      'Give a file (-w FILE), pipe it into a program that reads pcap, or leave -w out',
    );
}

/** How many words stand behind `--`; the command line's parser does not tell. */
function wordsBehindBorder(): number | undefined {
  const border = process.argv.indexOf('--', 2);
  return border < 0 ? undefined : process.argv.length - border - 1;
}

/** The options of tcpdump for how packets are shown. */
function showingOf({ verbose, linkLevel, ascii, hex, quick, time }: Options): string[] {
  const chosen: [boolean | undefined, string][] = [
    [verbose > 0, `-${'v'.repeat(Math.min(verbose, 3))}`],
    [linkLevel, '-e'],
    [ascii, '-A'],
    [hex, '-X'],
    [quick, '-q'],
    [!time, '-t'],
  ];
  return chosen.flatMap(([isChosen, option]) => (isChosen === true ? option : []));
}

/** Whether the file is to be pcapng, which alone can tell interfaces apart. */
const isPcapng = (taps: readonly Tap[], file: string) => taps.length > 1 || file.endsWith('.pcapng');

async function write(taps: readonly Tap[], request: CaptureRequest, file: string): Promise<void> {
  const target = file === '-' ? { fd: 1, discard: () => {} } : openFile(file);
  if (!isPcapng(taps, file)) {
    // Tcpdump writes the file itself: nothing is in between.
    const running = await begin(taps, request, target.fd, target.discard);
    const { statisticsOf } = await import('../container/capture.ts');
    await Promise.all(running.map(({ tool }) => tool.exited));
    report(
      running,
      running.map((each) => statisticsOf(each)?.captured ?? 0),
      statisticsOf,
    );
    return;
  }
  const running = await begin(taps, request, 'pipe', target.discard);
  const { pcapngHeader, pcapngPacket } = await import('../network/pcap.ts');
  const filter = request.filter.join(' ');
  const output: Writable = file === '-' ? stdoutStream() : fs.createWriteStream('', { fd: target.fd });
  await merge(
    running,
    {
      begin: (headers) =>
        pcapngHeader(
          headers.map((header, index) => ({ ...header, ...describe(taps[index] as Tap), filter })),
          `minirun ${version}`,
        ),
      packet: (packet) => pcapngPacket(packet.index, packet),
    },
    output,
    request.count,
  );
  if (file !== '-') await finished(output);
}

function describe({ stack, ifname, name }: Tap): { name: string; description: string } {
  const where = stack.container === undefined ? 'the host' : `container ${stack.container.definition.id.slice(0, 12)}`;
  return { name, description: `${ifname} of ${where}` };
}

/** Lets it go on without this process, which tells its pid. */
async function detach(taps: readonly Tap[], request: CaptureRequest, file: string): Promise<void> {
  if (isPcapng(taps, file)) {
    const { captureInBackground } = await import('../container/capture.ts');
    const { count, snapLength, promiscuous, direction, filter } = request;
    const args = [
      `--write=${file}`,
      ...(count === undefined ? [] : [`--count=${count}`]),
      ...(snapLength === undefined ? [] : [`--snaplen=${snapLength}`]),
      ...(promiscuous ? [] : ['--no-promiscuous']),
      ...(direction === undefined ? [] : [`--direction=${direction}`]),
      ...taps.map(({ name }) => name),
      '--',
      ...filter,
    ];
    const pid = await captureInBackground(args);
    for (const { name } of taps) say(`listening on ${name}`);
    print(`${pid}\n`);
    return;
  }
  const target = openFile(file);
  const running = await begin(taps, request, target.fd, target.discard, false);
  for (const { tool } of running) {
    tool.release();
    print(`${tool.ref.pid}\n`);
  }
}

/** Shows packets as text; with several interfaces each line begins with where it was seen. */
async function show(taps: readonly Tap[], request: CaptureRequest, options: readonly string[]): Promise<void> {
  const { startPrinter } = await import('../container/capture.ts');
  const { pcapHeader, pcapPacket } = await import('../network/pcap.ts');
  const running = await begin(taps, request, 'pipe', () => {}, true);
  const kinds = new Set(running.map(({ description }) => description.split(',')[0]));
  if (kinds.size > 1) {
    for (const { tool } of running) {
      tool.stdout?.resume();
      tool.end();
    }
    throw new MinirunError(
      'cannot show these packets together',
      `they are of different kinds (${[...kinds].join(', ')})`,
      'Write them to a file (-w FILE.pcapng), or show them one by one',
    );
  }
  const printer = startPrinter(taps, options, 1);
  const width = Math.max(...taps.map(({ name }) => name.length));
  /** Where the packets come from that the printer has got and not printed yet. */
  const origins: string[] = [];
  const printed = printer.stdout === undefined ? Promise.resolve() : prefixLines(printer.stdout, origins);
  stdoutStream().on('error', () => {
    for (const { tool } of running) tool.end();
  });
  await merge(
    running,
    {
      begin: (headers) => pcapHeader(headers[0] ?? { linkType: 1, snapLength: 262144 }),
      packet: (packet) => {
        if (printer.stdout !== undefined) origins.push(printable((taps[packet.index] as Tap).name).padEnd(width));
        return pcapPacket(packet);
      },
    },
    printer.stdin as Writable,
    request.count,
    async () => {
      printer.stdin?.end();
      await printer.exited;
      await printed;
    },
  );
}

/** Puts the origin of each packet, which begins with its number, before its lines. */
async function prefixLines(text: AsyncIterable<Buffer>, origins: string[]): Promise<void> {
  let number = 0;
  let origin = '';
  let rest = '';
  for await (const piece of text) {
    const lines = (rest + piece.toString('latin1')).split('\n');
    rest = lines.pop() as string;
    let out = '';
    for (const line of lines) {
      const [, counted, shown = line] = /^ *(\d+) {2}(.*)$/.exec(line) ?? [];
      const isNext = Number(counted) === number + 1;
      if (isNext) {
        number++;
        origin = origins.shift() ?? origin;
      }
      out += `${origin}  ${isNext ? shown : line}\n`;
    }
    print(Buffer.from(out, 'latin1'));
  }
}

/** Starts the captures, says when all of them capture, and ends them with this process. */
async function begin(
  taps: readonly Tap[],
  request: CaptureRequest,
  stdout: 'pipe' | number,
  discard: () => void,
  endsWithThis = true,
): Promise<RunningTap[]> {
  const { startTaps } = await import('../container/capture.ts');
  let running: RunningTap[] = [];
  let isToEnd = false;
  const end = () => {
    isToEnd = true;
    for (const { tool } of running) tool.end();
  };
  // Also where a shell has started this in the background and has it ignore Ctrl-C.
  if (endsWithThis) for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end);
  try {
    running = await startTaps(taps, request, stdout, endsWithThis);
  } catch (error) {
    discard();
    throw error;
  }
  if (isToEnd) end();
  // In one go: who waits for the first of these lines may take it that all capture.
  const lines = running.map(({ tap, description }) => `${printable(`listening on ${tap.name}, ${description}`)}\n`);
  process.stderr.write(lines.join(''));
  return running;
}

/** Merges, reports, and takes a reader that has gone for a wish to end. */
async function merge(
  running: readonly RunningTap[],
  form: Parameters<typeof import('../container/capture.ts').mergeTaps>[1],
  output: Writable,
  count: number | undefined,
  flush = async () => {},
): Promise<void> {
  const { mergeTaps, statisticsOf } = await import('../container/capture.ts');
  output.on('error', () => {});
  let written: number[];
  try {
    written = await mergeTaps(running, form, output, count);
  } catch (error) {
    for (const { tool } of running) tool.stdout?.resume();
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') return;
    throw error;
  } finally {
    await flush();
  }
  report(running, written, statisticsOf);
}

/** Says how many packets there were, and what has gone wrong. */
function report(
  running: readonly RunningTap[],
  captured: readonly number[],
  statisticsOf: (tap: RunningTap) => { dropped: number } | undefined,
): void {
  for (const [index, each] of running.entries()) {
    const number = captured[index] ?? 0;
    const dropped = statisticsOf(each)?.dropped ?? 0;
    const lost = dropped === 0 ? '' : `, ${dropped} dropped by the kernel`;
    say(`${number} packet${number === 1 ? '' : 's'} captured on ${each.tap.name}${lost}`);
    const complaint = each.tool
      .stderr()
      .split('\n')
      .find((line) => /^tcpdump: (?!listening on |verbose output |data link type )/.test(line));
    if (complaint === undefined) continue;
    say(`minirun: the capture on ${each.tap.name} has ended: ${complaint.slice('tcpdump: '.length)}`);
    process.exitCode = 1;
  }
}

function say(line: string): void {
  process.stderr.write(`${printable(line)}\n`);
}

/** @throws MinirunError when it cannot be written */
function openFile(file: string): { fd: number; discard: () => void } {
  const isNew = !fs.existsSync(file);
  try {
    const fd = fs.openSync(file, 'w');
    return { fd, discard: () => isNew && fs.rmSync(file, { force: true }) };
  } catch (error) {
    throw new MinirunError(
      `cannot write to "${file}"`,
      messageOf(error).replace(/^\w+: |,.*$/g, ''),
      'Give another file',
    );
  }
}

function finished(output: Writable): Promise<void> {
  return new Promise((resolve, reject) => {
    output.on('error', reject);
    output.end(resolve);
  });
}
