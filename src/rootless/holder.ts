import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { faultPoint } from '../host/fault.ts';
import { launch } from '../host/launch.ts';
import type { SmallMachine } from '../host/machine.ts';
import { isAlive, kernelBootId, processRef, type ProcessRef, signalProcess } from '../host/process.ts';
import { runDirectly } from '../host/tool.ts';
import { writeJson } from '../state/json.ts';
import { machineFiles, type MachineRecord } from '../state/machine.ts';
import { paths } from '../state/paths.ts';
import { type Mappings, refusedMapping } from './ids.ts';
import { refusedNamespaces } from './obstacles.ts';

/** A living process of the machine: its holder, else whoever answers for one of its containers. */
export function insider(record: MachineRecord): ProcessRef | undefined {
  if (isInside(record.holder, record)) return record.holder;
  let entries: string[];
  try {
    entries = fs.readdirSync(paths.owners());
  } catch {
    return undefined;
  }
  return entries
    .map((entry) => entry.split('.'))
    .map(([, pid, start]): ProcessRef => ({ pid: Number(pid), start: Number(start) }))
    .find((ref) => isInside(ref, record));
}

function isInside(ref: ProcessRef, record: MachineRecord): boolean {
  return isAlive(ref) && namespaceOf(ref.pid) === record.namespace;
}

/**
 * Ends every process of a machine but this one: name servers of networks that are up without a container, and whatever
 * else was started inside. The holder last: while it lives a next command finds what this one did not come to.
 */
export async function endInsiders({ namespace, holder }: MachineRecord): Promise<void> {
  const all = fs
    .readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid && namespaceOf(pid) === namespace)
    .toSorted((a, b) => Number(a === holder.pid) - Number(b === holder.pid));
  for (const ref of all.flatMap((pid) => processRef(pid) ?? [])) {
    signalProcess(ref, 'SIGKILL');
    for (let tries = 0; tries < 500 && isAlive(ref); tries++) await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** The user namespace of a process; undefined when it is gone or not this user's. */
function namespaceOf(pid: number | 'self'): string | undefined {
  try {
    return fs.readlinkSync(`/proc/${pid}/ns/user`);
  } catch {
    return undefined;
  }
}

/** Stays, as the one process that keeps the namespaces; its name is for whoever finds it in a list of processes. */
const stay = `mkfifo -m 600 /run/.holder 2>/dev/null; exec 0<>/run/.holder 1>/dev/null 2>&1 3>&-
exec sh -c 'read -r _' minirun-machine`;

/**
 * Makes a machine of fresh namespaces. What is said on descriptor 3, each way, is in `makeMachine`. When this process is
 * killed that descriptor ends, and with it this script.
 *
 * - sh has lost its capabilities by being executed before there was a root; what it executes once there is one has them.
 * - /run is the machine's own: `ip netns` keeps names there, minirun the names of containers, iptables its lock. What
 *   the host has there is linked. Its own /sys shows its own interfaces.
 *
 * Arguments: an empty directory, the resolv.conf to use or nothing, what is to be in /run/minirun-machine.json.
 */
const makeScript = `
echo '{"is":"unshared"}' >&3
read -r _ <&3 || exit 0
set -e
run=$1
mount -n -t tmpfs -o mode=0755,nosuid,nodev minirun "$run"
mkdir "$run/.host" "$run/.sys"
mount -n --rbind /run "$run/.host"
for entry in "$run"/.host/*; do
  case \${entry##*/} in netns | minirun | xtables.lock | '*') ;; *) set -- "$@" ".host/\${entry##*/}" ;; esac
done
resolv=$2 json=$3
shift 3
[ $# = 0 ] || ln -s "$@" "$run/"
mkdir "$run/netns"
printf '%s\\n' "$json" >"$run/minirun-machine.json"
if mount -n -t sysfs -o nosuid,nodev,noexec sysfs "$run/.sys" 2>/dev/null; then
  [ ! -d /sys/fs/cgroup ] || mount -n --rbind /sys/fs/cgroup "$run/.sys/fs/cgroup"
  mount -n --move "$run/.sys" /sys
fi
mount -n --move "$run" /run
[ -z "$resolv" ] || [ ! -e /etc/resolv.conf ] || mount -n --bind "$resolv" /etc/resolv.conf
ip link set lo up
echo '{"is":"ready"}' >&3
read -r _ <&3 || exit 0
set +e
${stay}`;

/**
 * Makes the machine. The caller has the lock for that.
 *
 * @param usesUplink whether there will be something that answers at the name server of its own resolv.conf
 */
export async function makeMachine(
  machine: SmallMachine,
  mappings: Mappings,
  resolvConf: string | undefined,
): Promise<MachineRecord> {
  const files = machineFiles();
  fs.mkdirSync(files.run, { recursive: true, mode: 0o700 });
  if (resolvConf !== undefined) fs.writeFileSync(files.resolvConf, resolvConf);
  const child = launch(
    [
      'unshare',
      '--user',
      '--mount',
      '--net',
      '--propagation',
      'slave',
      '--',
      'sh',
      '-c',
      makeScript,
      'minirun-machine',
      files.run,
      resolvConf === undefined ? '' : files.resolvConf,
      JSON.stringify(machine),
    ],
    {},
  );
  try {
    if ((await child.receive()) === undefined) throw refusedNamespaces(child.stderr());
    faultPoint('machine.unshared');
    for (const [tool, given] of [
      ['newuidmap', mappings.uids],
      ['newgidmap', mappings.gids],
    ] as const) {
      const { exitCode, stderr } = await runDirectly(tool, [String(child.pid), ...given]);
      if (exitCode !== 0) throw refusedMapping(tool, stderr);
    }
    child.send({ is: 'mapped' });
    if ((await child.receive()) === undefined) throw refusedNamespaces(child.stderr());
    faultPoint('machine.ready');
    const record = recordOf(machine, processRef(child.pid));
    writeJson(files.record, record, { durable: false });
    faultPoint('machine.recorded');
    child.send({ is: 'recorded' });
    return record;
  } finally {
    // The script ends where it waits when nobody is there to answer.
    child.release();
  }
}

/** Gives a machine whose holder was killed, but in which somebody lives, another one. */
export async function adoptMachine(record: MachineRecord, member: ProcessRef): Promise<MachineRecord> {
  const child = launch(
    [...nsenterArgv(member.pid), 'sh', '-c', `echo '{"is":"ready"}' >&3; read -r _ <&3 || exit 0\n${stay}`],
    {},
  );
  try {
    if ((await child.receive()) === undefined) throw refusedNamespaces(child.stderr());
    const adopted = { ...record, holder: processRef(child.pid) ?? record.holder };
    writeJson(machineFiles().record, adopted, { durable: false });
    child.send({ is: 'recorded' });
    return adopted;
  } finally {
    child.release();
  }
}

function recordOf(machine: SmallMachine, holder: ProcessRef | undefined): MachineRecord {
  const namespace = holder && namespaceOf(holder.pid);
  if (holder === undefined || namespace === undefined)
    throw new MinirunError('cannot make the user namespace', 'the process that was to keep it was killed');
  return { ...machine, schema: 1, kernelBoot: kernelBootId(), holder, namespace };
}

/**
 * The command that enters the namespaces of a process of the machine. The user is root there without becoming anybody else,
 * and keeps his groups.
 */
export function nsenterArgv(pid: number, namespaces = ['--user', '--mount', '--net']): string[] {
  return ['nsenter', '--target', String(pid), ...namespaces, '--preserve-credentials', '--'];
}
