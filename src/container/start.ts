import fs from 'node:fs';
import { MinirunError, MinirunErrors, messageOf } from '../errors.ts';
import { applySteps } from '../host/executor.ts';
import { faultPoint, killPoint } from '../host/fault.ts';
import { type Child, launch, launchBackground } from '../host/launch.ts';
import type { Holder } from '../host/holder.ts';
import { bootId, isAlive, isSame, type ProcessRef, processRef, selfRef } from '../host/process.ts';
import { removeTree } from '../host/remove-tree.ts';
import type { Step } from '../host/steps.ts';
import type { Endpoint, PublishedPort } from '../network/definition.ts';
import { hasIpv6 } from '../network/facts.ts';
import { connect, forgoBringUp, leaseAll } from '../network/lifecycle.ts';
import { withLock } from '../state/lock.ts';
import { initEnvironment, unshareArgv } from './argv.ts';
import type { StartingCgroup } from './cgroups.ts';
import type { ContainerState, Definition } from './definition.ts';
import { planFiles, resolversFor } from './etc.ts';
import { recordStart } from './events.ts';
import { finish } from './finish.ts';
import { loggerArgv } from './logger.ts';
import type { OciLinux } from './oci.ts';
import { readPipe } from './pipe.ts';
import {
  type Dismissal,
  type Enter,
  execMark,
  type Failure,
  type Prepare,
  type Ready,
  type Stdio,
} from './protocol.ts';
import { isAtRest } from './status.ts';
import { planContainerNames, settleNames } from './names.ts';
import { namespaceName, type Networking, networkOf } from './networking.ts';
import { hasLinks, linkIfnames, reachOfEndpoint } from './routes-file.ts';
import {
  type Container,
  containerFiles,
  readSpec,
  readState,
  requireContainer,
  writeState,
  writeSteps,
} from './store.ts';
import { isPropagated } from './propagation.ts';
import { interfaceSysctls } from './spec.ts';
import { launchSupervisor } from './supervisor.ts';

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
  onReady?: (ready: Ready) => Promise<void>;
  /** Is told what is not as one might expect, a line each. */
  notice?: (line: string) => void;
  /** Of a container in a user namespace: the beginning of that, when it has been made. */
  holder?: Promise<Holder>;
  /** What becomes of it when it cannot be started: `run` removes it, `start` puts it back. */
  onFailure: 'removed' | 'created' | 'exited';
}

/**
 * Starts a container that is at rest. The order, which `docs/life-of-a-run.md` tells at length:
 *
 * 1. become its owner; write its files
 * 2. start `unshare … minirun init`, which mounts the root filesystem while
 * 3. an address is reserved and the network is wired
 * 4. init enters the namespace as soon as it is there and drops what the container may not have; told to go, it
 *    becomes the command
 */
export async function startContainer(reference: string, mode: StartMode): Promise<Running> {
  const container = requireContainer(reference, true);
  const { id } = container.definition;
  refuseDamaged(container.definition);
  try {
    await claimForStart(container);
    return await startClaimed(container, mode);
  } catch (error) {
    (await mode.holder?.catch(() => undefined))?.end();
    try {
      await finish(
        id,
        { exitCode: error instanceof MinirunError ? (error.code ?? 125) : 125, error: messageOf(error) },
        mode.onFailure,
      );
    } catch (second) {
      throw new MinirunErrors(messageOf(error), [second as Error]);
    }
    throw error;
  }
}

/** Nobody knows what a container was not to be allowed whose definition could be read in part only. */
function refuseDamaged({ name, damaged }: Definition): void {
  if (damaged !== true) return;
  throw new MinirunError(
    `cannot start container "${name}"`,
    'its definition.json was damaged, and only a part of it could be read',
    `Remove it (minirun rm -f ${name}), and create it again`,
  );
}

