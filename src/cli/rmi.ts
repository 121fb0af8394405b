import type { Command } from 'commander';
import { forEach } from './each.ts';

/** `minirun rmi IMAGE...` */
export function registerRmi(program: Command): void {
  program
    .command('rmi')
    .summary('Remove images')
    .description('Remove names of images, and images that have none left, with the layers that no other image needs')
    .argument('<images...>', 'names, ids or beginnings of ids')
    .option(
      '-f, --force',
      'also when a container uses the image (it then only loses its name), or when an id has several names',
    )
    .action(async (images: string[], options: { force?: boolean }) => {
      const { removeImage } = await import('../image/collect.ts');
      const { listContainers } = await import('../container/store.ts');
      const inUse = (id: string) =>
        listContainers().find(({ definition }) => definition.imageId === id)?.definition.name;
      await forEach(
        images,
        async (image) => {
          const { untagged, deleted } = await removeImage(image, { inUse, force: options.force });
          for (const name of untagged) process.stdout.write(`Untagged: ${name}\n`);
          for (const digest of deleted) process.stdout.write(`Deleted: ${digest}\n`);
        },
        { print: false },
      );
    });
}
