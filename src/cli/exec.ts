import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import { reconcileFirst } from './each.ts';
import { stdoutStream } from './output/stdout.ts';

interface Options {
  env?: string[];
  envFile?: string[];
  workdir?: string;
  user?: string;
  tty?: boolean;
  interactive?: boolean;
  privileged?: boolean;
  detach?: boolean;
}

const collect = (value: string, all: string[] = []) => [...all, value];

export function registerExec(program: Command): void {
  program
    .command('exec')
    .summary('Run a further command in a running container')
    .usage('[OPTIONS] CONTAINER COMMAND [ARG…]')
    .passThroughOptions()
    .argument('<container>')
    .argument('<command...>')
    .option('-i, --interactive', 'keep its standard input open')
    .option('-t, --tty', 'give it a terminal')
    .option('-d, --detach', 'do not wait for it')
    .option('-e, --env <name=value>', 'set a variable (repeatable)', collect)
    .option('--env-file <file>', 'read variables from a file (repeatable)', collect)
    .option('-w, --workdir <dir>', 'working directory')
    .option('-u, --user <user[:group]>', 'user to run as: name or id')
    .option('--privileged', 'all capabilities, no seccomp filter')
    .action(async (container: string, command: string[], options: Options) => {
      if (options.tty === true && options.interactive === true && !process.stdin.isTTY) {
        throw new MinirunError(
          '-t with -i needs a terminal',
          'standard input is none',
          'Leave -t out, or run it from a terminal',
          { code: 125 },
        );
      }
      const { readTextFile } = await import('../container/text-file.ts');
      const envFiles = (options.envFile ?? []).map((file) => readTextFile('--env-file', file));
      await reconcileFirst();
      const { execInContainer } = await import('../container/exec.ts');
      if (options.tty === true && options.detach !== true) stdoutStream();
      process.exitCode = await execInContainer(container, {
        command,
        env: options.env ?? [],
        envFiles,
        workdir: options.workdir,
        user: options.user,
        tty: options.tty === true,
        interactive: options.interactive === true,
        privileged: options.privileged === true,
        detach: options.detach === true,
      });
    });
}
