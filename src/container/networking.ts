import { MinirunError } from '../errors.ts';
import type { Definition } from './definition.ts';
import { isRunning, requireContainer } from './store.ts';

/** Where a container's network comes from. */
export type Networking =
  /** A namespace of its own, wired to the named network; `none` has only a loopback interface. */
  | { kind: 'own'; name: string }
  /** That of another container. */
  | { kind: 'joined'; netns: string }
  /** The host's. */
  | { kind: 'host' };

/** Name of a container's own network namespace: its name, so that `ip netns exec NAME` works. */
export function namespaceName(definition: Pick<Definition, 'name'>): string {
  return definition.name;
}

/** @throws MinirunError when the container to be joined is not running */
export function networkOf(definition: Pick<Definition, 'network' | 'name'>): Networking {
  const { network } = definition;
  if (network === 'host') return { kind: 'host' };
  if (!network.startsWith('container:')) return { kind: 'own', name: network };
  const other = requireContainer(network.slice('container:'.length));
  if (!isRunning(other.state)) {
    throw new MinirunError(
      `cannot join the network of container "${other.definition.name}"`,
      'it is not running',
      `Start it first: minirun start ${other.definition.name}`,
    );
  }
  return { kind: 'joined', netns: `/proc/${other.state.init?.pid}/ns/net` };
}
