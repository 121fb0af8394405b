import fs from 'node:fs';
import type { Answer, Dismissal, Enter, Go, Request } from '../container/protocol.ts';

const control = 3;
let buffered = '';

/** The next message from minirun. Ends this process when minirun is gone, or says so: then nobody waits for a container. */
export function receive<T extends Request | Enter | Go>(): T {
  const chunk = Buffer.alloc(65536);
  for (;;) {
    const end = buffered.indexOf('\n');
    if (end >= 0) {
      const line = buffered.slice(0, end);
      buffered = buffered.slice(end + 1);
      const message = JSON.parse(line) as T | Dismissal;
      if (message.type === 'dismissal') process.exit(125);
      return message;
    }
    const length = fs.readSync(control, chunk);
    if (length === 0) process.exit(125);
    buffered += chunk.toString('utf8', 0, length);
  }
}

export function send(message: Answer): void {
  fs.writeSync(control, `${JSON.stringify(message)}\n`);
}
