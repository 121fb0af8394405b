/**
 * The HTTP server of the fake internet: `bun http.ts LOG`, port 80.
 *
 * Writes each request to LOG *before* it answers, so that whoever has the answer finds the request in the log.
 * `/bytes/N` answers N bytes, any other path the client's address.
 */
import fs from 'node:fs';
import http from 'node:http';

const log = process.argv[2] ?? '/dev/null';

const server = http.createServer((request, response) => {
  const address = (request.socket.remoteAddress ?? '').replace(/^::ffff:/, '');
  const path = request.url ?? '';
  fs.appendFileSync(log, `${JSON.stringify({ address, path })}\n`);
  const size = /^\/bytes\/(\d+)$/.exec(path)?.[1];
  response.setHeader('Connection', 'close');
  response.end(size === undefined ? `${address}\n` : Buffer.alloc(Number(size), 'x'));
});
server.listen(80, '0.0.0.0', () => process.stdout.write('listening\n'));
