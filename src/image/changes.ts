import path from 'node:path';
import { MinirunError } from '../errors.ts';
import type { ImageConfig } from './image.ts';

/** One instruction: changes the config as its text says, or returns why it cannot. */
type Instruction = (config: ImageConfig, text: string) => string | undefined;

const instructions: Record<string, Instruction> = {
  CMD: (config, text) => {
    config.Cmd = commandOf(text);
    return undefined;
  },
  ENTRYPOINT: (config, text) => {
    config.Entrypoint = commandOf(text);
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
      const match = /^(\d+)(?:-(\d+))?(?:\/(tcp|udp|sctp))?$/i.exec(word);
      const first = Number(match?.[1]);
      const last = Number(match?.[2] ?? match?.[1]);
      if (match === null || first < 1 || last > 65535 || last < first) return `"${word}" is no port`;
      const protocol = (match[3] ?? 'tcp').toLowerCase();
      for (let port = first; port <= last; port++) {
        config.ExposedPorts = { ...config.ExposedPorts, [`${port}/${protocol}`]: {} };
      }
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
};

/** The image config that Dockerfile instructions describe, as `docker import --change` takes them. */
export function parseChanges(changes: readonly string[]): ImageConfig {
  const config: ImageConfig = {};
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
  }
  return config;
}

/** A command as a JSON list, or as a line for the shell. */
function commandOf(text: string): string[] {
  return listOf(text) ?? ['/bin/sh', '-c', text];
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
