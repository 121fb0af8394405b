import type { Command } from 'commander';
import type { HistoryRow } from '../image/history.ts';
import type { Column } from './output/table.ts';
import { print } from './output/stdout.ts';

interface Options {
  quiet?: boolean;
  trunc: boolean;
  human: boolean;
  format?: string;
}

/** `minirun history IMAGE` */
export function registerHistory(program: Command): void {
  program
    .command('history')
    .summary('Show how an image was made')
    .description('Show how an image was made, the last step first')
    .argument('<image>', 'name, id or beginning of an id')
    .option('-q, --quiet', 'only ids')
    .option('--no-trunc', 'whole ids and commands')
    .option('-H, --human', 'sizes and times for people to read (default)', true)
    .option('--no-human', 'sizes in bytes, and dates')
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .action(async (name: string, options: Options) => {
      const { imageHistory } = await import('../image/history.ts');
      const rows = imageHistory(name);
      const columns = await columnsFor(options);
      if (options.quiet === true && options.format === undefined) {
        print(rows.map((row) => `${columns[0]?.value(row)}\n`).join(''));
        return;
      }
      const { formatRows } = await import('./output/table.ts');
      print(formatRows(options.format, columns, rows));
    });
}

async function columnsFor({ trunc, human }: Options): Promise<Column<HistoryRow>[]> {
  const { humanDuration, humanSize } = await import('./output/units.ts');
  const { printable } = await import('./output/printable.ts');
  const now = Date.now();
  const since = ({ created }: HistoryRow) =>
    created === undefined ? 'N/A' : `${humanDuration(Math.max(0, now - Date.parse(created)))} ago`;
  const shortened = (text: string) => {
    const characters = Array.from(text);
    return characters.length <= 45 ? text : `${characters.slice(0, 44).join('')}…`;
  };
  return [
    {
      name: 'ID',
      header: 'IMAGE',
      value: ({ id }) => (id === undefined ? '<missing>' : trunc ? id.slice(7, 7 + 12) : id),
    },
    { name: 'CreatedSince', header: 'CREATED', value: since, hidden: !human },
    { name: 'CreatedAt', header: 'CREATED AT', value: ({ created }) => created ?? 'N/A', hidden: human },
    {
      name: 'CreatedBy',
      header: 'CREATED BY',
      // It comes from whoever made the image.
      value: ({ createdBy }) => (trunc ? shortened(printable(createdBy)) : printable(createdBy)),
    },
    { name: 'Size', header: 'SIZE', value: ({ size }) => (human ? humanSize(size, 3) : String(size)) },
    { name: 'Comment', header: 'COMMENT', value: ({ comment }) => printable(comment) },
  ];
}
