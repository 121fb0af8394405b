import type { HostCommand, Step, Table } from '../host/steps.ts';
import { stateRoot } from './paths.ts';
import {
  absolutePath,
  anything,
  count,
  flag,
  listOf,
  object,
  type ObjectShape,
  oneOf,
  optional,
  type Shape,
  text,
  textLike,
  word,
  wordOf,
} from './shape.ts';

/** A namespace's name goes into a path. */
const netns = optional(word);
const words = listOf(word);

/** What a step may delete with all that is below it: never something that stood there before minirun. */
const removable: Shape = {
  wrong(value) {
    const wrong = absolutePath.wrong(value);
    if (wrong !== undefined) return wrong;
    const places = [stateRoot(), '/run', '/var/run', '/sys/fs/cgroup'];
    return places.some((place) => (value as string).startsWith(`${place}/`)) ? undefined : ': not a place of minirun';
  },
};

/** What is written to as a word is a cgroup's, and so is what is removed as one. */
const cgroupPath: Shape = {
  wrong: (value) =>
    absolutePath.wrong(value) ??
    ((value as string).startsWith('/sys/fs/cgroup/') ? undefined : ': not below /sys/fs/cgroup'),
};

/** Each kind of command with its fields. */
type Of<Tool extends HostCommand['tool']> = Extract<HostCommand, { tool: Tool }>;

/** A script may have several lines. */
const argv = listOf(textLike(/^[^\0]*$/));

const shapes: { [Tool in HostCommand['tool']]: ObjectShape<Of<Tool>> } = {
  ip: object<Of<'ip'>>({ tool: anything, netns, args: words }),
  iptables: object<Of<'iptables'>>({
    tool: anything,
    family: optional(oneOf(6)),
    table: wordOf<Table>({ filter: true, nat: true, raw: true }),
    args: words,
  }),
  sysctl: object<Of<'sysctl'>>({ tool: anything, netns, key: word, value: text }),
  run: object<Of<'run'>>({ tool: anything, netns, argv, lane: optional(oneOf('firewall')) }),
  daemon: object<Of<'daemon'>>({ tool: anything, netns, argv, pidFile: absolutePath, optional: optional(flag) }),
  end: object<Of<'end'>>({ tool: anything, pidFile: absolutePath, group: optional(oneOf(true)) }),
  forward: object<Of<'forward'>>({
    tool: anything,
    socket: absolutePath,
    protocol: wordOf<'tcp' | 'udp'>({ tcp: true, udp: true }),
    hostIp: word,
    hostPort: count,
    remove: optional(oneOf(true)),
  }),
  file: object<Of<'file'>>({ tool: anything, path: absolutePath, content: text, mode: count }),
  mkdir: object<Of<'mkdir'>>({ tool: anything, path: absolutePath, mode: count }),
  remove: object<Of<'remove'>>({ tool: anything, path: removable, ifEmpty: optional(oneOf(true)) }),
  write: object<Of<'write'>>({ tool: anything, path: cgroupPath, value: word, optional: optional(oneOf(true)) }),
  rmcgroup: object<Of<'rmcgroup'>>({ tool: anything, path: cgroupPath }),
  process: object<Of<'process'>>({ tool: anything, script: text }),
};

/** A command as it stands in a file, to be run by whoever reads it. */
const command: Shape = {
  wrong(value) {
    const tool = (value as { tool?: unknown } | null)?.tool;
    if (typeof tool !== 'string' || !Object.hasOwn(shapes, tool)) return ': no command';
    return shapes[tool as HostCommand['tool']].wrong(value);
  },
};

const step = object<Step>({ id: text, why: text, apply: listOf(command), undo: listOf(command) });

/** Steps that were applied. Each can be undone without the others. */
export const stepsShape = listOf(step, { partly: true });
