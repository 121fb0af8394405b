import fs from 'node:fs';
import path from 'node:path';
import { endDaemon } from '../host/daemon.ts';
import { isAlive, type ProcessRef, processRef, signalProcess } from '../host/process.ts';
import { nameServers } from '../network/names.ts';
import { listNetworks } from '../network/store.ts';
import { paths, stateRoot } from '../state/paths.ts';
import type { Found } from './finding.ts';
import { type Container, isGone } from './store.ts';

/**
 * Supervisors and loggers of containers that do not run any more, and name servers of networks and containers that are gone. They are
 * known by their command lines, which name the state directory; one of that name in another mount namespace (of a minirun that
 * runs in a container) is another one.
 */
export function auditProcesses(containers: readonly Container[]): Found[] {
  const networks = new Set(listNetworks().map(({ name }) => name));
  const found: Found[] = [];
  for (const { ref, argv } of processes()) {
    const of = supervised(argv) ?? logged(argv);
    if (of === undefined || !isGone(of.id, containers) || !seesOurs(ref.pid)) continue;
    found.push({
      kind: 'process',
      name: `${ref.pid} (${of.what})`,
      problem: `of container ${of.id.slice(0, 12)}, which does not run`,
      remedy: 'ended',
      mend: async () => end(ref),
    });
  }
  for (const { of, kind, pidFile } of nameServers()) {
    if (kind === 'network' ? networks.has(of) : !isGone(of, containers)) continue;
    found.push({
      kind: 'process',
      name: `name server ${path.basename(pidFile) === 'pid' ? of : of.slice(0, 12)}`,
      problem: `its ${kind} is gone`,
      remedy: 'ended',
      mend: async () => endDaemon(pidFile),
    });
  }
  return found;
}

interface Process {
  ref: ProcessRef;
  argv: string[];
}

function processes(): Process[] {
  return fs.readdirSync('/proc').flatMap((entry): Process[] => {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) return [];
    try {
      const argv = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      const ref = processRef(pid);
      return ref === undefined ? [] : [{ ref, argv }];
    } catch {
      // It has just ended.
      return [];
    }
  });
}

/** Whether the state directory is the same one for a process. */
function seesOurs(pid: number): boolean {
  try {
    const [own, other] = [fs.statSync(paths.containers()), fs.statSync(`/proc/${pid}/root${paths.containers()}`)];
    return own.ino === other.ino && own.dev === other.dev;
  } catch {
    return false;
  }
}

/** `sh -c SCRIPT minirun-supervisor FOLDER ID BINARY ROOT …` (`supervisor.ts`). */
function supervised(argv: readonly string[]): { what: string; id: string } | undefined {
  const [, , , title, , id = '', , root] = argv;
  return title === 'minirun-supervisor' && root === stateRoot() ? { what: 'supervisor', id } : undefined;
}

/** `s6-log … ROOT/containers/ID/log/stdout` (`logger.ts`). */
function logged(argv: readonly string[]): { what: string; id: string } | undefined {
  if (path.basename(argv[0] ?? '') !== 's6-log') return undefined;
  const prefix = `${paths.containers()}/`;
  const directory = argv.find((word) => word.startsWith(prefix));
  const id = directory?.slice(prefix.length).split('/')[0];
  return id === undefined ? undefined : { what: 'logger', id };
}

/** Ends a process and what it has started: a supervisor's unshare takes its container along. */
async function end(ref: ProcessRef): Promise<void> {
  const children = childrenOf(ref.pid);
  signalProcess(ref, 'SIGKILL');
  for (const child of children) signalProcess(child, 'SIGKILL');
  for (let tries = 0; isAlive(ref) && tries < 500; tries++) await new Promise((resolve) => setTimeout(resolve, 2));
}

function childrenOf(pid: number): ProcessRef[] {
  try {
    const pids = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim();
    return pids === '' ? [] : pids.split(' ').flatMap((child) => processRef(Number(child)) ?? []);
  } catch {
    return [];
  }
}
