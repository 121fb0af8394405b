import type { Command } from 'commander';
import { isDiskFull, messageOf, MinirunError } from '../errors.ts';
import { isInside, leave, settleIn } from '../rootless/inside.ts';
import { isAnythingDamaged } from '../state/files.ts';
import { setStateRoot, stateRoot } from '../state/paths.ts';
import { shortened } from './group.ts';
import { printable } from './output/printable.ts';
import { version } from './version.ts';
import { isUnread, onUnread, print, unreadCode } from './output/stdout.ts';

/** A command's file registers it; only the file of the command that is run is loaded. */
type Register = (program: Command) => void;

const commands: Record<string, { summary: string; load: () => Promise<Register> }> = {
  run: {
    summary: 'Create a container and run a command in it',
    load: async () => (await import('./run.ts')).registerRun,
  },
  create: {
    summary: 'Create a container without starting it',
    load: async () => (await import('./run.ts')).registerCreate,
  },
  start: { summary: 'Start containers that are at rest', load: async () => (await import('./start.ts')).registerStart },
  stop: { summary: 'Stop running containers', load: async () => (await import('./stop.ts')).registerStop },
  kill: { summary: 'Send a signal to running containers', load: async () => (await import('./stop.ts')).registerKill },
  restart: { summary: 'Stop and start containers', load: async () => (await import('./stop.ts')).registerRestart },
  pause: {
    summary: 'Stop all processes of containers where they are',
    load: async () => (await import('./pause.ts')).registerPause,
  },
  unpause: {
    summary: 'Let paused containers go on',
    load: async () => (await import('./pause.ts')).registerUnpause,
  },
  update: {
    summary: 'Change limits and restart policy of containers',
    load: async () => (await import('./update.ts')).registerUpdate,
  },
  stats: {
    summary: 'Show what containers use of the machine',
    load: async () => (await import('./stats.ts')).registerStats,
  },
  top: { summary: 'Show the processes of a container', load: async () => (await import('./top.ts')).registerTop },
  rm: { summary: 'Remove containers', load: async () => (await import('./rm.ts')).registerRm },
  wait: {
    summary: 'Wait until containers have ended and print their exit codes',
    load: async () => (await import('./wait.ts')).registerWait,
  },
  ps: { summary: 'List containers', load: async () => (await import('./ps.ts')).registerPs },
  inspect: {
    summary: 'Show everything about containers, images and networks as JSON',
    load: async () => (await import('./inspect.ts')).registerInspect,
  },
  events: {
    summary: 'Show what happens to containers, images, networks and volumes',
    load: async () => (await import('./events.ts')).registerEvents,
  },
  healthcheck: {
    summary: 'Check whether a container is well',
    load: async () => (await import('./healthcheck.ts')).registerHealthcheck,
  },
  generate: {
    summary: 'Write what starts containers at boot',
    load: async () => (await import('./generate.ts')).registerGenerate,
  },
  logs: { summary: "Show a container's output", load: async () => (await import('./logs.ts')).registerLogs },
  exec: {
    summary: 'Run a further command in a running container',
    load: async () => (await import('./exec.ts')).registerExec,
  },
  cp: {
    summary: 'Copy files between a container and this machine',
    load: async () => (await import('./cp.ts')).registerCp,
  },
  port: {
    summary: 'Show where a container’s ports are published',
    load: async () => (await import('./port.ts')).registerPort,
  },
  rename: { summary: 'Rename a container', load: async () => (await import('./rename.ts')).registerRename },
  network: {
    summary: 'Create, list, show and remove networks',
    load: async () => (await import('./network.ts')).registerNetwork,
  },
  addr: {
    summary: "Show a container's interfaces and addresses",
    load: async () => (await import('./addr.ts')).registerAddr,
  },
  neigh: {
    summary: 'Show the neighbours that a container knows',
    load: async () => (await import('./neigh.ts')).registerNeigh,
  },
  capture: {
    summary: 'Capture the packets of containers',
    load: async () => (await import('./capture.ts')).registerCapture,
  },
  trace: {
    summary: 'Show the way of packets from a container to an address',
    load: async () => (await import('./trace.ts')).registerTrace,
  },
  netns: {
    summary: "Print the path of a container's network namespace",
    load: async () => (await import('./netns.ts')).registerNetns,
  },
  link: {
    summary: 'Join containers, and the host, by cables of their own',
    load: async () => (await import('./link.ts')).registerLink,
  },
  route: {
    summary: 'Add, remove and list routes of containers and of the host',
    load: async () => (await import('./route.ts')).registerRoute,
  },
  volume: {
    summary: 'Create, list, show and remove volumes',
    load: async () => (await import('./volume.ts')).registerVolume,
  },
  container: {
    summary: 'The commands for containers, by docker’s longer names',
    load: async () => (await import('./container.ts')).registerContainer,
  },
  image: {
    summary: 'List, show, fetch, name and remove images',
    load: async () => (await import('./image.ts')).registerImage,
  },
  images: { summary: 'List images', load: async () => (await import('./images.ts')).registerImages },
  pull: { summary: 'Get an image from a registry', load: async () => (await import('./pull.ts')).registerPull },
  push: { summary: 'Send an image to a registry', load: async () => (await import('./push.ts')).registerPush },
  load: { summary: 'Load images from an archive', load: async () => (await import('./load.ts')).registerLoad },
  save: { summary: 'Save images to an archive', load: async () => (await import('./save.ts')).registerSave },
  import: {
    summary: 'Make an image of a root filesystem in a tar archive',
    load: async () => (await import('./import.ts')).registerImport,
  },
  tag: { summary: 'Give an image a further name', load: async () => (await import('./tag.ts')).registerTag },
  history: {
    summary: 'Show how an image was made',
    load: async () => (await import('./history.ts')).registerHistory,
  },
  commit: {
    summary: 'Make an image of a container',
    load: async () => (await import('./commit.ts')).registerCommit,
  },
  diff: {
    summary: 'Show what a container has changed of its image',
    load: async () => (await import('./diff.ts')).registerDiff,
  },
  export: {
    summary: 'Write the file system of a container as a tar archive',
    load: async () => (await import('./export.ts')).registerExport,
  },
  rmi: { summary: 'Remove images', load: async () => (await import('./rmi.ts')).registerRmi },
  login: { summary: 'Log in to a registry', load: async () => (await import('./login.ts')).registerLogin },
  logout: {
    summary: 'Forget the login for a registry',
    load: async () => (await import('./logout.ts')).registerLogout,
  },
  info: {
    summary: 'Show what minirun and this machine are',
    load: async () => (await import('./info.ts')).registerInfo,
  },
  doctor: {
    summary: 'Check what this machine has and lacks, with remedies',
    load: async () => (await import('./doctor.ts')).registerDoctor,
  },
  system: {
    summary: 'Show, check and clean up what minirun keeps on the disk',
    load: async () => (await import('./system.ts')).registerSystem,
  },
  version: { summary: 'Show the version', load: async () => (await import('./info.ts')).registerVersion },
  // For supervisors only, not shown.
  reap: { summary: '', load: async () => (await import('./reap.ts')).registerReap },
};

