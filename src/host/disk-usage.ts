import fs from 'node:fs';
import path from 'node:path';

/** Bytes of all regular files below a directory, each once however many names it has. What vanishes meanwhile is left out. */
export function bytesBelow(directory: string): number {
  const linked = new Set<string>();
  let bytes = 0;
  const waiting = [directory];
  for (let current = waiting.pop(); current !== undefined; current = waiting.pop()) {
    for (const entry of entriesOf(current)) {
      const place = path.join(current, entry.name);
      if (entry.isDirectory()) waiting.push(place);
      if (!entry.isFile()) continue;
      const stat = fs.lstatSync(place, { throwIfNoEntry: false });
      if (stat === undefined) continue;
      const identity = `${stat.dev}:${stat.ino}`;
      if (stat.nlink > 1 && linked.has(identity)) continue;
      if (stat.nlink > 1) linked.add(identity);
      bytes += stat.size;
    }
  }
  return bytes;
}

function entriesOf(directory: string): fs.Dirent[] {
  try {
    return fs.readdirSync(directory, { withFileTypes: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw error;
  }
}
