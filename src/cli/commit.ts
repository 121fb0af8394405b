import { type Command, Option } from 'commander';
import { MinirunError } from '../errors.ts';
import { print } from './output/stdout.ts';

const collect = (value: string, previous: string[]): string[] => [...previous, value];

interface Options {
  author?: string;
  message?: string;
  change: string[];
  pause?: string | boolean;
}

/** `minirun commit CONTAINER [NAME[:TAG]]` */
export function registerCommit(program: Command): void {
  program
    .command('commit')
    .summary('Make an image of a container')
    .description(
      'Make an image of what a container has written, over its own image, and print its id. A running container goes on meanwhile; volumes stay out',
    )
    .argument('<container>', 'name, id or beginning of an id')
    .argument('[name]', 'what to call the image: NAME[:TAG]')
    .option('-a, --author <author>', 'who made it')
    .option(
      '-c, --change <instruction>',
      'a Dockerfile instruction for the image, like CMD ["sh"] (repeatable)',
      collect,
      [],
    )
    .option('-m, --message <text>', "kept in the image's history")
    .option('-p, --pause', 'not built yet: stop the container first for a picture of one moment')
    .addOption(new Option('--no-pause', 'what is done anyway').hideHelp())
    .action(async (container: string, name: string | undefined, options: Options) => {
      if (options.pause === true) {
        throw new MinirunError(
          'cannot pause the container',
          'it is not built yet',
          `For a picture of one moment stop it first: minirun stop ${container}`,
        );
      }
      const { reconcileFirst } = await import('./each.ts');
      await reconcileFirst();
      const { commitContainer } = await import('../container/commit.ts');
      const { interruptible } = await import('../image/interrupt.ts');
      const { author, message, change } = options;
      const image = await interruptible(async (signal) =>
        commitContainer(container, name, { author, message, changes: change, signal }),
      );
      print(`${image.id}\n`);
    });
}
