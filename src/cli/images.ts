import type { Command } from 'commander';
import type { ImageListing } from '../image/store.ts';
import type { Filter } from './output/filters.ts';
import type { Column } from './output/table.ts';
import { print } from './output/stdout.ts';

interface Options {
  all?: boolean;
  quiet?: boolean;
  trunc: boolean;
  digests?: boolean;
  format?: string;
  filter: string[];
}

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** `minirun images [NAME[:TAG]]` */
export function registerImages(program: Command): void {
  program
    .command('images')
    .summary('List images')
    .description('List the images on this machine')
    .argument('[name]', 'only images of this name: NAME[:TAG]')
    .option('-a, --all', 'all images (there are no hidden ones: taken as docker has it)')
    .option('-q, --quiet', 'only ids')
    .option('--no-trunc', 'whole ids')
    .option('--digests', 'show digests')
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .option('-f, --filter <key=value>', 'dangling, label, reference, before or since (repeatable)', collect, [])
    .action(async (name: string | undefined, options: Options) => {
      const { listImages } = await import('../image/store.ts');
      const { parseFilters } = await import('./output/filters.ts');
      const all = listImages();
      const passes = parseFilters(options.filter, await filtersFor(all));
      const images = all.filter((image) => (name === undefined || isNamed(image, name)) && passes(image));
      const idOf = (image: ImageListing) => (options.trunc ? shortId(image.id) : image.id);
      if (options.quiet) {
        for (const image of images) print(`${idOf(image)}\n`);
        return;
      }
      const { formatRows } = await import('./output/table.ts');
      const columns = await columnsFor(images, idOf, options.digests === true);
      print(formatRows(options.format, columns, images, (image) => image.labels));
    });
}

const shortId = (id: string) => id.slice('sha256:'.length, 'sha256:'.length + 12);

async function columnsFor(
  images: ImageListing[],
  idOf: (image: ImageListing) => string,
  digests: boolean,
): Promise<Column<ImageListing>[]> {
  const { humanDuration, humanSize } = await import('./output/units.ts');
  const now = Date.now();
  return [
    { name: 'Repository', header: 'REPOSITORY', value: ({ repository }) => repository ?? '<none>' },
    { name: 'Tag', header: 'TAG', value: ({ tag }) => tag ?? '<none>' },
    { name: 'Digest', header: 'DIGEST', value: ({ digest }) => digest ?? '<none>', hidden: !digests },
    { name: 'ID', header: 'IMAGE ID', value: idOf },
    {
      name: 'CreatedSince',
      header: 'CREATED',
      value: ({ created }) => `${humanDuration(Math.max(0, now - Date.parse(created)))} ago`,
    },
    { name: 'CreatedAt', header: 'CREATED AT', value: ({ created }) => dockerTime(created), hidden: true },
    { name: 'Size', header: 'SIZE', value: ({ size }) => humanSize(size, 3) },
    {
      name: 'StandIn',
      header: 'NOTE',
      value: ({ standIn }) => (standIn === undefined ? '' : '(stand-in: busybox)'),
      hidden: !images.some(({ standIn }) => standIn !== undefined),
    },
  ];
}

/** `2026-01-02 15:04:05 +0000 UTC` */
function dockerTime(created: string): string {
  return `${created.slice(0, 19).replace('T', ' ')} +0000 UTC`;
}

/** Whether an image has the name `NAME` or `NAME:TAG`, with the wildcards `*`, `?` and `[…]`. */
function isNamed({ repository, tag }: ImageListing, pattern: string): boolean {
  if (repository === undefined) return false;
  const expression = pattern
    .replace(/[.+^${}()|\\]/g, '\\$&')
    .replaceAll('*', '[^/]*')
    .replaceAll('?', '[^/]');
  let matcher: RegExp;
  try {
    matcher = new RegExp(`^${expression}$`);
  } catch {
    // A bracket without its other half stands for nothing, as in docker.
    return false;
  }
  return matcher.test(repository) || matcher.test(`${repository}:${tag}`);
}

async function filtersFor(all: ImageListing[]): Promise<Record<string, Filter<ImageListing>>> {
  const { labelFilter } = await import('./output/filters.ts');
  const { findImage } = await import('../image/store.ts');
  const { MinirunError } = await import('../errors.ts');
  const createdOf = (name: string): string => {
    const id = findImage(name)?.id;
    const image = all.find((each) => each.id === id);
    if (image === undefined)
      throw new MinirunError(`invalid filter`, `there is no image "${name}"`, 'See minirun images');
    return image.created;
  };
  return {
    dangling: {
      values: ['true', 'false', '1', '0'],
      matches: ({ repository }, value) => (repository === undefined) === (value === 'true' || value === '1'),
    },
    label: labelFilter(({ labels }) => labels),
    reference: { matches: isNamed },
    before: { matches: ({ created }, name) => created < createdOf(name) },
    since: { matches: ({ created }, name) => created > createdOf(name) },
  };
}
