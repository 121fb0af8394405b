/**
 * What can be read of a text that begins as JSON and is not: the value up to the last element that is whole, with the
 * brackets closed that are open there. A file that was cut off keeps what came before.
 *
 * @returns undefined when not even a first element is whole
 */
export function salvage(source: string): unknown {
  const closers: string[] = [];
  let inText = false;
  /** Where to cut, and the brackets that are open there. */
  let best: { end: number; closers: string } | undefined;
  const mark = (end: number) => {
    best = { end, closers: closers.toReversed().join('') };
  };
  for (let index = 0; index < source.length; index++) {
    const letter = source[index];
    if (inText) {
      if (letter === '\\') index++;
      else if (letter === '"') inText = false;
      continue;
    }
    if (letter === '"') inText = true;
    else if (letter === '{' || letter === '[') {
      // Deeper than anything of ours: nothing in it is worth a search.
      if (closers.length >= 64) break;
      closers.push(letter === '{' ? '}' : ']');
      mark(index + 1);
    } else if (letter === '}' || letter === ']') {
      if (closers.pop() !== letter) break;
      mark(index + 1);
    } else if (letter === ',') mark(index);
  }
  if (best === undefined) return undefined;
  try {
    return JSON.parse(source.slice(0, best.end) + best.closers);
  } catch {
    return undefined;
  }
}
