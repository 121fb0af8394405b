import { Command, type Option } from 'commander';
import type { ContainerRequest } from '../container/create.ts';
import { MinirunError } from '../errors.ts';
import { reconcileFirst } from './each.ts';
import { limitOptions, limitsFrom } from './limits.ts';
import { printable } from './output/printable.ts';
import { print, stdoutStream } from './output/stdout.ts';

type Options = Record<string, string | string[] | boolean | undefined>;

const collect = (value: string, all: string[] = []) => [...all, value];

/** The options that `run` and `create` share; docker's names. */
function containerOptions(command: Command): Command {
  return limitOptions(command.passThroughOptions())
    .argument('[image]', 'image to run; none with --rootfs')
    .argument('[command...]', 'command and its arguments')
    .option('-t, --tty', 'give it a terminal')
    .option('-i, --interactive', 'keep its standard input open')
    .option('--rm', 'remove the container when it ends')
    .option('--name <name>', 'name of the container')
    .option('-e, --env <name=value>', 'set a variable (repeatable)', collect)
    .option('--env-file <file>', 'read variables from a file (repeatable)', collect)
    .option(
      '-v, --volume <[source:]target[:mode]>',
      'mount a directory of the host, or a volume: NAME, or none for one that goes with the container (repeatable)',
      collect,
    )
    .option('--mount <spec>', 'type=bind,source=…,target=…[,readonly], type=tmpfs or type=volume (repeatable)', collect)
    .option('--volumes-from <container[:ro]>', 'mount what another container has mounted (repeatable)', collect)
    .option('--tmpfs <target[:options]>', 'mount a tmpfs (repeatable)', collect)
    .option('--shm-size <size>', 'size of /dev/shm, 64m if not given')
    .option('--device <host[:container]>', 'give it a device of the host (repeatable)', collect)
    .option('-w, --workdir <dir>', 'working directory')
    .option('-u, --user <user[:group]>', 'user to run as: name or id')
    .option('--group-add <group>', 'further group of its user: name or id (repeatable)', collect)
    .option('--entrypoint <command>', "run this instead of the image's entrypoint")
    .option('-h, --hostname <name>', 'hostname')
    .option(
      '--network, --net <network>',
      'none, host, container:NAME, or NAME[:ip=,ip6=,mac=,ifname=,alias=,gw_priority=] (repeatable; default: minirun0)',
      collect,
    )
    .option('--ip <address>', 'IPv4 address in the network')
    .option('--ip6 <address>', 'IPv6 address in the network')
    .option('--mac-address <mac>', 'MAC address of its interface')
    .option('--network-alias <name>', 'further name in the network (repeatable)', collect)
    .option(
      '-p, --publish <[ip:][host:]container[/proto]>',
      'let a port of the host lead to one of the container (repeatable)',
      collect,
    )
    .option('-P, --publish-all', 'publish all ports that it exposes on free ports of the host')
    .option('--router', 'let it pass packets on between its interfaces')
    .option('--dns <address>', 'DNS server (repeatable)', collect)
    .option('--dns-search <domain>', 'DNS search domain (repeatable)', collect)
    .option('--dns-option, --dns-opt <option>', 'resolver option (repeatable)', collect)
    .option('--add-host <name:address>', 'further line of /etc/hosts (repeatable)', collect)
    .option('--expose <port[-port][/proto]>', 'note that it listens there (repeatable)', collect)
    .option('--cap-add <capability>', 'add a capability, or ALL (repeatable)', collect)
    .option('--cap-drop <capability>', 'drop a capability, or ALL (repeatable)', collect)
    .option('--privileged', 'all capabilities, no seccomp filter, nothing masked')
    .option(
      '--security-opt <option>',
      'no-new-privileges, seccomp=FILE, apparmor=NAME, mask=PATH, unmask=PATH, … (repeatable)',
      collect,
    )
    .option('--userns <auto|host|size>', 'ids of the host that stand for its own: its root is nobody there')
    .option('--read-only', 'make the root filesystem read-only')
    .option('--init', 'run a tiny init as pid 1')
    .option('--stop-signal <signal>', 'signal that stop sends')
    .option('--stop-timeout <seconds>', 'seconds until stop sends SIGKILL')
    .option('--health-cmd <command>', 'command that tells whether it is well: 0 is healthy')
    .option('--health-interval <duration>', 'time between two checks (default: 30s)')
    .option('--health-timeout <duration>', 'time after which a check has failed (default: 30s)')
    .option('--health-retries <number>', 'failures in a row that make it unhealthy (default: 3)')
    .option('--health-start-period <duration>', 'time in which failures do not count (default: 0s)')
    .option('--health-start-interval <duration>', 'time between two checks in the start period (default: 5s)')
    .option('--health-on-failure <action>', 'what to do when it becomes unhealthy: none, kill, restart, stop')
    .option('--no-healthcheck', 'do not check it, whatever the image says')
    .option('--ulimit <name=soft[:hard]>', 'resource limit (repeatable)', collect)
    .option('--oom-score-adj <number>', 'how soon the kernel ends it when memory runs out: -1000 to 1000')
    .option('--oom-kill-disable', 'have it wait instead of ending it when its memory is used up (cgroup version 1)')
    .option('--cgroup-parent <path>', 'cgroup to make that of the container in')
    .option('--sysctl <key=value>', "setting of the container's namespaces (repeatable)", collect)
    .option('-l, --label <key[=value]>', 'label (repeatable)', collect)
    .option('--label-file <file>', 'read labels from a file (repeatable)', collect)
    .option('--restart <policy>', 'no, on-failure[:N], always, unless-stopped', 'no')
    .option('--cidfile <file>', 'write the id to this new file')
    .option('--pull <policy>', 'missing, always, never', 'missing')
    .option('-q, --quiet', 'no progress')
    .option('--platform <os/arch[/variant]>', "another platform's image than this machine's")
    .option('--tls-verify <bool>', 'false: plain HTTP, or a certificate that nobody vouches for, will do', 'true')
    .option('--rootfs <dir>', 'use a directory as root filesystem, as it is')
    .option('--explain', 'print the steps as a shell script instead of taking them')
    .helpOption('--help', 'show this');
}

