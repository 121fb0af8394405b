import fs from 'node:fs';
import os from 'node:os';
import { runTool } from '../host/exec.ts';
import { smallMachine } from '../host/machine.ts';
import { listImages } from '../image/store.ts';
import { listNetworks } from '../network/store.ts';
import { stateRoot } from '../state/paths.ts';
import { shownStatus, statusWord } from './status.ts';
import { listContainers } from './store.ts';

/** What minirun keeps here and what the machine is; names as in docker's `info`, as far as it has them. */
export interface SystemInfo {
  Containers: number;
  ContainersRunning: number;
  ContainersPaused: number;
  ContainersStopped: number;
  Images: number;
  Networks: number;
  Driver: string;
  /** Docker calls its directory of state so. */
  DockerRootDir: string;
  /** Whether this is an ordinary user's, in a machine in small. */
  Rootless: boolean;
  StateRoot: string;
  CgroupVersion: string;
  /** As `iptables --version` has it. */
  FirewallBackend: string;
  KernelVersion: string;
  OperatingSystem: string;
  OSType: string;
  Architecture: string;
  NCPU: number;
  MemTotal: number;
  Name: string;
  ServerVersion: string;
}

/** @param version of minirun */
export async function systemInfo(version: string): Promise<SystemInfo> {
  const containers = listContainers();
  const states = containers.map(({ state }) => shownStatus(state));
  const paused = containers.filter(({ state }) => statusWord(state) === 'paused').length;
  const running = states.filter((status) => status === 'running' || status === 'restarting').length;
  return {
    Containers: states.length,
    ContainersRunning: running - paused,
    ContainersPaused: paused,
    ContainersStopped: states.length - running,
    Images: new Set(listImages().map(({ id }) => id)).size,
    Networks: listNetworks().length,
    Driver: 'overlay',
    DockerRootDir: stateRoot(),
    Rootless: smallMachine() !== undefined,
    StateRoot: stateRoot(),
    CgroupVersion: fs.existsSync('/sys/fs/cgroup/cgroup.controllers') ? '2' : '1',
    FirewallBackend: await firewallBackend(),
    KernelVersion: os.release(),
    OperatingSystem: operatingSystem(),
    OSType: 'linux',
    Architecture: os.machine(),
    NCPU: os.cpus().length,
    MemTotal: os.totalmem(),
    Name: os.hostname(),
    ServerVersion: version,
  };
}

async function firewallBackend(): Promise<string> {
  try {
    return (await runTool('iptables', ['--version'])).stdout.trim();
  } catch {
    return 'none';
  }
}

function operatingSystem(): string {
  for (const file of ['/etc/os-release', '/usr/lib/os-release']) {
    try {
      const name = /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(fs.readFileSync(file, 'utf8'))?.[1];
      if (name !== undefined) return name;
    } catch {
      // The next place may have it.
    }
  }
  return 'Linux';
}
