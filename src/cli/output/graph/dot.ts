import type {
  Topology,
  TopologyContainer,
  TopologyInterface,
  TopologyLink,
  TopologyLinkEnd,
  TopologyNetwork,
} from '../../../network/topology.ts';
import { printable } from '../printable.ts';
import { containerRemarks, containerRoutes, groupByStack, networkRemarks, shownImage, shownPorts } from './labels.ts';
import { sideBySide } from './order.ts';

interface Color {
  line: string;
  fill: string;
}

const networkColors: readonly Color[] = [
  { line: '#2563eb', fill: '#dbeafe' },
  { line: '#c2410c', fill: '#ffedd5' },
  { line: '#7c3aed', fill: '#ede9fe' },
  { line: '#0f766e', fill: '#ccfbf1' },
  { line: '#be185d', fill: '#fce7f3' },
  { line: '#4d7c0f', fill: '#ecfccb' },
];
const linkColor: Color = { line: '#475569', fill: '#e2e8f0' };
const portColor: Color = { line: '#15803d', fill: '#dcfce7' };
const restColor: Color = { line: '#94a3b8', fill: '#f8fafc' };
const ink = '#0f172a';
const faint = '#64748b';

/** One whose widths Graphviz knows, so that text fits its box; `svg.ts` adds fonts of the same widths. */
export const fontName = 'Arial';

/** Containers side by side, at most; more of them stand in further rows. Links want to be drawn beside each other. */
const mostInRow = ({ links }: Topology): number => (links.length > 0 ? 8 : 6);

/**
 * The picture in Graphviz's language: the outside on top, the host as a cluster, its bridges, under them the containers.
 *
 * No text of anybody else's is used as an identifier: nodes are `n0`, `n1`, …, and all text is in HTML-like labels, where
 * nothing but `&`, `<`, `>` and `"` is special.
 */
export function renderDot(topology: Topology): string {
  return new Drawing(topology).render();
}

