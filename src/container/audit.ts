import fs from 'node:fs';
import path from 'node:path';
import { MinirunError, messageOf } from '../errors.ts';
import { isAlive, type ProcessRef } from '../host/process.ts';
import { sweepImages } from '../image/collect.ts';
import { deadClaims } from '../image/claim.ts';
import { stagings } from '../image/staging.ts';
import { isInterruptedChange, listLinks } from '../network/link-store.ts';
import { isLeftIdle } from '../network/lifecycle.ts';
import { reservedPorts, releasePorts } from '../network/port-store.ts';
import type { Network } from '../network/definition.ts';
import { listNetworks } from '../network/store.ts';
import { damaged, shownFile } from '../state/files.ts';
import { abandonedTemporaries, sweepTemporaries } from '../state/json.ts';
import { isDeadLock } from '../state/lock.ts';
import { paths, stateRoot } from '../state/paths.ts';
import { auditKernel } from './audit-kernel.ts';
import { auditProcesses } from './audit-processes.ts';
import type { Finding, Found } from './finding.ts';
import { leaveLinks } from './links.ts';
import { giveAddressesBack } from './networks.ts';
import { entryOf } from './owners.ts';
import { creatorIsAlive, isHalfDeleted, reconcile } from './reconcile.ts';
import { isAtRest } from './status.ts';
import { type Container, containerFiles, containerIds, isSettled, listContainers, reserveName } from './store.ts';

/** A finding, and what became of it. */
export interface Audited extends Finding {
  result: 'done' | 'failed' | 'would';
  /** Why it failed, when somebody said so. */
  error?: string;
}

/** A moment that a namespace of a dead container, or what is being made, is not to be seen after. */
const settling = 400;

/**
 * The full reconcile: what is on record, compared with what is there: processes, namespaces, interfaces, addresses, routes, firewall,
 * name servers, files. What a live container lacks is put back, what is nobody's is taken away.
 *
 * Nothing is touched that is not minirun's and of this state directory for certain, and nothing that may just be in the
 * making: the kernel is looked at before the records (which are written before anything is made), and what looks wrong
 * must do so twice.
 *
 * @param options.dryRun only look
 */
export async function audit({ dryRun = false } = {}): Promise<Audited[]> {
  refuseOtherHost(listContainers());
  const results: Audited[] = [];
  // What held something that is nobody's may only be seen to be nobody's when that is gone.
  for (let round = 1; round <= 3; round++) {
    const found = await lookTwice();
    if (dryRun) return [...damagedFiles(), ...found.map((finding) => audited(finding, 'would'))];
    const isKnown = new Set(results.map(keyOf));
    const next = await mendAll(found.filter((finding) => !isKnown.has(keyOf(finding))));
    results.push(...next);
    if (next.length === 0) break;
  }
  return results;
}

/** Files that this process has found damaged. Whoever may mend has set them aside before. */
function damagedFiles(): Audited[] {
  return [...damaged.values()].map(({ file, why }) =>
    audited({ kind: 'file', name: shownFile(file), problem: why, remedy: 'set aside' }, 'would'),
  );
}

/** In another network namespace than that of the containers' host everything would seem to be missing. */
function refuseOtherHost(containers: readonly Container[]): void {
  const own = fs.readlinkSync('/proc/self/ns/net');
  for (const { definition, state } of containers) {
    const { owner } = state;
    if (isAtRest(state) || owner === undefined || !isSettled(state)) continue;
    const other = namespaceOf(owner);
    if (other === undefined || other === own) continue;
    throw new MinirunError(
      'cannot reconcile',
      `container ${definition.name} was started in another network namespace than this one`,
      'Run it where the containers were started',
    );
  }
}

function namespaceOf({ pid }: ProcessRef): string | undefined {
  try {
    return fs.readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    // It has just ended.
    return undefined;
  }
}

