import fs from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { MinirunError, messageOf } from '../errors.ts';
import { reconcileFirst } from './each.ts';
import { print } from './output/stdout.ts';

interface Options {
  name?: boolean;
  files?: boolean;
  new?: boolean;
  restartPolicy: string;
  restartSec?: string;
  startTimeout?: string;
  stopTimeout?: string;
  time?: string;
  containerPrefix: string;
  separator: string;
  wants: string[];
  after: string[];
  requires: string[];
  env: string[];
  header: boolean;
  restartService?: boolean;
}

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `minirun generate systemd CONTAINER` */
export function registerGenerate(program: Command): void {
  const generate = program.command('generate').summary('Write what starts containers at boot');
  generate
    .command('systemd')
    .summary('Print a systemd unit that runs a container')
    .description('Print a systemd unit that runs a container, so that it comes back after a reboot')
    .argument('[container]', 'name, id or beginning of an id')
    .option('-n, --name', 'call the container, and the unit, by its name instead of its id')
    .option('-f, --files', 'write the unit into a file of this directory and print its path')
    .option('--new', 'make the container anew at each start, as it was made, and remove it at each end')
    .option('--restart-policy <policy>', "systemd's: no, on-success, on-failure, always, …", 'on-failure')
    .option('--restart-sec <seconds>', 'time to wait before it is started again')
    .option('--start-timeout <seconds>', 'time that a start may take')
    .option('--stop-timeout <seconds>', "time until a stop sends SIGKILL (default: the container's)")
    .option('-t, --time <seconds>', 'the same')
    .option('--container-prefix <text>', "beginning of the unit's name", 'container')
    .option('--separator <text>', 'what stands between that and the name or id', '-')
    .option('--wants <unit>', 'a unit that is to be started, too (repeatable)', collect, [])
    .option('--after <unit>', 'a unit that is to be started before (repeatable)', collect, [])
    .option('--requires <unit>', 'a unit without which it does not run (repeatable)', collect, [])
    .option('-e, --env <name=value>', "set a variable of minirun's (repeatable)", collect, [])
    .option('--no-header', 'without comments at the top')
    .option(
      '--restart-service',
      'instead a unit that starts all containers of --restart always and unless-stopped at boot',
    )
    .action(async (reference: string | undefined, options: Options) => {
      const { unit, text } =
        options.restartService === true ? await restart(reference, options) : await one(reference, options);
      if (options.files !== true) {
        print(text);
        return;
      }
      const file = path.resolve(`${unit}.service`);
      try {
        fs.writeFileSync(file, text, { mode: 0o644 });
      } catch (error) {
        throw new MinirunError(`cannot write ${file}`, messageOf(error), 'Go to a directory that can be written');
      }
      print(`${file}\n`);
    });
}

interface Unit {
  unit: string;
  text: string;
}

async function restart(reference: string | undefined, { header }: Options): Promise<Unit> {
  if (reference !== undefined)
    throw new MinirunError('--restart-service is for all containers', `"${reference}" is one`, 'Leave it out', {
      code: 125,
    });
  const { restartUnit } = await import('../container/systemd-unit.ts');
  return { unit: 'minirun-restart', text: restartUnit({ ...(await aboutMinirun()), header }) };
}

async function one(reference: string | undefined, options: Options): Promise<Unit> {
  if (reference === undefined)
    throw new MinirunError('no container given', 'a unit runs one', 'Name a container, or use --restart-service', {
      code: 125,
    });
  const { checkRestartPolicy, checkUnitName, containerUnit } = await import('../container/systemd-unit.ts');
  const restartPolicy = checkRestartPolicy(options.restartPolicy);
  const seconds = (option: string, text: string | undefined) => {
    if (text === undefined || /^-?\d{1,9}$/.test(text)) return text === undefined ? undefined : Number(text);
    throw new MinirunError(`invalid ${option} "${text}"`, 'it is no number of seconds', 'Give a whole number', {
      code: 125,
    });
  };
  const timeout = seconds('--stop-timeout', options.stopTimeout) ?? seconds('--time', options.time);
  const times = {
    restartSec: seconds('--restart-sec', options.restartSec),
    startTimeout: seconds('--start-timeout', options.startTimeout),
  };
  for (const text of [...options.wants, ...options.after, ...options.requires]) checkOtherUnit(text);
  for (const text of options.env)
    if (!/^[A-Za-z_]\w*=/.test(text))
      throw new MinirunError(`invalid --env "${text}"`, 'it is not of the form NAME=VALUE', undefined, { code: 125 });
  await reconcileFirst();
  const { requireContainer } = await import('../container/store.ts');
  const { definition } = requireContainer(reference);
  const container = options.name === true || options.new === true ? definition.name : definition.id;
  const unit = checkUnitName(
    `${options.containerPrefix}${options.containerPrefix === '' ? '' : options.separator}${container}`,
  );
  const text = containerUnit({
    ...(await aboutMinirun()),
    ...times,
    unit,
    container,
    restartPolicy,
    stopTimeout: timeout ?? definition.stopTimeout,
    stopSignal: definition.stopSignal,
    wants: options.wants,
    after: options.after,
    requires: options.requires,
    environment: options.env,
    create: options.new === true ? await creationOf(definition) : undefined,
    header: options.header,
  });
  return { unit, text };
}

async function aboutMinirun(): Promise<{ binary: string; stateRoot: string; config?: string }> {
  const { stateRoot } = await import('../state/paths.ts');
  const { MINIRUN_CONFIG: config } = process.env;
  return { binary: process.execPath, stateRoot: stateRoot(), ...(config ? { config: path.resolve(config) } : {}) };
}

/** As it was typed, without what the unit says itself, and without a standard input, which a unit has not. */
async function creationOf(definition: {
  name: string;
  created: string;
  typed?: { words: string[]; directory: string };
}): Promise<{ words: string[]; directory: string }> {
  const { typed } = definition;
  if (typed === undefined)
    throw new MinirunError(
      `cannot tell how container "${definition.name}" was made`,
      'an older minirun has made it, which did not write that down',
      'Leave --new out, or make the container anew',
    );
  const { withoutOptions } = await import('./run.ts');
  return {
    directory: typed.directory,
    words: withoutOptions(typed.words, ['detach', 'interactive', 'cidfile', 'rm', 'name', 'restart']),
  };
}

function checkOtherUnit(text: string): void {
  if (/^[a-zA-Z0-9:_.@\\-]+$/.test(text)) return;
  throw new MinirunError(`invalid unit "${text}"`, 'it cannot be the name of a unit', 'For example db.service', {
    code: 125,
  });
}
