import stringWidth from 'string-width';
import type {
  Topology,
  TopologyContainer,
  TopologyInterface,
  TopologyLink,
  TopologyLinkEnd,
  TopologyNetwork,
} from '../../../network/topology.ts';
import { printable } from '../printable.ts';
import { Canvas, type Style } from './canvas.ts';
import { containerRemarks, containerRoutes, groupByStack, networkRemarks, shownImage, shownPorts } from './labels.ts';
import { sideBySide } from './order.ts';

export interface TerminalOptions {
  /** Columns that boxes may take; a box that needs more gets it. */
  width: number;
  color: boolean;
  /** Draw with `+`, `-` and `|`. */
  ascii: boolean;
}

type Line = { text: string; style?: Style }[];

/** What comes down from the host: a network's bus, or a cable that ends at the host. */
interface Trunk {
  /** Column in which it comes down. */
  x: number;
  style: Style;
  /** What is written on it, the longest first. */
  labels: string[];
  /** A bus is drawn double. */
  isBus: boolean;
}

/** An interface that is reached from above, by a trunk. */
interface Drop {
  trunk: Trunk;
  ifname: string;
  /** Column in the picture, once the box has its place. */
  x: number;
}

interface Box {
  name: string;
  lines: Line[];
  width: number;
  isRunning: boolean;
  drops: Drop[];
  /** Row of the interface's line in the box, from 0. */
  lineOf: Map<string, number>;
  x: number;
  y: number;
}

/** A link between two boxes. */
interface Cable {
  link: TopologyLink;
  ends: [Box, Box];
}

const trunkStyles: readonly Style[] = ['cyan', 'magenta', 'yellow', 'green', 'blue'];
const cableStyle: Style = 'red';
const portStyle: Style = 'green';
/** Between two boxes. */
const gap = 3;

/**
 * The picture for a terminal: the host on top; under it each network as a horizontal line, on which the containers hang;
 * links between containers between or under their boxes. Containers that do not fit side by side go to further rows,
 * in which the networks' lines go on.
 */
export function renderTerminal(topology: Topology, { width, color, ascii }: TerminalOptions): string {
  const canvas = new Canvas();
  const arrow = ascii ? '->' : '→';
  const { own, host: hosted } = groupByStack(topology.containers);
  const trunks = makeTrunks(topology);
  const guestsOf = new Map(own.map(({ container, guests }) => [container.name, guests]));
  const ordered = sideBySide(
    own.map(({ container }) => container),
    topology,
  );
  const boxes = ordered.map((container) =>
    makeBox(container, guestsOf.get(container.name) ?? [], topology, trunks, arrow),
  );
  const cables = findCables(topology, boxes);
  const start = 2 + 2 * trunks.size + (trunks.size > 0 ? 2 : 0);
  const place = (most: number) => placeInRows(boxes, cables, [...trunks.values()], start, most);
  let rows = place(width);
  // Links from row to row go down right of all boxes.
  const between = cables.filter(({ ends: [a, b] }) => rows.some((row) => row.includes(a) !== row.includes(b))).length;
  if (between > 0) rows = place(width - 2 * between - 1);
  const right = Math.max(0, ...boxes.map((box) => box.x + box.width));

  const hostBottom = drawHost(canvas, topology, hosted, [...trunks.values()], { right, arrow });
  drawRows(canvas, rows, [...trunks.values()], cables, { top: hostBottom + 1, right, width });
  return canvas.render({ color, ascii });
}

// --- what is drawn -------------------------------------------------------------------------------------------------

