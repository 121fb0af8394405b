import os from 'node:os';
import { MinirunError } from '../errors.ts';
import type { RestartPolicy } from './definition.ts';
import type { OciRlimit } from './oci.ts';

/** An option whose value makes no sense. */
export function invalid(option: string, value: string, why: string, remedy: string): MinirunError {
  return new MinirunError(`invalid ${option} "${value}"`, why, remedy, { code: 125 });
}

/** Number of a signal given as `TERM`, `SIGTERM`, `term` or `15`. @throws MinirunError for another */
export function parseSignal(text: string): number {
  const number = signalNumber(text);
  if (number !== undefined && number >= 1 && number <= 64) return number;
  throw invalid('signal', text, 'Linux has none of that name', 'Give a name such as TERM or a number from 1 to 64');
}

/** The real-time signals that programs may use: glibc keeps 32 and 33 for itself, signal(7). */
const firstRealTime = 34;
const lastRealTime = 64;

function signalNumber(text: string): number | undefined {
  if (/^\d+$/.test(text)) return Number(text);
  const name = text.toUpperCase().replace(/^SIG/, '');
  const realTime = /^RT(?:MIN(\+\d+)?|MAX(-\d+)?)$/.exec(name);
  if (realTime === null) return os.constants.signals[`SIG${name}` as NodeJS.Signals];
  const number = (name.startsWith('RTMIN') ? firstRealTime : lastRealTime) + Number(realTime[1] ?? realTime[2] ?? 0);
  return number >= firstRealTime ? number : undefined;
}

/** What a signal is called: `SIGTERM`, `SIGRTMIN+3`. */
export function signalName(number: number): string {
  if (number >= firstRealTime) return `SIGRTMIN+${number - firstRealTime}`.replace('+0', '');
  return Object.entries(os.constants.signals).find(([, value]) => value === number)?.[0] ?? String(number);
}

/** `no`, `always`, `unless-stopped`, `on-failure`, `on-failure:3`. */
export function parseRestart(text: string): RestartPolicy {
  const [name = '', count, ...rest] = text.split(':');
  const known = ['no', 'on-failure', 'always', 'unless-stopped'].includes(name);
  if (!known || rest.length > 0 || (count !== undefined && (name !== 'on-failure' || !/^\d+$/.test(count)))) {
    throw invalid('--restart', text, 'it is no restart policy', 'Give no, on-failure[:N], always or unless-stopped');
  }
  return { name: name as RestartPolicy['name'], maximum: Number(count ?? 0) };
}

const limits = [
  'cpu',
  'fsize',
  'data',
  'stack',
  'core',
  'rss',
  'nproc',
  'nofile',
  'memlock',
  'as',
  'locks',
  'sigpending',
  'msgqueue',
  'nice',
  'rtprio',
  'rttime',
];

/** `nofile=1024:2048`, `core=-1`; -1 and `unlimited` are no limit. */
export function parseUlimit(text: string): OciRlimit {
  const match = /^([a-z]+)=(-1|unlimited|\d+)(?::(-1|unlimited|\d+))?$/.exec(text);
  if (match === null || !limits.includes(match[1] as string)) {
    throw invalid('--ulimit', text, 'it is not of the form NAME=SOFT[:HARD]', `NAME is one of ${limits.join(', ')}`);
  }
  const number = (value: string) => (value === 'unlimited' ? -1 : Number(value));
  const soft = number(match[2] as string);
  const hard = match[3] === undefined ? soft : number(match[3]);
  const exceeds = hard !== -1 && (soft === -1 || soft > hard);
  if (exceeds)
    throw invalid('--ulimit', text, 'the soft limit is above the hard one', 'Give SOFT:HARD with SOFT not above HARD');
  return { type: `RLIMIT_${(match[1] as string).toUpperCase()}`, soft, hard };
}