export function registerRun(program: Command): void {
  containerOptions(program.command('run'))
    .summary('Create a container and run a command in it')
    .usage('[OPTIONS] IMAGE [COMMAND [ARG…]]')
    .option('-d, --detach', 'leave it running and print its id')
    .option('--sig-proxy <bool>', 'pass signals on to the command', 'true')
    .action(async (image: string | undefined, command: string[], options: Options) => {
      const request = toRequest(image, command, options, typedWords(program));
      const detach = options.detach === true;
      if (detach && options.sigProxy !== 'true')
        refuse('--sig-proxy does not go with -d', 'there is nobody to pass signals on');
      const shown = options.explain === true;
      if (!detach && !shown && options.tty === true && options.interactive === true && !process.stdin.isTTY) {
        refuse('-t with -i needs a terminal', 'standard input is none', 'Leave -t out, or run it from a terminal');
      }
      if (!detach && options.tty === true) stdoutStream();
      await failAs125(async () => {
        await reconcileFirst('index');
        const { draftContainer } = await import('../container/create.ts');
        const draft = await draftContainer(request);
        if (options.explain === true) {
          const { explainRun } = await import('../container/explain.ts');
          print(await explainRun(draft, detach));
          return;
        }
        const { runDetached, runForeground } = await import('../container/run.ts');
        const forget = await writeCidfile(options.cidfile as string | undefined, draft.definition.id);
        try {
          if (detach) print(`${await runDetached(draft, request.notice)}\n`);
          else
            process.exitCode = await runForeground(draft, {
              sigProxy: options.sigProxy !== 'false',
              notice: request.notice,
            });
        } catch (error) {
          forget();
          throw error;
        }
      });
    });
}

export function registerCreate(program: Command): void {
  containerOptions(program.command('create'))
    .summary('Create a container without starting it')
    .usage('[OPTIONS] IMAGE [COMMAND [ARG…]]')
    .action(async (image: string | undefined, command: string[], options: Options) => {
      const request = toRequest(image, command, options, typedWords(program));
      await failAs125(async () => {
        await reconcileFirst('index');
        const { draftContainer, writeContainer } = await import('../container/create.ts');
        const draft = await draftContainer(request);
        const forget = await writeCidfile(options.cidfile as string | undefined, draft.definition.id);
        try {
          await writeContainer(draft, false);
        } catch (error) {
          forget();
          throw error;
        }
        print(`${draft.definition.id}\n`);
      });
    });
}

/** Docker's exit code for a container that minirun itself could not make: 125, unless 126 or 127 fit better. */
async function failAs125(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof MinirunError) || error.code !== undefined) throw error;
    throw new MinirunError(error.message, undefined, undefined, { code: 125, cause: error });
  }
}

function refuse(what: string, why: string, remedy = 'Leave it out'): never {
  throw new MinirunError(what, why, remedy, { code: 125 });
}

/** Creates the file with the id; it must not exist. The result deletes it again. */
async function writeCidfile(file: string | undefined, id: string): Promise<() => void> {
  if (file === undefined) return () => {};
  const fs = await import('node:fs');
  try {
    fs.writeFileSync(file, id, { flag: 'wx' });
  } catch (error) {
    const exists = (error as NodeJS.ErrnoException).code === 'EEXIST';
    refuse(
      `cannot write --cidfile ${file}`,
      exists ? 'it exists already' : 'its directory is missing or not writable',
      exists ? 'Delete it, or name another file' : 'Name another file',
    );
  }
  return () => fs.rmSync(file, { force: true });
}

/** The words behind `run` or `create`. */
function typedWords(program: Command): string[] {
  return (program as unknown as { rawArgs: string[] }).rawArgs.slice(1);
}

