import fs from 'node:fs';
import { runTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { type Check, missing, ok, warning } from './check.ts';
import { installCommand } from './packages.ts';

/** The programs that minirun runs. */
export async function checkTools(): Promise<Check[]> {
  return Promise.all([
    checkIproute(),
    checkUtilLinux('unshare'),
    checkUtilLinux('nsenter'),
    checkIptables(),
    checkConntrack(),
    checkBusybox(),
    checkDnsmasq(),
    checkLogger(),
    checkTini(),
    checkTar(),
  ]);
}

/** What a program says when asked for its version, on either stream; undefined when it is not there. */
async function versionOf(tool: string, option: string): Promise<string | undefined> {
  if (which(tool) === undefined) return undefined;
  const { stdout, stderr } = await runTool(tool, [option]);
  return `${stdout}${stderr}`.trim();
}

/** The first number with dots in a text. */
function numberIn(text: string): string {
  return /\d+(\.\d+)+/.exec(text)?.[0] ?? '';
}

async function checkIproute(): Promise<Check> {
  const version = await versionOf('ip', '-V');
  if (version?.includes('iproute2')) return ok('iproute2', numberIn(version));
  const found = version === undefined ? 'ip is not installed' : 'ip is BusyBox’s, which lacks -batch and namespaces';
  return missing('iproute2', found, installCommand('ip'));
}

async function checkUtilLinux(tool: 'unshare' | 'nsenter'): Promise<Check> {
  const version = await versionOf(tool, '--version');
  if (version?.includes('util-linux')) return ok(tool, `util-linux ${numberIn(version)}`);
  const found = version === undefined ? 'not installed' : 'BusyBox’s, which lacks options that minirun uses';
  return missing(tool, found, installCommand('unshare'));
}

async function checkIptables(): Promise<Check> {
  const absent = ['iptables', 'iptables-save', 'iptables-restore'].filter((tool) => which(tool) === undefined);
  if (absent.length > 0) return missing('iptables', `no ${absent.join(', no ')}`, installCommand('iptables'));
  const version = (await versionOf('iptables-restore', '--version')) ?? '';
  // Before 1.8 there was the legacy variant only, and it did not say so.
  const variant = /\((\w+)\)/.exec(version)?.[1] ?? 'legacy';
  return ok('iptables', `${numberIn(version)} (${variant})`);
}

async function checkConntrack(): Promise<Check> {
  const version = await versionOf('conntrack', '--version');
  if (version !== undefined) return ok('conntrack', numberIn(version));
  return warning(
    'conntrack',
    'not installed: a client that keeps sending UDP to a published port may go on reaching the container that had it before',
    installCommand('conntrack'),
  );
}

async function checkBusybox(): Promise<Check> {
  const found = ['busybox.static', 'busybox-static', 'busybox'].flatMap((name) => which(name) ?? []);
  const program = found.find((file) => !hasInterpreter(file));
  if (program !== undefined)
    return ok('static busybox', `${numberIn((await versionOf(program, '--help')) ?? '')} (${program})`);
  const text = found[0] === undefined ? 'not installed' : `${found[0]} needs libraries`;
  return missing('static busybox', `${text}; the busybox image is made of it`, installCommand('busybox'));
}

/** Whether an ELF program names a dynamic loader (a PT_INTERP header): a static one does not. */
function hasInterpreter(file: string): boolean {
  const head = Buffer.alloc(4096);
  const fd = fs.openSync(file, 'r');
  const length = fs.readSync(fd, head, 0, head.length, 0);
  fs.closeSync(fd);
  const interpreter = 3;
  const start = Number(head.readBigUInt64LE(32));
  const size = head.readUInt16LE(54);
  const count = head.readUInt16LE(56);
  for (let index = 0; index < count; index++) {
    const offset = start + index * size;
    if (offset + 4 <= length && head.readUInt32LE(offset) === interpreter) return true;
  }
  return false;
}

async function checkLogger(): Promise<Check> {
  if (which('s6-log') !== undefined) return ok('s6-log');
  return warning(
    's6-log',
    'not installed: logs of detached containers have no times, no bound in size, and one stream',
    installCommand('s6-log'),
  );
}

async function checkDnsmasq(): Promise<Check> {
  const version = await versionOf('dnsmasq', '--version');
  if (version === undefined)
    return warning(
      'dnsmasq',
      'not installed: containers find each other by /etc/hosts only, which nslookup does not read',
      installCommand('dnsmasq'),
    );
  const number = numberIn(version);
  // 2.88 is the first that forgets the names of a file in --hostsdir when the file is deleted.
  const [major = 0, minor = 0] = number.split('.').map(Number);
  if (major > 2 || (major === 2 && minor >= 88)) return ok('dnsmasq', number);
  return warning('dnsmasq', `${number}: names of containers that are gone stay known`, 'install dnsmasq 2.88 or newer');
}

async function checkTini(): Promise<Check> {
  const program = ['tini-static', 'catatonit', 'docker-init'].find((name) => which(name) !== undefined);
  if (program === undefined) return warning('tini-static', 'not installed: no run --init', installCommand('tini'));
  return ok(program, numberIn((await versionOf(program, '--version')) ?? ''));
}

async function checkTar(): Promise<Check> {
  const version = await versionOf('tar', '--version');
  if (version !== undefined) return ok('tar', numberIn(version));
  return warning(
    'tar',
    'not installed: minirun has its own, but you need it to make archives for import and cp',
    installCommand('tar'),
  );
}