/** The trunks by `network:NAME`, and by `host:IFNAME` for the host's end of a link. The first one is the rightmost. */
function makeTrunks({ networks, links }: Topology): Map<string, Trunk> {
  const hostEnds = links.filter(({ ends: [a, b] }) => (a.container === undefined) !== (b.container === undefined));
  const count = networks.length + hostEnds.length;
  const trunks = new Map<string, Trunk>();
  const add = (key: string, trunk: Omit<Trunk, 'x'>) => {
    trunks.set(key, { ...trunk, x: 2 + 2 * (count - 1 - trunks.size) });
  };
  for (const network of networks) {
    const name = printable(network.name);
    const range = [name, ...network.subnets].join('  ');
    const details = [range, ...networkRemarks(network)].join('  ');
    const style = networkStyle(network, networks);
    add(`network:${network.name}`, {
      style,
      labels: [details, range, `${name}  ${network.subnets[0] ?? ''}`, name],
      isBus: true,
    });
  }
  for (const link of hostEnds) {
    const ifname = hostEnd(link)?.ifname ?? '';
    add(`host:${ifname}`, { style: cableStyle, labels: [linkRemarks(link).join(' '), ''], isBus: false });
  }
  return trunks;
}

const hostEnd = ({ ends }: TopologyLink): TopologyLinkEnd | undefined =>
  ends.find(({ container }) => container === undefined);

const linkRemarks = ({ shaping, up }: TopologyLink): string[] => [
  ...(shaping === '' ? [] : [printable(shaping)]),
  ...(up ? [] : ['down']),
];

function makeBox(
  container: TopologyContainer,
  guests: readonly TopologyContainer[],
  { links }: Topology,
  trunks: ReadonlyMap<string, Trunk>,
  arrow: string,
): Box {
  const remarks = containerRemarks(container);
  const lines: Line[] = [
    [
      { text: printable(container.name), style: 'bold' },
      ...(remarks.length > 0 ? [{ text: `  ${remarks.join(', ')}`, style: 'yellow' as const }] : []),
    ],
    [{ text: shownImage(container.image), style: 'dim' }],
  ];
  const drops: Drop[] = [];
  const lineOf = new Map<string, number>();
  for (const device of container.interfaces) {
    const trunk = trunkOf(container.name, device, links, trunks);
    if (trunk !== undefined) drops.push({ trunk, ifname: printable(device.ifname), x: 0 });
    lineOf.set(device.ifname, lines.length);
    lines.push(
      ...interfaceLines(device, trunk?.style ?? (isLinked(container.name, device, links) ? cableStyle : undefined)),
    );
  }
  lines.push(...containerRoutes(container).map((text): Line => [{ text, style: 'dim' }]));
  lines.push(...portLines(container, arrow));
  for (const guest of guests) lines.push(...guestLines(guest, 'same network', arrow));
  if (container.shares?.container !== undefined)
    lines.push([{ text: `in the network of ${printable(container.shares.container)}`, style: 'dim' }]);
  const content = Math.max(...lines.map(lineWidth));
  // Each interface that is reached from above has its name beside its line there.
  const named = drops.length * Math.max(0, ...drops.map(({ ifname }) => stringWidth(ifname) + 4));
  return {
    name: container.name,
    lines,
    width: Math.max(content + 4, named + 2),
    isRunning: container.status === 'running',
    drops,
    lineOf,
    x: 0,
    y: 0,
  };
}

function trunkOf(
  name: string,
  device: TopologyInterface,
  links: readonly TopologyLink[],
  trunks: ReadonlyMap<string, Trunk>,
): Trunk | undefined {
  if (device.network !== undefined) return trunks.get(`network:${device.network}`);
  const link = links.find(
    (each) =>
      hostEnd(each) !== undefined && each.ends.some((end) => end.container === name && end.ifname === device.ifname),
  );
  return link && trunks.get(`host:${hostEnd(link)?.ifname}`);
}

function isLinked(name: string, device: TopologyInterface, links: readonly TopologyLink[]): boolean {
  return links.some(({ ends }) => ends.some((end) => end.container === name && end.ifname === device.ifname));
}

function interfaceLines({ ifname, addresses, up }: TopologyInterface, style: Style): Line[] {
  const name = printable(ifname);
  const rest = addresses.length > 0 ? addresses : [up ? 'no address' : ''];
  return rest.map(
    (address, index): Line => [
      index === 0 ? { text: name, style } : { text: ' '.repeat(stringWidth(name)) },
      {
        text: ` ${address}${up || index > 0 ? '' : addresses.length > 0 ? '  down' : ''}`,
        style: addresses.length > 0 ? undefined : 'dim',
      },
    ],
  );
}

