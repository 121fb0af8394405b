import fs from 'node:fs';
import { MinirunError } from '../errors.ts';

/** The text of a file that the user named in an option. @throws MinirunError when it cannot be read */
export function readTextFile(option: string, file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    throw new MinirunError(
      `cannot read ${file}`,
      'there is no such file, or it may not be read',
      `Check the path given to ${option}`,
      { code: 125 },
    );
  }
}
