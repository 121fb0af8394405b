import { ownBinary } from '../host/launch.ts';
import { stateRoot } from '../state/paths.ts';
import { unshareArgv } from './argv.ts';
import type { Stdio } from './protocol.ts';
import { loggerArgv, streamEnd } from './logger.ts';
import type { Definition } from './definition.ts';
import { containerFiles } from './store.ts';

/** The supervisor's descriptors for the container's streams; init inherits them through unshare. */
const fds = { stdin: 7, stdout: 8, stderr: 9 } as const;

/**
 * The process that stays with a detached container: a shell of a few hundred kilobytes that waits, writes the exit
 * code down and calls minirun to tear down. It keeps nothing else: not the caller's files, not its terminal.
 *
 * Arguments: the container's folder, its id, the binary, the state directory, then the command to run.
 */
const common = `
dir=$1 id=$2 bin=$3 root=$4; shift 4
trap '' HUP INT TERM
finish() {
  echo "$1" >"$dir/.exit" && mv "$dir/.exit" "$dir/exit"
  [ -e "$dir/removing" ] && exit 0
  MINIRUN_ROOT=$root exec "$bin" reap "$id"
}
`;

/** Streams by way of two loggers, or appended to one file where there is none. */
function pipedScript(openStdin: boolean, logger: boolean): string {
  const stdin = openStdin ? `mkfifo -m 600 "$dir/in"; exec 7<>"$dir/in"; rm "$dir/in"` : 'exec 7</dev/null';
  const end = `printf '${[...streamEnd].map((character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`).join('')}\\n'`;
  if (!logger) {
    return `${common}${stdin}
mkdir -p "$dir/log"; exec 8>>"$dir/log/plain" 9>&8
"$@" & run=$!; exec 2>/dev/null 3>&- 7>&-; wait $run; finish $?`;
  }
  // FIFOs, not a pipeline: a pipeline would keep one more shell per stream. They have no name once both ends are open.
  return `${common}${stdin}
mkdir -p "$dir/log"; mkfifo -m 600 "$dir/out" "$dir/err"
$LOGGER_OUT <"$dir/out" 3>&- 7>&- 2>/dev/null & o=$!
$LOGGER_ERR <"$dir/err" 3>&- 7>&- 2>/dev/null & e=$!
exec 8>"$dir/out" 9>"$dir/err"; rm "$dir/out" "$dir/err"
"$@" & run=$!; exec 2>/dev/null 3>&- 7>&-; wait $run; code=$?
${end} >&8; ${end} >&9; exec 8>&- 9>&-; wait $o; wait $e; finish $code`;
}

/** A terminal is read by a logger that minirun starts when it has got the terminal. */
const terminalScript = `${common}
"$@" & run=$!; exec 2>/dev/null 3>&-; wait $run; finish $?`;

/** The supervisor's command line and the streams that init is to use. */
export function supervisorArgv(definition: Definition): { argv: string[]; stdio: Stdio } {
  const { directory, log } = containerFiles(definition.id);
  const tail = ['minirun-supervisor', directory, definition.id, ownBinary, stateRoot(), ...unshareArgv()];
  if (definition.tty) return { argv: ['sh', '-c', terminalScript, ...tail], stdio: 'pty' };
  const loggers = { LOGGER_OUT: loggerArgv(`${log}/stdout`), LOGGER_ERR: loggerArgv(`${log}/stderr`) };
  const script = pipedScript(definition.openStdin, loggers.LOGGER_OUT !== undefined)
    .replace('$LOGGER_OUT', () => shellWords(loggers.LOGGER_OUT))
    .replace('$LOGGER_ERR', () => shellWords(loggers.LOGGER_ERR));
  return { argv: ['sh', '-c', script, ...tail], stdio: { ...fds } };
}

function shellWords(argv: readonly string[] = []): string {
  return argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
}
