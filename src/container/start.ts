import fs from 'node:fs';
import { MinirunError, messageOf } from '../errors.ts';
import { applySteps } from '../host/executor.ts';
import { faultPoint } from '../host/fault.ts';
import { type Child, launch, launchBackground } from '../host/launch.ts';
import { bootId, processRef, selfRef } from '../host/process.ts';
import type { Step } from '../host/steps.ts';
import { connect, type Lease, leaseAddress } from '../network/lifecycle.ts';
import { writeJson } from '../state/json.ts';
import { withLock } from '../state/lock.ts';
import { initEnvironment, unshareArgv } from './argv.ts';
import type { ContainerState } from './definition.ts';
import { hostResolvers, hostsContent, planFiles } from './etc.ts';
import { finish } from './finish.ts';
import { loggerArgv } from './logger.ts';
import { execMark, type Failure, type Prepare, type Ready, type Stdio } from './protocol.ts';
import { namespaceName, networkOf } from './networking.ts';
import { type Container, containerFiles, readSpec, readState, requireContainer, writeState } from './store.ts';
import { supervisorArgv } from './supervisor.ts';

/** A container whose command is running. */
export interface Running {
  /** What was started: `unshare` in the foreground, the supervisor otherwise. */
  child: Child;
  ready: Ready;
}

/** How a container is started. */
export interface StartMode {
  foreground: boolean;
  /** Rows and columns of the user's terminal. */
  size?: { height: number; width: number };
  /** Called with init's descriptors just before the command begins: the last moment to open their other ends. */
  onReady?: (ready: Ready) => void;
  /** What becomes of it when it cannot be started: `run` removes it, `start` puts it back. */
  onFailure: 'removed' | 'created' | 'exited';
}

/**
 * Starts a container that is at rest. The order, which `docs/life-of-a-run.md` tells at length:
 *
 * 1. become its owner; write its files
 * 2. start `unshare … minirun init`, which mounts the root filesystem while
 * 3. an address is reserved and the network is wired
 * 4. init is told to go: it enters the network, drops what the container may not have, becomes the command
 */
export async function startContainer(reference: string, mode: StartMode): Promise<Running> {
  const container = requireContainer(reference, true);
  const { id } = container.definition;
  await claimForStart(container);
  try {
    return await startClaimed(container, mode);
  } catch (error) {
    await finish(id, { exitCode: error instanceof MinirunError ? (error.code ?? 125) : 125, error: messageOf(error) }, mode.onFailure);
    throw error;
  }
}

async function startClaimed({ definition, state }: Container, mode: StartMode): Promise<Running> {
  const { id } = definition;
  const files = containerFiles(id);
  const spec = readSpec(id);
  const network = networkOf(definition);
  if (network.kind === 'own') refuseForeignNamespace(namespaceName(definition));
  fs.rmSync(files.exit, { force: true });
  faultPoint('start.claimed');
  await applySteps(planFiles({ definition }, spec.hostname, hostResolvers()));

  // 2. Init boots and mounts while the network is made.
  const supervised = mode.foreground ? undefined : supervisorArgv(definition);
  const stdio: Stdio = supervised?.stdio ?? foregroundStdio(definition);
  const child = launch(supervised?.argv ?? unshareArgv(), initEnvironment);
  faultPoint('process.launched');
  const overlay = definition.rootfs === undefined ? { lower: definition.layers, upper: files.upper, work: files.work } : undefined;
  if (mode.size !== undefined) spec.process.consoleSize = mode.size;
  // Init's mount namespace was copied before `ip netns add` mounts the name, so it looks through this process's root.
  const netns = network.kind === 'own' ? `/proc/${process.pid}/root/run/netns/${namespaceName(definition)}` : network.kind === 'joined' ? network.netns : undefined;
  child.send({ type: 'prepare', spec, overlay, netns, stdio } satisfies Prepare);
  const answer = child.receive();
  answer.catch(() => {});

  // 3. Meanwhile the network.
  let lease: Lease | undefined;
  try {
    if (network.kind === 'own') {
      if (network.name !== 'none') lease = await leaseAddress(network.name, id, definition.address);
      faultPoint('address.leased');
      await connect(namespaceName(definition), lease, (steps) => recordSteps(id, steps));
    }
    faultPoint('network.connected');
  } catch (error) {
    // Init sees the socket close and ends; nothing of the container has run.
    child.release();
    throw error;
  }
  const endpoints = lease === undefined ? [] : [lease.endpoint];
  if (lease !== undefined) {
    await applySteps([
      {
        id: 'etc.hosts',
        why: "The container's own name stands for its address.",
        apply: [{ tool: 'file', path: files.hosts, content: hostsContent(definition, spec.hostname, lease.endpoint.address), mode: 0o644 }],
        undo: [],
      },
    ]);
  }

  // 4. Go.
  const ready = await readyOrFailure(child, await answer);
  const started: ContainerState = {
    ...state,
    boot: bootId(),
    status: 'starting',
    owner: selfRef(),
    init: processRef(ready.pid),
    netns: network.kind === 'own' ? namespaceName(definition) : undefined,
    endpoints,
  };
  writeState(id, started);
  faultPoint('init.ready');
  const status = openStatus(ready);
  mode.onReady?.(ready);
  if (!mode.foreground && definition.tty) await logTerminal(ready, files.log);
  child.send({ type: 'go' });
  const failure = await status;
  if (failure !== undefined) throw new MinirunError(failure.what, failure.why, failure.remedy, { code: failure.code });
  faultPoint('process.started');
  const owner = mode.foreground ? selfRef() : processRef(child.pid);
  await withLock(() => {
    // `stop` or `rm -f` may have been quicker.
    if (readState(id)?.status !== 'starting') return;
    writeState(id, {
      ...started,
      status: 'running',
      owner: owner ?? { pid: child.pid, start: 0 },
      startedAt: new Date().toISOString(),
      finishedAt: '',
      exitCode: 0,
      error: '',
      stoppedByUser: false,
      unborn: false,
    });
  });
  faultPoint('container.running');
  return { child, ready };
}

