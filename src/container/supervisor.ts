import fs from 'node:fs';
import { type Child, launch, ownBinary } from '../host/launch.ts';
import { stateRoot } from '../state/paths.ts';
import { initEnvironment, unshareArgv } from './argv.ts';
import type { Stdio } from './protocol.ts';
import { loggerArgv, streamEnd } from './logger.ts';
import type { Definition } from './definition.ts';
import { containerFiles } from './store.ts';

/** The supervisor's descriptors for the container's streams; init inherits them through unshare. */
const fds = { stdin: 8, stdout: 6, stderr: 7 } as const;

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

/**
 * Streams by way of two loggers, or appended to one file where there is none.
 *
 * The pipes of the loggers come from minirun: 4 and 5 to read from, 6 and 7 to write to. No shell makes pipes but in a
 * pipeline, which would keep one more shell per stream, and FIFOs would have to be made, opened, and deleted again.
 */
function pipedScript(openStdin: boolean, logger: boolean, owner?: string): string {
  // In a user namespace nobody may give a file away who is nobody himself: its root has to have it before.
  const give = (name: string) => (owner === undefined ? '' : `chown ${owner} ${name}; `);
  const stdin = openStdin ? `mkfifo -m 600 "$dir/in"; ${give('"$dir/in"')}exec 8<>"$dir/in"; rm "$dir/in"` : ':';
  const end = `printf '${streamEnd.replaceAll('\u0004', '\\004')}\\n'`;
  if (!logger) {
    return `${common}${stdin}
${makeLog}; exec 6>>"$dir/log/plain" 7>&6; ${give('"$dir/log/plain"')}
"$@" 2>"$dir/unshare.err" & run=$!; exec 2>/dev/null 3>&- 8>&-; wait $run; finish $?`;
  }
  // A dead logger must not end the supervisor.
  return `${common}${stdin}
${makeLog}
$LOGGER_OUT <&4 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 2>/dev/null & o=$!
$LOGGER_ERR <&5 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 2>/dev/null & e=$!
exec 4>&- 5>&-
"$@" 2>"$dir/unshare.err" & run=$!; trap '' PIPE; exec 2>/dev/null 3>&- 8>&-; wait $run; code=$?
${end} >&6; ${end} >&7; exec 6>&- 7>&-; wait $o; wait $e; finish $code`;
}

/** Starts a supervisor and tells the streams that init is to use. See `supervisorArgv`. */
export async function launchSupervisor(
  definition: Definition,
  owner: string | undefined,
  unshare: readonly string[],
): Promise<{ child: Child; stdio: Stdio }> {
  const { argv, stdio, isPiped } = supervisorArgv(definition, owner, unshare);
  if (!isPiped) return { child: launch(argv, initEnvironment), stdio };
  try {
    fs.mkdirSync(containerFiles(definition.id).log, { mode: 0o700 });
  } catch {
    // The supervisor makes it, by a program of its own, if it is still missing; it knows what to do when that fails, too.
  }
  const pipes = await loggerPipes(owner);
  try {
    return { child: launch(argv, initEnvironment, 'ignore', pipes), stdio };
  } finally {
    for (const fd of pipes) fs.closeSync(fd);
  }
}

/** The pipes of the two loggers as the supervisor wants them: both ends to read from, then both to write to. */
export async function loggerPipes(owner?: string): Promise<number[]> {
  const { makePipe } = await import('./libc.ts');
  const [out, err] = [makePipe(), makePipe()];
  const [uid, gid] = owner?.split(':').map(Number) ?? [];
  // As what the supervisor makes: see `give`.
  if (uid !== undefined && gid !== undefined) for (const { write } of [out, err]) fs.fchownSync(write, uid, gid);
  return [out.read, err.read, out.write, err.write];
}

/** A terminal is read by a logger that minirun starts when it has got the terminal. */
const terminalScript = `${common}
"$@" 2>"$dir/unshare.err" & run=$!; exec 2>/dev/null 3>&-; wait $run; finish $?`;

/**
 * The supervisor's command line and the streams that init is to use, and whether it is to be given pipes.
 *
 * @param owner who is to have them on the host, `UID:GID`
 * @param unshare the command that it waits for
 */
export function supervisorArgv(
  definition: Definition,
  owner?: string,
  unshare: readonly string[] = unshareArgv(),
): { argv: string[]; stdio: Stdio; isPiped: boolean } {
  const { directory, log } = containerFiles(definition.id);
  const tail = ['minirun-supervisor', directory, definition.id, ownBinary, stateRoot(), ...unshare];
  if (definition.tty) return { argv: ['sh', '-c', terminalScript, ...tail], stdio: 'pty', isPiped: false };
  const loggers = { LOGGER_OUT: loggerArgv(`${log}/stdout`), LOGGER_ERR: loggerArgv(`${log}/stderr`) };
  const isPiped = loggers.LOGGER_OUT !== undefined;
  const script = pipedScript(definition.openStdin, isPiped, owner)
    .replace('$LOGGER_OUT', () => shellWords(loggers.LOGGER_OUT))
    .replace('$LOGGER_ERR', () => shellWords(loggers.LOGGER_ERR));
  // Without -i not the host's /dev/null, which the container could change by way of its descriptor.
  const stdin = definition.openStdin ? fds.stdin : 'null';
  return { argv: ['sh', '-c', script, ...tail], stdio: { ...fds, stdin }, isPiped };
}

function shellWords(argv: readonly string[] = []): string {
  return argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
}