function commandOf(name = ''): (typeof commands)[string] | undefined {
  return Object.hasOwn(commands, name) ? commands[name] : undefined;
}

/** Commands that need neither the state directory nor root. */
const harmless = new Set(['version', 'doctor', 'help', '--help', '-h', undefined]);

/** Commands that finish what they are at when nobody reads what they print (`| head -1`); others end then. */
const finishes = new Set(
  `container run create start stop kill restart rm exec cp rename commit update pause unpause network link route capture events pull push
   load import save export tag rmi image volume system login logout healthcheck generate reap`.split(/\s+/),
);

/** Runs the command line; the only place, with the commands' files, that prints or sets the exit code. */
export async function main(argv: string[]): Promise<void> {
  const [name = ''] = takeGlobalOptions(argv);
  onUnread(finishes.has(name));
  if (argv[0] === '--version' || argv[0] === '-v') {
    print(`minirun version ${version}\n`);
    return;
  }
  try {
    await dispatch(argv);
  } catch (error) {
    process.exitCode = report(error, argv);
  }
  if (isUnread()) process.exitCode ||= unreadCode;
  if (isAnythingDamaged()) await reportDamage();
  if (isInside()) await leave(name);
}

/** What this command has met of damaged files after it had looked for them. */
async function reportDamage(): Promise<void> {
  try {
    const { settleDamage } = await import('../container/heal.ts');
    for (const line of await settleDamage()) warn(line);
  } catch (error) {
    warn(messageOf(error));
  }
}

function warn(line: string): void {
  process.stderr.write(`minirun: warning: ${printable(line)}\n`);
}

