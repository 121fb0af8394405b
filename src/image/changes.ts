import path from 'node:path';
import { MinirunError } from '../errors.ts';
import type { ImageConfig } from './image.ts';
import { portsOf } from './ports.ts';

/** One instruction: changes the config as its text says, or returns why it cannot. */
type Instruction = (config: ImageConfig, text: string) => string | undefined;

const instructions: Record<string, Instruction> = {
  CMD: (config, text) => {
    config.Cmd = commandOf(config, text);
    return undefined;
  },
  ENTRYPOINT: (config, text) => {
    config.Entrypoint = commandOf(config, text);
    return undefined;
  },
  ENV: (config, text) => {
    const pairs = pairsOf(text);
    if (pairs === undefined) return 'write it as ENV NAME=VALUE';
    for (const [name, value] of pairs) {
      config.Env = [...(config.Env ?? []).filter((entry) => !entry.startsWith(`${name}=`)), `${name}=${value}`];
    }
    return undefined;
  },
  LABEL: (config, text) => {
    const pairs = pairsOf(text);
    if (pairs === undefined) return 'write it as LABEL KEY=VALUE';
    config.Labels = { ...config.Labels, ...Object.fromEntries(pairs) };
    return undefined;
  },
  EXPOSE: (config, text) => {
    for (const word of wordsOf(text)) {
      const ports = portsOf(word);
      if (ports === undefined) return `"${word}" is no port`;
      config.ExposedPorts = { ...config.ExposedPorts, ...Object.fromEntries(ports.map((port) => [port, {}])) };
    }
    return undefined;
  },
  VOLUME: (config, text) => {
    for (const place of listOf(text) ?? wordsOf(text)) config.Volumes = { ...config.Volumes, [place]: {} };
    return undefined;
  },
  WORKDIR: (config, text) => {
    config.WorkingDir = path.posix.resolve(config.WorkingDir ?? '/', text);
    return undefined;
  },
  USER: (config, text) => {
    config.User = text;
    return undefined;
  },
  STOPSIGNAL: (config, text) => {
    config.StopSignal = text;
    return undefined;
  },
  SHELL: (config, text) => {
    const shell = listOf(text);
    if (shell === undefined || shell.length === 0) return 'write it as SHELL ["PROGRAM", "ARGUMENT"]';
    config.Shell = shell;
    return undefined;
  },
  ONBUILD: (config, text) => {
    const [trigger = ''] = text.split(/\s/, 1);
    // Docker's rule: neither may be a trigger.
    if (['ONBUILD', 'FROM', 'MAINTAINER'].includes(trigger.toUpperCase()))
      return `${trigger} is no trigger for ONBUILD`;
    config.OnBuild = [...(config.OnBuild ?? []), text];
    return undefined;
  },
  HEALTHCHECK: (config, text) => {
    const words = text.split(/\s+/);
    const first = words.findIndex((word) => !word.startsWith('--'));
    if (first < 0) return 'write it as HEALTHCHECK [OPTIONS] CMD COMMAND, or HEALTHCHECK NONE';
    const check: NonNullable<ImageConfig['Healthcheck']> = {};
    for (const word of words.slice(0, first)) {
      const problem = applyHealthOption(check, word);
      if (problem !== undefined) return problem;
    }
    const command = /^(?:--\S+\s+)*\S+\s*(.*)$/s.exec(text)?.[1] ?? '';
    switch (words[first]?.toUpperCase()) {
      case 'NONE':
        if (command !== '' || first > 0) return 'NONE stands alone';
        check.Test = ['NONE'];
        break;
      case 'CMD': {
        if (command === '') return 'CMD needs a command';
        const list = listOf(command);
        check.Test = list === undefined ? ['CMD-SHELL', command] : ['CMD', ...list];
        break;
      }
      default:
        return `"${words[first]}" is neither CMD nor NONE`;
    }
    config.Healthcheck = check;
    return undefined;
  },
};

const healthTimes = {
  interval: 'Interval',
  timeout: 'Timeout',
  'start-period': 'StartPeriod',
  'start-interval': 'StartInterval',
} as const;

