import fs from 'node:fs';
import path from 'node:path';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { MinirunError } from '../errors.ts';
import { type Child, helperArgv, launch } from '../host/launch.ts';
import { bootId, isAlive, isSame, selfRef } from '../host/process.ts';
import { decompressed } from '../image/compression.ts';
import { withLock } from '../state/lock.ts';
import { initEnvironment } from './argv.ts';
import type { ContainerState } from './definition.ts';
import type { Archive, ArchiveRoot, Failure, Packed, Reading, Unpacked, WriteFiles } from './protocol.ts';
import {
  type Container,
  containerFiles,
  isRunning,
  readOwners,
  readSpec,
  readState,
  requireContainer,
  writeState,
} from './store.ts';

/** `cp`'s options. */
export interface CopyOptions {
  /** `-a`: keep the numbers of owners and groups; out of a container also devices and setuid bits. */
  archive: boolean;
  /** `-L`: when the source is a symbolic link, copy what it points to. */
  followLink: boolean;
}

const inContainer = 'in the container';
const onHost = 'on this machine';
const root = { uid: 0, gid: 0 };

/** Copies out of a container to a path of this machine. @returns bytes of all regular files */
export async function copyOut(
  reference: string,
  source: string,
  destination: string,
  options: CopyOptions,
): Promise<number> {
  const container = requireContainer(reference);
  const reader = await openReader(readableRoot(container), inContainer, absolute(source), options.followLink);
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  return transfer(reader, { kind: 'host' }, onHost, {
    type: 'write',
    path: hostPath(destination),
    owner: options.archive ? undefined : owner,
    careful: !options.archive,
  });
}

/** Writes a tar archive of something in a container to a stream. */
export async function copyOutAsTar(
  reference: string,
  source: string,
  sink: Writable,
  options: CopyOptions,
): Promise<void> {
  const container = requireContainer(reference);
  const reader = await openReader(readableRoot(container), inContainer, absolute(source), options.followLink);
  try {
    await pipeline(fs.createReadStream('', { fd: reader.begin(), highWaterMark: 1 << 18 }), sink, { end: false });
  } catch (error) {
    // Whoever reads it has had enough (`| head`).
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
    return;
  }
  await reader.end();
}

/** Copies a path of this machine into a container. @returns bytes of all regular files */
export async function copyIn(
  source: string,
  reference: string,
  destination: string,
  options: CopyOptions,
): Promise<number> {
  return withWritableRoot(reference, async (into) => {
    const reader = await openReader({ kind: 'host' }, onHost, hostPath(source), options.followLink);
    return transfer(reader, into, inContainer, {
      type: 'write',
      path: absolute(destination),
      owner: options.archive ? undefined : root,
      careful: false,
    });
  });
}

/** Unpacks a tar archive, plain or compressed, into a directory of a container. @returns bytes of all regular files */
export async function copyInFromTar(source: Readable, reference: string, destination: string): Promise<number> {
  return withWritableRoot(reference, async (into) => {
    const writer = startHelper(
      into,
      inContainer,
      { type: 'write', path: absolute(destination), careful: false },
      'pipe',
    );
    const input = writer.stdin as Writable;
    try {
      await pipeline(Readable.from(decompressed(source), { objectMode: false }), input);
    } catch (error) {
      if (error instanceof MinirunError) {
        // What has arrived so far would look like the whole archive.
        process.kill(writer.pid, 'SIGKILL');
        throw error;
      }
      // When the writer refuses something it ends: what it says counts, and not the broken pipe.
    }
    return bytesOf(await answerOf(writer));
  });
}

/** A path in a container: docker's are relative to its root. */
function absolute(file: string): string {
  return `/${file}`.replace(/^\/+/, '/');
}

/** A path of this machine from its root on. What its end says (`/`, `/.`) is kept. */
function hostPath(file: string): string {
  return path.isAbsolute(file) ? file : `${process.cwd()}/${file}`;
}

/** A process that writes an archive into a pipe. */
interface Reader {
  source: { name: string; directory: boolean };
  /** Lets it begin. @returns a descriptor to read from, to be closed by the caller */
  begin(): number;
  /** Waits for its end. @throws MinirunError when it has not written all */
  end(): Promise<void>;
  /** Ends it. */
  stop(): void;
}

async function openReader(from: ArchiveRoot, where: string, file: string, followLink: boolean): Promise<Reader> {
  const child = startHelper(from, where, { type: 'read', path: file, followLink });
  const { fd, name, directory } = (await answerOf(child)) as Reading;
  return {
    source: { name, directory },
    begin: () => {
      const opened = fs.openSync(`/proc/${child.pid}/fd/${fd}`, 'r');
      child.send({ type: 'go' });
      return opened;
    },
    end: async () => {
      await answerOf(child);
    },
    stop: () => {
      process.kill(child.pid, 'SIGKILL');
    },
  };
}

