import { type Event, lastRecorded, recordEvent, recordEvents, recordOnce } from '../state/events.ts';
import { readNetwork } from '../network/store.ts';
import type { ContainerState, Definition } from './definition.ts';
import { findId, readContainer } from './store.ts';

/** Docker's event of a container: its labels, its image and its name go with each. */
function containerEvent(
  { id, image, name, labels }: Pick<Definition, 'id' | 'image' | 'name' | 'labels'>,
  action: string,
  attributes: Readonly<Record<string, string>> = {},
): Event {
  return { type: 'container', action, id, attributes: { ...labels, image, name, ...attributes } };
}

/** Records that something has happened to a container. */
export function recordContainer(
  definition: Pick<Definition, 'id' | 'image' | 'name' | 'labels'>,
  action: string,
  attributes?: Readonly<Record<string, string>>,
): void {
  recordEvent(containerEvent(definition, action, attributes));
}

/** Docker's events of a container that comes into a network, or leaves it. */
export function networkEvent(id: string, network: string, action: 'connect' | 'disconnect'): Event {
  const { id: networkId, driver } = readNetwork(network) ?? { id: network, driver: 'bridge' };
  return { type: 'network', action, id: networkId, attributes: { container: id, name: network, type: driver } };
}

function placeEvents(definition: Definition, { endpoints }: ContainerState, isComing: boolean): Event[] {
  const { id, volumes = [] } = definition;
  return [
    ...volumes.map(
      ({ name, destination }): Event => ({
        type: 'volume',
        action: isComing ? 'mount' : 'unmount',
        id: name,
        attributes: { container: id, driver: 'local', ...(isComing ? { destination } : {}) },
      }),
    ),
    ...endpoints.map(({ network }) => networkEvent(id, network, isComing ? 'connect' : 'disconnect')),
  ];
}

/**
 * Records that a container's command runs. To be called before its state says so: whoever finds it killed in between
 * sees by the event that there is an end to tell of.
 */
export function recordStart(definition: Definition, state: ContainerState, isAttached: boolean): void {
  recordEvents([
    ...(isAttached ? [containerEvent(definition, 'attach')] : []),
    ...placeEvents(definition, state, true),
    containerEvent(definition, 'start'),
  ]);
}

/**
 * Records that a container's command has ended, unless a process that was killed since has done so.
 *
 * @param before the state that whoever takes it down has found
 */
export function recordDeath(
  definition: Definition,
  before: ContainerState,
  { exitCode, isKilled }: { exitCode: number; isKilled: boolean },
): void {
  if (before.status === 'restarting') return;
  if (before.status !== 'running') {
    // Cut short between two of its states: what has been told tells them apart.
    const last = lastRecorded(definition.id, ['start', 'die'])?.action;
    const hasRun = before.status === 'stopping' && before.startedAt !== '' && before.finishedAt === '';
    if (last === 'die' || (last === undefined && !hasRun)) return;
  }
  const seconds = before.startedAt === '' ? 0 : Math.floor((Date.now() - Date.parse(before.startedAt)) / 1000);
  recordEvents([
    ...(isKilled ? [containerEvent(definition, 'kill', { signal: '9' })] : []),
    containerEvent(definition, 'die', { execDuration: String(Math.max(0, seconds)), exitCode: String(exitCode) }),
    ...placeEvents(definition, before, false),
  ]);
}

/** Records that a container is gone, if anybody has heard of it, and has not heard of this yet. */
export function recordDestruction(
  definition: Definition,
  state: ContainerState | undefined,
  isRepeated: boolean,
): void {
  if (state?.unannounced === true && lastRecorded(definition.id, ['create']) === undefined) return;
  const event = containerEvent(definition, 'destroy');
  if (isRepeated) recordOnce(event, ['destroy']);
  else recordEvent(event);
}

/** Records that files have been copied out of a container, or into it. */
export function recordCopy(reference: string, action: 'archive-path' | 'extract-to-dir', place: string): void {
  const id = findId(reference);
  const definition = id === undefined ? undefined : readContainer(id)?.definition;
  if (definition !== undefined) recordContainer(definition, action, { path: place });
}