async function mendAll(found: readonly Found[]): Promise<Audited[]> {
  const errors = new Map<string, string>();
  const general = await reconcile('all');
  for (const finding of found) {
    try {
      await finding.mend?.();
    } catch (error) {
      errors.set(keyOf(finding), messageOf(error));
    }
  }
  try {
    await sweepImages();
  } catch (error) {
    general.push(messageOf(error));
  }
  const left = new Set(found.length === 0 ? [] : (await untilGone(found)).map(keyOf));
  const results = found.map((finding) => {
    const failed = left.has(keyOf(finding));
    return audited(finding, failed ? 'failed' : 'done', failed ? errors.get(keyOf(finding)) : undefined);
  });
  const told = new Set(errors.values());
  return [
    ...results,
    ...general.filter((error) => !told.has(error)).map((error) => audited(generalFinding(error), 'failed')),
  ];
}

function generalFinding(problem: string): Finding {
  return { kind: 'state', name: stateRoot(), problem, remedy: 'mended' };
}

function audited({ kind, name, problem, remedy }: Finding, result: Audited['result'], error?: string): Audited {
  return { kind, name, problem, remedy, result, ...(error === undefined ? {} : { error }) };
}

function keyOf({ kind, name, problem }: Finding): string {
  return `${kind} ${name} ${problem}`;
}

/** What is wrong, and still is after a moment. */
async function lookTwice(): Promise<Found[]> {
  const first = await look();
  if (first.length === 0) return [];
  const keys = new Set(first.map(keyOf));
  await new Promise((resolve) => setTimeout(resolve, settling));
  return (await look()).filter((finding) => keys.has(keyOf(finding)));
}

