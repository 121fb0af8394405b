import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import { reconcileFirst } from './each.ts';
import { printable } from './output/printable.ts';
import { print } from './output/stdout.ts';

const types = ['container', 'image', 'network', 'volume'] as const;
type Type = (typeof types)[number];

/** `minirun inspect NAME...` */
export function registerInspect(program: Command): void {
  program
    .command('inspect')
    .summary('Show everything about containers, images, networks and volumes as JSON')
    .argument('<names...>', 'names, ids or beginnings of ids of containers, images, networks or volumes')
    .option('-f, --format <format>', '"json" or a Go template')
    .option('--type <type>', 'look only among these: container, image, network or volume')
    .option('-s, --size', 'taken for docker’s sake; sizes are not measured')
    .action(async (names: string[], { format, type }: { format?: string; type?: string }) => {
      if (type !== undefined && !types.includes(type as Type)) {
        throw new MinirunError(
          `invalid --type "${type}"`,
          'there is no such kind of thing',
          `Use one of: ${types.join(', ')}`,
        );
      }
      await reconcileFirst();
      const kinds = type === undefined ? types : [type as Type];
      await inspectAll(names, format, (name) => describe(name, kinds));
    });
}

/** `minirun image inspect` and the like: only what is of one kind. */
export function addInspectOf(group: Command, type: Type): void {
  group
    .command('inspect')
    .summary(`Show everything about ${type}s as JSON`)
    .argument(`<${type}s...>`, 'names, ids or beginnings of ids')
    .option('-f, --format <format>', '"json" or a Go template')
    .action(async (names: string[], { format }: { format?: string }) => {
      await reconcileFirst();
      await inspectAll(names, format, (name) => describe(name, [type]));
    });
}

/** Prints what was found, in the order of the names, then an error for each that was not; one makes the exit code 1. */
export async function inspectAll(
  names: readonly string[],
  format: string | undefined,
  describeOne: (name: string) => object | Promise<object>,
): Promise<void> {
  const { formatObjects } = await import('./output/inspect.ts');
  const found: object[] = [];
  const errors: MinirunError[] = [];
  for (const name of names) {
    try {
      found.push(await describeOne(name));
    } catch (error) {
      if (!(error instanceof MinirunError)) throw error;
      errors.push(error);
    }
  }
  print(formatObjects(format, found));
  for (const { message } of errors) process.stderr.write(`minirun: ${printable(message)}\n`);
  if (errors.length > 0) process.exitCode = 1;
}

async function describe(name: string, kinds: readonly Type[]): Promise<object> {
  for (const kind of kinds) {
    const found = await describers[kind](name);
    if (found !== undefined) return found;
  }
  const kind = kinds.length === 1 ? kinds[0] : undefined;
  const list = { container: 'ps -a', image: 'images', network: 'network ls', volume: 'volume ls' };
  throw new MinirunError(
    `no ${kind ?? 'object'} "${name}"`,
    kind === undefined ? 'no container, image, network or volume has that name or id' : 'none has that name or id',
    kind === undefined
      ? 'See minirun ps -a, minirun images, minirun network ls and minirun volume ls'
      : `See minirun ${list[kind]} for those there are`,
  );
}

const describers: Record<Type, (name: string) => Promise<object | undefined>> = {
  async container(name) {
    const { findId, readContainer } = await import('../container/store.ts');
    const id = findId(name);
    const container = id === undefined ? undefined : readContainer(id);
    if (container === undefined || container.state.status === 'creating') return undefined;
    const { describeContainer } = await import('../container/inspect.ts');
    return describeContainer(container);
  },
  async image(name) {
    const { describeImage } = await import('../image/inspect.ts');
    return describeImage(name);
  },
  async network(name) {
    const { describeNetwork, findNetwork } = await import('../network/manage.ts');
    const { listNetworks } = await import('../network/store.ts');
    const { membersOf } = await import('../container/networks.ts');
    if (!listNetworks().some((each) => each.name === name || each.id.startsWith(name))) return undefined;
    return describeNetwork(findNetwork(name), membersOf);
  },
  async volume(name) {
    const { listVolumes } = await import('../container/volume-store.ts');
    const { describeVolume } = await import('./output/volumes.ts');
    const found = listVolumes().find((volume) => volume.name === name);
    return found === undefined ? undefined : describeVolume(found);
  },
};
