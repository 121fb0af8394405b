import { labelFilter, parseFilters } from './filters.ts';

/** Of an image, what a filter of `prune` may look at. */
interface Candidate {
  created: string;
  labels: Readonly<Record<string, string>>;
}

/**
 * Which images a `prune` removes when no container uses them: those without a tag, or with `all` every one, as far as
 * they pass the filters `until` and `label`.
 *
 * @returns for an image's id and canonical names, whether it is to go
 * @throws MinirunError when a filter is not understood
 */
export async function unwanted({
  all,
  filter,
}: {
  all: boolean;
  filter: readonly string[];
}): Promise<(id: string, names: readonly string[]) => boolean> {
  const { parseMoment } = await import('../../container/log-stamp.ts');
  const { stampOf } = await import('../../container/log-stamp.ts');
  const now = Date.now();
  const label = labelFilter<Candidate>(({ labels }) => labels);
  const moments = new Map<string, string>();
  const momentOf = (text: string): string => {
    const moment = moments.get(text) ?? parseMoment('--filter until', text, now);
    moments.set(text, moment);
    return moment;
  };
  // A wrong moment is refused before anything is removed, and before the user is asked.
  for (const text of filter) if (/^\s*until\s*=/i.test(text)) momentOf(text.slice(text.indexOf('=') + 1).trim());
  const passes = parseFilters<Candidate>(filter, {
    until: { every: true, matches: ({ created }, text) => stampOf(Date.parse(created)) < momentOf(text) },
    label,
    'label!': { every: true, matches: (image, value) => !label.matches(image, value) },
  });
  const { listImages } = await import('../../image/store.ts');
  const { parseReference } = await import('../../image/reference.ts');
  const candidates = new Map(listImages().map((image) => [image.id, image]));
  return (id, names) => {
    // One that has just come is nobody's leftover.
    const image = candidates.get(id);
    const isTagged = names.some((name) => parseReference(name).digest === undefined);
    return image !== undefined && (all || !isTagged) && passes(image);
  };
}
