import { type Command, Option } from 'commander';
import { forEach, reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

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
    // There are no parents without a name here.
    .addOption(new Option('--no-prune', 'taken for docker’s sake').hideHelp())
    .action(async (images: string[], options: { force?: boolean }) => {
      await reconcileFirst();
      const { removeImage } = await import('../image/collect.ts');
      const { imageUser } = await import('../container/image-users.ts');
      await forEach(
        images,
        async (image) => {
          const { untagged, deleted } = await removeImage(image, { inUse: imageUser(), force: options.force });
          for (const name of untagged) print(`Untagged: ${name}\n`);
          for (const digest of deleted) print(`Deleted: ${digest}\n`);
        },
        { prints: false },
      );
    });
}
