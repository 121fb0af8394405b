/**
 * The names of the elements of an XML document, in their order.
 *
 * @throws Error when it is not well formed: elements that do not nest, attributes without quotes, a bare `<` or `&`
 */
export function xmlElements(document: string): string[] {
  const text = document.replace(/^<\?xml[^>]*\?>\s*/, '').replaceAll(/<!--(?:(?!--)[^])*-->|<!DOCTYPE[^>]*>/g, '');
  const open: string[] = [];
  const elements: string[] = [];
  let end = 0;
  for (const match of text.matchAll(/<(\/?)([\w:]+)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>/g)) {
    checkText(text.slice(end, match.index));
    checkText((match[3] ?? '').replaceAll('>', ''));
    end = match.index + match[0].length;
    const name = match[2] ?? '';
    if (match[1] === '/') {
      const last = open.pop();
      if (last !== name) throw new Error(`</${name}> ends <${last}>`);
      continue;
    }
    elements.push(name);
    if (match[4] !== '/') open.push(name);
  }
  checkText(text.slice(end));
  if (open.length > 0) throw new Error(`<${open.at(-1)}> has no end`);
  return elements;
}

function checkText(text: string): void {
  const bad = /[<>]|&(?!(?:#\d+|#x[\da-fA-F]+|amp|lt|gt|quot|apos);)/.exec(text);
  if (bad !== null) throw new Error(`not well formed: ${text.slice(bad.index, bad.index + 60)}`);
}
