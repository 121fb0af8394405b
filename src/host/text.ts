import fs from 'node:fs';

/** What a file holds, as UTF-8; nothing where it is missing or cannot be read, as a file of /proc or /etc may be. */
export function textOrEmpty(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
