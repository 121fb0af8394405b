import type { Event } from '../state/events.ts';
import { familiarName, familiarRepository, type Reference } from './reference.ts';

/** Docker's event of an image: `tag`, `untag`, `delete`, `load`, `import`, `save`. Without a name its id stands there. */
export function imageEvent(action: string, id: string, name = id): Event {
  return { type: 'image', action, id, attributes: { name } };
}

/** Docker's event of an image that comes from elsewhere or goes there: its name is what it is about. */
export function transferEvent(action: 'pull' | 'push', reference: Reference): Event {
  return {
    type: 'image',
    action,
    id: familiarName(reference),
    attributes: { name: familiarRepository(reference) },
  };
}