function portLines({ ports }: TopologyContainer, arrow: string): Line[] {
  return shownPorts(ports).map(({ host, container }) => [{ text: `${host} ${arrow} ${container}`, style: portStyle }]);
}

/** A container in the box whose network stack it shares. */
function guestLines(guest: TopologyContainer, where: string, arrow: string): Line[] {
  const remarks = [...containerRemarks(guest), where];
  const name: Line = [
    { text: '+ ' },
    { text: printable(guest.name), style: 'bold' },
    { text: `  ${shownImage(guest.image)}, ${remarks.join(', ')}`, style: 'dim' },
  ];
  return [name, ...portLines(guest, arrow)];
}

const lineWidth = (line: Line): number => line.reduce((sum, { text }) => sum + stringWidth(text), 0);

/** The links between two boxes. */
function findCables({ links }: Topology, boxes: readonly Box[]): Cable[] {
  return links.flatMap((link) => {
    const [a, b] = link.ends.map((end) => boxes.find(({ name }) => name === end.container));
    return a === undefined || b === undefined ? [] : [{ link, ends: [a, b] }];
  });
}

// --- where it is drawn ---------------------------------------------------------------------------------------------

/** The link that is drawn straight between two neighbours. */
function directCable(a: Box | undefined, b: Box, cables: readonly Cable[]): Cable | undefined {
  return cables.find(({ ends }) => a !== undefined && a !== b && ends.includes(a) && ends.includes(b));
}

function gapAfter(a: Box, b: Box, cables: readonly Cable[]): number {
  const cable = directCable(a, b, cables);
  return cable === undefined ? gap : Math.max(7, linkRemarks(cable.link).join(' ').length + 4);
}

/** Gives the boxes and their drops their columns. A single row that has room begins where its networks' labels end. */
function placeInRows(
  boxes: readonly Box[],
  cables: readonly Cable[],
  trunks: readonly Trunk[],
  start: number,
  width: number,
): Box[][] {
  const rows: Box[][] = [];
  for (const box of boxes) {
    const row = rows.at(-1);
    const last = row?.at(-1);
    const x = last === undefined ? start : last.x + last.width + gapAfter(last, box, cables);
    if (row === undefined || x + box.width > width) {
      box.x = start;
      rows.push([box]);
    } else {
      box.x = x;
      row.push(box);
    }
  }
  for (const box of boxes) placeDrops(box);
  const [row = []] = rows;
  const last = row.at(-1);
  const missing = Math.max(0, ...trunks.map((trunk) => missingRoom(trunk, trunks, row)));
  // Further rows stand under the first one.
  if (rows.length !== 1 || last === undefined || last.x + last.width + missing > width) return rows;
  for (const box of row) {
    box.x += missing;
    placeDrops(box);
  }
  return rows;
}

function placeDrops(box: Box): void {
  const inner = box.width - 2;
  for (const [index, drop] of box.drops.entries()) {
    const share = inner / box.drops.length;
    const label = stringWidth(drop.ifname) + 2;
    drop.x = box.x + 1 + Math.floor(share * index + Math.max(0, share - label) / 2);
  }
}

/** How many columns are missing between where a trunk comes down and the first drop for its whole label. */
function missingRoom(trunk: Trunk, trunks: readonly Trunk[], row: readonly Box[]): number {
  const drops = row.flatMap((box) => box.drops);
  if (!drops.some((drop) => drop.trunk === trunk)) return 0;
  const crossing = drops.filter((drop) => trunks.indexOf(drop.trunk) <= trunks.indexOf(trunk));
  const first = Math.min(...crossing.map(({ x }) => x));
  const needed = trunk.labels[0] === '' ? 0 : stringWidth(trunk.labels[0] ?? '') + 6;
  return Math.max(0, trunk.x + needed - first);
}

// --- drawing -------------------------------------------------------------------------------------------------------

