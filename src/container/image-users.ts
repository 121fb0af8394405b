import { listContainers } from './store.ts';

/** The names of the containers that use each image, by its id. */
export function imageUsers(): Map<string, string[]> {
  const users = new Map<string, string[]>();
  for (const { definition } of listContainers()) {
    if (definition.imageId === '') continue;
    users.set(definition.imageId, [...(users.get(definition.imageId) ?? []), definition.name]);
  }
  return users;
}

/**
 * For what removes images: the name of a container that uses one. The containers are looked at when it is asked the
 * first time, which is under the lock; so make it anew for each removal.
 */
export function imageUser(): (id: string) => string | undefined {
  let users: Map<string, string[]> | undefined;
  return (id) => {
    users ??= imageUsers();
    return users.get(id)?.[0];
  };
}
