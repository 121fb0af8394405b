import { MinirunError } from '../errors.ts';

/** What a unit for one container is made of. */
export interface ContainerUnit {
  /** Name of the unit, without `.service`. */
  unit: string;
  /** What minirun finds the container by. */
  container: string;
  binary: string;
  stateRoot: string;
  /** `MINIRUN_CONFIG`, if it is set. */
  config?: string;
  /** systemd's word: when the container is started again. */
  restartPolicy: string;
  /** Seconds. */
  restartSec?: number;
  startTimeout?: number;
  /** Seconds that `stop` waits before SIGKILL; negative waits for ever. */
  stopTimeout: number;
  stopSignal: number;
  /** Units. */
  wants: readonly string[];
  after: readonly string[];
  requires: readonly string[];
  /** `NAME=VALUE`. */
  environment: readonly string[];
  /** `--new`: the words of `run`, to be typed in that directory; the container is made at each start and removed at each end. */
  create?: { words: readonly string[]; directory: string };
  header: boolean;
}

const restartPolicies = ['no', 'on-success', 'on-failure', 'on-abnormal', 'on-watchdog', 'on-abort', 'always'];

/** @throws MinirunError for a word that systemd has not: systemd.service(5) */
export function checkRestartPolicy(text: string): string {
  if (restartPolicies.includes(text)) return text;
  throw new MinirunError(
    `invalid --restart-policy "${text}"`,
    'systemd has no such policy',
    `Use one of: ${restartPolicies.join(', ')}`,
    { code: 125 },
  );
}

/** @throws MinirunError for what cannot be a unit's name: systemd.unit(5) */
export function checkUnitName(text: string): string {
  // `@` would make an instance of it.
  if (/^[a-zA-Z0-9:_.-]{1,240}$/.test(text)) return text;
  throw new MinirunError(
    `invalid unit name "${text}"`,
    'names of units are letters, digits, ":", "_", "." and "-"',
    'Choose another --container-prefix or --separator',
    { code: 125 },
  );
}

/** Seconds for what minirun does itself when it stops a container. */
const slack = 60;

/**
 * A systemd unit that runs a container in its foreground: its main process is `minirun start --attach`, which ends with
 * the container and with its exit code. Pure.
 *
 * `KillMode=process`: systemd ends nothing but that process, and only when `minirun stop` has not ended the container in
 * time. The unit's control group also holds what belongs to other containers: the name server of a network that this
 * container was the first in. What of the container may be left when that process is killed, ExecStopPost takes down.
 */
export function containerUnit(about: ContainerUnit): string {
  const { binary, container, stopTimeout, create } = about;
  const seconds = String(stopTimeout);
  const exec = (...words: string[]) => [binary, ...words].map(execWord).join(' ');
  const stop = exec('stop', '-t', seconds, container);
  const network = ['network-online.target'];
  // Docker's code of a command that the stop signal has ended. A SIGTERM of systemd's reaches the command, too.
  const clean = [...new Set([128 + about.stopSignal, 143])].join(' ');
  const service: [string, string | undefined][] = [
    ['Type', 'exec'],
    ...environmentOf(about).map((text): [string, string] => ['Environment', word(text)]),
    ['WorkingDirectory', create && execPath(create.directory)],
    ['ExecStartPre', create && `-${exec('rm', '-f', container)}`],
    [
      'ExecStart',
      create ? exec('run', '--rm', '--name', container, ...create.words) : exec('start', '--attach', container),
    ],
    // Also asked for when the container has ended by itself, and is gone then.
    ['ExecStop', create ? `-${stop}` : stop],
    ['ExecStopPost', create ? `-${exec('rm', '-f', container)}` : `-${stop}`],
    ['KillMode', 'process'],
    ['SuccessExitStatus', clean],
    ['Restart', about.restartPolicy],
    ['RestartSec', about.restartSec?.toString()],
    ['TimeoutStartSec', about.startTimeout?.toString()],
    ['TimeoutStopSec', stopTimeout < 0 ? 'infinity' : String(stopTimeout + slack)],
  ];
  return unitFile(about.header ? `${about.unit}.service` : undefined, [
    [
      'Unit',
      [
        ['Description', plain(`minirun container ${about.container}`)],
        ['Wants', [...network, ...about.wants].join(' ')],
        ['After', [...network, ...about.after].join(' ')],
        ['Requires', about.requires.length > 0 ? about.requires.join(' ') : undefined],
        ['RequiresMountsFor', word(about.stateRoot)],
      ],
    ],
    ['Service', service],
    ['Install', [['WantedBy', 'default.target']]],
  ]);
}