/** `key=value` of a sysctl in a namespace of the container. */
export function parseSysctl(text: string, ownNetwork: boolean): [string, string] {
  const match = /^([a-zA-Z0-9_.\-/]+)=(.*)$/.exec(text);
  if (match === null)
    throw invalid('--sysctl', text, 'it is not of the form KEY=VALUE', 'For example net.ipv4.ip_forward=1');
  const [, key, value] = match as unknown as [string, string, string];
  const inIpc = /^(kernel\.(shm|msg|sem)|fs\.mqueue\.)/.test(key);
  if (key.split(/[./]/).includes(''))
    throw invalid('--sysctl', text, 'the key is malformed', 'For example net.ipv4.ip_forward=1');
  if (key.startsWith('net.') && !ownNetwork) {
    throw invalid(
      '--sysctl',
      text,
      "the container shares another's network, whose settings it would change",
      'Leave it out, or give the container a network of its own',
    );
  }
  if (!key.startsWith('net.') && !inIpc) {
    throw invalid(
      '--sysctl',
      text,
      'this setting belongs to the whole machine, not to the container',
      'Only net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.* are a container’s own',
    );
  }
  return [key, value];
}

/** `KEY=VALUE`; `KEY` alone takes the value of the caller's environment, and stays alone when there is none: unset it. */
export function parseEnv(text: string, own: NodeJS.ProcessEnv): string {
  if (text === '' || text.startsWith('=')) throw invalid('--env', text, 'a variable needs a name', 'Give NAME=VALUE');
  if (text.includes('=')) return text;
  return own[text] === undefined ? text : `${text}=${own[text]}`;
}

/** The variables of an `--env-file`: a line each, `#` begins a comment line. A name alone unsets nothing here. */
export function parseEnvFile(content: string, own: NodeJS.ProcessEnv): string[] {
  return content
    .split(/\r?\n/)
    .map((line) => line.trimStart())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => parseEnv(line, own))
    .filter((entry) => entry.includes('='));
}

/** Later variables replace earlier ones of the same name, and a name alone takes the variable away. */
export function mergeEnv(...lists: (readonly string[])[]): string[] {
  const merged = new Map<string, string>();
  for (const entry of lists.flat()) {
    const [name = ''] = entry.split('=', 1);
    if (entry.includes('=')) merged.set(name, entry);
    else merged.delete(name);
  }
  return [...merged.values()];
}

/** `key=value` or `key`. */
export function parseLabel(text: string): [string, string] {
  const at = text.indexOf('=');
  if (at === 0 || text === '') throw invalid('--label', text, 'a label needs a key', 'Give KEY=VALUE');
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

/** `NAME:ADDRESS` or `NAME=ADDRESS`, as a line of /etc/hosts. `host-gateway` stays for the network to fill in. */
export function parseAddHost(text: string): [string, string] {
  const match = /^([^\s:=]+)[:=](.+)$/.exec(text);
  if (match === null || !/^[0-9a-fA-F.:[\]]+$|^host-gateway$/.test(match[2] as string)) {
    throw invalid('--add-host', text, 'it is not of the form NAME:ADDRESS', 'For example --add-host db:10.0.0.7');
  }
  return [(match[2] as string).replace(/^\[|\]$/g, ''), match[1] as string];
}

/** Docker's rule, plus one: a name is also the name of a file in /run/netns. */
export function checkName(name: string, pattern: RegExp): string {
  if (pattern.test(name) && name.length <= 200) return name;
  throw invalid(
    'container name',
    name,
    'names are letters, digits, "_", "." and "-", at least two, and begin with a letter or digit',
    'Choose such a --name',
  );
}

/** At most 63 characters, as the kernel and DNS have it. */
export function checkHostname(name: string): string {
  if (/^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$/.test(name)) return name;
  throw invalid(
    'hostname',
    name,
    'a hostname has letters, digits, "-" and ".", and at most 63 characters',
    'Choose such a -h',
  );
}

/** Checks what can be checked of `--group-add` before the image's groups are known. */
export function checkGroup(text: string): void {
  const help = "Give a name of the image's /etc/group, or a gid";
  if (text === '' || text.includes(':')) throw invalid('--group-add', text, 'it is neither a name nor an id', help);
  if (/^-?\d+$/.test(text) && !(Number(text) >= 0 && Number(text) <= 2 ** 31 - 1))
    throw invalid('--group-add', text, `ids go from 0 to ${2 ** 31 - 1}`, help);
}

/** Refuses ids that no Linux program handles well, before anything is made. Names are looked up in the image later. */
export function checkUser(text: string): string {
  for (const part of text.split(':')) {
    if (/^\d+$/.test(part) && Number(part) > 2 ** 31 - 1)
      throw invalid('user', text, `ids go from 0 to ${2 ** 31 - 1}`, 'Choose a smaller id');
    if (/^-\d/.test(part)) throw invalid('user', text, 'ids are not negative', 'Choose a uid from 0 up');
  }
  return text;
}
