import fs from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { MinirunError, messageOf } from '../errors.ts';
import type { Topology } from '../network/topology.ts';
import { reconcileFirst } from './each.ts';
import { print, stdoutStream } from './output/stdout.ts';

const formats = ['ascii', 'mermaid', 'dot', 'svg', 'json'] as const;
type Format = (typeof formats)[number];

interface Options {
  format?: string;
  output?: string;
  all?: boolean;
  asciiOnly?: boolean;
}

/** Endings of files → format, where `--format` does not say. */
const endings: Record<string, Format> = {
  '.svg': 'svg',
  '.dot': 'dot',
  '.gv': 'dot',
  '.mmd': 'mermaid',
  '.mermaid': 'mermaid',
  '.json': 'json',
};

/** `minirun network graph` */
export function registerGraph(network: Command): void {
  network
    .command('graph')
    .summary('Draw what is connected to what')
    .description(
      'Draw the host, its networks and links, and the containers with their interfaces, addresses, routes and published ports',
    )
    .argument('[names...]', 'networks and containers to draw, with what is connected to them (default: all)')
    .option(
      '--format <format>',
      'ascii (a picture for the terminal), mermaid, dot, svg or json (default: by the ending of FILE, or ascii)',
    )
    .option('-o, --output <file>', 'write to FILE instead of the standard output')
    .option('-a, --all', 'also containers that do not run')
    .option('--ascii-only', 'draw with +, - and | only, as where the locale is not UTF-8')
    .action(async (references: string[], options: Options) => {
      const format = formatOf(options);
      await reconcileFirst();
      const { readTopology } = await import('../container/topology.ts');
      const topology = await readTopology(references, options.all === true);
      const picture = await render(topology, format, options);
      if (options.output === undefined) print(picture);
      else writePicture(options.output, picture);
    });
}

function formatOf({ format, output }: Options): Format {
  if (format === undefined) return endings[path.extname(output ?? '').toLowerCase()] ?? 'ascii';
  const known = formats.find((each) => each === format);
  if (known !== undefined) return known;
  throw new MinirunError(
    `invalid --format "${format}"`,
    'there is no such format',
    `Give one of ${formats.join(', ')}`,
  );
}

async function render(topology: Topology, format: Format, { output, asciiOnly }: Options): Promise<string> {
  switch (format) {
    case 'json':
      return `${JSON.stringify(topology, undefined, 2)}\n`;
    case 'mermaid':
      return (await import('./output/graph/mermaid.ts')).renderMermaid(topology);
    case 'dot':
      return (await import('./output/graph/dot.ts')).renderDot(topology);
    case 'svg':
      return (await import('./output/graph/svg.ts')).renderSvg(topology);
    case 'ascii': {
      const { renderTerminal } = await import('./output/graph/terminal.ts');
      const isTerminal = output === undefined && stdoutStream().isTTY;
      return renderTerminal(topology, {
        width: (isTerminal ? stdoutStream().columns : Number(process.env.COLUMNS)) || 100,
        color: isTerminal && (process.env.NO_COLOR ?? '') === '' && process.env.TERM !== 'dumb',
        ascii: asciiOnly === true || !isUtf8(process.env),
      });
    }
  }
}

/** Whether the locale's characters are UTF-8, by the rule of setlocale(3): the first of the three that is not empty. */
function isUtf8({ LC_ALL, LC_CTYPE, LANG }: NodeJS.ProcessEnv): boolean {
  return /utf-?8/i.test(LC_ALL || LC_CTYPE || LANG || '');
}

function writePicture(file: string, picture: string): void {
  try {
    fs.writeFileSync(file, picture);
  } catch (error) {
    throw new MinirunError(`cannot write ${file}`, messageOf(error), 'Choose another file');
  }
}