/**
 * A unit that starts at boot what `--restart always` and `--restart unless-stopped` are for: without a daemon nobody else
 * would. Pure.
 */
export function restartUnit(about: Pick<ContainerUnit, 'binary' | 'stateRoot' | 'config' | 'header'>): string {
  const start = ['start', '--all', '--filter', 'should-start-on-boot=true'];
  return unitFile(about.header ? 'minirun-restart.service' : undefined, [
    [
      'Unit',
      [
        ['Description', 'Containers of minirun that are to run after a boot'],
        ['Wants', 'network-online.target'],
        ['After', 'network-online.target'],
        ['RequiresMountsFor', word(about.stateRoot)],
      ],
    ],
    [
      'Service',
      [
        ['Type', 'oneshot'],
        ['RemainAfterExit', 'yes'],
        ...environmentOf({ ...about, environment: [] }).map((text): [string, string] => ['Environment', word(text)]),
        ['ExecStart', [about.binary, ...start].map(execWord).join(' ')],
        // The supervisors of the containers are in its control group.
        ['KillMode', 'process'],
      ],
    ],
    ['Install', [['WantedBy', 'default.target']]],
  ]);
}

type Sections = readonly (readonly [string, readonly (readonly [string, string | undefined])[]])[];

function unitFile(name: string | undefined, sections: Sections): string {
  const texts = sections.map(([title, lines]) =>
    [`[${title}]`, ...lines.flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${value}`]))].join('\n'),
  );
  const header = name === undefined ? '' : `# ${name}\n# Written by minirun generate systemd\n\n`;
  return `${header}${texts.join('\n\n')}\n`;
}

function environmentOf({
  stateRoot,
  config,
  environment,
}: Pick<ContainerUnit, 'stateRoot' | 'config' | 'environment'>): string[] {
  return [`MINIRUN_ROOT=${stateRoot}`, ...(config === undefined ? [] : [`MINIRUN_CONFIG=${config}`]), ...environment];
}

/** A word of a unit file: in double quotes where it must be, with C's escapes, and `%` doubled. systemd.syntax(7) */
export function word(text: string): string {
  if (/^[\w@:.,/+=-]+$/.test(text)) return text;
  const escaped = text
    .replaceAll('\\', '\\\\')
    .replaceAll('"', '\\"')
    .replaceAll('\n', '\\n')
    .replaceAll('\t', '\\t')
    .replaceAll(/\p{Cc}/gu, byEscape);
  return `"${escaped.replaceAll('%', '%%')}"`;
}

/** A control character as C writes it; those above ASCII are no single bytes and stay. */
function byEscape(character: string): string {
  const code = character.charCodeAt(0);
  return code > 0x7f ? character : `\\x${code.toString(16).padStart(2, '0')}`;
}

/** A word of a command, in which `$` would stand for a variable. systemd.service(5) */
export function execWord(text: string): string {
  return word(text).replaceAll('$', '$$$$');
}

/** A path that is the whole of a line: it is not taken apart into words, and so not quoted. */
function execPath(text: string): string {
  return text.replaceAll('%', '%%');
}

/** Text that is only shown. */
function plain(text: string): string {
  return text.replaceAll('%', '%%').replaceAll(/\s/g, ' ');
}