/** What of it is still there; the kernel takes a moment to delete a namespace. */
async function untilGone(found: readonly Found[]): Promise<Found[]> {
  const keys = new Set(found.map(keyOf));
  for (let tries = 0; ; tries++) {
    const left = (await look()).filter((finding) => keys.has(keyOf(finding)));
    if (left.length === 0 || tries === 10) return left;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function look(): Promise<Found[]> {
  // The kernel is read in here before the records are.
  const kernel = await auditKernel();
  const containers = listContainers();
  return [
    ...auditContainers(containers),
    ...auditNames(containers),
    ...auditNetworks(containers, listNetworks()),
    ...auditLinks(containers),
    ...auditFiles(),
    ...auditImages(),
    ...auditProcesses(containers),
    ...kernel,
  ];
}

const byKilled = 'left by a process that was killed';

function auditContainers(containers: readonly Container[]): Found[] {
  const folders = fs.readdirSync(paths.containers()).flatMap((entry): Found[] => {
    const folder = path.join(paths.containers(), entry);
    const isLeft = entry.endsWith('.removing')
      ? isHalfDeleted(folder)
      : entry.startsWith('.new-') && !creatorIsAlive(entry);
    return isLeft ? [{ kind: 'folder', name: `containers/${entry}`, problem: byKilled, remedy: 'removed' }] : [];
  });
  const dead = containers
    .filter(({ state }) => !isSettled(state))
    .map(
      ({ definition, state }): Found => ({
        kind: 'container',
        name: definition.name,
        problem: `nobody answers for it any more (${state.status})`,
        remedy: 'taken down',
      }),
    );
  return [...folders, ...dead];
}

function auditNames(containers: readonly Container[]): Found[] {
  const found: Found[] = [];
  const named = new Map(
    fs.readdirSync(paths.names()).map((name) => {
      try {
        return [name, fs.readlinkSync(paths.name(name))] as const;
      } catch {
        return [name, ''] as const;
      }
    }),
  );
  for (const [name, id] of named) {
    if (/^[0-9a-f]{64}$/.test(id) && !fs.existsSync(containerFiles(id).directory)) {
      const mend = async () => fs.rmSync(paths.name(name), { force: true });
      found.push({ kind: 'name', name, problem: 'no container has it', remedy: 'freed', mend });
    }
  }
  for (const { definition, state } of containers) {
    const { id, name } = definition;
    if (named.get(name) === id || state.status === 'creating' || !isSettled(state)) continue;
    const mend = async () => reserveName(name, id);
    found.push({ kind: 'container', name, problem: 'its name does not lead to it', remedy: 'named again', mend });
  }
  return found;
}

function auditNetworks(containers: readonly Container[], networks: readonly Network[]): Found[] {
  const byId = new Map(containers.map((container) => [container.definition.id, container]));
  const found: Found[] = [];
  const there = new Set(containerIds());
  for (const network of networks) {
    const { name, leases, claim } = network;
    const transient = (network as { transient?: ProcessRef }).transient;
    if ((claim !== undefined && !isAlive(claim)) || (transient !== undefined && !isAlive(transient)))
      found.push({ kind: 'network', name, problem: 'who was changing it was killed', remedy: 'set right' });
    else if (isLeftIdle(network))
      found.push({ kind: 'network', name, problem: 'nobody uses it', remedy: 'taken down' });
    for (const [address, id] of Object.entries(leases)) {
      const container = byId.get(id);
      const nobody = !there.has(id);
      if (!nobody && (container === undefined || !isAtRest(container.state))) continue;
      found.push({
        kind: 'address',
        name: address,
        problem: nobody
          ? `reserved in ${name} for a container that is gone`
          : `reserved in ${name} for ${container?.definition.name}, which does not run`,
        remedy: 'given back',
        ...(nobody ? {} : { mend: async () => giveAddressesBack(id, name) }),
      });
    }
  }
  for (const id of reservedPorts()) {
    const container = byId.get(id);
    if (there.has(id) && (container === undefined || !isAtRest(container.state))) continue;
    found.push({
      kind: 'ports',
      name: container?.definition.name ?? id.slice(0, 12),
      problem: 'reserved for a container that does not run',
      remedy: 'given back',
      mend: async () => releasePorts(id),
    });
  }
  return found;
}

function auditLinks(containers: readonly Container[]): Found[] {
  const found: Found[] = [];
  if (isInterruptedChange())
    found.push({ kind: 'links', name: 'changing.json', problem: byKilled, remedy: 'taken back' });
  const byId = new Map(containers.map((container) => [container.definition.id, container]));
  for (const { name, ends } of listLinks()) {
    for (const { container: id, netns } of ends) {
      if (id === undefined) continue;
      const container = byId.get(id);
      if (container === undefined) {
        if (!fs.existsSync(containerFiles(id).directory))
          found.push({ kind: 'link', name, problem: 'a container of it is gone', remedy: 'removed' });
      } else if (netns !== undefined && isAtRest(container.state)) {
        const problem = `it counts ${container.definition.name} as running`;
        found.push({ kind: 'link', name, problem, remedy: 'set right', mend: async () => leaveLinks(id) });
      }
    }
  }
  return found;
}

function auditFiles(): Found[] {
  const directories = [
    stateRoot(),
    paths.networks(),
    paths.links(),
    ...containerIds().map((id) => containerFiles(id).directory),
  ];
  const temporaries = directories.flatMap((directory) =>
    abandonedTemporaries(directory).map(
      (entry): Found => ({
        kind: 'file',
        name: path.relative(stateRoot(), path.join(directory, entry)),
        problem: byKilled,
        remedy: 'removed',
        mend: async () => sweepTemporaries(directory),
      }),
    ),
  );
  const locks = isDeadLock() ? [{ kind: 'lock', name: 'state.lock', problem: byKilled, remedy: 'freed' }] : [];
  const volumes = fs
    .readdirSync(paths.volumes())
    .filter((entry) => entry.endsWith('.removing'))
    .map((entry): Found => ({ kind: 'volume', name: entry, problem: byKilled, remedy: 'removed' }));
  return [...locks, ...temporaries, ...volumes, ...auditOwners()];
}

/** Entries of the index of owners that say what is not so. */
function auditOwners(): Found[] {
  const states = new Map(listContainers().map(({ definition, state }) => [definition.id, state]));
  return fs.readdirSync(paths.owners()).flatMap((entry): Found[] => {
    const [id = '', pid, start] = entry.split('.');
    if (start === undefined) return [];
    const state = states.get(id);
    if (state !== undefined && entryOf(id, state) === entry) return [];
    // Of one that is being made or handed over.
    if (isAlive({ pid: Number(pid), start: Number(start) })) return [];
    const mend = async () => fs.rmSync(paths.owner(entry), { force: true });
    return [{ kind: 'file', name: `owners/${entry}`, problem: byKilled, remedy: 'removed', mend }];
  });
}

function auditImages(): Found[] {
  const name = (file: string) => path.relative(stateRoot(), file);
  return [...stagings().flatMap(({ directory, alive }) => (alive ? [] : [directory])), ...deadClaims()].map(
    (file): Found => ({ kind: 'image', name: name(file), problem: byKilled, remedy: 'removed' }),
  );
}
