import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import { stdoutStream } from './output/stdout.ts';

/** `minirun save [-o FILE] IMAGE…` */
export function registerSave(program: Command): void {
  program
    .command('save')
    .summary('Save images to an archive')
    .description('Save images, with their names, to an archive that minirun, docker, podman and skopeo load')
    .argument('<images...>', 'names, ids or beginnings of ids')
    .option('-o, --output <file>', 'where to write it (default: standard output)')
    .option(
      '--format <format>',
      'oci-archive, docker-archive (uncompressed layers, for old dockers) or oci-dir (a directory)',
      'oci-archive',
    )
    .action(async (names: string[], { output, format }: { output?: string; format: string }) => {
      const { archiveFormats, saveImages } = await import('../image/save.ts');
      const known = archiveFormats.find((each) => each === format);
      if (known === undefined) {
        throw new MinirunError(
          `invalid --format "${format}"`,
          'there is no such format',
          `Use ${archiveFormats.join(', ')}`,
        );
      }
      if (output === undefined && known === 'oci-dir') {
        throw new MinirunError('cannot save', 'a directory cannot go to standard output', 'Name the directory with -o');
      }
      if (output === undefined && stdoutStream().isTTY) {
        throw new MinirunError(
          'refusing to write an archive to a terminal',
          undefined,
          'Name a file with -o, or use > or |',
        );
      }
      const { interruptible } = await import('../image/interrupt.ts');
      await interruptible((signal) => saveImages(names, { format: known, output, signal }));
    });
}
