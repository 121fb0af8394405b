import { MinirunError } from '../errors.ts';
import { inOrder } from '../network/attach.ts';
import type { Attachment } from '../network/definition.ts';
import type { Definition } from './definition.ts';
import { isRunning, requireContainer } from './store.ts';

/** Where a container's network comes from. */
export type Networking =
  /** A namespace of its own, wired to these networks; without any it has only a loopback interface. */
  | { kind: 'own'; attachments: Attachment[] }
  /** That of another container. */
  | { kind: 'joined'; netns: string }
  /** The host's. */
  | { kind: 'host' };

/** Name of a container's own network namespace: its name, so that `ip netns exec NAME` works. */
export function namespaceName(definition: Pick<Definition, 'name'>): string {
  return definition.name;
}

type Networked = Pick<Definition, 'network' | 'attachments'>;

/** Whether a container has a network stack of its own. */
export function hasOwnNetwork({ network }: Pick<Definition, 'network'>): boolean {
  return network !== 'host' && !network.startsWith('container:');
}

/** The networks of a container in the order of its interfaces. */
export function attachmentsOf({ attachments }: Pick<Definition, 'attachments'>): Attachment[] {
  return inOrder(attachments);
}

/** What to show as a container's networks. */
export function networkNames(definition: Networked): string[] {
  const attachments = attachmentsOf(definition);
  return attachments.length > 0 ? attachments.map(({ network }) => network) : [definition.network];
}

/** @throws MinirunError when the container to be joined is not running */
export function networkOf(definition: Networked): Networking {
  const { network } = definition;
  if (network === 'host') return { kind: 'host' };
  if (hasOwnNetwork(definition)) return { kind: 'own', attachments: attachmentsOf(definition) };
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
