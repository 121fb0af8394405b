import fs from 'node:fs';
import path from 'node:path';
import type { World } from './world.ts';

/** What happens to a host tool: it fails at once, does a part of its work, or is killed (by the kernel that is out of memory). */
export type ToolFault = 'fails' | 'half' | 'killed';

/** The host tools that minirun runs. */
const tools = [
  'ip',
  'tc',
  'iptables',
  'ip6tables',
  'iptables-restore',
  'ip6tables-restore',
  'iptables-save',
  'ip6tables-save',
  'conntrack',
  'unshare',
  'nsenter',
  'dnsmasq',
  'cp',
  'mkfifo',
  's6-log',
];

/**
 * Stands in front of the real tool. Each run of any of them gets a number: whoever creates the file of that name has it. The
 * one whose turn it is fails, with the words of the real one where minirun reads them; the others are the real ones.
 */
const stand = (real: string): string => `#!/bin/sh
here=\${0%/*} tool=\${0##*/} number=1
set -C
until { true >"$here/calls/$number"; } 2>/dev/null; do number=$((number + 1)); done
set +C
echo "$tool $*" >"$here/calls/$number"
read -r turn fault <"$here/fault" || exec ${real} "$@"
[ "$number" = "$turn" ] || exec ${real} "$@"
echo "$tool $*" >"$here/injected"
[ "$fault" != killed ] || kill -KILL $$
batch=
case "$tool $*" in ip*-batch*) batch=ip ;; *-restore*) batch=restore ;; esac
complain() {
  [ "$tool" != ip ] || echo 'RTNETLINK answers: Cannot allocate memory' >&2
  [ "$batch" != ip ] || echo "Command failed -:$1" >&2
  [ "$tool" = ip ] || echo "$tool: Cannot allocate memory" >&2
  exit 1
}
[ "$fault" = half ] || complain 1
case "$batch" in
  ip) cat >"$here/input"
    lines=$(wc -l <"$here/input")
    head -n $((lines / 2)) "$here/input" | ${real} "$@"
    complain $((lines / 2 + 1)) ;;
  # Each table is a transaction of its own.
  restore) sed '/^COMMIT/q' | ${real} "$@"; complain ;;
esac
case "$tool" in
  unshare | nsenter | s6-log | dnsmasq) sleep 0.03 ;;
  *) ${real} "$@" ;;
esac
complain
`;

/** Host tools of which one fails. */
export class FaultyTools {
  private constructor(private readonly directory: string) {}

  static async make(world: World): Promise<FaultyTools> {
    const directory = fs.mkdtempSync(path.join(world.directory, 'tools-'));
    for (const tool of tools) {
      const real = (await world.sh(`command -v ${tool} || true`)).trim();
      if (real !== '') fs.writeFileSync(path.join(directory, tool), stand(real), { mode: 0o755 });
    }
    return new FaultyTools(directory);
  }

  /** The environment in which the `turn`th run of a tool fails. */
  arm(env: Readonly<Record<string, string>>, turn: number, fault: ToolFault): Record<string, string> {
    fs.rmSync(path.join(this.directory, 'calls'), { recursive: true, force: true });
    fs.rmSync(path.join(this.directory, 'injected'), { force: true });
    fs.mkdirSync(path.join(this.directory, 'calls'));
    fs.writeFileSync(path.join(this.directory, 'fault'), `${turn} ${fault}\n`);
    return { PATH: `${this.directory}:${env.PATH}` };
  }

  /** The tool that failed, with its arguments; undefined when it was nobody's turn. */
  injected(): string | undefined {
    try {
      return fs.readFileSync(path.join(this.directory, 'injected'), 'utf8').trim();
    } catch {
      return undefined;
    }
  }
}
