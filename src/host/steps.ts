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
  | RunCommand
  | DaemonCommand
  | EndDaemonCommand
  | ForwardCommand
  | WriteCommand
  | RemoveCgroupCommand
  | ProcessCommand;

/**
 * `ip ARGS`, or `ip -n NETNS ARGS`. The word `$$` stands for the process that applies it, as in a shell: `netns $$` is the
 * network namespace of whoever runs this.
 */
export interface IpCommand {
  tool: 'ip';
  netns?: string;
  args: string[];
}

export type Table = 'filter' | 'nat' | 'raw';

/** `iptables -t TABLE ARGS`, or `ip6tables`. */
export interface IptablesCommand {
  tool: 'iptables';
  family?: 6;
  table: Table;
  args: string[];
}

/** `sysctl -w KEY=VALUE` on the host, or in a named network namespace. `/` stands for a dot inside a part of the key. */
export interface SysctlCommand {
  tool: 'sysctl';
  netns?: string;
  key: string;
  value: string;
}

/** Any other tool of the host, run to its end: tc, conntrack. In a named network namespace where one is given. */
export interface RunCommand {
  tool: 'run';
  netns?: string;
  argv: string[];
  /** Keeps its place among the firewall commands, which are otherwise run beside the rest. */
  lane?: 'firewall';
}

/**
 * A program that goes into the background by itself once it is ready, and writes its pid to `pidFile`, whose path is among
 * its arguments: that tells it from another process that has got the same pid.
 */
export interface DaemonCommand {
  tool: 'daemon';
  netns?: string;
  argv: string[];
  pidFile: string;
  /** That it cannot be started is no error: whoever depends on it looks whether it runs. */
  optional?: boolean;
}

/** Ends a daemon and waits until it has ended. */
export interface EndDaemonCommand {
  tool: 'end';
  pidFile: string;
  /** It leads a process group, which ends with it. */
  group?: true;
}

/** Has slirp4netns listen on a port of the real machine for a machine in small, or not any more. */
export interface ForwardCommand {
  tool: 'forward';
  /** Where slirp4netns takes orders. */
  socket: string;
  protocol: 'tcp' | 'udp';
  hostIp: string;
  hostPort: number;
  remove?: true;
}

/** A file with this content; an existing one is written in place. */
export interface FileCommand {
  tool: 'file';
  path: string;
  content: string;
  /** Permissions, octal as a number. */
  mode: number;
}

/** `echo VALUE >PATH`: a file of the kernel's, which takes a word or a number. */
export interface WriteCommand {
  tool: 'write';
  path: string;
  value: string;
  /** That the kernel does not take it is no error: nobody has asked for it. */
  optional?: true;
}

/** Removes a cgroup and all inside it, once the last process has left it. */
export interface RemoveCgroupCommand {
  tool: 'rmcgroup';
  path: string;
}

/** `mkdir -p PATH`. */
export interface DirectoryCommand {
  tool: 'mkdir';
  path: string;
  mode: number;
}

/** `rm -rf PATH`; `rmdir PATH` of a directory that stays if there is something in it. */
export interface RemoveCommand {
  tool: 'remove';
  path: string;
  ifEmpty?: true;
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

export function iptables(table: Table, ...args: string[]): IptablesCommand {
  return { tool: 'iptables', table, args };
}

export function ip6tables(table: Table, ...args: string[]): IptablesCommand {
  return { tool: 'iptables', family: 6, table, args };
}
