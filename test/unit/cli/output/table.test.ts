import { describe, expect, test } from 'bun:test';
import { type Column, formatRows, renderTable } from '../../../../src/cli/output/table.ts';

interface Row {
  id: string;
  image: string;
  command: string;
  ports: string;
  name: string;
  labels: Record<string, string>;
}

const columns: readonly Column<Row>[] = [
  { name: 'ID', header: 'CONTAINER ID', value: ({ id }) => id },
  { name: 'Image', header: 'IMAGE', value: ({ image }) => image },
  { name: 'Command', header: 'COMMAND', value: ({ command }) => command },
  { name: 'Ports', header: 'PORTS', value: ({ ports }) => ports },
  { name: 'Names', header: 'NAMES', value: ({ name }) => name },
  { name: 'State', header: 'STATE', value: () => 'running', hidden: true },
];

const rows: readonly Row[] = [
  {
    id: '4f0c2d1e5b6a',
    image: 'nginx:alpine',
    command: '"/docker-entrypoint.…"',
    ports: '0.0.0.0:8080->80/tcp',
    name: 'web',
    labels: { 'com.example.my-role': 'front' },
  },
  { id: 'a1b2c3d4e5f6', image: 'sh', command: '"sh -c \'a  b\'"', ports: '', name: 'quiet_hopper', labels: {} },
];

const format = (text?: string): string => formatRows(text, columns, rows, ({ labels }) => labels);

describe('table', () => {
  test('is laid out as docker ps does', () => {
    const expected = [
      'CONTAINER ID   IMAGE          COMMAND                  PORTS                  NAMES',
      '4f0c2d1e5b6a   nginx:alpine   "/docker-entrypoint.…"   0.0.0.0:8080->80/tcp   web',
      'a1b2c3d4e5f6   sh             "sh -c \'a  b\'"                                  quiet_hopper',
      '',
    ].join('\n');
    expect(format()).toBe(expected);
    expect(format('')).toBe(expected);
    expect(format('table')).toBe(expected);
  });

  test('is at least ten wide per column, as in docker images', () => {
    const images = [
      { header: 'REPOSITORY', value: (row: string[]) => row[0] ?? '' },
      { header: 'TAG', value: (row: string[]) => row[1] ?? '' },
      { header: 'IMAGE ID', value: (row: string[]) => row[2] ?? '' },
    ];
    expect(renderTable(images, [['alpine', 'latest', '05455a08881e']])).toBe(
      'REPOSITORY   TAG       IMAGE ID\nalpine       latest    05455a08881e\n',
    );
    expect(renderTable(images, [])).toBe('REPOSITORY   TAG       IMAGE ID\n');
  });

  test('has no spaces at the end of a line', () => {
    const ports = columns.filter(({ name }) => name === 'ID' || name === 'Ports');
    expect(renderTable(ports, rows)).toBe('CONTAINER ID   PORTS\n4f0c2d1e5b6a   0.0.0.0:8080->80/tcp\na1b2c3d4e5f6\n');
  });

  test('counts the columns of a terminal, not characters', () => {
    const two = [
      { header: 'COMMAND', value: (row: string[]) => row[0] ?? '' },
      { header: 'NAMES', value: (row: string[]) => row[1] ?? '' },
    ];
    expect(
      renderTable(two, [
        ['"echo 日本語"', 'a'],
        ['"echo hello!!"', 'b'],
      ]),
    ).toBe('COMMAND          NAMES\n"echo 日本語"    a\n"echo hello!!"   b\n');
  });
});

describe('--format', () => {
  test('json gives an object per row with every field, sorted', () => {
    const [first, second, ...rest] = format('json').split('\n');
    expect(first).toBe(
      '{"Command":"\\"/docker-entrypoint.…\\"","ID":"4f0c2d1e5b6a","Image":"nginx:alpine","Names":"web",' +
        '"Ports":"0.0.0.0:8080->80/tcp","State":"running"}',
    );
    expect(JSON.parse(second ?? '')).toMatchObject({ Names: 'quiet_hopper', Ports: '' });
    expect(rest).toEqual(['']);
    expect(format('{{json .}}')).toBe(format('json'));
  });

  test('a template gives a line per row', () => {
    expect(format('{{.ID}}: {{.Names}}')).toBe('4f0c2d1e5b6a: web\na1b2c3d4e5f6: quiet_hopper\n');
    expect(format('{{.ID}}\\t{{.State}}')).toBe('4f0c2d1e5b6a\trunning\na1b2c3d4e5f6\trunning\n');
    expect(formatRows('{{.ID}}', columns, [])).toBe('');
    expect(formatRows('json', columns, [])).toBe('');
  });

  test('table TEMPLATE heads the columns with their titles', () => {
    expect(format('table {{.ID}}\\t{{.Names}}')).toBe(
      'CONTAINER ID   NAMES\n4f0c2d1e5b6a   web\na1b2c3d4e5f6   quiet_hopper\n',
    );
    expect(format('table {{.Names}}\\t{{.State}}')).toBe(
      'NAMES          STATE\nweb            running\nquiet_hopper   running\n',
    );
    expect(formatRows('table {{.ID}}\\t{{.Names}}', columns, [])).toBe('CONTAINER ID   NAMES\n');
  });

  test('functions leave the titles as they are', () => {
    expect(format('table {{upper .Names}}\\t{{json .State}}\\t{{truncate .ID 4}}')).toBe(
      'NAMES          STATE       CONTAINER ID\nWEB            "running"   4f0c\nQUIET_HOPPER   "running"   a1b2\n',
    );
    expect(format('table {{pad .Names 2 0}}\\t{{.State}}')).toBe(
      '  NAMES          STATE\n  web            running\n  quiet_hopper   running\n',
    );
  });

  test('labels are reached by Label, and give a readable title', () => {
    expect(format('{{.Names}}={{.Label "com.example.my-role"}}')).toBe('web=front\nquiet_hopper=\n');
    expect(format('table {{.Names}}\\t{{.Label "com.example.my-role"}}')).toBe(
      'NAMES          my role\nweb            front\nquiet_hopper\n',
    );
  });

  test('an unknown field is refused with the known ones', () => {
    expect(() => format('{{.Name}}')).toThrow(
      'template parsing error: template: :1:2: executing "" at <.Name>: can\'t evaluate field Name. ' +
        'Use one of: Command, ID, Image, Names, Ports, State.',
    );
    expect(() => formatRows('table {{.Name}}', columns, [])).toThrow("can't evaluate field Name");
  });

  test('fields that are not asked for are not computed', () => {
    const size: Column<Row> = {
      name: 'Size',
      header: 'SIZE',
      hidden: true,
      value: () => {
        throw new Error('computed');
      },
    };
    expect(formatRows('{{.Names}}', [...columns, size], rows)).toBe('web\nquiet_hopper\n');
    expect(() => formatRows('{{.Size}}', [...columns, size], rows)).toThrow('computed');
  });
});
