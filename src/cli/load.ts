import type { Command } from 'commander';
import { print } from './output/stdout.ts';

interface Options {
  input?: string;
  quiet?: boolean;
  platform?: string;
}

/** `minirun load [-i FILE]` */
export function registerLoad(program: Command): void {
  program
    .command('load')
    .summary('Load images from an archive')
    .description(
      'Load images from an archive of docker save, podman save or minirun save, or an OCI image layout (archive or directory); it may be compressed',
    )
    .option('-i, --input <file>', 'the archive or directory (default: standard input)')
    .option('-q, --quiet', 'no progress')
    .option('--platform <platform>', 'which image of several: linux/ARCHITECTURE[/VARIANT]')
    .action(async (options: Options) => {
      const { parsePlatform } = await import('../image/platform.ts');
      const platform = options.platform === undefined ? undefined : parsePlatform(options.platform);
      const { loadImages } = await import('../image/load.ts');
      const { interruptible } = await import('../image/interrupt.ts');
      const { familiarName } = await import('../image/reference.ts');
      const { reportTo } = await import('./output/progress.ts');
      const report = reportTo(process.stderr, { quiet: options.quiet });
      const loaded = await interruptible((signal) => loadImages(options.input, { platform, report, signal })).finally(
        () => report.close(),
      );
      for (const { image, names } of loaded) {
        if (names.length === 0) print(`Loaded image ID: ${image.id}\n`);
        for (const name of names) print(`Loaded image: ${familiarName(name)}\n`);
      }
    });
}
