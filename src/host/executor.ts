import fs from 'node:fs';
import { MinirunError, MinirunErrors, messageOf } from '../errors.ts';
import { faultPoint, faultsOn } from './fault.ts';
import { endDaemon } from './daemon.ts';
import type { FileCommand, HostCommand, IpCommand, IptablesCommand, Step, WriteCommand } from './steps.ts';
import { killedCode, runDirectly } from './tool.ts';
import { removeTree } from './remove-tree.ts';

/** Who looks after what of a failed plan. */
export interface ApplyOptions {
  /** Steps that the caller undoes when the plan fails, because others may have come to share what they made. */
  callersOwn?: ReadonlySet<Step>;
  /** Is told on failure which steps are still applied, all undone ones and those never reached left out. */
  left?: (steps: Step[]) => void;
  /** Is told of each step as soon as it is applied. */
  applied?: (step: Step) => void;
}

/**
 * Applies steps in order. Neighbouring `ip` commands of one namespace become one `ip -batch`, all firewall commands
 * of the plan one `iptables-restore`, which runs beside the rest: rules may name interfaces that do not exist yet.
 * On failure what was applied is undone, newest first, and every error is reported.
 */
export async function applySteps(
  steps: readonly Step[],
  { callersOwn, left, applied }: ApplyOptions = {},
): Promise<void> {
  const done = new Set<Step>();
  try {
    if (faultsOn) await applyOneByOne(steps, done, applied);
    else await applyMerged(steps, done, applied);
  } catch (error) {
    const toUndo = steps.filter((step) => done.has(step) && callersOwn?.has(step) !== true);
    const undoErrors = await undoSteps(toUndo);
    left?.(undoErrors.length === 0 ? [] : toUndo);
    if (undoErrors.length === 0) throw error;
    throw new MinirunErrors(
      messageOf(error),
      undoErrors,
      'What could not be undone is left for "minirun system reconcile"',
    );
  }
}

async function applyOneByOne(steps: readonly Step[], done: Set<Step>, applied?: (step: Step) => void): Promise<void> {
  for (const step of steps) {
    for (const command of step.apply) await applyGroup([{ step, command }], done);
    applied?.(step);
    faultPoint(step.id);
  }
}

interface Item {
  step: Step;
  command: HostCommand;
}

async function applyMerged(steps: readonly Step[], done: Set<Step>, applied?: (step: Step) => void): Promise<void> {
  const items = steps.flatMap((step) => step.apply.map((command) => ({ step, command })));
  const firewall = items.filter(({ command }) => inFirewallLane(command));
  const rest = items.filter(({ command }) => !inFirewallLane(command));
  const lanes = [applyLane(rest, done, applied), applyLane(firewall, done, applied)];
  // Both lanes must have come to rest before anything is undone.
  const errors = (await Promise.allSettled(lanes)).flatMap((lane) =>
    lane.status === 'rejected' ? [lane.reason as Error] : [],
  );
  if (errors[0] !== undefined) throw errors[0];
}

function inFirewallLane(command: HostCommand): boolean {
  return command.tool === 'iptables' || (command.tool === 'run' && command.lane === 'firewall');
}

async function applyLane(items: readonly Item[], done: Set<Step>, applied?: (step: Step) => void): Promise<void> {
  for (const group of groups(items)) {
    await applyGroup(group, done);
    for (const { step } of group) applied?.(step);
  }
}

/** Cuts a list into runs that one process can do. */
function groups(items: readonly Item[]): Item[][] {
  const result: Item[][] = [];
  for (const item of items) {
    const last = result.at(-1);
    const before = last?.at(-1)?.command;
    if (last !== undefined && before !== undefined && mergeable(before, item.command)) last.push(item);
    else result.push([item]);
  }
  return result;
}

function mergeable(a: HostCommand, b: HostCommand): boolean {
  if (a.tool === 'ip' && b.tool === 'ip') return a.netns === b.netns;
  return a.tool === 'iptables' && b.tool === 'iptables';
}

