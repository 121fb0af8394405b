import type { Command } from 'commander';

/** Gives a command docker's names within its group: `images` is `image ls` and `image list` there. */
export function renameCommand(group: Command, command: string, name: string, ...aliases: string[]): void {
  const found = group.commands.find((each) => each.name() === command);
  found?.name(name);
  for (const alias of aliases) found?.alias(alias);
}