/** Draws the host and what is outside of it. Returns the row of its lower border. */
function drawHost(
  canvas: Canvas,
  topology: Topology,
  hosted: readonly TopologyContainer[],
  trunks: readonly Trunk[],
  { right, arrow }: { right: number; arrow: string },
): number {
  const { host } = topology;
  const uplinks = host.interfaces.filter(({ uplink }) => uplink);
  const lines: Line[] = [[{ text: `host ${printable(host.name)}`, style: 'bold' }], ...hostTable(topology)];
  lines.push(...host.routes.map((text): Line => [{ text: printable(text), style: 'dim' }]));
  for (const guest of hosted) lines.push(...guestLines(guest, 'host network', arrow));
  const places = uplinks.map((_uplink, index) => 4 + index * 18);
  const width = Math.max(
    right,
    ...lines.map((line) => lineWidth(line) + 4),
    ...places.map((x) => x + 12),
    ...trunks.map(({ x }) => x + 3),
    24,
  );
  const top = uplinks.length > 0 ? 2 : 0;
  drawFrame(canvas, { x: 0, y: top, width, lines, isRunning: true });
  for (const [index, { ifname }] of uplinks.entries()) {
    const x = places[index] ?? 0;
    canvas.write(x - 3, 0, 'outside', 'bold');
    canvas.write(x, 1, '│');
    canvas.write(x + 2, 1, printable(ifname));
    canvas.write(x, top, '┴');
  }
  return top + lines.length + 1;
}

/** The host's interfaces: name, addresses, what for. */
function hostTable({ host, networks, links }: Topology): Line[] {
  const onHost = links.flatMap(({ ends: [a, b] }) =>
    a.container === undefined && b.container === undefined ? [[a, b] as const] : [],
  );
  const paired = new Map(onHost.flatMap(([a, b]) => [[a.ifname, b.ifname] as const, [b.ifname, a.ifname] as const]));
  const rows = [
    ...host.interfaces.map(({ ifname, addresses }) => {
      const other = paired.get(ifname);
      const remark = other === undefined ? '' : `cable to ${printable(other)}`;
      return { name: ifname, addresses, remark, style: undefined as Style };
    }),
    ...networks
      .filter(({ driver }) => driver === 'bridge')
      .map((network) => ({
        name: network.bridge,
        addresses: network.hostAddresses,
        remark: [
          network.name === network.bridge ? 'bridge' : `bridge of ${printable(network.name)}`,
          ...networkRemarks(network),
        ].join(', '),
        style: networkStyle(network, networks),
      })),
    ...links.flatMap((link) => {
      const end = hostEnd(link);
      const other = link.ends.find(({ container }) => container !== undefined);
      if (end === undefined || other === undefined) return [];
      const remark = `cable to ${printable(other.container ?? '')}${link.up ? '' : ', down'}`;
      return [{ name: end.ifname, addresses: end.addresses, remark, style: cableStyle }];
    }),
  ];
  const nameWidth = Math.max(0, ...rows.map(({ name }) => stringWidth(printable(name)))) + 2;
  const addressWidth = Math.max(0, ...rows.flatMap(({ addresses }) => addresses.map((each) => each.length))) + 2;
  return rows.flatMap(({ name, addresses, remark, style }) =>
    (addresses.length > 0 ? addresses : ['']).map((address, index): Line => {
      const shownName = index === 0 ? printable(name) : '';
      return [
        { text: shownName.padEnd(nameWidth), style },
        { text: index === 0 && remark !== '' ? address.padEnd(addressWidth) : address },
        ...(index === 0 && remark !== '' ? [{ text: remark, style: 'dim' as const }] : []),
      ];
    }),
  );
}

function networkStyle(network: TopologyNetwork, networks: readonly TopologyNetwork[]): Style {
  return network.up ? trunkStyles[networks.indexOf(network) % trunkStyles.length] : 'dim';
}