/** `--interval=30s`, `--retries=3` and so on. @returns why it is wrong */
function applyHealthOption(check: NonNullable<ImageConfig['Healthcheck']>, option: string): string | undefined {
  const [, name = '', value = ''] = /^--([a-z-]+)=(.*)$/.exec(option) ?? [];
  if (name === 'retries') {
    if (!/^\d+$/.test(value)) return `"${value}" is no number of retries`;
    check.Retries = Number(value);
    return undefined;
  }
  if (!Object.hasOwn(healthTimes, name)) return `"${option}" is no option of HEALTHCHECK`;
  const time = nanoseconds(value);
  // Docker's rule: 0 stands for the default.
  if (time === undefined || (time !== 0 && time < 1e6))
    return `"${value}" is no time of 1ms or more, like 30s or 1m30s`;
  check[healthTimes[name as keyof typeof healthTimes]] = time;
  return undefined;
}

/** A duration as Go writes it, `1m30s`, in nanoseconds. */
function nanoseconds(text: string): number | undefined {
  if (text === '0') return 0;
  const units: Record<string, number> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  const parts = text.matchAll(/([\d.]+)(ns|us|µs|ms|s|m|h)/g);
  return [...parts].reduce(
    (sum, [, number, unit]) => sum + Math.round(Number(number) * (units[unit as string] ?? 0)),
    0,
  );
}

/**
 * The image config that Dockerfile instructions describe, as `docker import --change` takes them.
 *
 * @param base what they change, for `docker commit --change`; it stays as it is
 */
export function parseChanges(changes: readonly string[], base: ImageConfig = {}): ImageConfig {
  const config = structuredClone(base);
  let hasCommand = false;
  for (const change of changes) {
    const [, word = '', text = ''] = /^\s*(\S+)\s*(.*?)\s*$/s.exec(change) ?? [];
    const name = word.toUpperCase();
    const instruction = Object.hasOwn(instructions, name) ? instructions[name] : undefined;
    if (instruction === undefined) {
      throw new MinirunError(
        `invalid change "${change}"`,
        `"${word}" is not known here`,
        `Use one of ${Object.keys(instructions).join(', ')}`,
      );
    }
    const problem = text === '' ? `${name} needs a value` : instruction(config, text);
    if (problem !== undefined) throw new MinirunError(`invalid change "${change}"`, problem);
    if (name === 'CMD') hasCommand = true;
    // The arguments were those of another program.
    if (name === 'ENTRYPOINT' && !hasCommand) delete config.Cmd;
  }
  return config;
}

/** A command as a JSON list, or as a line for the image's shell. */
function commandOf({ Shell: shell = ['/bin/sh', '-c'] }: ImageConfig, text: string): string[] {
  return listOf(text) ?? [...shell, text];
}

/** A JSON list of strings; undefined for anything else. */
function listOf(text: string): string[] | undefined {
  if (!text.startsWith('[')) return undefined;
  try {
    const list: unknown = JSON.parse(text);
    return Array.isArray(list) && list.every((item) => typeof item === 'string') ? list : undefined;
  } catch {
    return undefined;
  }
}

/** `NAME=VALUE …`, or the old form `NAME VALUE` in which the rest of the line is one value. */
function pairsOf(text: string): [string, string][] | undefined {
  const words = wordsOf(text);
  if (!words[0]?.includes('=')) {
    const old = /^(\S+)\s+(.+)$/s.exec(text);
    return old === null ? undefined : [[old[1] as string, old[2] as string]];
  }
  const pairs = words.map((word): [string, string] => [
    word.slice(0, word.indexOf('=')),
    word.slice(word.indexOf('=') + 1),
  ]);
  return words.every((word) => word.indexOf('=') > 0) ? pairs : undefined;
}

/** The words of a line, quotes and backslashes resolved as in a Dockerfile. */
function wordsOf(text: string): string[] {
  const words = text.match(/(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*'|["'\\])+/gs) ?? [];
  return words.map((word) =>
    word.replace(
      /'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)/gs,
      (_, single?: string, double?: string, escaped?: string) =>
        single ?? double?.replace(/\\(["\\$])/g, '$1') ?? escaped ?? '',
    ),
  );
}
