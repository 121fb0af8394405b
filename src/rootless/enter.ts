import fs from 'node:fs';
import path from 'node:path';
import { MinirunError, messageOf } from '../errors.ts';
import { missingTool } from '../host/exec.ts';
import { faultPoint } from '../host/fault.ts';
import { ownBinary, which } from '../host/launch.ts';
import { execve, flock, keepOnExec } from '../init/libc.ts';
import { homeDirectory, paths, stateRoot } from '../state/paths.ts';
import { checkPlace } from '../state/root.ts';
import { sweepTemporaries } from '../state/json.ts';
import { machineFiles, type MachineRecord, readRecord } from '../state/machine.ts';
import { adoptMachine, endInsiders, insider, makeMachine, nsenterArgv } from './holder.ts';
import { currentUser, readMappings } from './ids.ts';
import { needsOf } from './needs.ts';
import { chooseUplink, endUplink, missingUplink, planResolvConf, startUplink } from './uplink.ts';
import { lifeVariable, placeVariable } from './variables.ts';

/**
 * Becomes this very command inside the user's machine in small, which is made where there is none: this process stays the
 * same, with other namespaces (docs/adr/0015).
 *
 * @param command the command line without minirun's own options
 * @param warn is told what the command will have to do without
 * @throws MinirunError (125) when this user cannot have one
 */
export async function enterMachine(command: readonly string[], warn: (line: string) => void): Promise<never> {
  prepareStateRoot(warn);
  const files = machineFiles();
  // Shared, and kept by the command that this process becomes: nobody ends the machine meanwhile.
  const life = fs.openSync(files.life, 'a', 0o600);
  flock(life, 'shared');
  const needs = needsOf(command);
  const record = await livingMachine();
  if (needs.uplink && chooseUplink() === undefined && !needs.isolated) warn(noWayOut);
  if (needs.uplink && chooseUplink() !== undefined) {
    try {
      await ensureUplink(record, needs.ports);
    } catch (error) {
      // A container without a network misses nothing.
      if (!needs.isolated) throw error;
    }
  }
  faultPoint('machine.entering');
  const tool = which('nsenter');
  if (tool === undefined) throw missingTool('nsenter');
  keepOnExec(life);
  execve(tool, [...entryArgv(record, needs.hostNetwork), ownBinary, ...command], environment(life));
}

const noWayOut =
  'warning: neither pasta nor slirp4netns is here, so containers reach each other and nothing outside. Install one as root: apt-get install passt';

/** @throws MinirunError (125) when the state directory cannot be this user's */
function prepareStateRoot(warn: (line: string) => void): void {
  try {
    for (const line of checkPlace()) warn(`warning: ${line}`);
    fs.mkdirSync(paths.machine(), { recursive: true, mode: 0o700 });
  } catch (error) {
    if (error instanceof MinirunError) throw error;
    throw new MinirunError(
      `cannot use the state directory ${stateRoot()}`,
      /^[A-Z0-9]+: (.*)$/.exec(messageOf(error))?.[1] ?? messageOf(error),
      'Give another one with --root or MINIRUN_ROOT',
      { code: 125 },
    );
  }
}

/** Runs `make` while no other command makes anything of the machine. */
async function whileMaking<T>(make: () => Promise<T>): Promise<T> {
  const making = fs.openSync(machineFiles().making, 'a', 0o600);
  try {
    flock(making, 'alone');
    return await make();
  } finally {
    fs.closeSync(making);
  }
}

async function ensureUplink(record: MachineRecord, ports: boolean): Promise<void> {
  const isThere = ({ carrier, forPorts }: ReturnType<typeof missingUplink>) => carrier === undefined && !forPorts;
  if (isThere(missingUplink(record, ports))) return;
  await whileMaking(() => startUplink(record, missingUplink(record, ports)));
}

/** The machine, with a holder that lives. */
async function livingMachine(): Promise<MachineRecord> {
  const known = readRecord();
  if (known !== undefined && insider(known) === known.holder) return known;
  return whileMaking(async () => {
    // Somebody else may have made it while this process waited.
    const record = readRecord();
    const member = record && insider(record);
    if (record !== undefined && member === record.holder) return record;
    if (record !== undefined && member !== undefined) return adoptMachine(record, member);
    if (record !== undefined) await endInsiders(record);
    return makeOwn();
  });
}

async function makeOwn(): Promise<MachineRecord> {
  const user = await currentUser();
  const mappings = await readMappings(user);
  // That of a machine that was killed does not end with it.
  await endUplink();
  sweepTemporaries(paths.machine());
  const carrier = chooseUplink();
  const { slirpSocket } = machineFiles();
  const hasPorts =
    which('slirp4netns') !== undefined && carrier !== undefined && Buffer.byteLength(slirpSocket) < longestSocket;
  return makeMachine(
    { boot: crypto.randomUUID(), uid: user.uid, user: user.name, ...(hasPorts ? { portSocket: slirpSocket } : {}) },
    mappings,
    carrier === undefined ? undefined : planResolvConf(),
  );
}

/** unix(7): the path of a socket, with the zero at its end. */
const longestSocket = 108;

/** For a registry the host's own network and name servers are to be used. */
function entryArgv({ holder }: MachineRecord, hostNetwork: boolean): string[] {
  if (!hostNetwork) return nsenterArgv(holder.pid);
  const uncover = 'umount /etc/resolv.conf 2>/dev/null; exec "$@"';
  return [...nsenterArgv(holder.pid, ['--user', '--mount']), 'unshare', '--mount', 'sh', '-c', uncover, 'sh'];
}

function environment(life: number): string[] {
  const own = path.join(
    process.env.XDG_CONFIG_HOME || path.join(homeDirectory() ?? '/nonexistent', '.config'),
    'minirun/config.yaml',
  );
  const config = process.env.MINIRUN_CONFIG || (fs.existsSync(own) ? own : undefined);
  const variables = {
    ...process.env,
    MINIRUN_ROOT: stateRoot(),
    MINIRUN_CONFIG: config,
    [lifeVariable]: String(life),
    [placeVariable]: process.cwd(),
  };
  return Object.entries(variables).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
}