function drawFrame(canvas: Canvas, box: Pick<Box, 'x' | 'y' | 'width' | 'lines' | 'isRunning'>): void {
  const { x, y, width, lines, isRunning } = box;
  const style = isRunning ? undefined : 'dim';
  const [across, down] = isRunning ? ['─', '│'] : ['╌', '┆'];
  const last = x + width - 1;
  const bottom = y + lines.length + 1;
  canvas.write(x, y, `╭${across.repeat(width - 2)}╮`, style);
  canvas.write(x, bottom, `╰${across.repeat(width - 2)}╯`, style);
  for (const [index, line] of lines.entries()) {
    canvas.write(x, y + 1 + index, down, style);
    canvas.write(last, y + 1 + index, down, style);
    let column = x + 2;
    for (const segment of line) {
      canvas.write(column, y + 1 + index, segment.text, isRunning ? segment.style : (segment.style ?? 'dim'));
      column += stringWidth(segment.text);
    }
  }
}

function drawRows(
  canvas: Canvas,
  rows: readonly Box[][],
  trunks: readonly Trunk[],
  cables: readonly Cable[],
  { top, right, width }: { top: number; right: number; width: number },
): void {
  const lanes = planLanes(rows, cables, right);
  let y = top;
  const isUsed = (trunk: Trunk, row: number) =>
    rows[row]?.some((box) => box.drops.some((drop) => drop.trunk === trunk));
  // The lines across come first: those downwards are drawn over them, which reads as passing in front.
  const downwards: (() => void)[] = [];
  const lastRowOf = new Map<Trunk, number>();
  for (const trunk of trunks) {
    const used = rows.flatMap((_row, index) => (isUsed(trunk, index) === true ? [index] : []));
    lastRowOf.set(trunk, used.at(-1) ?? 0);
  }
  const tops = new Map<Trunk, number>();
  for (let index = 0; index < Math.max(rows.length, trunks.length > 0 ? 1 : 0); index++) {
    const row = rows[index] ?? [];
    const shown = trunks.filter(
      (trunk) => isUsed(trunk, index) === true || (index === 0 && lastRowOf.get(trunk) === 0),
    );
    y += 1;
    for (const trunk of shown) {
      const goesOn = (lastRowOf.get(trunk) ?? 0) > index;
      drawTrunk(canvas, trunk, trunks, row, { y, width, isFirst: !tops.has(trunk), goesOn });
      const from = tops.get(trunk) ?? top - 1;
      const to = y;
      downwards.push(() => {
        canvas.write(trunk.x, top - 1, trunk.isBus ? '╥' : '┬', trunk.style);
        canvas.vertical(trunk.x, from + 1, to - 1, trunk.isBus ? '║' : '│', trunk.style);
      });
      tops.set(trunk, y);
      for (const drop of row.flatMap((box) => box.drops).filter((each) => each.trunk === trunk)) {
        downwards.push(() => {
          canvas.vertical(drop.x, to + 1, (row[0]?.y ?? 0) - 1, '│', trunk.style);
          canvas.write(drop.x + 2, (row[0]?.y ?? 0) - 1, drop.ifname, trunk.style);
          canvas.write(drop.x, row[0]?.y ?? 0, '┴', trunk.style);
        });
      }
      y += 2;
    }
    for (const box of row) {
      box.y = y;
      drawFrame(canvas, box);
    }
    y += Math.max(0, ...row.map(({ lines }) => lines.length + 2));
    y = drawLanes(
      canvas,
      lanes.filter((lane) => lane.row === index),
      y,
      downwards,
    );
    for (const [position, box] of row.entries()) {
      const cable = directCable(row[position - 1], box, cables);
      if (cable !== undefined) drawDirect(canvas, cable, row[position - 1] as Box, box);
    }
  }
  for (const draw of downwards) draw();
  drawMargins(canvas, lanes);
}

