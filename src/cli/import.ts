import type { Command } from 'commander';
import { print } from './output/stdout.ts';

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `minirun import FILE|- [NAME[:TAG]]` */
export function registerImport(program: Command): void {
  program
    .command('import')
    .summary('Make an image of a root filesystem in a tar archive')
    .description('Make an image of one layer from a tar archive (plain, gzip, zstd, bzip2 or xz) and print its id')
    .argument('<file>', 'the archive, or - for standard input')
    .argument('[name]', 'what to call the image: NAME[:TAG]')
    .option(
      '-c, --change <instruction>',
      'a Dockerfile instruction for the image, like CMD ["sh"] (repeatable)',
      collect,
      [],
    )
    .option('-m, --message <text>', "kept in the image's history")
    .action(async (file: string, name: string | undefined, options: { change: string[]; message?: string }) => {
      const { importTarball } = await import('../image/import.ts');
      const image = await importTarball(file, name, { changes: options.change, message: options.message });
      print(`${image.id}\n`);
    });
}
