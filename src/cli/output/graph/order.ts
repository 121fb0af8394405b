import type { Topology, TopologyContainer } from '../../../network/topology.ts';

/**
 * Containers in the order in which they stand side by side: those of the first network first, one on two networks
 * between those of each, and the members of a chain of links next to each other.
 */
export function sideBySide(
  containers: readonly TopologyContainer[],
  { networks, links }: Pick<Topology, 'networks' | 'links'>,
): TopologyContainer[] {
  const position = new Map(networks.map(({ name }, index) => [name, index]));
  const place = ({ interfaces }: TopologyContainer): number => {
    const places = interfaces.flatMap(({ network }) => position.get(network ?? '') ?? []);
    return places.length === 0 ? networks.length : places.reduce((sum, each) => sum + each, 0) / places.length;
  };
  const sorted = containers.toSorted((a, b) => place(a) - place(b));
  const neighbours = (name: string): string[] =>
    links.flatMap(({ ends: [a, b] }) => {
      if (a.container === name) return b.container ?? [];
      return b.container === name ? (a.container ?? []) : [];
    });
  const rest = new Map(sorted.map((container) => [container.name, container]));
  const ordered: TopologyContainer[] = [];
  const follow = (name: string): void => {
    const container = rest.get(name);
    if (container === undefined) return;
    rest.delete(name);
    ordered.push(container);
    for (const next of neighbours(name)) follow(next);
  };
  // A chain is begun at one of its ends, even when one of its middle comes first by its networks.
  const firstEnd = (name: string): string => {
    const seen = new Set<string>();
    const waiting = [name];
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      if (seen.has(next)) continue;
      seen.add(next);
      waiting.push(...neighbours(next));
    }
    const members = sorted.filter((each) => seen.has(each.name));
    return members.find((each) => new Set(neighbours(each.name)).size <= 1)?.name ?? name;
  };
  for (const { name } of sorted) if (rest.has(name)) follow(firstEnd(name));
  return ordered;
}
