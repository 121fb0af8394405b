import { readJson } from './json.ts';
import { paths } from './paths.ts';

/** What to call the container with an id: its name, or the beginning of the id when it is gone. */
export function nameOfContainer(id: string): string {
  return readJson<{ name: string }>(`${paths.container(id)}/definition.json`)?.name ?? id.slice(0, 12);
}
