import { Template } from './template.ts';

/**
 * What an `inspect` prints: an array with four spaces of indentation, `--format json` for one on a single line, or a
 * Go template filled with each object, a line each.
 */
export function formatObjects(format: string | undefined, objects: readonly object[]): string {
  if (format === undefined || format === '') return `${JSON.stringify(objects, null, 4)}\n`;
  if (format === 'json') return `${JSON.stringify(objects)}\n`;
  const template = new Template(format);
  return objects.map((object) => `${template.render(object)}\n`).join('');
}
