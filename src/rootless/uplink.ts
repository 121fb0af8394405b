import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { daemonOf, endDaemon } from '../host/daemon.ts';
import { faultPoint } from '../host/fault.ts';
import { launch, which } from '../host/launch.ts';
import { runDirectly } from '../host/tool.ts';
import { interfaceExists, overlappingRoute, routedRanges } from '../network/facts.ts';
import { machineFiles, type MachineRecord } from '../state/machine.ts';
import { nsenterArgv } from './holder.ts';
import { textOrEmpty } from '../host/text.ts';

/** The program that carries what leaves the machine in small: it makes ordinary connections of the user's of it. */
type Carrier = 'pasta' | 'slirp4netns';

/** The interface inside that leads to it. */
const ifname = 'uplink0';
/** The interface of a slirp4netns that only publishes ports, beside pasta. */
const portsIfname = 'ports0';

/** The first that no route of the host overlaps is used: slirp's usual range is also that of VirtualBox's NAT. */
const ranges = ['10.0.2.0/24', '172.31.254.0/24', '192.168.254.0/24', '10.255.254.0/24'] as const;

/** The environment variable that names the carrier to use, or `none`. */
const choice = 'MINIRUN_UPLINK';

/** The carrier of this machine; undefined where there is none. @throws MinirunError for a choice that cannot be had */
export function chooseUplink(): Carrier | undefined {
  const wanted = process.env[choice] ?? '';
  if (wanted === 'none') return undefined;
  if (wanted === '') return (['pasta', 'slirp4netns'] as const).find((tool) => which(tool) !== undefined);
  if (wanted !== 'pasta' && wanted !== 'slirp4netns')
    throw new MinirunError(
      `invalid ${choice} "${wanted}"`,
      'it is no program for that',
      'Set it to pasta, slirp4netns or none',
      {
        code: 125,
      },
    );
  if (which(wanted) !== undefined) return wanted;
  throw new MinirunError(`cannot use ${choice}=${wanted}`, 'it is not installed', `Install it, or unset ${choice}`, {
    code: 125,
  });
}

/** Addresses of an uplink: as slirp4netns has them, so both carriers look the same from inside. */
interface Addresses {
  subnet: string;
  own: string;
  gateway: string;
  /** Where the carrier answers for the host's name server. */
  nameServer: string;
}

function addresses(index: number): Addresses {
  const free = ranges.filter((range) => overlappingRoute(range) === undefined);
  const subnet = free[index] ?? ranges[index] ?? ranges[0];
  const at = (last: number) => subnet.replace(/\d+\/24$/, String(last));
  return { subnet, own: at(100), gateway: at(2), nameServer: at(3) };
}

/**
 * The resolv.conf of a machine with an uplink, where the host's does not do: servers on a loopback address are not
 * those of this network namespace.
 */
export function planResolvConf(): string | undefined {
  const usable = (text: string) => servers(text).filter((server) => !/^(127\.|::1$)/.test(server));
  const hosts = textOrEmpty('/etc/resolv.conf');
  if (usable(hosts).length > 0) return undefined;
  // Those that systemd-resolved's stub asks.
  const behind = usable(textOrEmpty('/run/systemd/resolve/resolv.conf'));
  const found = behind.length > 0 ? behind : [addresses(0).nameServer];
  const others = hosts.split('\n').filter((line) => /^\s*(search|options)\b/.test(line));
  return [...found.map((server) => `nameserver ${server}`), ...others, ''].join('\n');
}

