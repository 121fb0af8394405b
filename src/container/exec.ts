import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { type Child, launch } from '../host/launch.ts';
import { randomHex } from '../host/random.ts';
import { initEnvironment, nsenterArgv } from './argv.ts';
import { attach, SignalProxy } from './attach.ts';
import { capabilityNames } from './capabilities.ts';
import type { Definition } from './definition.ts';
import { recordContainer } from './events.ts';
import type { OciProcess } from './oci.ts';
import { checkUser, mergeEnv, parseEnv, parseEnvFile } from './options.ts';
import type { Failure, Join, Ready, Stdio } from './protocol.ts';
import { openStatus } from './start.ts';
import { requireRunning } from './stop.ts';
import { type Container, readSpec, readState, requireContainer } from './store.ts';

/** What `exec` takes, as it was typed. */
export interface ExecRequest {
  command: string[];
  env: string[];
  /** Contents of `--env-file`s. */
  envFiles: string[];
  workdir?: string;
  user?: string;
  tty: boolean;
  interactive: boolean;
  privileged: boolean;
  detach: boolean;
}

/**
 * Runs a further command in a running container: `nsenter` joins its namespaces, and init enters its mounts and drops
 * the same privileges as the container's first process did.
 *
 * @returns the command's exit code; 0 at once when it is detached
 */
export async function execInContainer(reference: string, request: ExecRequest): Promise<number> {
  const container = requireContainer(reference);
  requireRunning(container, 'exec in');
  if (container.state.paused) {
    const { name } = container.definition;
    throw new MinirunError(
      `cannot exec in container "${name}"`,
      'it is paused',
      `Let it go on first: minirun unpause ${name}`,
    );
  }
  const signals = new SignalProxy(!request.detach);
  const stdio: Stdio = request.detach
    ? { stdin: 'null', stdout: 'null', stderr: 'null' }
    : request.tty
      ? 'pty'
      : { stdin: request.interactive ? 'pipe' : 'null', stdout: 'pipe', stderr: 'pipe' };
  const { child, ready, status } = await enterContainer(container, request, stdio);
  const tell = execEvents(container.definition, request.command);
  tell('exec_create');
  const foreground = request.detach
    ? undefined
    : await attach(ready, { tty: request.tty, stdin: request.interactive, signals });
  try {
    child.send({ type: 'go' });
    foreground?.begin(ready.pid);
    const failure = await status;
    if (failure !== undefined)
      throw new MinirunError(failure.what, failure.why, failure.remedy, { code: failure.code });
    tell('exec_start');
    if (foreground === undefined) {
      child.release();
      return 0;
    }
    const exitCode = await child.exited;
    await foreground.end();
    tell('exec_die', exitCode);
    return exitCode;
  } finally {
    foreground?.restore();
    signals.end();
  }
}

/** A process in a container that waits for `go`. */
export interface Entered {
  child: Child;
  ready: Ready;
  /** Resolves when its command runs: with undefined, or why it cannot. */
  status: Promise<Failure | undefined>;
}

/** Starts an init in a running container, which is to become a further process of it. */
export async function enterContainer(container: Container, request: ExecRequest, stdio: Stdio): Promise<Entered> {
  const spec = readSpec(container.definition.id);
  const pid = container.state.init?.pid as number;
  const inUserNamespace = container.definition.userns !== undefined;
  const limits = inUserNamespace ? (await import('./raised-limits.ts')).raisedLimitsArgv(spec.process.rlimits) : [];
  const child = launch([...limits, ...nsenterArgv(pid, inUserNamespace)], initEnvironment);
  child.send({
    type: 'join',
    pid,
    process: { ...planExec(spec.process, request), apparmorProfile: await profileFor(spec.process, request) },
    // A profile that was given stays, as for a privileged container.
    seccomp: request.privileged && spec.linux.seccomp === 'default' ? 'unconfined' : spec.linux.seccomp,
    stdio,
    inUserNamespace,
  } satisfies Join);
  const ready = readyOf(child, (await child.receive()) as Ready | Failure | undefined);
  const { id } = container.definition;
  if (readState(id)?.cgroup !== undefined) (await import('./cgroups.ts')).joinCgroup(id, ready.pid);
  return { child, ready, status: openStatus(ready, spec.linux.seccomp) };
}

/** The AppArmor profile: that of the container. Nothing is loaded where the machine has no AppArmor. */
async function profileFor(own: OciProcess, request: ExecRequest): Promise<string | undefined> {
  if (own.apparmorProfile === undefined && !fs.existsSync('/sys/kernel/security/apparmor')) return undefined;
  const { confinementOfExec } = await import('./apparmor.ts');
  return confinementOfExec(own.apparmorProfile, request.privileged);
}

/** Docker's events of a further process; the command stands behind the first two. */
function execEvents(definition: Definition, command: readonly string[]) {
  const execID = randomHex(32);
  return (action: 'exec_create' | 'exec_start' | 'exec_die', exitCode?: number) =>
    recordContainer(definition, action === 'exec_die' ? action : `${action}: ${command.join(' ')}`, {
      execID,
      ...(exitCode === undefined ? {} : { exitCode: String(exitCode) }),
    });
}

/** The process that `exec` adds: the container's own with what was asked for. Pure. */
export function planExec(own: OciProcess, request: ExecRequest): OciProcess {
  const env = mergeEnv(
    own.env,
    request.tty ? ['TERM=xterm'] : [],
    request.envFiles.flatMap((content) => parseEnvFile(content, process.env)),
    request.env.map((text) => parseEnv(text, process.env)),
  );
  const capabilities = request.privileged
    ? {
        bounding: [...capabilityNames],
        effective: [...capabilityNames],
        permitted: [...capabilityNames],
        inheritable: [],
        ambient: [],
      }
    : own.capabilities;
  const consoleSize =
    request.tty && process.stdout.isTTY ? { height: process.stdout.rows, width: process.stdout.columns } : undefined;
  const cwd = request.workdir ?? own.cwd;
  return {
    ...own,
    args: request.command,
    env,
    capabilities,
    terminal: request.tty,
    consoleSize,
    cwd,
    user: userOf(own, request),
  };
}

function userOf(own: OciProcess, request: ExecRequest): OciProcess['user'] {
  // Docker's: the groups of --group-add are the container's, whoever runs in it.
  return request.user === undefined ? own.user : { ...own.user, username: checkUser(request.user) };
}

function readyOf(child: Child, message: Ready | Failure | undefined): Ready {
  if (message?.type === 'ready') return message;
  if (message?.type === 'failed')
    throw new MinirunError(message.what, message.why, message.remedy, { code: message.code });
  throw new MinirunError(
    'cannot enter the container',
    child.stderr().trim().split('\n').at(-1) || 'it has just ended',
    'See minirun ps',
  );
}