async function applyGroup(group: readonly Item[], done: Set<Step>): Promise<void> {
  const first = (group[0] as Item).command;
  if (first.tool === 'ip') {
    const failed = await ipBatch(group.map((item) => item.command as IpCommand));
    // A batch stops at the line that failed: what came before it is applied and has to be undone. One that was killed may
    // have come to any line.
    for (const item of group.slice(0, failed?.index ?? group.length)) done.add(item.step);
    if (failed !== undefined) throw ipError(group[failed.index ?? 0] as Item, failed.message);
    return;
  }
  for (const item of group) done.add(item.step);
  if (first.tool === 'iptables') await restoreRules(group.map((item) => item.command as IptablesCommand));
  else for (const item of group) await applyOne(item);
}

/** What no process can do together with its neighbours. */
async function applyOne({ step, command }: Item): Promise<void> {
  if (command.tool === 'forward') {
    const { addForward, removeForward } = await import('./slirp.ts');
    return command.remove ? removeForward(command) : addForward(command);
  }
  const argv = argvOf(command);
  if (argv === undefined) return applyFile(command);
  const [tool = '', ...args] = argv;
  const { exitCode, stderr } = await runDirectly(tool, args);
  if (exitCode === 0 || (command.tool === 'daemon' && command.optional)) return;
  const why = stderr.trim().split('\n').at(-1);
  throw new MinirunError(`cannot take step ${step.id} (${commandText(command)})`, why || `exit code ${exitCode}`);
}

/** The words of a command that is a process of its own; undefined where minirun itself does it. */
function argvOf(command: HostCommand): string[] | undefined {
  if (command.tool === 'sysctl' && command.netns !== undefined)
    return [
      'ip',
      'netns',
      'exec',
      command.netns,
      'sh',
      '-c',
      'echo "$0" >"$1"',
      command.value,
      sysctlFile(command.key),
    ];
  if (command.tool !== 'run' && command.tool !== 'daemon') return undefined;
  return [...(command.netns === undefined ? [] : ['ip', 'netns', 'exec', command.netns]), ...command.argv];
}

/** Runs `ip` commands of one namespace in one process. */
async function ipBatch(
  commands: readonly IpCommand[],
  options: string[] = [],
): Promise<{ index: number | undefined; message: string; stderr: string; killed: boolean } | undefined> {
  const netns = commands[0]?.netns;
  const args = [...(netns === undefined ? [] : ['-n', netns]), ...options, '-batch', '-'];
  const input = commands.map((command) => `${command.args.map(ownPid).map(quote).join(' ')}\n`).join('');
  const { exitCode, stderr } = await runDirectly('ip', args, input);
  if (exitCode === 0) return undefined;
  const line = /Command failed -:(\d+)/.exec(stderr);
  const message = stderr
    .split('\n')
    .filter((text) => text !== '' && !text.startsWith('Command failed'))
    .map((text) => text.replace(/^(RTNETLINK answers|Error): /, ''))
    .join('; ');
  const killed = exitCode === killedCode;
  const index = line !== null ? Number(line[1]) - 1 : killed ? undefined : 0;
  return { index, message: killed ? 'ip was killed' : message, stderr, killed };
}

function ownPid(word: string): string {
  return word === '$$' ? String(process.pid) : word;
}

