import type { Command } from 'commander';

/** `minirun rmi IMAGE...` */
export function registerRmi(program: Command): void {
  program
    .command('rmi')
    .summary('remove images')
    .description('Remove names of images, and images that have none left, with the layers that no other image needs')
    .argument('<images...>', 'names, ids or beginnings of ids')
    .option('-f, --force', 'also when a container uses the image (it then only loses its name), or when an id has several names')
    .action(async (images: string[], options: { force?: boolean }) => {
      const { removeImage } = await import('../image/store.ts');
      const { listContainers } = await import('../container/store.ts');
      const { MinirunErrors } = await import('../errors.ts');
      const inUse = (id: string) => listContainers().find(({ definition }) => definition.imageId === id)?.definition.name;
      const errors: Error[] = [];
      for (const image of images) {
        try {
          const { untagged, deleted } = await removeImage(image, { inUse, force: options.force });
          for (const name of untagged) console.log(`Untagged: ${name}`);
          for (const digest of deleted) console.log(`Deleted: ${digest}`);
        } catch (error) {
          errors.push(error as Error);
        }
      }
      if (errors.length > 1) throw new MinirunErrors('cannot remove all of the images', errors);
      if (errors[0] !== undefined) throw errors[0];
    });
}
