import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

/** One run of a host tool: its arguments, and the lines it was given. */
export interface ToolCall {
  tool: string;
  args: string;
  input: string[];
}

/** What became of steps that were applied or undone. */
export interface Outcome {
  /** The messages of the errors; none when all went well. */
  errors: string[];
  calls: ToolCall[];
  /** What the fakes have made and not deleted again, in the order of their names. */
  present: string[];
}

/**
 * `ip`, `iptables` and `iptables-restore` that write down how they are called. In their world `add THING` and `-A THING`
 * make a thing, `del THING` and `-D THING` delete it, with the tools' own messages when it is not there; a thing called
 * `broken…` can be neither made nor deleted, `full` is one too many, and when `killed` is to be made the tool is killed.
 */
const fake = `#!/bin/sh
here=\${0%/*} tool=\${0##*/}
one() {
  case "$1 $2" in
    *' broken'*) echo 'RTNETLINK answers: Device or resource busy' >&2; return 1 ;;
    'add killed'*) kill -KILL $$ ;;
    *' full'*) echo 'RTNETLINK answers: Exchange full' >&2; return 1 ;;
    'add '*|'-A '*) : >"$here/world/$2" ;;
    'del '*|'-D '*) rm "$here/world/$2" 2>/dev/null || { echo "Cannot find device \\"$2\\"" >&2; return 1; } ;;
  esac
}
input=
case "$*" in *-batch*|*--noflush*) input=$(cat) ;; esac
{
  echo "$tool $*"
  [ -n "$input" ] && echo "$input" | sed 's/^/  /'
} >"$here/call.$$"
cat "$here/call.$$" >>"$here/calls"; rm "$here/call.$$"
if [ "$tool" = iptables ]; then
  shift 3; one "$@"; exit
fi
if [ "$tool" = iptables-restore ]; then
  case "$input" in *broken*|*missing*) echo 'iptables-restore: line 2 failed' >&2; exit 1 ;; esac
fi
status=0 number=0
while read -r verb thing; do
  number=$((number + 1))
  one "$verb" "$thing" && continue
  [ "$tool" = ip ] && echo "Command failed -:$number" >&2
  status=1
  case "$*" in *-force*) ;; *) break ;; esac
done <<END
$input
END
exit $status
`;

const executor = path.resolve(import.meta.dir, '../../src/host/executor.ts');

/** Runs a function of the executor on these steps in a process of its own, whose host tools are fakes in `directory`. */
export function withFakeTools(
  directory: string,
  action: 'applySteps' | 'undoSteps',
  steps: unknown,
  { fault = '' } = {},
): Outcome {
  const log = path.join(directory, 'calls');
  const world = path.join(directory, 'world');
  fs.mkdirSync(world, { recursive: true });
  for (const tool of ['ip', 'iptables', 'iptables-restore']) {
    fs.writeFileSync(path.join(directory, tool), fake, { mode: 0o755 });
  }
  fs.writeFileSync(log, '');
  const code = `
    import { ${action} } from ${JSON.stringify(executor)};
    const errors = await ${action}(JSON.parse(await Bun.stdin.text())).catch((error) => [error]);
    console.log(JSON.stringify((errors ?? []).map((error) => error.message)));`;
  const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', code], {
    input: JSON.stringify(steps),
    encoding: 'utf8',
    env: { PATH: `${directory}:/usr/bin:/bin`, MINIRUN_FAULT: fault },
  });
  if (status !== 0) throw new Error(`the executor ended with ${status}: ${stderr}`);
  const calls: ToolCall[] = [];
  for (const line of fs.readFileSync(log, 'utf8').split('\n').filter(Boolean)) {
    const [tool = '', ...args] = line.split(' ');
    if (tool === '') calls.at(-1)?.input.push(line.slice(2));
    else calls.push({ tool, args: args.join(' '), input: [] });
  }
  return { errors: JSON.parse(stdout) as string[], calls, present: fs.readdirSync(world).toSorted() };
}