/** The line of one trunk over one row, with its label where there is room. */
function drawTrunk(
  canvas: Canvas,
  trunk: Trunk,
  trunks: readonly Trunk[],
  row: readonly Box[],
  { y, width, isFirst, goesOn }: { y: number; width: number; isFirst: boolean; goesOn: boolean },
): void {
  const { x, style, isBus, labels } = trunk;
  const drops = row.flatMap((box) => box.drops);
  const own = drops.filter((drop) => drop.trunk === trunk).map((drop) => drop.x);
  // What comes down through this line: drops of the trunks above it, and those trunks themselves on their way down.
  const before = trunks.slice(0, trunks.indexOf(trunk));
  const crossing = drops.filter((drop) => before.includes(drop.trunk)).map((drop) => drop.x);
  const obstacles = [x, ...before.map((each) => each.x), ...own, ...crossing].toSorted((a, b) => a - b);
  const room = [...obstacles.entries()]
    .map(([index, from]) => ({ from, to: obstacles[index + 1] ?? Number.POSITIVE_INFINITY }))
    // A line that ends in a box ends there.
    .filter(({ from, to }) => isBus || to !== Number.POSITIVE_INFINITY || from < Math.max(x, ...own));
  const fits = (label: string) => room.find(({ from, to }) => to - from - 1 >= stringWidth(label) + 4);
  const isInside = (label: string) => {
    const place = fits(label);
    return (
      place !== undefined && (place.to !== Number.POSITIVE_INFINITY || place.from + stringWidth(label) + 4 <= width)
    );
  };
  const candidates = isFirst ? labels : labels.slice(-1);
  const label = candidates.find(isInside) ?? candidates.at(-1);
  const place = label === undefined ? undefined : fits(label);
  const labelEnd = label === undefined || label === '' || place === undefined ? 0 : place.from + 4 + stringWidth(label);
  const end = Math.max(x + 2, labelEnd + (isBus ? 0 : -1), ...own.map((each) => each + (isBus ? 2 : 0)));
  canvas.horizontal(x + 1, end, y, isBus ? '═' : '─', style);
  canvas.write(x, y, isBus ? (goesOn ? '╠' : '╚') : goesOn ? '├' : '╰', style);
  for (const each of own) canvas.write(each, y, isBus ? '╤' : each === end ? '╮' : '┬', style);
  if (label !== undefined && label !== '' && place !== undefined) canvas.write(place.from + 2, y, ` ${label} `, style);
}

// --- links between boxes -------------------------------------------------------------------------------------------

/** One end of a link that goes under the boxes. */
interface Lane {
  cable: Cable;
  box: Box;
  end: TopologyLinkEnd;
  row: number;
  /** Column in which it leaves the box. */
  x: number;
  /** The other end, when that is in the same row; otherwise the column in the right margin, in which it changes rows. */
  to: { box: Box; end: TopologyLinkEnd; x: number } | { margin: number };
  /** Row of the picture, once drawn. */
  y: number;
}

/** The links that are not drawn straight between neighbours. */
function planLanes(rows: readonly Box[][], cables: readonly Cable[], right: number): Lane[] {
  const rowOf = (box: Box) => rows.findIndex((row) => row.includes(box));
  const isDirect = (cable: Cable) => {
    const [a, b] = cable.ends;
    const row = rows[rowOf(a)] ?? [];
    const [first, second] = row.indexOf(a) < row.indexOf(b) ? [a, b] : [b, a];
    return (
      row.indexOf(second) - row.indexOf(first) === 1 &&
      rowOf(a) === rowOf(b) &&
      directCable(first, second, cables) === cable
    );
  };
  const indirect = cables.filter((cable) => !isDirect(cable));
  const leaving = new Map<Box, number>();
  const total = (box: Box) => indirect.reduce((sum, { ends }) => sum + ends.filter((each) => each === box).length, 0);
  const columnOf = (box: Box, end: TopologyLinkEnd) => {
    const index = leaving.get(box) ?? 0;
    leaving.set(box, index + 1);
    const share = (box.width - 2) / total(box);
    return box.x + 1 + Math.floor(share * index + Math.max(0, share - stringWidth(end.ifname) - 2) / 2);
  };
  let margin = right;
  return indirect.flatMap((cable): Lane[] => {
    const places = cable.link.ends.map((end, index) => {
      const box = cable.ends[index] as Box;
      return { box, end, x: columnOf(box, end) };
    });
    const [a, b] = places.toSorted((one, other) => rowOf(one.box) - rowOf(other.box) || one.x - other.x);
    if (a === undefined || b === undefined) return [];
    if (rowOf(a.box) === rowOf(b.box)) return [{ cable, ...a, row: rowOf(a.box), to: b, y: 0 }];
    margin += 2;
    return [a, b].map((each) => ({ cable, ...each, row: rowOf(each.box), to: { margin }, y: 0 }));
  });
}

