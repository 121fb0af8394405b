import { containerUsage, volumeUsage } from '../../container/usage.ts';
import { imageUsers } from '../../container/image-users.ts';
import { shownStatus } from '../../container/status.ts';
import { shortDigest } from '../../image/digest.ts';
import { storeUsage } from '../../image/usage.ts';
import { type Column, formatRows, renderTable } from './table.ts';
import { humanDuration, humanSize } from './units.ts';

/** A line of `system df`. */
interface Row {
  type: string;
  count: number;
  active: number;
  size: number;
  reclaimable: number;
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);

/** What `system df` prints. */
export async function summaryOf(format: string | undefined): Promise<string> {
  const users = imageUsers();
  const { total } = storeUsage((id) => users.has(id));
  const containers = containerUsage();
  const volumes = volumeUsage();
  const idle = containers.filter(({ isRunning }) => !isRunning);
  const free = volumes.filter(({ links }) => links === 0);
  const rows: Row[] = [
    { type: 'Images', ...total.images },
    {
      type: 'Containers',
      count: containers.length,
      active: containers.length - idle.length,
      size: sum(containers.map(({ size }) => size)),
      reclaimable: sum(idle.map(({ size }) => size)),
    },
    {
      type: 'Local Volumes',
      count: volumes.length,
      active: volumes.length - free.length,
      size: sum(volumes.map(({ size }) => size)),
      reclaimable: sum(free.map(({ size }) => size)),
    },
    // Docker has none of these, and a build cache instead.
    { type: 'Archives', ...total.archives },
  ];
  const columns: Column<Row>[] = [
    { name: 'Type', header: 'TYPE', value: ({ type }) => type },
    { name: 'TotalCount', header: 'TOTAL', value: ({ count }) => String(count) },
    { name: 'Active', header: 'ACTIVE', value: ({ active }) => String(active) },
    { name: 'Size', header: 'SIZE', value: ({ size }) => humanSize(size) },
    {
      name: 'Reclaimable',
      header: 'RECLAIMABLE',
      value: ({ size, reclaimable }) =>
        size === 0 ? humanSize(0) : `${humanSize(reclaimable)} (${Math.floor((reclaimable / size) * 100)}%)`,
    },
  ];
  return formatRows(format, columns, rows);
}

/** What `system df -v` prints. */
export async function detailsOf(): Promise<string> {
  const users = imageUsers();
  const { images, archives } = storeUsage((id) => users.has(id));
  const now = Date.now();
  const since = (time: string) => `${humanDuration(Math.max(0, now - Date.parse(time)))} ago`;
  const size = (bytes: number) => humanSize(bytes);
  const imageTable = renderTable(
    [
      { header: 'REPOSITORY', value: ({ repository }) => repository ?? '<none>' },
      { header: 'TAG', value: ({ tag }) => tag ?? '<none>' },
      { header: 'IMAGE ID', value: ({ id }) => shortDigest(id) },
      { header: 'CREATED', value: ({ created }) => since(created) },
      { header: 'SIZE', value: (image) => size(image.size) },
      { header: 'SHARED SIZE', value: ({ shared }) => size(shared) },
      { header: 'UNIQUE SIZE', value: ({ unique }) => size(unique) },
      { header: 'CONTAINERS', value: ({ id }) => String(users.get(id)?.length ?? 0) },
    ],
    images,
  );
  const containerTable = renderTable(
    [
      { header: 'CONTAINER ID', value: ({ container }) => container.definition.id.slice(0, 12) },
      { header: 'IMAGE', value: ({ container }) => container.definition.image },
      { header: 'LOCAL VOLUMES', value: ({ container }) => String(container.definition.volumes?.length ?? 0) },
      { header: 'SIZE', value: (usage) => size(usage.size) },
      { header: 'CREATED', value: ({ container }) => since(container.definition.created) },
      { header: 'STATUS', value: ({ container }) => shownStatus(container.state) },
      { header: 'NAMES', value: ({ container }) => container.definition.name },
    ],
    containerUsage(),
  );
  const volumeTable = renderTable(
    [
      { header: 'VOLUME NAME', value: ({ name }) => name },
      { header: 'LINKS', value: ({ links }) => String(links) },
      { header: 'SIZE', value: (volume) => size(volume.size) },
    ],
    volumeUsage(),
  );
  const archiveTable = renderTable(
    [
      { header: 'ARCHIVE', value: ({ digest }) => shortDigest(digest) },
      { header: 'LAYER', value: ({ diffId }) => shortDigest(diffId) },
      { header: 'SIZE', value: (archive) => size(archive.size) },
      { header: 'MEDIA TYPE', value: ({ mediaType }) => mediaType },
    ],
    archives,
  );
  return [
    `Images space usage:\n\n${imageTable}`,
    `Containers space usage:\n\n${containerTable}`,
    `Local Volumes space usage:\n\n${volumeTable}`,
    `Archives space usage:\n\n${archiveTable}`,
  ].join('\n');
}
