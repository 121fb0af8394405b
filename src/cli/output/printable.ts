/**
 * Text of somebody else's (a registry, an archive, an image) as one line that is safe to print: what could move the
 * cursor, change colours, or turn the direction of writing is shown as `?` instead, a line break or tab as a space.
 */
export function printable(text: string): string {
  return text.replaceAll(/[\t\n\r\u2028\u2029]+/g, ' ').replaceAll(/[\p{Cc}\p{Cf}\p{Cs}]/gu, '?');
}