async function startClaimed({ definition, state }: Container, mode: StartMode): Promise<Running> {
  const { id } = definition;
  const files = containerFiles(id);
  const spec = readSpec(id);
  const network = networkOf(definition);
  if (network.kind === 'own') refuseForeignNamespace(namespaceName(definition));
  for (const stale of [files.exit, files.unshareErrors]) removeTree(stale);
  faultPoint('start.claimed');
  if (definition.volumes?.some(({ named }) => named === true))
    await (await import('./volume-mounts.ts')).mountVolumes(definition);
  await applySteps(planFiles({ definition }, spec.hostname, resolversFor(definition)));
  if (spec.process.apparmorProfile !== undefined || fs.existsSync('/sys/kernel/security/apparmor')) {
    const { confinement } = await import('./apparmor.ts');
    spec.process.apparmorProfile = await confinement(spec.process.apparmorProfile, definition.privileged);
  }

  // 2. Init boots and mounts while the network is made.
  const cgroup = spec.linux.cgroupsPath === undefined ? undefined : (await import('./cgroups.ts')).cgroupFor(id, spec);
  const user =
    definition.userns === undefined
      ? undefined
      : await (await import('./in-user-namespace.ts')).makeUserNamespace(definition, spec, network, mode.holder);
  for (const line of user?.warnings ?? []) mode.notice?.(`warning: ${line}`);
  const unshare = unshareArgv(user?.entry, spec.mounts.some(isPropagated));
  const { child, stdio } = mode.foreground
    ? { child: launch(unshare, initEnvironment), stdio: foregroundStdio(definition) }
    : await launchSupervisor(definition, user?.entry.owner, unshare);
  let isOnRecord = false;
  try {
    faultPoint('process.launched');
    const overlay =
      definition.rootfs === undefined && user === undefined
        ? { lower: definition.layers, upper: files.upper, work: files.work }
        : undefined;
    if (mode.size !== undefined) spec.process.consoleSize = mode.size;
    // Init's mount namespace was copied before `ip netns add` mounts the name, so it looks through this process's root.
    const netns =
      user !== undefined
        ? undefined
        : network.kind === 'own'
          ? `/proc/${process.pid}/root/run/netns/${namespaceName(definition)}`
          : network.kind === 'joined'
            ? network.netns
            : undefined;
    child.send({
      type: 'prepare',
      spec: user?.spec ?? spec,
      overlay,
      netns,
      staged: user !== undefined,
      stdio,
      ownCgroup: cgroup === undefined ? undefined : true,
    } satisfies Prepare);
    const answer = child.receive();
    answer.catch(() => {});
    if (cgroup !== undefined) {
      recordSteps(id, cgroup.steps);
      await applySteps(cgroup.steps);
    }
    // It must be in its cgroup before it mounts what shows it.
    const inCgroup = cgroup === undefined ? undefined : answer.then((message) => enterCgroup(cgroup, message));
    inCgroup?.catch(() => {});

    // 3. Meanwhile the network.
    const enter = (sysctl: Record<string, string>) => child.send({ type: 'enter', sysctl } satisfies Enter);
    const { endpoints, ports } = await wire(
      definition,
      network,
      spec.hostname,
      user?.holder,
      inCgroup === undefined ? enter : (sysctl) => void inCgroup.then(() => enter(sysctl)).catch(() => {}),
      cgroup?.steps ?? [],
    );

    // 4. Go.
    const ready = readyOrFailure(child, await answer, files.unshareErrors);
    user?.release();
    await inCgroup;
    const starting: ContainerState = {
      ...state,
      unannounced: undefined,
      boot: bootId(),
      status: 'starting',
      owner: selfRef(),
      init: processRef(ready.pid),
      netns: network.kind === 'own' ? namespaceName(definition) : undefined,
      endpoints,
      ports,
      cgroup: cgroup === undefined ? undefined : { parts: cgroup.parts },
      paused: undefined,
      oomKilled: undefined,
      stoppedByUser: readState(id)?.stoppedByUser ?? false,
    };
    writeState(id, starting);
    isOnRecord = true;
    faultPoint('init.ready');
    const { oomScoreAdj } = spec.process;
    if (oomScoreAdj !== undefined) setOomScore(ready.pid, oomScoreAdj);
    await cgroup?.limit();
    if (definition.healthcheck !== undefined) await (await import('./health-checks.ts')).beginChecks(definition);
    const status = await whileAlive(starting.init, spec.linux.seccomp, async () => {
      const opened = openStatus(ready, spec.linux.seccomp);
      await mode.onReady?.(ready);
      if (!mode.foreground && definition.tty) await logTerminal(ready, files.log);
      return { opened };
    });
    // Not later: a short command may have ended by the time this process has its turn again.
    const startedAt = new Date().toISOString();
    child.send({ type: 'go' });
    const failure = await status.opened;
    if (failure !== undefined)
      throw new MinirunError(failure.what, failure.why, failure.remedy, { code: failure.code });
    faultPoint('process.started');
    const owner = mode.foreground ? selfRef() : processRef(child.pid);
    await withLock(() => {
      const current = readState(id);
      if (current?.status !== 'starting')
        throw new MinirunError('cannot start the container', 'another process has taken it over');
      recordStart(definition, starting, mode.foreground);
      killPoint('start.announced');
      writeState(id, {
        ...starting,
        status: 'running',
        owner: owner ?? { pid: child.pid, start: 0 },
        startedAt,
        finishedAt: '',
        exitCode: 0,
        error: '',
        // `stop` may have come meanwhile.
        stoppedByUser: current.stoppedByUser,
        unborn: false,
      });
    });
    killPoint('container.running');
    return { child, ready };
  } catch (error) {
    // What it is just mounting is not to appear in a folder that is being deleted. Once it is on record, `finish` ends it.
    if (isOnRecord) child.release();
    else await child.dismiss({ type: 'dismissal' } satisfies Dismissal);
    user?.release();
    throw error;
  }
}

