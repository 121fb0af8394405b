import type { Topology, TopologyContainer, TopologyLink, TopologyLinkEnd } from '../../../network/topology.ts';
import { printable } from '../printable.ts';
import { containerRemarks, containerRoutes, groupByStack, networkRemarks, shownImage, shownPorts } from './labels.ts';
import { sideBySide } from './order.ts';

/** Line and fill; the colors of `dot.ts`. */
const networkColors: readonly (readonly [string, string])[] = [
  ['#2563eb', '#dbeafe'],
  ['#c2410c', '#ffedd5'],
  ['#7c3aed', '#ede9fe'],
  ['#0f766e', '#ccfbf1'],
  ['#be185d', '#fce7f3'],
  ['#4d7c0f', '#ecfccb'],
];

/**
 * The picture as a Mermaid flowchart, which GitHub and GitLab draw in Markdown.
 *
 * Identifiers are `n0`, `n1`, …; every other text is a quoted label in which all that is no letter, digit or harmless
 * punctuation is a numeric entity, so that no text can end its label or be taken for Markdown or HTML.
 */
export function renderMermaid(topology: Topology): string {
  const { own, host: hosted } = groupByStack(topology.containers);
  const ordered = sideBySide(
    own.map(({ container }) => container),
    topology,
  );
  const ids = new Map<string, string>();
  const id = (key: string): string => {
    const known = ids.get(key) ?? `n${ids.size}`;
    ids.set(key, known);
    return known;
  };
  const nodes: string[] = [];
  const outside: string[] = [];
  const edges: string[] = [];
  const styles: string[] = [];
  /** @param style of the edge, in SVG's words */
  const connect = (edge: string, style?: string) => {
    if (style !== undefined) styles.push(`linkStyle ${edges.length} ${style}`);
    edges.push(edge);
  };

  const guestLine = (guest: TopologyContainer, where: string) =>
    text(`with ${guest.name} (${[shownImage(guest.image), ...containerRemarks(guest), where].join(', ')})`);
  const { host } = topology;
  const hostEnds = topology.links
    .flatMap(({ ends }) => ends.filter(({ container }) => container === undefined))
    .filter(({ ifname }) => !host.interfaces.some((each) => each.ifname === ifname));
  nodes.push(
    `${id('host')}${label('[', ']', [
      bold(host.name),
      ...[...host.interfaces, ...hostEnds].map(({ ifname, addresses }) => text([ifname, ...addresses].join(' '))),
      ...host.routes.map(text),
      ...hosted.map((guest) => guestLine(guest, 'host network')),
    ])}`,
  );
  const uplinks = host.interfaces.filter(({ uplink }) => uplink);
  if (uplinks.length > 0) outside.push(`${id('outside')}${label('([', '])', [bold('outside')])}`);
  for (const { ifname } of uplinks) connect(`${id('outside')} ---${edgeLabel([ifname])} ${id('host')}`);

  for (const [index, network] of topology.networks.entries()) {
    const key = `network:${network.name}`;
    const isBridge = network.driver === 'bridge';
    const [line, fill] = networkColors[index % networkColors.length] as readonly [string, string];
    nodes.push(
      `${id(key)}${label('{{', '}}', [
        `${bold(network.name)} ${text(network.subnets.join(' '))}`,
        ...(isBridge && network.bridge !== network.name ? [text(network.bridge)] : []),
        ...networkRemarks(network).map(text),
      ])}`,
    );
    styles.push(`style ${id(key)} fill:${fill},stroke:${line},stroke-width:3px,color:#0f172a`);
    connect(`${id('host')} ---${edgeLabel(isBridge ? network.hostAddresses : [])} ${id(key)}`, `stroke:${line}`);
  }

  for (const container of ordered) {
    const key = `container:${container.name}`;
    const { guests = [] } = own.find((each) => each.container === container) ?? {};
    const remarks = containerRemarks(container).join(', ');
    nodes.push(
      `${id(key)}${label('(', ')', [
        `${bold(container.name)}${remarks === '' ? '' : ` ${text(remarks)}`}`,
        text(shownImage(container.image)),
        ...container.interfaces.map(({ ifname, addresses }) => text([ifname, ...addresses].join(' '))),
        ...containerRoutes(container).map(text),
        ...guests.map((guest) => guestLine(guest, 'same network')),
        ...(container.shares?.container === undefined ? [] : [text(`in the network of ${container.shares.container}`)]),
      ])}`,
    );
    if (container.status !== 'running') styles.push(`style ${id(key)} stroke-dasharray:5 5`);
    for (const { ifname, network } of container.interfaces) {
      const index = topology.networks.findIndex((each) => each.name === network);
      if (index === -1) continue;
      const stroke = `stroke:${networkColors[index % networkColors.length]?.[0]}`;
      connect(`${id(`network:${network}`)} ---${edgeLabel([ifname])} ${id(key)}`, stroke);
    }
    for (const each of [container, ...guests]) {
      for (const port of shownPorts(each.ports)) {
        const from = /^(127\.|\[::1\])/.test(port.host) || uplinks.length === 0 ? 'host' : 'outside';
        connect(`${id(from)} -.->${edgeLabel([`${port.host} → ${port.container}`])} ${id(key)}`, 'stroke:#15803d');
      }
    }
  }
  for (const link of topology.links) {
    const [a, b] = link.ends.map((end) => id(end.container === undefined ? 'host' : `container:${end.container}`));
    connect(`${a} ${link.up ? '===' : '-.-'}${edgeLabel([linkText(link)])} ${b}`, 'stroke:#475569');
  }
  return [
    'flowchart TB',
    ...outside.map((line) => `  ${line}`),
    `  subgraph machine["${text(`host ${host.name}`)}"]`,
    ...nodes.map((line) => `    ${line}`),
    '  end',
    ...edges.map((line) => `  ${line}`),
    ...styles.map((line) => `  ${line}`),
    '',
  ].join('\n');
}

/** Both ends' interfaces and what is special about a link. */
function linkText({ ends, shaping, up }: TopologyLink): string {
  const name = ({ ifname }: TopologyLinkEnd) => ifname;
  return [ends.map(name).join(' – '), ...(shaping === '' ? [] : [shaping]), ...(up ? [] : ['down'])].join(', ');
}

/** Text inside of a quoted label: https://mermaid.js.org/syntax/flowchart.html#entity-codes-to-escape-characters */
function text(words: string): string {
  return printable(words).replaceAll(/[^\p{L}\p{N} .,:/()–→-]/gu, (character) => `#${character.codePointAt(0)};`);
}

const bold = (words: string): string => `<b>${text(words)}</b>`;

function label(open: string, close: string, lines: readonly string[]): string {
  return `${open}"${lines.join('<br/>')}"${close}`;
}

const edgeLabel = (words: readonly string[]): string => (words.length === 0 ? '' : `|"${text(words.join(' '))}"|`);
