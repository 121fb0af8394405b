/**
 * A change of the host, as data. Planners in `network/` and `container/` make steps and touch nothing; the executor
 * applies and undoes them; `--explain` prints them.
 */
export interface Step {
  /** Short and stable, for messages and tests: `veth.add`. */
  id: string;
  /** One plain-English line: why this is done. */
  why: string;
  /** What to do, in order. */
  apply: HostCommand[];
  /**
   * What takes it back, in order. Must be harmless when there is nothing to take back. Empty where another step's
   * undo takes it along (deleting a network namespace deletes what is in it); `why` then says so.
   */
  undo: HostCommand[];
}

export type HostCommand =
  | IpCommand
  | IptablesCommand
  | SysctlCommand
  | FileCommand
  | DirectoryCommand
  | RemoveCommand
  | ProcessCommand;

/** `ip ARGS`, or `ip -n NETNS ARGS`. */
export interface IpCommand {
  tool: 'ip';
  netns?: string;
  args: string[];
}

/** `iptables -t TABLE ARGS`. */
export interface IptablesCommand {
  tool: 'iptables';
  table: 'filter' | 'nat';
  args: string[];
}

/** `sysctl -w KEY=VALUE` in the host's namespaces. */
export interface SysctlCommand {
  tool: 'sysctl';
  key: string;
  value: string;
}

/** A file with this content; an existing one is written in place. */
export interface FileCommand {
  tool: 'file';
  path: string;
  content: string;
  /** Permissions, octal as a number. */
  mode: number;
}

/** `mkdir -p PATH`. */
export interface DirectoryCommand {
  tool: 'mkdir';
  path: string;
  mode: number;
}

/** `rm -rf PATH`. */
export interface RemoveCommand {
  tool: 'remove';
  path: string;
}

/**
 * The container's process. The caller of the executor starts it (it holds its terminal, pipes and exit code);
 * `script` is the same by hand.
 */
export interface ProcessCommand {
  tool: 'process';
  script: string;
}

export function ip(...args: string[]): IpCommand {
  return { tool: 'ip', args };
}

export function ipIn(netns: string, ...args: string[]): IpCommand {
  return { tool: 'ip', netns, args };
}

export function iptables(table: 'filter' | 'nat', ...args: string[]): IptablesCommand {
  return { tool: 'iptables', table, args };
}