async function dispatch(argv: string[]): Promise<void> {
  if (isInside()) settleIn();
  const rest = takeGlobalOptions(argv);
  const name = rest[0];
  const asksForHelp = rest[1] === '--help' || rest[1] === '-h';
  const needsState = name !== undefined && name in commands && !harmless.has(name) && !asksForHelp;
  if (needsState && process.getuid?.() !== 0) {
    const { enterMachine } = await import('../rootless/enter.ts');
    await enterMachine(rest, (line) => process.stderr.write(`minirun: ${line}\n`));
  }
  const { Command } = await import('commander');
  const program = new Command('minirun');
  program
    .description('A lightweight, daemonless container runner with container networking at its heart')
    .usage('[--root DIR] COMMAND [ARGS…]')
    .option(
      '--root <dir>',
      'state directory (default: $MINIRUN_ROOT, /var/lib/minirun, or ~/.local/share/minirun for users)',
    )
    .option('-v, --version', 'show the version')
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeErr: () => {},
      writeOut: print,
    })
    .showHelpAfterError(false);
  const command = commandOf(name);
  if (command === undefined) {
    if (!harmless.has(name)) {
      throw new MinirunError(`unknown command "${name}"`, undefined, 'See minirun --help for those there are', {
        code: 125,
      });
    }
    await help(program, rest[1]);
    return;
  }
  (await command.load())(program);
  if (needsState) await prepareState();
  await program.parseAsync(rest, { from: 'user' });
}

/** `--root DIR` may stand before the command only: behind it, it is the command's or the container's. */
function takeGlobalOptions(argv: string[]): string[] {
  const rest = [...argv];
  for (;;) {
    const [first = '', second] = rest;
    if (first.startsWith('--root=')) {
      setStateRoot(first.slice('--root='.length));
      rest.shift();
    } else if (first === '--root' && second !== undefined) {
      setStateRoot(second);
      rest.splice(0, 2);
    } else return shortened(rest);
  }
}

async function prepareState(): Promise<void> {
  const { openStateRoot } = await import('../state/root.ts');
  for (const line of await openStateRoot(version)) warn(line);
  (await import('../state/reserve.ts')).keepReserve();
}

async function help(program: Command, topic?: string): Promise<void> {
  const command = commandOf(topic);
  if (command !== undefined) {
    (await command.load())(program);
    await program.parseAsync([topic as string, '--help'], { from: 'user' });
    return;
  }
  for (const [name, { summary }] of Object.entries(commands))
    if (summary !== '') program.command(name).summary(summary).description(summary);
  program.helpCommand('help [command]', 'Show a command’s options');
  program.outputHelp();
}

/** What every command may meet that writes to the state directory. */
function fullDisk(error: unknown): MinirunError | undefined {
  if (!isDiskFull(error)) return undefined;
  return new MinirunError(
    `cannot write to ${stateRoot()}`,
    'no space left on its disk',
    'Free some, for example by minirun system prune',
  );
}

/** Prints an error as one line and returns the exit code. */
function report(error: unknown, argv: string[]): number {
  const commanderCode = (error as { code?: unknown }).code;
  if (typeof commanderCode === 'string' && commanderCode.startsWith('commander.')) {
    if ((error as { exitCode?: number }).exitCode === 0) return 0;
    const command = argv.find((word) => commandOf(word) !== undefined);
    const message =
      commanderCode === 'commander.help'
        ? `${command} needs a command`
        : printable(messageOf(error).replace(/^error: |\.$/g, ''));
    process.stderr.write(`minirun: ${message}. See minirun ${command === undefined ? '' : `${command} `}--help.\n`);
    return 125;
  }
  if (error instanceof MinirunError) {
    // What a registry or an archive has said may be in it.
    process.stderr.write(`minirun: ${printable(error.message)}\n`);
    return error.code ?? 1;
  }
  const full = fullDisk(error);
  if (full !== undefined) {
    process.stderr.write(`minirun: ${printable(full.message)}\n`);
    return argv.some((word) => word === 'run' || word === 'create') ? 125 : 1;
  }
  process.stderr.write(
    `minirun: internal error: ${printable(messageOf(error))}. This is a bug in minirun; set MINIRUN_DEBUG=1 to see where it happened.\n`,
  );
  if (process.env.MINIRUN_DEBUG === '1' && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  return 125;
}