/** proc_pid_oom_score_adj(5) */
function setOomScore(pid: number, score: number): void {
  try {
    fs.writeFileSync(`/proc/${pid}/oom_score_adj`, String(score));
  } catch (error) {
    throw new MinirunError('cannot set --oom-score-adj', messageOf(error), 'Give a higher one, or leave it out');
  }
}

/** Puts an init that is ready into its cgroup; of one that has failed the message is told elsewhere. */
async function enterCgroup(cgroup: StartingCgroup, message: Record<string, unknown> | undefined): Promise<void> {
  const { type, pid } = (message ?? {}) as Partial<Ready>;
  if (type === 'ready' && pid !== undefined) await cgroup.enter(pid);
}

/** Gives the container its network; what it has got in the end stands in its state. */
async function wire(
  definition: Definition,
  network: Networking,
  hostname: string,
  holder: number | undefined,
  enter: (sysctl: Record<string, string>) => void,
  before: readonly Step[],
): Promise<{ endpoints: Endpoint[]; ports?: PublishedPort[] }> {
  const { id } = definition;
  if (network.kind !== 'own') {
    enter({});
    return { endpoints: [] };
  }
  const netns = namespaceName(definition);
  const leases = await leaseAll(network.attachments, id, linkIfnames(id));
  const endpoints = leases.map(({ endpoint }) => endpoint);
  let ports: PublishedPort[] | undefined;
  let published: Step[] = [];
  try {
    if (leases.length > 0) faultPoint('address.leased');
    if (definition.publish !== undefined || definition.publishAll === true) {
      const { planPublished, reserveFor } = await import('./publish.ts');
      ports = await reserveFor(definition, endpoints);
      published = planPublished(ports, endpoints);
      faultPoint('ports.reserved');
    }
  } catch (error) {
    for (const lease of leases) await forgoBringUp(lease);
    throw error;
  }
  const names = planContainerNames(definition, hostname, netns, leases);
  const proceed = () => enter(interfaceSysctls(endpoints, hasIpv6()));
  const linked = hasLinks(id);
  await connect({
    netns,
    holder,
    leases,
    further: [...names.steps, ...published],
    record: (steps) => recordSteps(id, [...before, ...steps]),
    // With links, init enters when they are there too: it sets the sysctls of their interfaces.
    present: linked ? () => {} : proceed,
  });
  if (linked) {
    await (await import('./links.ts')).joinLinks(id, netns, endpoints.map(reachOfEndpoint));
    proceed();
  }
  await settleNames(definition, hostname, endpoints, names.resolution);
  faultPoint('network.connected');
  return { endpoints, ports };
}

