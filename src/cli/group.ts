import type { Command } from 'commander';

/** Commands for containers that are also `minirun container COMMAND`, by the same name. */
export const containerCommands: ReadonlySet<string> = new Set(
  `commit cp create diff exec export kill logs pause port rename restart rm run start stats stop top unpause update wait`.split(
    ' ',
  ),
);

/**
 * The words of a command line by minirun's shorter names: whoever looks at them finds `ps` for `container ls`. Pure.
 *
 * @param words without the global options
 */
export function shortened(words: readonly string[]): string[] {
  const [group, name = '', ...rest] = words;
  if (group !== 'container') return [...words];
  if (name === 'ls' || name === 'list' || name === 'ps') return ['ps', ...rest];
  if (name === 'remove') return ['rm', ...rest];
  if (name === 'inspect') return ['inspect', '--type=container', ...rest];
  return containerCommands.has(name) ? [name, ...rest] : [...words];
}

/** Gives a command docker's names within its group: `images` is `image ls` and `image list` there. */
export function renameCommand(group: Command, command: string, name: string, ...aliases: string[]): void {
  const found = group.commands.find((each) => each.name() === command);
  found?.name(name);
  for (const alias of aliases) found?.alias(alias);
}
