import { expect } from 'bun:test';
import fs from 'node:fs';

/**
 * Compares what was printed with a file of the documentation, which holds a real output, but for what differs from run to
 * run and from machine to machine. With MINIRUN_UPDATE=1 a file that differs is written anew.
 */
export function expectTranscript(file: string, printed: string): void {
  const expected = fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '';
  if (process.env.MINIRUN_UPDATE === '1' && masked(printed) !== masked(expected)) fs.writeFileSync(file, printed);
  else expect(masked(printed)).toBe(masked(expected));
}

/** The command, on a host that is called lab: pictures show the name. */
export function inLab(command: readonly string[]): string[] {
  return ['unshare', '--uts', 'sh', '-euc', 'hostname lab; exec "$@"', 'lab', ...command];
}

/** A text without what differs from run to run. */
export function masked(output: string): string {
  return masks.reduce((text, [pattern, replacement]) => text.replace(pattern, replacement), output.trim());
}

/** Every rule of masking, with what it is there for. */
const masks: readonly [RegExp, string][] = [
  // Ids, whole and short (the hostname of a container).
  [/\b[0-9a-f]{64}\b/g, 'ID'],
  [/\b[0-9a-f]{12}\b/g, 'SHORT-ID'],
  [/\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b/g, 'MAC'],
  // Indices of interfaces, and of their peers in other namespaces.
  [/^\d+: /gm, 'N: '],
  [/@if\d+/g, '@ifN'],
  [/link-netnsid \d+/g, 'link-netnsid N'],
  // The kernel looks after the state of an interface some time after its cable has been plugged in.
  [/<[A-Z_,-]+>/g, '<FLAGS>'],
  [/\b(?:UP|DOWN|UNKNOWN|LOWERLAYERDOWN)\b/g, 'STATE'],
  [/\bqdisc \w+/g, 'qdisc Q'],
  // Times.
  [/\btime[= ]\d+(?:\.\d+)? ?ms/g, 'time T'],
  [/\b(?:rtt|round-trip) min.*/g, 'rtt'],
  [/\b\d+\.\d{3} ms\b/g, 'T ms'],
  // ICMP's ids, TCP's first sequence numbers, clocks and client's ports; the window scale depends on the memory.
  [/\bid \d+,/g, 'id N,'],
  [/\b(seq|ack) \d{5,}/g, '$1 N'],
  [/\b(val|ecr) \d+/g, '$1 N'],
  [/\bwscale \d+/g, 'wscale N'],
  [/\bwin \d+/g, 'win N'],
  [/\b(10\.\d+\.\d+\.\d+[. ])(?:3[2-9]|[4-6]\d)\d{3}\b/g, '$1PORT'],
  // Process ids.
  [/--target \d+/g, '--target PID'],
  [/^ *\d+ (root +ps)$/gm, 'PID $1'],
  // The width of columns follows from all of these.
  [/[ \t]+/g, ' '],
  [/ $/gm, ''],
];
