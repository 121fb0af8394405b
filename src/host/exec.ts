import { MinirunError } from '../errors.ts';

/** The package that brings a tool, for the message when it is missing. */
const packages: Record<string, string> = {
  ip: 'iproute2',
  tc: 'iproute2',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  prlimit: 'util-linux',
  iptables: 'iptables',
  'iptables-save': 'iptables',
  'iptables-restore': 'iptables',
  dnsmasq: 'dnsmasq-base',
  's6-log': 's6',
  tar: 'tar',
};

export interface ToolResult {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** The error for a host tool that is not there. */
export function missingTool(tool: string): MinirunError {
  const name = packages[tool] ?? tool;
  return new MinirunError(
    `cannot run ${tool}`,
    `this machine has no ${tool} (package ${name})`,
    `Install it: bin/setup, or apt-get install ${name}`,
    { code: 125 },
  );
}

/** sbin is not in every user's PATH, and that is where ip and iptables live. */
export const toolPath = [
  ...new Set([
    ...(process.env.PATH ?? '').split(':').filter(Boolean),
    '/usr/local/sbin',
    '/usr/sbin',
    '/sbin',
    '/usr/bin',
    '/bin',
  ]),
].join(':');

/** Runs a host tool to its end, whatever its exit code. @throws MinirunError when the tool is missing */
export async function runTool(tool: string, args: readonly string[], input?: string): Promise<ToolResult> {
  // Loaded here: the commands that run no such tool do without.
  const { execa } = await import('execa');
  const result = await execa(tool, args, {
    reject: false,
    stripFinalNewline: false,
    env: { PATH: toolPath, LC_ALL: 'C' },
    ...(input === undefined ? { stdin: 'ignore' as const } : { input }),
  });
  if (result.code === 'ENOENT') throw missingTool(tool);
  return {
    exitCode: result.exitCode ?? 128,
    stdout: result.stdout,
    stderr: result.stderr,
  };
}