/** A namespace of that name that somebody else made is not ours to use, nor to delete. */
function refuseForeignNamespace(name: string): void {
  if (!fs.existsSync(`/run/netns/${name}`)) return;
  throw new MinirunError(
    `cannot make the network namespace "${name}"`,
    'one of that name exists already and is not of minirun',
    `Delete it (ip netns del ${name}), or choose another --name`,
  );
}

function foregroundStdio(definition: { tty: boolean; openStdin: boolean }): Stdio {
  return definition.tty ? 'pty' : { stdin: definition.openStdin ? 'pipe' : 'null', stdout: 'pipe', stderr: 'pipe' };
}

/** Becomes the container's owner. @throws MinirunError when it is running or somebody else is at it */
async function claimForStart({ definition }: Container): Promise<void> {
  await withLock(() => {
    const state = readState(definition.id);
    if (state === undefined) throw new MinirunError(`no container "${definition.name}"`, 'it has just been removed');
    const self = selfRef();
    const ours = state.owner?.pid === self.pid && state.owner.start === self.start;
    if (state.status !== 'created' && state.status !== 'exited' && !ours) {
      throw new MinirunError(`cannot start container "${definition.name}"`, `it is ${state.status}`, `Stop it first: minirun stop ${definition.name}`);
    }
    writeState(definition.id, { ...state, status: 'starting', owner: self, boot: bootId() });
  });
}

/** Written before the first step is applied: a killed process then leaves a trail for whoever comes next. */
function recordSteps(id: string, steps: readonly Step[]): void {
  writeJson(containerFiles(id).steps, steps, { durable: false });
  faultPoint('steps.recorded');
}

async function readyOrFailure(child: Child, answer: Record<string, unknown> | undefined): Promise<Ready> {
  const message = answer as Ready | Failure | undefined;
  if (message?.type === 'ready') return message;
  if (message?.type === 'failed') throw new MinirunError(message.what, message.why, message.remedy, { code: message.code });
  const diagnostics = child.stderr().trim().split('\n').at(-1);
  throw new MinirunError(
    'cannot start the container',
    diagnostics || 'its init process ended without a word',
    'Run minirun doctor to see what this machine lacks',
  );
}

/**
 * Waits at init's status pipe: end of file after the mark means that execve took place.
 *
 * @returns the failure, or undefined when the command runs
 */
export function openStatus(ready: Ready): Promise<Failure | undefined> {
  // Opened now, while init still waits and so has the other end.
  const fd = fs.openSync(`/proc/${ready.pid}/fd/${ready.fds.status}`, 'r');
  return readToEnd(fd).then((content) => {
    const line = content.split('\n').find((each) => each.startsWith('{'));
    if (line !== undefined) return JSON.parse(line) as Failure;
    if (content.startsWith(execMark)) return undefined;
    return { type: 'failed', what: 'cannot start the container', why: 'its init process was killed', code: 125 };
  });
}

async function readToEnd(fd: number): Promise<string> {
  let content = '';
  for await (const chunk of fs.createReadStream('', { fd })) content += String(chunk);
  return content;
}

/** Gives a detached container's terminal to a logger that reads it for as long as the container runs. */
async function logTerminal(ready: Ready, directory: string): Promise<void> {
  const { takeDescriptor } = await import('./terminal.ts');
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  const master = takeDescriptor(ready.pid, ready.fds.terminal as number);
  const logger = loggerArgv(`${directory}/stdout`) ?? ['sh', '-c', 'exec cat >>"$0"', `${directory}/plain`];
  launchBackground(logger, master);
}

/** Hard limit of open files of this process, which a container's must not exceed. */
export function openFilesHardLimit(): number {
  const line = /^Max open files\s+\S+\s+(\S+)/m.exec(fs.readFileSync('/proc/self/limits', 'latin1'));
  return line?.[1] === 'unlimited' ? 1048576 : Number(line?.[1] ?? 1024);
}
