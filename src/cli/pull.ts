import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import { print } from './output/stdout.ts';

interface Options {
  quiet?: boolean;
  platform?: string;
  tlsVerify: string;
}

/** `minirun pull NAME[:TAG|@DIGEST]` */
export function registerPull(program: Command): void {
  program
    .command('pull')
    .summary('Get an image from a registry')
    .description('Get an image from its registry, or from where its recipe says, and print its full name')
    .argument('<name>', '[HOST[:PORT]/]NAME[:TAG|@DIGEST]')
    .option('-q, --quiet', 'no progress')
    .option('--platform <os/arch[/variant]>', "another platform than this machine's")
    .option('--tls-verify <bool>', 'false: plain HTTP, or a certificate that nobody vouches for, will do', 'true')
    .action(async (name: string, options: Options) => {
      if (options.tlsVerify !== 'true' && options.tlsVerify !== 'false') {
        throw new MinirunError(`invalid --tls-verify "${options.tlsVerify}"`, 'it is neither true nor false');
      }
      const { reportTo } = await import('./output/progress.ts');
      const { canonicalName, parseReference } = await import('../image/reference.ts');
      const { parsePlatform } = await import('../image/platform.ts');
      const { obtainImage } = await import('../image/sources.ts');
      const reference = parseReference(name);
      const platform = options.platform === undefined ? undefined : parsePlatform(options.platform);
      const report = reportTo(undefined, { quiet: options.quiet });
      try {
        await obtainImage(reference, {
          platform,
          insecure: options.tlsVerify === 'false',
          standIns: false,
          report,
        });
      } finally {
        report.close();
      }
      print(`${canonicalName(reference)}\n`);
    });
}
