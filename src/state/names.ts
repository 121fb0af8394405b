import fs from 'node:fs';
import { paths } from './paths.ts';

/** What people call the container with an id: the name that it has reserved, or the beginning of the id. */
export function nameOfContainer(id: string): string {
  return namesOf(id)[0] ?? id.slice(0, 12);
}

/** All names of a container: two while it is being renamed. */
function namesOf(id: string): string[] {
  const isIts = (name: string) => {
    try {
      return fs.readlinkSync(paths.name(name)) === id;
    } catch {
      return false;
    }
  };
  try {
    return fs.readdirSync(paths.names()).filter(isIts);
  } catch {
    return [];
  }
}
