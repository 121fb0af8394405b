import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import { print } from './output/stdout.ts';

interface Options {
  quiet?: boolean;
  tlsVerify: string;
}

/** `minirun push NAME[:TAG]` */
export function registerPush(program: Command): void {
  program
    .command('push')
    .summary('Send an image to a registry')
    .description('Send an image to the registry of its name')
    .argument('<name>', '[HOST[:PORT]/]NAME[:TAG]')
    .option('-q, --quiet', 'no progress, and only the name on standard output')
    .option('--tls-verify <bool>', 'false: plain HTTP, or a certificate that nobody vouches for, will do', 'true')
    .action(async (name: string, options: Options) => {
      if (options.tlsVerify !== 'true' && options.tlsVerify !== 'false') {
        throw new MinirunError(`invalid --tls-verify "${options.tlsVerify}"`, 'it is neither true nor false');
      }
      const { canonicalName, parseReference } = await import('../image/reference.ts');
      const { pushImage } = await import('../image/push.ts');
      const { interruptible } = await import('../image/interrupt.ts');
      const { reportTo } = await import('./output/progress.ts');
      const reference = parseReference(name);
      const report = reportTo(undefined, { quiet: options.quiet });
      const insecure = options.tlsVerify === 'false';
      const { digest, size } = await interruptible((signal) =>
        pushImage(reference, { insecure, report, signal }),
      ).finally(() => report.close());
      const line = options.quiet ? canonicalName(reference) : `${reference.tag}: digest: ${digest} size: ${size}`;
      print(`${line}\n`);
    });
}
