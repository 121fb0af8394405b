import { commandText, inNamespace } from './executor.ts';
import { addRequest } from './slirp.ts';
import type { ForwardCommand, HostCommand, Step } from './steps.ts';

/** A part of a script: some steps under a heading. */
export interface Section {
  title: string;
  steps: readonly Step[];
  /** For what others may have made already, or still use: shell conditions under which `add` or `delete` leave it alone. */
  shared?: { present: string; used: string };
}

/**
 * Steps as a POSIX shell script with two verbs, `add` and `delete`, each step under its reason. It is the same data
 * that the executor applies. `delete` goes backwards, goes on after errors, and is no error the second time.
 *
 * @param variables long paths that the script is to name once: name → path, replaced wherever it stands
 */
export function renderScript(
  title: string,
  sections: readonly Section[],
  variables: Record<string, string> = {},
): string {
  const add = sections.flatMap(({ title: heading, steps, shared }) => [
    `  # --- ${heading}`,
    ...unless(
      shared?.present,
      steps.flatMap((step) =>
        step.apply.length === 0 ? [] : ['', ...comment(step.why), ...step.apply.flatMap(applyLines)],
      ),
    ),
    '',
  ]);
  const undo = sections.toReversed().flatMap(({ steps, shared }) =>
    unless(
      shared?.used,
      steps.toReversed().flatMap((step) => step.undo.map((command) => `  ${undoLine(command)}`)),
    ),
  );
  const short = Object.entries(variables).filter(([, path]) => word(path) === path);
  const shorten = (line: string) => short.reduce((text, [name, path]) => text.replaceAll(path, `$${name}`), line);
  return `${[
    '#!/bin/sh',
    ...wrap(title).map((line) => `# ${line}`),
    '#',
    '#   sh SCRIPT add      takes the steps',
    '#   sh SCRIPT delete   takes them back; when there is nothing to take back, nothing happens',
    '',
    ...short.map(([name, path]) => `export ${name}=${path}`),
    ...(short.length > 0 ? [''] : []),
    'add() {',
    '  set -e',
    ...add.map(shorten),
    '}',
    '',
    'delete() {',
    ...(undo.length === 0 ? ['  :'] : undo.map(shorten)),
    '  return 0',
    '}',
    '',
    'case "${1:-}" in',
    '  add) add ;;',
    '  delete) delete 2>/dev/null ;;',
    '  *) echo "usage: sh $0 add|delete" >&2; exit 2 ;;',
    'esac',
  ].join('\n')}\n`;
}

/** Lines that are run only where a shell condition does not hold. */
function unless(condition: string | undefined, lines: readonly string[]): string[] {
  return condition === undefined || lines.length === 0 ? [...lines] : [`  if ! ${condition}; then`, ...lines, '  fi'];
}

function comment(why: string): string[] {
  return wrap(why).map((line) => `  # ${line}`);
}

function wrap(text: string): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines.at(-1) as string;
    if (last.length + word.length + 1 > 96) lines.push(word);
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`;
  }
  return lines;
}

function applyLines(command: HostCommand): string[] {
  switch (command.tool) {
    case 'file': {
      const lines = command.content.replace(/\n$/, '').split('\n');
      let end = 'EOF';
      while (lines.includes(end)) end += '_';
      return [
        `  cat >${word(command.path)} <<'${end}'`,
        ...lines,
        end,
        `  chmod ${command.mode.toString(8)} ${word(command.path)}`,
      ];
    }
    case 'write':
      return [`  echo ${word(command.value)} >${word(command.path)}${command.optional ? ' || :' : ''}`];
    case 'rmcgroup':
      // Until the last process is gone the kernel holds it busy.
      return [
        `  for n in 1 2 3 4 5 6 7 8 9; do find ${word(command.path)} -depth -type d -exec rmdir {} +; [ -d ${word(command.path)} ] || break; sleep 0.1; done`,
      ];
    case 'mkdir':
      return [`  mkdir -p ${word(command.path)}`];
    case 'remove':
      return [`  ${command.ifEmpty ? 'rmdir' : 'rm -rf'} ${word(command.path)}`];
    case 'process':
      return command.script.split('\n').map((line) => (line === '' ? '' : `  ${line}`));
    case 'sysctl':
      return [`  ${inNamespace(command)}sysctl -qw ${word(`${command.key}=${command.value}`)}`];
    case 'daemon': {
      const line = `  ${inNamespace(command)}${command.argv.map(word).join(' ')}`;
      return [command.optional ? `${line} || :` : line];
    }
    case 'run':
      return [`  ${inNamespace(command)}${command.argv.map(word).join(' ')}`];
    case 'forward':
      return [`  ${forwardLine(command)}`];
    case 'end':
      // The program has given up the right to remove the file itself.
      return [
        `  [ ! -s ${word(command.pidFile)} ] || kill ${command.group ? '-- -' : ''}"$(cat ${word(command.pidFile)})"; rm -f ${word(command.pidFile)}`,
      ];
    default:
      return [`  ${commandText(command)}`];
  }
}

/** What is listened on ends with slirp4netns at the latest; by hand it is taken back by a number that it gave. */
function forwardLine(command: ForwardCommand): string {
  const request = command.remove ? { execute: 'list_hostfwd' } : addRequest(command);
  return `printf '%s' ${word(JSON.stringify(request))} | nc -N -U ${word(command.socket)}`;
}

function undoLine(command: HostCommand): string {
  return command.tool === 'process'
    ? command.script.split('\n').join('\n  ')
    : (applyLines(command)[0] as string).trim();
}

/** A word of a shell command, quoted where it must be. */
export function word(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