/** Text for an HTML-like label. */
function html(text: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return printable(text).replaceAll(/[&<>"]/g, (character) => entities[character] ?? '');
}

interface FontOptions {
  color?: string;
  size?: number;
  bold?: boolean;
}

function font(text: string, { color = ink, size = 11, bold = false }: FontOptions = {}): string {
  const inner = bold ? `<B>${html(text)}</B>` : html(text);
  return `<FONT COLOR="${color}" POINT-SIZE="${size}">${inner}</FONT>`;
}

/** Attributes in brackets; values come from here only, but for labels, which are HTML-like. */
function attributes(values: Record<string, string | number | undefined>): string {
  const parts = Object.entries(values).flatMap(([name, value]) => {
    if (value === undefined) return [];
    return [`${name}=${String(value).startsWith('<') ? value : `"${value}"`}`];
  });
  return ` [${parts.join(', ')}]`;
}

const table = (rows: readonly string[]): string =>
  `<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="3" CELLPADDING="0">${rows.join('')}</TABLE>>`;

const row = (content: string): string => `<TR><TD COLSPAN="20" ALIGN="CENTER">${content}</TD></TR>`;

const space = '&#160;&#160;';

/** The host's end of a link, and the other one, if that is in a container. */
interface HostLink {
  link: TopologyLink;
  here: TopologyLinkEnd;
  there: TopologyLinkEnd & { container: string };
}

class Drawing {
  /**
   * What is declared in the host's cluster: its nodes, and the edges between them, or Graphviz does not heed those when
   * it orders the nodes.
   */
  private readonly inside: string[] = [];
  private readonly outside: string[] = [];
  /** What enters the host: declared last, because a node belongs where it is named first. */
  private readonly entering: string[] = [];
  private readonly ids = new Map<string, string>();
  private readonly own: { container: TopologyContainer; guests: TopologyContainer[] }[];
  private readonly hosted: TopologyContainer[];
  private readonly hostLinks: HostLink[];
  private readonly mostInRow: number;
  /** Whether networks and containers are held in their order: Graphviz needs its freedom where lines pass to rows below. */
  private readonly inOrder: boolean;

  constructor(private readonly topology: Topology) {
    const groups = groupByStack(topology.containers);
    const ordered = sideBySide(
      groups.own.map(({ container }) => container),
      topology,
    );
    this.own = ordered.flatMap((container) => groups.own.find((each) => each.container === container) ?? []);
    this.hosted = groups.host;
    this.mostInRow = mostInRow(topology);
    this.inOrder = this.own.length <= this.mostInRow;
    this.hostLinks = topology.links.flatMap((link) => {
      const here = link.ends.find(({ container }) => container === undefined);
      const there = link.ends.find(({ container }) => container !== undefined);
      if (here === undefined || there?.container === undefined) return [];
      return [{ link, here, there: { ...there, container: there.container } }];
    });
  }

  render(): string {
    this.host();
    for (const network of this.topology.networks) this.network(network);
    for (const { container, guests } of this.own) this.container(container, guests);
    this.rows();
    for (const link of this.topology.links) this.link(link);
    this.ports();
    const name = font(`host ${this.topology.host.name}`, { size: 15, bold: true });
    const lines = [
      'digraph minirun {',
      // A second pass over the order of nodes forgets, where there is a cluster, which are to stand left of which.
      `  graph [bgcolor="white", pad=0.3,${this.inOrder ? ' remincross=false,' : ''} nodesep=0.35, ranksep=0.6, fontname="${fontName}"];`,
      `  node [shape=box, style="rounded,filled", fillcolor="white", penwidth=1.4, margin="0.08,0.06", fontname="${fontName}", fontcolor="${ink}"];`,
      `  edge [dir=none, penwidth=2, fontname="${fontName}", fontsize=10, fontcolor="${faint}"];`,
      ...this.outside.map((line) => `  ${line}`),
      '  subgraph cluster_host {',
      `    graph [style="rounded,filled", fillcolor="#f8fafc", color="#cbd5e1", penwidth=1.4, margin=18, labeljust=l, label=<${name}>];`,
      ...this.inside.map((line) => `    ${line}`),
      '  }',
      ...this.entering.map((line) => `  ${line}`),
      '}',
    ];
    return `${lines.join('\n')}\n`;
  }

  /** The identifier of what a key stands for: `n0`, `n1`, … */
  private id(key: string): string {
    const known = this.ids.get(key) ?? `n${this.ids.size}`;
    this.ids.set(key, known);
    return known;
  }

  private edge(
    from: string,
    to: string,
    values: Record<string, string | number | undefined>,
    list: string[] = this.inside,
  ): void {
    list.push(`${from} -> ${to}${attributes(values)};`);
  }

  /** The outside, and the host's own network stack: its interfaces that are no bridge of a network. */
  private host(): void {
    const { interfaces, routes } = this.topology.host;
    const host = this.id('host');
    const plain = { line: faint, fill: '#e2e8f0' };
    const cables = this.hostLinks.map(({ here }) => ({ ...here, color: linkColor }));
    const rows = [
      ...(interfaces.length > 0 ? [tabs(interfaces.map((each) => ({ ...each, color: plain })))] : []),
      ...routes.map((route) => row(font(route, { size: 10, color: faint }))),
      ...this.hosted.map((guest) => guestRow(guest, 'host network')),
      ...(cables.length > 0 ? [tabs(cables, 'c')] : []),
    ];
    const label = table(rows.length > 0 ? rows : [row(font('no interfaces', { color: faint }))]);
    this.inside.push(`${host}${attributes({ label, color: faint })};`);
    if (!interfaces.some(({ uplink }) => uplink)) return;
    const outside = this.id('outside');
    const word = `<${font('outside', { size: 14, bold: true, color: faint })}>`;
    const look = { shape: 'ellipse', style: 'filled', fillcolor: '#f1f5f9', color: '#cbd5e1', margin: '0.2,0.1' };
    this.outside.push(`${outside}${attributes({ label: word, ...look })};`);
    for (const [index, { uplink }] of interfaces.entries())
      if (uplink) this.edge(outside, `${host}:i${index}:n`, { color: faint, weight: 4 }, this.entering);
  }

  private network(network: TopologyNetwork): void {
    const { name, driver, bridge, subnets, hostAddresses, up } = network;
    const color = this.colorOf(network);
    const id = this.id(`network:${name}`);
    const isBridge = driver === 'bridge';
    const title = [
      font(name, { size: 14, bold: true, color: color.line }),
      ...subnets.map((subnet) => font(subnet)),
    ].join(space);
    const details = [
      ...(isBridge && bridge !== name ? [font(bridge, { size: 10 })] : []),
      ...(isBridge ? hostAddresses.map((address) => font(address, { size: 10 })) : []),
      ...networkRemarks(network).map((remark) => font(remark, { size: 10, color: color.line })),
    ];
    const members = this.own.filter(({ container }) => container.interfaces.some((each) => each.network === name));
    const look = {
      color: color.line,
      fillcolor: color.fill,
      penwidth: 2.4,
      margin: '0.2,0.04',
      // As long as what hangs on it is wide.
      width: Math.max(2, 1.25 * Math.min(members.length, this.mostInRow)),
      style: up ? undefined : 'rounded,filled,dashed',
    };
    const label = table([row(title), ...(details.length > 0 ? [row(details.join(space))] : [])]);
    this.inside.push(`${id}${attributes({ label, ...look })};`);
    // Without an address there, the host is not in the network itself.
    const style = hostAddresses.length > 0 || !isBridge ? undefined : 'dotted';
    this.edge(this.id('host'), id, { color: color.line, style, weight: 4 });
  }

  private container(container: TopologyContainer, guests: readonly TopologyContainer[]): void {
    const isRunning = container.status === 'running';
    const id = this.id(`container:${container.name}`);
    const { above, beside } = this.interfacesOf(container);
    const remarks = containerRemarks(container).join(', ');
    const small = (text: string) => row(font(text, { size: 10, color: faint }));
    const rows = [
      ...(above.length > 0 ? [tabs(above.map((each) => ({ ...each, color: this.colorOfInterface(each) })))] : []),
      row(
        font(container.name, { size: 14, bold: true, color: isRunning ? ink : faint }) +
          (remarks === '' ? '' : space + font(remarks, { size: 10, color: '#b45309' })),
      ),
      small(shownImage(container.image)),
      ...beside.map((each, index) => interfaceRow(each, `l${index}`)),
      ...containerRoutes(container).map(small),
      ...guests.map((guest) => guestRow(guest, 'same network')),
      ...(container.shares?.container === undefined ? [] : [small(`in the network of ${container.shares.container}`)]),
    ];
    const look = isRunning
      ? { color: ink }
      : { color: restColor.line, fillcolor: restColor.fill, style: 'rounded,filled,dashed' };
    this.inside.push(`${id}${attributes({ label: table(rows), ...look })};`);
    for (const [index, { network, up }] of above.entries()) {
      const found = this.findNetwork(network);
      if (found === undefined) continue;
      const style = up ? undefined : 'dashed';
      this.edge(this.id(`network:${found.name}`), `${id}:i${index}:n`, { color: this.colorOf(found).line, style });
    }
  }

  /** Those that are reached from above, by a network or a link to the host; and the others. */
  private interfacesOf(container: TopologyContainer): { above: TopologyInterface[]; beside: TopologyInterface[] } {
    const isAbove = ({ network, ifname }: TopologyInterface) =>
      this.findNetwork(network) !== undefined ||
      this.hostLinks.some(({ there }) => there.container === container.name && there.ifname === ifname);
    return {
      above: container.interfaces.filter(isAbove),
      beside: container.interfaces.filter((each) => !isAbove(each)),
    };
  }

  private findNetwork(name: string | undefined): TopologyNetwork | undefined {
    return this.topology.networks.find((each) => each.name === name);
  }

  private colorOf(network: TopologyNetwork): Color {
    const index = this.topology.networks.indexOf(network);
    return (network.up ? networkColors[index % networkColors.length] : undefined) ?? restColor;
  }

  private colorOfInterface({ network }: TopologyInterface): Color {
    const found = this.findNetwork(network);
    return found === undefined ? linkColor : this.colorOf(found);
  }

  /** Puts networks beside each other, and containers; those that would make a row too long under the others. */
  private rows(): void {
    this.row(this.topology.networks.map(({ name }) => this.id(`network:${name}`)));
    const ids = this.own.map(({ container }) => this.id(`container:${container.name}`));
    for (let start = 0; start < ids.length; start += this.mostInRow) {
      const inRow = ids.slice(start, start + this.mostInRow);
      this.row(inRow);
      for (const [index, id] of inRow.entries()) {
        const above = ids[start - this.mostInRow + index];
        if (above !== undefined) this.edge(above, id, { style: 'invis', weight: 8 });
      }
    }
    // Where nothing else does, an edge keeps them under the host.
    for (const { container } of this.own)
      if (this.interfacesOf(container).above.length === 0)
        this.edge(this.id('host'), this.id(`container:${container.name}`), { style: 'invis', weight: 0, minlen: 2 });
  }

  private row(ids: readonly string[]): void {
    if (ids.length > 1) this.inside.push(`{ rank=same; ${ids.join('; ')}; }`);
    if (!this.inOrder) return;
    // Graphviz asks of every two nodes whether they may change places, and draws no conclusions.
    for (const [index, id] of ids.entries())
      for (const right of ids.slice(index + 1)) this.edge(id, right, { style: 'invis' });
  }

  private link(link: TopologyLink): void {
    const remarks = [...(link.shaping === '' ? [] : [link.shaping]), ...(link.up ? [] : ['down'])].join(', ');
    const look = {
      color: linkColor.line,
      style: link.up ? undefined : 'dashed',
      // Graphviz loses an edge with a label between nodes of one row that it has not put next to each other.
      [this.inOrder ? 'label' : 'xlabel']:
        remarks === '' ? undefined : `<${font(remarks, { size: 10, color: linkColor.line })}>`,
    };
    const hostIndex = this.hostLinks.findIndex((each) => each.link === link);
    const hostLink = this.hostLinks[hostIndex];
    if (hostLink !== undefined) {
      this.edge(`${this.id('host')}:c${hostIndex}:s`, this.endOf(hostLink.there, 'n'), look);
      return;
    }
    // Of two containers side by side the left one comes first, or Graphviz would put it right.
    const position = ({ container }: TopologyLinkEnd) =>
      this.own.findIndex((each) => each.container.name === container);
    const [left, right] = link.ends.toSorted((a, b) => position(a) - position(b)) as [TopologyLinkEnd, TopologyLinkEnd];
    if (position(left) === -1) return;
    const areNeighbours = this.inOrder && position(right) - position(left) === 1;
    const sides = areNeighbours ? (['e', 'w'] as const) : ([] as const);
    this.edge(this.endOf(left, sides[0]), this.endOf(right, sides[1]), {
      ...look,
      minlen: areNeighbours && remarks !== '' ? 2 : undefined,
    });
  }

  private endOf({ container, ifname }: TopologyLinkEnd, side?: string): string {
    const box = this.own.find((each) => each.container.name === container)?.container;
    if (box === undefined) return this.id('host');
    const { above, beside } = this.interfacesOf(box);
    const [letter, list] = above.some((each) => each.ifname === ifname) ? ['i', above] : ['l', beside];
    const index = list.findIndex((each) => each.ifname === ifname);
    const port = index === -1 ? '' : `:${letter}${index}${side === undefined ? '' : `:${side}`}`;
    return `${this.id(`container:${container}`)}${port}`;
  }

  /** Published ports as arrows: from outside, or from the host where only that reaches them. */
  private ports(): void {
    const owners = [
      ...this.own.flatMap(({ container, guests }) =>
        [container, ...guests].map((each) => ({ each, to: `container:${container.name}` })),
      ),
      ...this.hosted.map((each) => ({ each, to: 'host' })),
    ];
    const isLocal = (host: string) => /^(127\.|\[::1\])/.test(host);
    for (const { each, to } of owners) {
      for (const { host, container } of shownPorts(each.ports)) {
        const id = this.id(`port:${host}:${container}:${each.name}`);
        const label = `<${font(`${host} → ${container}`, { bold: true, color: portColor.line, size: 10 })}>`;
        const look = { label, fillcolor: portColor.fill, color: portColor.line, margin: '0.12,0.02', height: 0.3 };
        (isLocal(host) ? this.inside : this.outside).push(`${id}${attributes(look)};`);
        const arrow = { dir: 'forward', style: 'dashed', penwidth: 1.4, color: portColor.line, weight: 0 };
        this.edge(id, this.id(to), arrow, isLocal(host) ? this.inside : this.entering);
        const level = isLocal(host) ? this.id('host') : this.ids.get('outside');
        if (level === undefined) continue;
        // Above its container, or its arrow would cross the others' lines.
        const isLeft =
          this.own.findIndex(({ container: { name } }) => to === `container:${name}`) < (this.own.length - 1) / 2;
        const list = isLocal(host) ? this.inside : this.outside;
        list.push(`{ rank=same; ${level}; ${id}; }`);
        if (isLeft && to !== 'host') this.edge(id, level, { style: 'invis' }, list);
        else this.edge(level, id, { style: 'invis' }, list);
      }
    }
  }
}

/** Interfaces side by side at the top of a box, where their edges end. */
function tabs(
  interfaces: readonly { ifname: string; addresses: readonly string[]; color: Color }[],
  letter = 'i',
): string {
  const cells = interfaces.map(({ ifname, addresses, color }, index) => {
    const lines = [font(ifname, { bold: true, color: color.line }), ...addresses.map((address) => font(address))];
    return `<TD PORT="${letter}${index}" BORDER="1" STYLE="ROUNDED" COLOR="${color.line}" BGCOLOR="${color.fill}" CELLPADDING="4">${lines.join('<BR/>')}</TD>`;
  });
  return `<TR><TD COLSPAN="20"><TABLE BORDER="0" CELLSPACING="3" CELLPADDING="0"><TR>${cells.join('')}</TR></TABLE></TD></TR>`;
}

/** An interface that is in no network: the end of a link, or one that somebody has moved in. */
function interfaceRow({ ifname, addresses }: TopologyInterface, port: string): string {
  const text = [font(ifname, { bold: true, color: linkColor.line }), ...addresses.map((address) => font(address))].join(
    '&#160; ',
  );
  return `<TR><TD COLSPAN="20" PORT="${port}" BORDER="1" STYLE="ROUNDED" COLOR="${linkColor.line}" BGCOLOR="${linkColor.fill}" CELLPADDING="4">${text}</TD></TR>`;
}

/** A container in the box whose network stack it shares. */
function guestRow(guest: TopologyContainer, where: string): string {
  const remarks = [shownImage(guest.image), ...containerRemarks(guest), where].join(', ');
  return row(`${font(`+ ${guest.name}`, { bold: true })}${space}${font(remarks, { size: 10, color: faint })}`);
}
