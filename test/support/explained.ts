import fs from 'node:fs';
import path from 'node:path';

/**
 * One script of what `--explain` said about the commands of a demo: their part about the network, without the files, the
 * names and the processes of containers. A later command replaces an earlier one that made the same thing.
 *
 * @param directory where `explaining-minirun.sh` has put the scripts
 */
export function explainedNetwork(title: string, directory: string): string {
  const commands = new Map<string, Explained>();
  for (const name of fs.readdirSync(directory).sort()) {
    const explained = parse(fs.readFileSync(path.join(directory, name), 'utf8'));
    const key = objectOf(explained.command);
    commands.delete(key);
    commands.set(key, explained);
  }
  const all = [...commands.values()];
  const add = all.map(({ command, add: steps }) => [`  # === ${command}`, ...steps].join('\n\n'));
  const undo = all.toReversed().flatMap(({ undo: lines }) => lines);
  return `#!/bin/sh
# ${title}: the network of the demo, by hand. Made of what --explain says about
# its commands; left out are files, names and processes of containers.
#
#   sh SCRIPT add      takes the steps
#   sh SCRIPT delete   takes them back; when there is nothing to take back, nothing happens

add() {
  set -e
${add.join('\n\n')}
}

delete() {
${undo.join('\n')}
  return 0
}

case "\${1:-}" in
  add) add ;;
  delete) delete 2>/dev/null ;;
  *) echo "usage: sh $0 add|delete" >&2; exit 2 ;;
esac
`;
}

interface Explained {
  /** As it was typed. */
  command: string;
  /** Steps: a comment and its commands each, indented. */
  add: string[];
  /** Commands, indented. */
  undo: string[];
}

function parse(text: string): Explained {
  const [command = '', ...lines] = text.split('\n');
  const script = lines.join('\n');
  const body = (name: string) => new RegExp(`^${name}\\(\\) \\{\n([^]*?)^\\}`, 'm').exec(script)?.[1] ?? '';
  const paragraphs = body('add').split(/\n\n+/);
  const add: string[] = [];
  let isWanted = true;
  for (const paragraph of paragraphs) {
    const section = /^ {2}# --- (.*)/m.exec(paragraph)?.[1];
    if (section !== undefined) isWanted = !/^(Files of the container|The process)/.test(section);
    const step = paragraph.replace(/^( {2}set -e\n)? {2}# --- .*\n*/m, '').trimEnd();
    if (isWanted && step !== '' && !isAboutFiles(step)) add.push(step);
    const settings = [...paragraph.matchAll(/^ +echo (.*) >proc\/sys\/(net\/.*)$/gm)];
    if (settings.length > 0) add.push(settingsOf(nameOf(command), settings));
  }
  return {
    command,
    add,
    undo: body('delete')
      .split('\n')
      .filter((line) => line !== '' && line !== '  return 0' && !isAboutFiles(line)),
  };
}

const isAboutFiles = (text: string) => /\$dir|\/run\/minirun/.test(text);

/** What init writes below /proc/sys when it is in the container's namespace. */
function settingsOf(netns: string, settings: readonly RegExpMatchArray[]): string {
  const lines = settings.map(([, value = '', key = '']) => {
    const [quoted, plain] = [value.replaceAll("'\\''", "'"), key.replaceAll('/', '.')];
    return `  ip netns exec ${netns} sysctl -qw ${plain}=${quoted}`;
  });
  return ['  # Settings of the namespace, which init makes in it before the command starts.', ...lines].join('\n');
}

const nameOf = (command: string) => / --name (\S+)/.exec(command)?.[1] ?? '';

/** What a command makes: two that make the same have the same. */
function objectOf(command: string): string {
  if (command.startsWith('minirun run ')) return `run ${nameOf(command)}`;
  if (command.startsWith('minirun network create ')) return `network ${command.split(' ').at(-1)}`;
  return command;
}