/** Has one process make what another reads. The data goes from one to the other directly, by a pipe. */
async function transfer(reader: Reader, into: ArchiveRoot, where: string, action: WriteFiles): Promise<number> {
  const data = reader.begin();
  let writer: Child;
  try {
    writer = startHelper(into, where, { ...action, source: reader.source }, data);
  } catch (error) {
    reader.stop();
    throw error;
  } finally {
    fs.closeSync(data);
  }
  const [read, written] = await Promise.allSettled([reader.end(), answerOf(writer)]);
  // A reader that was cut off by its writer says nothing of its own, and the writer says why.
  if (written.status === 'rejected' && !(read.status === 'rejected' && !isCutOff(read.reason))) throw written.reason;
  if (read.status === 'rejected') throw read.reason;
  return bytesOf((written as PromiseFulfilledResult<Unpacked>).value);
}

function startHelper(
  from: ArchiveRoot,
  where: string,
  action: Archive['action'],
  stdin: 'ignore' | 'pipe' | number = 'ignore',
): Child {
  // There, files have the owners that the container gives them.
  const inside = from.kind === 'process' && from.inUserNamespace ? from.pid : undefined;
  const child = launch(helperArgv(inside), initEnvironment, stdin);
  child.send({ type: 'archive', root: from, where, action } satisfies Archive);
  return child;
}

const cutOff = 'the process that does it was ended';

function isCutOff(error: unknown): boolean {
  return error instanceof MinirunError && error.why === cutOff;
}

async function answerOf(child: Child): Promise<Reading | Packed | Unpacked> {
  const answer = (await child.receive()) as Reading | Packed | Unpacked | Failure | undefined;
  if (answer === undefined) throw new MinirunError('cannot copy', child.stderr().trim() || cutOff);
  if (answer.type === 'failed') throw new MinirunError(answer.what, answer.why, answer.remedy, { code: answer.code });
  return answer;
}

function bytesOf(answer: Reading | Packed | Unpacked): number {
  return answer.type === 'unpacked' ? answer.bytes : 0;
}

/** Only once its command runs: before, init's root is still that of this machine. */
function runningRoot({ definition, state }: Container): ArchiveRoot | undefined {
  if (state.status !== 'running' || !isRunning(state) || state.init === undefined) return undefined;
  return { kind: 'process', ...state.init, inUserNamespace: definition.userns !== undefined };
}

/** The root of a container to read from. One that is at rest is mounted read-only, which gets in nobody's way. */
function readableRoot(container: Container): ArchiveRoot {
  return runningRoot(container) ?? restingRoot(container, false);
}

function restingRoot({ definition }: Container, writable: boolean): ArchiveRoot {
  const files = containerFiles(definition.id);
  const spec = readSpec(definition.id);
  // One that was never started has no folders yet.
  if (definition.rootfs === undefined) {
    for (const folder of [files.upper, files.work, files.rootfs])
      fs.mkdirSync(folder, { recursive: true, mode: 0o755 });
  }
  const overlay = writable
    ? { lower: definition.layers, upper: files.upper, work: files.work }
    : { lower: [files.upper, ...definition.layers] };
  return {
    kind: 'rootfs',
    directory: spec.root.path,
    overlay: definition.rootfs === undefined ? overlay : undefined,
    mounts: spec.mounts.filter((mount) => mount.type === 'bind'),
    readonly: spec.root.readonly,
    owners: readOwners(definition.id),
  };
}

/**
 * Gives a container's root to write to. While one that is at rest is being written to nobody can start it, because two
 * overlays with one upper directory spoil each other.
 */
async function withWritableRoot<T>(reference: string, work: (root: ArchiveRoot) => Promise<T>): Promise<T> {
  for (let delay = 1; ; delay = Math.min(delay * 1.5, 50)) {
    const container = requireContainer(reference);
    const running = runningRoot(container);
    if (running !== undefined) return work(running);
    const before = await claim(container);
    if (before !== undefined) {
      try {
        return await work(restingRoot(container, true));
      } finally {
        await giveBack(container.definition.id, before);
      }
    }
    // Somebody is starting or stopping it, or copying too.
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}

/** Becomes the owner of a container that is at rest. @returns its state before; undefined when it is not at rest */
async function claim({ definition: { id } }: Container): Promise<ContainerState | undefined> {
  return withLock(() => {
    const state = readState(id);
    if (state === undefined) throw new MinirunError(`no container ${id.slice(0, 12)}`, 'it has just been removed');
    if (state.status === 'created' || state.status === 'exited') {
      writeState(id, { ...state, status: 'starting', owner: selfRef(), boot: bootId() });
      return state;
    }
    if (state.boot !== bootId() || !isAlive(state.owner)) {
      throw new MinirunError(
        `container ${id.slice(0, 12)} has lost its process`,
        'it was killed',
        'Run minirun ps, and try again',
      );
    }
    return undefined;
  });
}

async function giveBack(id: string, before: ContainerState): Promise<void> {
  await withLock(() => {
    const { owner, status } = readState(id) ?? {};
    const self = selfRef();
    if (status === 'starting' && isSame(owner, self)) writeState(id, before);
  });
}
