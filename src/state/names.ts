import { peekFile } from './files.ts';
import { kinds } from './migrations.ts';
import { paths } from './paths.ts';
import { object, text } from './shape.ts';

const named = object<{ name: string }>({ name: text });

/** What to call the container with an id: its name, or the beginning of the id when it is gone. */
export function nameOfContainer(id: string): string {
  return peekFile(kinds.definition, named, `${paths.container(id)}/definition.json`)?.name ?? id.slice(0, 12);
}
