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
 * Up to util-linux 2.40 unshare cannot pass SIGKILL on: it complains and exits with 1, which `finish` turns into 137.
 *
 * The place for the exit code is taken at once and then written over: on a disk that is full by then nothing else could be written.
 *
 * Arguments: the container's folder, its id, the binary, the state directory, then the command to run.
 */
const common = `
dir=$1 id=$2 bin=$3 root=$4; shift 4
trap '' HUP INT TERM
{ echo >"$dir/.exit"; } 2>/dev/null
finish() {
  code=$1
  [ "$code" = 1 ] && [ -s "$dir/unshare.err" ] && code=137
  echo "$code" 1<>"$dir/.exit" && mv "$dir/.exit" "$dir/exit"
  [ -e "$dir/removing" ] && exit 0
  MINIRUN_ROOT=$root exec "$bin" reap "$id"
}
`;

/** Never -p: a start that is refused at once may have deleted the folder before this shell gets its turn. */
const makeLog = '[ -d "$dir/log" ] || mkdir "$dir/log" || exit 1';

/** Streams by way of two loggers, or appended to one file where there is none. */
function pipedScript(openStdin: boolean, logger: boolean, owner?: string): string {
  // In a user namespace nobody may give a file away who is nobody himself: its root has to have it before.
  const give = (...names: string[]) => (owner === undefined ? '' : `chown ${owner} ${names.join(' ')}; `);
  const stdin = openStdin ? `mkfifo -m 600 "$dir/in"; ${give('"$dir/in"')}exec 7<>"$dir/in"; rm "$dir/in"` : ':';
  const end = `printf '${streamEnd.replaceAll('\u0004', '\\004')}\\n'`;
  if (!logger) {
    return `${common}${stdin}
${makeLog}; exec 8>>"$dir/log/plain" 9>&8; ${give('"$dir/log/plain"')}
"$@" 2>"$dir/unshare.err" & run=$!; exec 2>/dev/null 3>&- 7>&-; wait $run; finish $?`;
  }
  // FIFOs, not a pipeline: a pipeline would keep one more shell per stream. The supervisor opens both ends itself, by
  // way of one for reading and writing, which never waits: a logger that opened its end would wait for ever if this
  // shell were killed just then. The names go as soon as both ends are open. A dead logger must not end the supervisor.
  return `${common}${stdin}
${makeLog}; mkfifo -m 600 "$dir/out" "$dir/err"; ${give('"$dir/out"', '"$dir/err"')}
exec 6<>"$dir/out" 4<"$dir/out" 8>"$dir/out" 6<>"$dir/err" 5<"$dir/err" 9>"$dir/err" 6>&-; rm "$dir/out" "$dir/err"
$LOGGER_OUT <&4 3>&- 4>&- 5>&- 7>&- 8>&- 9>&- 2>/dev/null & o=$!
$LOGGER_ERR <&5 3>&- 4>&- 5>&- 7>&- 8>&- 9>&- 2>/dev/null & e=$!
exec 4>&- 5>&-
"$@" 2>"$dir/unshare.err" & run=$!; trap '' PIPE; exec 2>/dev/null 3>&- 7>&-; wait $run; code=$?
${end} >&8; ${end} >&9; exec 8>&- 9>&-; wait $o; wait $e; finish $code`;
}

/** A terminal is read by a logger that minirun starts when it has got the terminal. */
const terminalScript = `${common}
"$@" 2>"$dir/unshare.err" & run=$!; exec 2>/dev/null 3>&-; wait $run; finish $?`;

/**
 * The supervisor's command line and the streams that init is to use.
 *
 * @param owner who is to have them on the host, `UID:GID`
 * @param unshare the command that it waits for
 */
export function supervisorArgv(
  definition: Definition,
  owner?: string,
  unshare: readonly string[] = unshareArgv(),
): { argv: string[]; stdio: Stdio } {
  const { directory, log } = containerFiles(definition.id);
  const tail = ['minirun-supervisor', directory, definition.id, ownBinary, stateRoot(), ...unshare];
  if (definition.tty) return { argv: ['sh', '-c', terminalScript, ...tail], stdio: 'pty' };
  const loggers = { LOGGER_OUT: loggerArgv(`${log}/stdout`), LOGGER_ERR: loggerArgv(`${log}/stderr`) };
  const script = pipedScript(definition.openStdin, loggers.LOGGER_OUT !== undefined, owner)
    .replace('$LOGGER_OUT', () => shellWords(loggers.LOGGER_OUT))
    .replace('$LOGGER_ERR', () => shellWords(loggers.LOGGER_ERR));
  // Without -i not the host's /dev/null, which the container could change by way of its descriptor.
  const stdin = definition.openStdin ? fds.stdin : 'null';
  return { argv: ['sh', '-c', script, ...tail], stdio: { ...fds, stdin } };
}

function shellWords(argv: readonly string[] = []): string {
  return argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
}
