import { type Command, Option } from 'commander';
import { MinirunError } from '../errors.ts';
import { reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

/** `minirun healthcheck run CONTAINER` */
export function registerHealthcheck(program: Command): void {
  const healthcheck = program.command('healthcheck').summary('Check whether a container is well');
  healthcheck
    .command('run')
    .summary('Run the health check of a container now')
    .description(
      'Run the health check of a container now: 0 when it is healthy, 1 when it is not, 125 when it cannot be checked',
    )
    .argument('<container>', 'name, id or beginning of an id')
    .option('--ignore-result', '0 also when it is not healthy')
    .addOption(new Option('--due').hideHelp())
    .action(async (container: string, options: { ignoreResult?: boolean; due?: boolean }) => {
      const { checkDue, checkNow, noMoreChecks } = await import('../container/health-checks.ts');
      if (options.due === true) {
        const seconds = await checkDue(container);
        if (seconds === undefined) process.exit(noMoreChecks);
        print(`${seconds}\n`);
        process.exit(0);
      }
      await reconcileFirst();
      const isHealthy = await checkNow(container).catch((error: unknown) => {
        if (!(error instanceof MinirunError)) throw error;
        throw new MinirunError(error.message, undefined, undefined, { code: 125, cause: error });
      });
      // What a check has left running may still hold its output.
      process.exit(isHealthy || options.ignoreResult === true ? 0 : 1);
    });
}