/** The words of a `run` or `create` without some of its options, named as commander names them: `cidfile`. Pure. */
export function withoutOptions(words: readonly string[], names: readonly string[]): string[] {
  const known = containerOptions(new Command('run')).option('-d, --detach').option('--sig-proxy <bool>').options;
  const takesValue = (option: Option | undefined) => option !== undefined && (option.required || option.optional);
  const isDropped = (option: Option | undefined) => option !== undefined && names.includes(option.attributeName());
  const kept: string[] = [];
  for (let at = 0; at < words.length; at++) {
    const text = words[at] as string;
    if (text === '--' || text === '-' || !text.startsWith('-')) return [...kept, ...words.slice(at)];
    if (text.startsWith('--')) {
      const name = text.split('=')[0];
      // Of one with two long names the first stands for the short one.
      const option = known.find(({ long, short }) => long === name || short === name);
      const value = takesValue(option) && !text.includes('=') ? words.slice(++at, at + 1) : [];
      if (!isDropped(option)) kept.push(text, ...value);
      continue;
    }
    // Several letters, of which the last may have a value: `-itd`, `-eA=b`.
    let letters = '';
    let value: string[] = [];
    for (let place = 1; place < text.length; place++) {
      const option = known.find(({ short }) => short === `-${text[place]}`);
      const rest = text.slice(place + 1);
      if (takesValue(option)) {
        value = rest === '' ? words.slice(++at, at + 1) : [];
        if (isDropped(option)) value = [];
        else letters += text.slice(place);
        break;
      }
      if (!isDropped(option)) letters += text[place];
    }
    if (letters !== '') kept.push(`-${letters}`, ...value);
  }
  return kept;
}

function toRequest(first: string | undefined, rest: string[], options: Options, words: string[]): ContainerRequest {
  const list = (name: string) => (options[name] as string[] | undefined) ?? [];
  const text = (name: string) => options[name] as string | undefined;
  const rootfs = text('rootfs');
  // With --rootfs there is no image: the first word is the command.
  const [image, command] =
    rootfs === undefined ? [first, rest] : [undefined, first === undefined ? rest : [first, ...rest]];
  if (image === undefined && rootfs === undefined)
    refuse('no image given', 'run needs to know what to run', 'For example: minirun run --rm -it alpine sh');
  const pull = text('pull') ?? 'missing';
  if (pull !== 'missing' && pull !== 'always' && pull !== 'never')
    refuse(`invalid --pull "${pull}"`, 'it is no pull policy', 'Give missing, always or never');
  const tlsVerify = text('tlsVerify') ?? 'true';
  if (tlsVerify !== 'true' && tlsVerify !== 'false')
    refuse(`invalid --tls-verify "${tlsVerify}"`, 'it is neither true nor false', 'Give true or false');
  const timeout = text('stopTimeout');
  if (timeout !== undefined && !/^-?\d+$/.test(timeout))
    refuse(`invalid --stop-timeout "${timeout}"`, 'it is no number of seconds', 'Give a whole number');
  return {
    image,
    command,
    name: text('name'),
    env: list('env'),
    envFile: list('envFile'),
    volume: list('volume'),
    mount: list('mount'),
    tmpfs: list('tmpfs'),
    volumesFrom: list('volumesFrom'),
    device: list('device'),
    shmSize: text('shmSize'),
    workdir: text('workdir'),
    user: text('user'),
    groupAdd: list('groupAdd'),
    entrypoint: text('entrypoint'),
    hostname: text('hostname'),
    network: [...list('network'), ...list('net')],
    ip: text('ip'),
    ip6: text('ip6'),
    macAddress: text('macAddress'),
    networkAlias: list('networkAlias'),
    publish: list('publish'),
    publishAll: options.publishAll === true,
    router: options.router === true,
    dns: list('dns'),
    dnsSearch: list('dnsSearch'),
    dnsOption: [...list('dnsOption'), ...list('dnsOpt')],
    addHost: list('addHost'),
    expose: list('expose'),
    capAdd: list('capAdd'),
    capDrop: list('capDrop'),
    privileged: options.privileged === true,
    userns: text('userns'),
    readOnly: options.readOnly === true,
    init: options.init === true,
    stopSignal: text('stopSignal'),
    stopTimeout: timeout === undefined ? undefined : Number(timeout),
    health: {
      cmd: text('healthCmd'),
      interval: text('healthInterval'),
      timeout: text('healthTimeout'),
      retries: text('healthRetries'),
      startPeriod: text('healthStartPeriod'),
      startInterval: text('healthStartInterval'),
      onFailure: text('healthOnFailure'),
      none: options.healthcheck === false,
    },
    ulimit: list('ulimit'),
    limits: limitsFrom(options),
    sysctl: list('sysctl'),
    label: list('label'),
    labelFile: list('labelFile'),
    securityOpt: list('securityOpt'),
    pull,
    platform: text('platform'),
    insecure: tlsVerify === 'false',
    openReport: async () =>
      (await import('./output/progress.ts')).reportTo(undefined, { quiet: options.quiet === true }),
    rootfs,
    words,
    restart: text('restart') ?? 'no',
    autoRemove: options.rm === true,
    tty: options.tty === true,
    interactive: options.interactive === true,
    notice: (line) => {
      if (options.quiet !== true || line.startsWith('warning')) process.stderr.write(`minirun: ${printable(line)}\n`);
    },
  };
}
