import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';

/** `minirun tag SOURCE TARGET` */
export function registerTag(program: Command): void {
  program
    .command('tag')
    .summary('Give an image a further name')
    .description('Give an image a further name; a name that another image has moves to this one')
    .argument('<image>', 'name, id or beginning of an id')
    .argument('<name>', 'the further name: [HOST[:PORT]/]NAME[:TAG]')
    .action(async (source: string, target: string) => {
      const { familiarName, parseReference } = await import('../image/reference.ts');
      const reference = parseReference(target);
      if (reference.digest !== undefined) {
        throw new MinirunError(
          `cannot tag as "${target}"`,
          'a digest follows from the content',
          'Give a name with a tag',
        );
      }
      const { findImage, tagImage } = await import('../image/store.ts');
      const image = findImage(source);
      if (image === undefined) {
        const { noSuchImage } = await import('../image/index-file.ts');
        throw noSuchImage(source, 'tag');
      }
      await tagImage(image.id, [reference]);
      const { imageEvent } = await import('../image/events.ts');
      const { recordEvent } = await import('../state/events.ts');
      recordEvent(imageEvent('tag', image.id, familiarName(reference)));
    });
}