/** Opens what only a living init has. @throws MinirunError when it fails because init was killed */
async function whileAlive<T>(
  init: ProcessRef | undefined,
  seccomp: OciLinux['seccomp'],
  open: () => Promise<T>,
): Promise<T> {
  try {
    return await open();
  } catch (error) {
    if (isAlive(init)) throw error;
    const { what, why, remedy } = killed(seccomp);
    throw new MinirunError(what, why, remedy);
  }
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
  const { id, name } = definition;
  const self = selfRef();
  const isOurs = ({ owner }: ContainerState) => isSame(owner, self);
  const claim = (state: ContainerState) =>
    writeState(id, {
      ...state,
      status: 'starting',
      owner: self,
      boot: bootId(),
      stoppedByUser: false,
      unannounced: undefined,
    });
  // `run` has just made it, and nobody else touches one that is being created. But whoever puts something into an empty
  // volume looks, in a critical section, whether a container is about to mount it.
  const created = readState(id);
  const isAlone = !definition.volumes?.some(({ named }) => named === true);
  if (created?.status === 'creating' && isOurs(created) && isAlone) return claim(created);
  await withLock(() => {
    const state = readState(id);
    if (state === undefined) throw new MinirunError(`no container "${name}"`, 'it has just been removed');
    if (!isAtRest(state) && !isOurs(state)) {
      throw new MinirunError(
        `cannot start container "${name}"`,
        `it is ${state.status}`,
        `Stop it first: minirun stop ${name}`,
      );
    }
    claim(state);
  });
}

/** Written before the first step is applied: a killed process then leaves a trail for whoever comes next. */
function recordSteps(id: string, steps: readonly Step[]): void {
  writeSteps(id, steps);
  faultPoint('steps.recorded');
}

function readyOrFailure(child: Child, answer: Record<string, unknown> | undefined, errors: string): Ready {
  const message = answer as Ready | Failure | undefined;
  if (message?.type === 'ready') return message;
  if (message?.type === 'failed')
    throw new MinirunError(message.what, message.why, message.remedy, { code: message.code });
  // A supervisor's unshare complains to a file.
  const complaints = fs.existsSync(errors) ? fs.readFileSync(errors, 'utf8') : child.stderr();
  const diagnostics = complaints.trim().split('\n').at(-1);
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
export function openStatus(ready: Ready, seccomp: OciLinux['seccomp']): Promise<Failure | undefined> {
  // Opened now, while init still waits and so has the other end.
  const fd = fs.openSync(`/proc/${ready.pid}/fd/${ready.fds.status}`, 'r');
  return readToEnd(fd).then((content) => {
    const line = content.split('\n').find((each) => each.startsWith('{'));
    if (line !== undefined) return JSON.parse(line) as Failure;
    if (content.startsWith(execMark)) return undefined;
    return killed(seccomp);
  });
}

/** What init's death says, after it was ready. A profile of the user's own is already on init for its last steps. */
function killed(seccomp: OciLinux['seccomp']): Failure {
  const failure = { type: 'failed', what: 'cannot start the container', code: 125 } as const;
  if (typeof seccomp === 'string') return { ...failure, why: 'its init process was killed' };
  return {
    ...failure,
    why: 'its init process was killed, probably by the seccomp profile, under which it has its last steps to take',
    remedy: 'Look into docs/security-options.md for what it needs',
  };
}

async function readToEnd(fd: number): Promise<string> {
  let content = '';
  for await (const chunk of readPipe(fd)) content += chunk.toString();
  return content;
}

/** Gives a detached container's terminal to a logger that reads it for as long as the container runs. */
async function logTerminal(ready: Ready, directory: string): Promise<void> {
  const { takeDescriptor } = await import('./libc.ts');
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
