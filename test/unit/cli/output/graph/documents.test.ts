import { describe, expect, test } from 'bun:test';
import { renderDot } from '../../../../../src/cli/output/graph/dot.ts';
import { renderMermaid } from '../../../../../src/cli/output/graph/mermaid.ts';
import { renderSvg } from '../../../../../src/cli/output/graph/svg.ts';
import type { Topology } from '../../../../../src/network/topology.ts';
import * as topologies from '../../../../support/topologies.ts';
import { xmlElements } from '../../../../support/xml.ts';

const { chain, container, hostile, mixed, nothing, oneContainer, plug, ring, routed, tenContainers } = topologies;
const all = { nothing, oneContainer, routed, chain, ring, tenContainers, mixed, hostile };

/** Names and addresses that must be in every picture of a topology. */
const words = ({ networks, containers }: Topology): string[] => [
  ...networks.flatMap(({ name, subnets }) => [name, ...subnets]),
  ...containers.flatMap(({ name, interfaces }) => [name, ...interfaces.flatMap(({ addresses }) => addresses)]),
];

/** A chain of so many containers, each link with a word on it. */
const longChain = (length: number): Topology => ({
  ...nothing,
  containers: Array.from({ length }, (_, index) =>
    container(`r${index}`, [plug('a', '10.0.0.1/30'), plug('b', '10.0.0.2/30')]),
  ),
  links: Array.from({ length: length - 1 }, (_, index) => ({
    ends: [
      { container: `r${index}`, ifname: 'b', addresses: [] },
      { container: `r${index + 1}`, ifname: 'a', addresses: [] },
    ],
    shaping: 'delay 5ms',
    up: true,
  })),
});

describe('the picture as SVG', () => {
  for (const [name, topology] of Object.entries(all)) {
    test(`of ${name} is well-formed XML with all that DOT has`, async () => {
      const svg = await renderSvg(topology);
      const elements = xmlElements(svg);
      expect(elements[0]).toBe('svg');
      expect(elements).not.toContain('script');
      expect(elements).not.toContain('title');
      // Graphviz loses edges that it cannot draw.
      const edges = renderDot(topology)
        .split('\n')
        .filter((line) => line.includes(' -> ') && !line.includes('style="invis"'));
      expect(svg.match(/class="edge"/g)?.length ?? 0).toBe(edges.length);
      if (topology !== hostile)
        expect(words(topology).filter((word) => !new RegExp(`>(\\+ )?${word}<`).test(svg))).toEqual([]);
    });
  }

  for (const length of [3, 5, 8, 9, 12]) {
    test(`of a chain of ${length} has all links`, async () => {
      const svg = await renderSvg(longChain(length));
      expect(svg.match(/>delay 5ms</g)?.length).toBe(length - 1);
      expect(svg.match(/class="edge"/g)?.length).toBe(length);
    });
  }
});

describe('DOT', () => {
  test('has nothing of anybody else in identifiers or attributes, only in labels, escaped', () => {
    const dot = renderDot(hostile);
    for (const line of dot.split('\n').filter((each) => /^ *n\d/.test(each)))
      expect(line).toMatch(/^ *n\d+(:\w+)*( -> n\d+(:\w+)*)* \[/);
    expect(dot).toContain('host &quot;]; evil -- host; x [label=&quot;&lt;B&gt;');
    expect(dot).toContain('&lt;/TD&gt;&lt;/TR&gt;?[31m`#quot;{}&amp;amp;');
    expect(dot).not.toContain('\u001B');
  });

  test('a network has the same color in its box, its lines and the interfaces in it', () => {
    const dot = renderDot(routed);
    // The box, the line to the host, two lines to containers.
    expect(
      dot
        .split('\n')
        .filter((line) => line.includes('[color="#c2410c"') || line.includes('color="#c2410c", fillcolor')),
    ).toHaveLength(4);
  });
});

describe('Mermaid', () => {
  test('of two networks with a router between', () => {
    const lines = renderMermaid(routed).split('\n');
    expect(lines.slice(0, 3)).toEqual(['flowchart TB', '  n1(["<b>outside</b>"])', '  subgraph machine["host lab"]']);
    expect(lines).toContain('    n2{{"<b>front</b> 10.1.0.0/24<br/>mr-0f3a9c1d2e4b"}}');
    expect(lines).toContain('    n6("<b>router</b> router<br/>busybox<br/>eth0 10.1.0.2/24<br/>eth1 10.2.0.2/24")');
    expect(lines).toContain('  n2 ---|"eth0"| n6');
    expect(lines).toContain('  n3 ---|"eth1"| n6');
    expect(lines).toContain('  n0 -.->|"127.0.0.1:8080 → 80/tcp"| n5');
  });

  test('has every name and address', () => {
    for (const topology of [oneContainer, routed, chain, ring, tenContainers, mixed])
      for (const word of words(topology)) expect(renderMermaid(topology)).toContain(word);
  });

  test('no text ends its label, makes a line of its own, or is taken for HTML', () => {
    for (const line of renderMermaid(hostile)
      .split('\n')
      .filter((each) => each.includes('"'))) {
      // One label a line, of harmless characters, entities, and the two elements that are minirun's own.
      expect(line).toMatch(/^ *(n\d+|subgraph machine)[^"]*"(?:[\p{L}\p{N} .,:/()–→-]|#\d+;|<\/?b>|<br\/>)*"[^"]*$/u);
    }
    expect(renderMermaid(hostile)).not.toMatch(/^\s*(click|end.+)/m);
  });
});