/** Draws the lines across of the links under one row of boxes. Returns the first free row of the picture. */
function drawLanes(canvas: Canvas, lanes: readonly Lane[], y: number, downwards: (() => void)[]): number {
  if (lanes.length === 0) return y;
  let laneY = y;
  for (const lane of lanes) {
    laneY += 1;
    const { cable, x, to } = lane;
    lane.y = laneY;
    const end = 'margin' in to ? to.margin : to.x;
    canvas.horizontal(x, end, laneY, cable.link.up ? '─' : '╌', cableStyle);
    const remarks = linkRemarks(cable.link).join(' ');
    if (remarks !== '' && end - x > stringWidth(remarks) + 4) canvas.write(x + 2, laneY, ` ${remarks} `, cableStyle);
    const at = laneY;
    const ends = 'margin' in to ? [lane] : [lane, to];
    for (const each of ends) {
      downwards.push(() => {
        const bottom = each.box.y + each.box.lines.length + 1;
        canvas.write(each.x, bottom, '┬', cableStyle);
        canvas.vertical(each.x, bottom + 1, at - 1, '│', cableStyle);
        canvas.write(each.x + 2, bottom + 1, printable(each.end.ifname), cableStyle);
        canvas.write(each.x, at, each === lane ? '╰' : '╯', cableStyle);
      });
    }
  }
  return laneY + 1;
}

/** Joins the two halves of the links between rows, right of all boxes. */
function drawMargins(canvas: Canvas, lanes: readonly Lane[]): void {
  for (const [index, upper] of lanes.entries()) {
    const lower = lanes.slice(index + 1).find(({ cable }) => cable === upper.cable);
    if (lower === undefined || !('margin' in upper.to)) continue;
    const x = upper.to.margin;
    canvas.write(x, upper.y, '╮', cableStyle);
    canvas.vertical(x, upper.y + 1, lower.y - 1, '│', cableStyle);
    canvas.write(x, lower.y, '╯', cableStyle);
  }
}

/** A link straight from the right side of one box to the left side of the next, at the lines of the interfaces. */
function drawDirect(canvas: Canvas, { link, ends }: Cable, left: Box, right: Box): void {
  const [leftEnd, rightEnd] = ends[0] === left ? link.ends : [link.ends[1], link.ends[0]];
  const rowIn = (box: Box, { ifname }: TopologyLinkEnd) => box.y + 1 + (box.lineOf.get(ifname) ?? 0);
  const from = { x: left.x + left.width - 1, y: rowIn(left, leftEnd) };
  const to = { x: right.x, y: rowIn(right, rightEnd) };
  const across = link.up ? '─' : '╌';
  const turn = Math.floor((from.x + to.x) / 2);
  canvas.write(from.x, from.y, '├', cableStyle);
  canvas.write(to.x, to.y, '┤', cableStyle);
  if (from.y === to.y) canvas.horizontal(from.x + 1, to.x - 1, from.y, across, cableStyle);
  else {
    const [first, second] = from.y < to.y ? ['╮', '╰'] : ['╯', '╭'];
    canvas.horizontal(from.x + 1, turn - 1, from.y, across, cableStyle);
    canvas.horizontal(turn + 1, to.x - 1, to.y, across, cableStyle);
    canvas.vertical(turn, Math.min(from.y, to.y) + 1, Math.max(from.y, to.y) - 1, '│', cableStyle);
    canvas.write(turn, from.y, first, cableStyle);
    canvas.write(turn, to.y, second, cableStyle);
  }
  const remarks = linkRemarks(link).join(' ');
  if (remarks !== '') canvas.write(from.x + 2, Math.min(from.y, to.y) - 1, remarks, cableStyle);
}
