/** The ports that `80`, `80/udp` or `8000-8002/tcp` means: `80/tcp`, …; undefined for what means none. */
export function portsOf(text: string): string[] | undefined {
  const match = /^(\d+)(?:-(\d+))?(?:\/(tcp|udp|sctp))?$/i.exec(text);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  if (match === null || first < 1 || last > 65535 || last < first) return undefined;
  const protocol = (match[3] ?? 'tcp').toLowerCase();
  return Array.from({ length: last - first + 1 }, (_, index) => `${first + index}/${protocol}`);
}

interface Range {
  first: number;
  last: number;
  protocol: string;
}

/** Ports in docker's words and order, neighbours as one range: `80/tcp, 8000-8002/tcp, 53/udp`. */
export function shownPorts(ports: readonly string[]): string {
  // Docker lists a range when the next of its protocol begins, and the last of each protocol at the end.
  const ranges: Range[] = [];
  const open = new Map<string, Range>();
  const parsed = ports.map((port) => ({ number: Number.parseInt(port, 10), protocol: port.split('/')[1] ?? 'tcp' }));
  for (const { number, protocol } of parsed.toSorted((a, b) => a.number - b.number)) {
    const range = open.get(protocol);
    if (range?.last === number - 1) range.last = number;
    else {
      if (range !== undefined) ranges.push(range);
      open.set(protocol, { first: number, last: number, protocol });
    }
  }
  ranges.push(...[...open.values()].toSorted((a, b) => (a.protocol < b.protocol ? -1 : 1)));
  return ranges
    .map(({ first, last, protocol }) => `${first === last ? first : `${first}-${last}`}/${protocol}`)
    .join(', ');
}