function servers(text: string): string[] {
  return text.split('\n').flatMap((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? []);
}

/** What is to be started for a machine; the machine keeps the carrier that it has. */
export function missingUplink(record: MachineRecord, ports: boolean): { carrier?: Carrier; forPorts: boolean } {
  const files = machineFiles();
  const slirp = daemonOf(files.slirpPid) !== undefined;
  const hasUplink = daemonOf(files.pastaPid) !== undefined || (slirp && interfaceExists(ifname, record.holder.pid));
  const carrier = hasUplink ? undefined : chooseUplink();
  const forPorts = ports && !slirp && carrier !== 'slirp4netns' && record.portSocket !== undefined;
  return { carrier, forPorts };
}

/** Starts what is missing. The caller has the lock for that. */
export async function startUplink(
  { holder: { pid } }: MachineRecord,
  missing: ReturnType<typeof missingUplink>,
): Promise<void> {
  const { carrier, forPorts } = missing;
  if (carrier === 'pasta') {
    try {
      await startPasta(pid);
    } catch (error) {
      // An AppArmor profile may forbid it the place of its pid file, for example.
      if (process.env[choice] === 'pasta' || which('slirp4netns') === undefined) throw error;
      await startSlirp(pid, false);
    }
  }
  if (carrier === 'slirp4netns') await startSlirp(pid, false);
  if (carrier !== undefined) await addRoutes(pid);
  if (forPorts && daemonOf(machineFiles().slirpPid) === undefined) await startSlirp(pid, true);
}

/** Ends what carries, of this machine or of one before. */
export async function endUplink(): Promise<void> {
  const { pastaPid, slirpPid, slirpSocket } = machineFiles();
  await Promise.all([endDaemon(pastaPid), endDaemon(slirpPid)]);
  fs.rmSync(slirpSocket, { force: true });
}

async function startPasta(pid: number): Promise<void> {
  const { own, gateway, nameServer } = addresses(0);
  const { exitCode, stderr } = await runDirectly('pasta', [
    '--config-net',
    '--ipv4-only',
    '--quiet',
    '--pid',
    machineFiles().pastaPid,
    '--ns-ifname',
    ifname,
    '--address',
    own,
    '--netmask',
    '24',
    '--gateway',
    gateway,
    '--dns-forward',
    nameServer,
    // Nothing of the host's own loopback address is reachable, in either direction.
    '--no-map-gw',
    '--tcp-ports',
    'none',
    '--udp-ports',
    'none',
    '--tcp-ns',
    'none',
    '--udp-ns',
    'none',
    String(pid),
  ]);
  if (exitCode !== 0) throw noUplink('pasta', stderr);
  faultPoint('uplink.started');
}

/** @param forPorts beside pasta: an interface without a way out, by which only published ports come in */
async function startSlirp(pid: number, forPorts: boolean): Promise<void> {
  const files = machineFiles();
  const name = forPorts ? portsIfname : ifname;
  for (const stale of [files.slirpSocket, files.slirpPid]) fs.rmSync(stale, { force: true });
  const child = launch(
    [
      'sh',
      '-c',
      'echo $$ >"$0"; exec "$@"',
      files.slirpPid,
      'slirp4netns',
      '--configure',
      '--mtu=65520',
      '--disable-host-loopback',
      `--cidr=${addresses(forPorts ? 1 : 0).subnet}`,
      '--enable-sandbox',
      '--enable-seccomp',
      '--ready-fd=3',
      `--api-socket=${files.slirpSocket}`,
      String(pid),
      name,
    ],
    {},
  );
  // It writes a digit without an end of line when it is ready, and closes the descriptor in any case.
  await child.receive();
  child.release();
  if (!interfaceExists(name, pid)) throw noUplink('slirp4netns', child.stderr());
  if (forPorts) await answerWhereItCame(pid, name, addresses(1).gateway);
  faultPoint('uplink.started');
}

/** A mark for connections that came in by a published port: `mr`. */
const mark = '0x6d72';

/**
 * slirp4netns shows the addresses of its clients, to which the way out would be pasta's: what answers them has to go back
 * by the interface that they came in by.
 */
async function answerWhereItCame(pid: number, name: string, gateway: string): Promise<void> {
  const script = `
set -e
ip route del default dev ${name}
ip route add default via ${gateway} dev ${name} table ${Number(mark)}
ip rule add fwmark ${mark} lookup ${Number(mark)}
echo 2 >/proc/sys/net/ipv4/conf/${name}/rp_filter
iptables-restore --noflush -w <<END
*mangle
-A PREROUTING -i ${name} -j CONNMARK --set-mark ${mark}
-A PREROUTING ! -i ${name} -j CONNMARK --restore-mark
COMMIT
END`;
  const args = [...nsenterArgv(pid).slice(1), 'sh', '-c', script];
  const { exitCode, stderr } = await runDirectly('nsenter', args);
  if (exitCode === 0) return;
  await endDaemon(machineFiles().slirpPid);
  throw noUplink('slirp4netns', stderr);
}

/** The networks of the host stay out of the ranges of minirun's own: inside they are known by a route each. */
async function addRoutes(pid: number): Promise<void> {
  const { gateway, subnet } = addresses(0);
  const lines = routedRanges()
    .filter((range) => range !== subnet)
    .map((range) => `route add ${range} via ${gateway} dev ${ifname}\n`);
  if (lines.length > 0) await inside(pid, ['-force', '-batch', '-'], lines.join(''));
}

async function inside(pid: number, args: string[], input?: string): Promise<void> {
  const [tool = '', ...rest] = [...nsenterArgv(pid, ['--user', '--net']), 'ip', ...args];
  await runDirectly(tool, rest, input);
}

function noUplink(carrier: Carrier, stderr: string): MinirunError {
  const lines = stderr
    .trim()
    .split('\n')
    .filter((line) => !/syslog|for IPv6/.test(line));
  const tun = /dev\/net\/tun/.test(stderr) || !canUseTun();
  return new MinirunError(
    'cannot give the containers a way out of this machine',
    tun ? 'this user may not open /dev/net/tun' : `${carrier} says: ${lines.at(-1) || 'nothing'}`,
    tun ? 'Allow it: sudo chmod 0666 /dev/net/tun' : `Set ${choice}=none to do without`,
    { code: 125 },
  );
}

function canUseTun(): boolean {
  try {
    fs.accessSync('/dev/net/tun', fs.constants.R_OK | fs.constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
