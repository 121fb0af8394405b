import os from 'node:os';
import { MinirunError } from '../errors.ts';
import { runDirectly } from '../host/tool.ts';
import type { HostCommand } from '../host/steps.ts';

/** What is done to the packets that leave an end of a link. Absent fields: nothing. */
export interface Shape {
  /** Most bits a second. */
  rate?: number;
  /** Microseconds that each packet is held back. */
  delay?: number;
  /** Percent of packets that are lost, 0 to 100. */
  loss?: number;
}

/** Units of tc(8): bits a second; those with `i` count by 1024, those with `bps` bytes. */
const rateUnits: Record<string, number> = {
  '': 1,
  bit: 1,
  kbit: 1e3,
  mbit: 1e6,
  gbit: 1e9,
  tbit: 1e12,
  kibit: 1024,
  mibit: 1024 ** 2,
  gibit: 1024 ** 3,
  bps: 8,
  kbps: 8e3,
  mbps: 8e6,
  gbps: 8e9,
};
const timeUnits: Record<string, number> = {
  '': 1,
  us: 1,
  usec: 1,
  usecs: 1,
  ms: 1e3,
  msec: 1e3,
  msecs: 1e3,
  s: 1e6,
  sec: 1e6,
  secs: 1e6,
};

/** The words that take a setting away. */
const off = new Set(['none', 'off', '0']);

/** Bits a second of `10mbit`; undefined for none. @throws MinirunError when it is not a rate */
export function parseRate(text: string): number | undefined {
  if (off.has(text)) return undefined;
  const rate = Math.round(withUnit(text, rateUnits) ?? Number.NaN);
  // tbf takes 64 bits since Linux 3.13; less than 8 bit/s is no byte at all.
  if (rate >= 8 && rate <= 1e12) return rate;
  throw new MinirunError(
    `invalid --rate "${text}"`,
    'it is not a number with a unit of tc, from 8bit to 1000gbit',
    'Give one such as 10mbit, 512kbit or 1gbit, or none',
  );
}

/** Microseconds of `20ms`; undefined for none. @throws MinirunError when it is not a time */
export function parseDelay(text: string): number | undefined {
  if (off.has(text)) return undefined;
  const delay = /[a-z]$/.test(text) ? Math.round(withUnit(text, timeUnits) ?? Number.NaN) : Number.NaN;
  if (delay >= 1 && delay <= 60e6) return delay;
  throw new MinirunError(
    `invalid --delay "${text}"`,
    'it is not a time with a unit, from 1us to 60s',
    'Give one such as 20ms, or none',
  );
}

/** Percent of `1%`; undefined for none. @throws MinirunError when it is not a percentage */
export function parseLoss(text: string): number | undefined {
  if (off.has(text) || text === '0%') return undefined;
  const match = /^(\d{1,3}(?:\.\d+)?)%?$/.exec(text);
  const loss = Number(match?.[1] ?? Number.NaN);
  if (loss > 0 && loss <= 100) return loss;
  throw new MinirunError(
    `invalid --loss "${text}"`,
    'it is not a percentage',
    'Give the percentage of packets that are to be lost, such as 1%, or none',
  );
}

function withUnit(text: string, units: Record<string, number>): number | undefined {
  const match = /^(\d+(?:\.\d+)?)([a-z]*)$/.exec(text.toLowerCase());
  const unit = units[match?.[2] ?? '?'];
  return match === null || unit === undefined ? undefined : Number(match[1]) * unit;
}

/** A shape in tc's words: `rate 10mbit delay 20ms loss 1%`; empty for none. */
export function shapeText({ rate, delay, loss }: Shape): string {
  return [
    rate === undefined ? '' : `rate ${rateText(rate)}`,
    delay === undefined ? '' : `delay ${delayText(delay)}`,
    loss === undefined ? '' : `loss ${loss}%`,
  ]
    .filter(Boolean)
    .join(' ');
}

function rateText(rate: number): string {
  const [unit, size] = (
    [
      ['gbit', 1e9],
      ['mbit', 1e6],
      ['kbit', 1e3],
    ] as const
  ).find((each) => rate % each[1] === 0) ?? ['bit', 1];
  return `${rate / size}${unit}`;
}

function delayText(delay: number): string {
  if (delay % 1e6 === 0) return `${delay / 1e6}s`;
  return delay % 1e3 === 0 ? `${delay / 1e3}ms` : `${delay}us`;
}

/** Whether it takes the kernel's netem; a rate alone is done by tbf, which every kernel has. */
export function needsNetem({ delay, loss }: Shape): boolean {
  return delay !== undefined || loss !== undefined;
}

/**
 * Bytes that may leave at once after a pause: 10 ms of the rate, which is more than the time between two ticks of the
 * clock (tc-tbf(8)), and at least four packets.
 */
function burst(rate: number, mtu: number): number {
  return Math.max(Math.ceil(rate / 8 / 100), 4 * (mtu + 14));
}

/** Sets what happens to the packets that leave an interface, or takes it away. Pure. */
export function shapeCommand(ifname: string, netns: string | undefined, shape: Shape, mtu = 1500): HostCommand {
  const qdisc = (...args: string[]): HostCommand => ({
    tool: 'run',
    argv: ['tc', ...(netns === undefined ? [] : ['-n', netns]), 'qdisc', ...args],
  });
  const { rate, delay, loss } = shape;
  if (needsNetem(shape)) {
    const settings = [
      ...(delay === undefined ? [] : ['delay', delayText(delay)]),
      ...(loss === undefined ? [] : ['loss', `${loss}%`]),
      ...(rate === undefined ? [] : ['rate', rateText(rate)]),
      // Packets that are held back lie in the queue: a second's worth of them, at least netem's own 1000.
      'limit',
      String(Math.max(1000, Math.min(100_000, Math.ceil((((rate ?? 1e9) / 8 / 1000) * (delay ?? 0)) / 1e6) * 2))),
    ];
    return qdisc('replace', 'dev', ifname, 'root', 'netem', ...settings);
  }
  if (rate === undefined) return qdisc('del', 'dev', ifname, 'root');
  const size = String(burst(rate, mtu));
  return qdisc('replace', 'dev', ifname, 'root', 'tbf', 'rate', rateText(rate), 'burst', size, 'latency', '50ms');
}

/**
 * Refuses what this kernel cannot do. It is tried on the loopback interface of a network namespace that is made for
 * that and gone again at once.
 *
 * @throws MinirunError when the shape takes netem and there is none
 */
export async function requireShaping(shape: Shape): Promise<void> {
  if (!needsNetem(shape)) return;
  const { exitCode, stderr } = await runDirectly('unshare', [
    '--net',
    'tc',
    'qdisc',
    'add',
    'dev',
    'lo',
    'root',
    'netem',
    'delay',
    '1ms',
  ]);
  if (exitCode === 0) return;
  const release = os.release();
  const only = shape.delay === undefined ? '--loss' : shape.loss === undefined ? '--delay' : '--delay and --loss';
  throw new MinirunError(
    `cannot do ${only}`,
    /kind is unknown/.test(stderr)
      ? `this kernel (${release}) has no netem: the module sch_netem (CONFIG_NET_SCH_NETEM)`
      : stderr.trim().split('\n').at(-1) || `tc ended with ${exitCode}`,
    `Install it where there is a package of it (Ubuntu: linux-modules-extra-${release}, Fedora: kernel-modules-extra), or give --rate only, which needs no netem`,
  );
}