/** A word of an `ip -batch` line: it knows double quotes but no escapes. */
function quote(word: string): string {
  return /[\s"'#\\]/.test(word) || word === '' ? `"${word}"` : word;
}

function ipError({ step, command }: Item, message: string): MinirunError {
  const text = commandText(command);
  if (/Exchange full|Exfull/i.test(message)) {
    return new MinirunError(
      `cannot attach the container (${text})`,
      'a Linux bridge takes 1023 ports and this one has them all',
      'Put further containers on another network',
    );
  }
  if (/Operation not permitted/.test(message)) {
    return new MinirunError(`cannot configure the network (${text})`, message, 'Run minirun as root');
  }
  return new MinirunError(`cannot configure the network (step ${step.id}: ${text})`, message || 'ip gave no reason');
}

/** The command as a person would type it. */
export function commandText(command: HostCommand): string {
  switch (command.tool) {
    case 'ip':
      return `ip ${command.netns === undefined ? '' : `-n ${command.netns} `}${command.args.join(' ')}`;
    case 'iptables':
      return `${command.family === 6 ? 'ip6tables' : 'iptables'} -w -t ${command.table} ${command.args.map((arg) => (/\s/.test(arg) ? `"${arg}"` : arg)).join(' ')}`;
    case 'sysctl':
      return `${inNamespace(command)}sysctl -qw ${command.key}=${command.value}`;
    case 'run':
    case 'daemon':
      return inNamespace(command) + command.argv.join(' ');
    case 'end':
      return `end the process of ${command.pidFile}`;
    case 'forward':
      return `${command.remove ? 'stop forwarding' : 'forward'} port ${command.hostPort}/${command.protocol} of ${command.hostIp}`;
    case 'mkdir':
      return `mkdir -p ${command.path}`;
    case 'remove':
      return `${command.ifEmpty ? 'rmdir' : 'rm -rf'} ${command.path}`;
    case 'file':
      return `write ${command.path}`;
    case 'write':
      return `echo ${command.value} >${command.path}`;
    case 'rmcgroup':
      return `rmdir ${command.path}`;
    case 'process':
      return 'start the process';
  }
}

/** What a command begins with that runs in a namespace. */
export function inNamespace({ netns }: { netns?: string }): string {
  return netns === undefined ? '' : `ip netns exec ${netns} `;
}

/** Rules of several tables as one transaction per table, in one process for each of IPv4 and IPv6. */
async function restoreRules(commands: readonly IptablesCommand[]): Promise<void> {
  const families = [undefined, 6] as const;
  const results = await Promise.allSettled(
    families.map((family) =>
      restoreFamily(
        family,
        commands.filter((command) => command.family === family),
      ),
    ),
  );
  for (const result of results) if (result.status === 'rejected') throw result.reason as Error;
}

async function restoreFamily(family: 6 | undefined, commands: readonly IptablesCommand[]): Promise<void> {
  if (commands.length === 0) return;
  const tables = [...new Set(commands.map((command) => command.table))];
  const input = tables
    .map((table) => {
      const rules = commands
        .filter((command) => command.table === table)
        .map((command) => command.args.map(quote).join(' '));
      return `*${table}\n${rules.join('\n')}\nCOMMIT\n`;
    })
    .join('');
  const { exitCode, stderr } = await runDirectly(
    family === 6 ? 'ip6tables-restore' : 'iptables-restore',
    ['--noflush', '-w'],
    input,
  );
  if (exitCode !== 0) {
    throw new MinirunError(
      'cannot set the firewall rules',
      stderr.trim().split('\n')[0] || `iptables-restore ended with ${exitCode}`,
      'Run minirun doctor to see what the firewall lacks',
    );
  }
}

function applyFile(command: HostCommand): void {
  switch (command.tool) {
    case 'sysctl':
      fs.writeFileSync(sysctlFile(command.key), command.value);
      return;
    case 'mkdir':
      // mkdir(2) and open(2) heed the umask of whoever runs minirun.
      if (fs.mkdirSync(command.path, { recursive: true, mode: command.mode }) !== undefined)
        fs.chmodSync(command.path, command.mode);
      return;
    case 'file':
      writeInPlace(command);
      return;
    case 'write':
      writeWord(command);
      return;
    case 'remove':
      if (command.ifEmpty) removeEmpty(command.path);
      else removeTree(command.path);
      return;
    default:
      return;
  }
}

/** Never makes a file: where the kernel has none of that name, there is nothing to be set. */
function writeWord({ path, value, optional }: WriteCommand): void {
  try {
    fs.writeFileSync(path, value, { flag: 'r+' });
  } catch (error) {
    if (optional) return;
    const { code = '' } = error as NodeJS.ErrnoException;
    const why = {
      ENOENT: 'this kernel has no such setting',
      EBUSY: 'more than that is in use already',
      EINVAL: 'the kernel does not take that value',
      ERANGE: 'the kernel does not take that value',
    }[code];
    throw new MinirunError(`cannot write ${value} to ${path}`, why ?? messageOf(error));
  }
}

/** Readable for whom it is meant before it is closed: that is when a name server that watches the directory reads it. */
function writeInPlace({ path, content, mode }: FileCommand): void {
  const fd = fs.openSync(path, 'w', mode);
  try {
    fs.fchmodSync(fd, mode);
    fs.writeFileSync(fd, content);
  } finally {
    fs.closeSync(fd);
  }
}

function removeEmpty(directory: string): void {
  try {
    fs.rmdirSync(directory);
  } catch (error) {
    if (!['ENOTEMPTY', 'ENOENT', 'EBUSY'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/** The file of a sysctl: `/` in the key stands for a dot inside a name. */
export function sysctlFile(key: string): string {
  return `/proc/sys/${key.replaceAll('/', '\0').replaceAll('.', '/').replaceAll('\0', '.')}`;
}

/** Messages that say: there is nothing to take back. */
const alreadyGone =
  /Cannot find device|No such file or directory|does not exist|No such device|No such process|Cannot remove namespace file|does a matching rule exist|No chain\/target\/match|Bad rule|Cannot assign requested address|Chain .* does not exist|Directory not empty|0 flow entries have been deleted|CHAIN_DEL failed|CHAIN_USER_DEL failed|Couldn't load target|Cannot delete qdisc with handle of zero|Cannot find specified qdisc/i;

/**
 * Undoes steps, newest first, and goes on after every error. What is gone already is no error.
 *
 * @returns the errors, none when everything is undone
 */
export async function undoSteps(steps: readonly Step[]): Promise<Error[]> {
  const errors: Error[] = [];
  const commands = steps.toReversed().flatMap((step) => step.undo.map((command) => ({ step, command })));
  const firewall = commands.filter(({ command }) => inFirewallLane(command));
  const rest = commands.filter(({ command }) => !inFirewallLane(command));
  const lane = async (items: Item[]) => {
    for (const group of groups(items)) {
      try {
        await undoGroup(group, errors);
        if (faultsOn) faultPoint(`undo.${group[0]?.step.id}`);
      } catch (error) {
        errors.push(error as Error);
      }
    }
  };
  await Promise.all([lane(rest), lane(firewall)]);
  return errors;
}

async function undoGroup(group: readonly Item[], errors: Error[]): Promise<void> {
  const first = (group[0] as Item).command;
  if (first.tool === 'ip') {
    const failed = await ipBatch(
      group.map((item) => item.command as IpCommand),
      ['-force'],
    );
    if (failed === undefined) return;
    const real = failed.stderr
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('Command failed') && !alreadyGone.test(line));
    if (failed.killed) real.push(failed.message);
    if (real.length > 0) errors.push(new MinirunError('cannot remove network parts', real.join('; ')));
  } else if (first.tool === 'iptables') {
    await undoRules(
      group.map((item) => item.command as IptablesCommand),
      errors,
    );
  } else {
    for (const item of group) await undoOne(item, errors);
  }
}

async function undoOne(item: Item, errors: Error[]): Promise<void> {
  try {
    if (item.command.tool === 'end') await endDaemon(item.command.pidFile, item.command.group);
    else if (item.command.tool === 'rmcgroup')
      await (await import('./cgroup/cgroup.ts')).removeCgroup(item.command.path);
    else await applyOne(item);
  } catch (error) {
    // Only tools say so in words; a file that cannot be written is an error.
    const isTool = argvOf(item.command) !== undefined;
    if (!isTool || !alreadyGone.test(messageOf(error))) errors.push(error as Error);
  }
}

/** One transaction; when that fails because part of it is gone already, rule by rule. */
async function undoRules(commands: readonly IptablesCommand[], errors: Error[]): Promise<void> {
  try {
    await restoreRules(commands);
  } catch {
    for (const command of commands) {
      const { exitCode, stderr } = await runDirectly(command.family === 6 ? 'ip6tables' : 'iptables', [
        '-w',
        '-t',
        command.table,
        ...command.args,
      ]);
      if (exitCode !== 0 && !alreadyGone.test(stderr))
        errors.push(new MinirunError('cannot remove a firewall rule', stderr.trim()));
    }
  }
}
