import { expect, test } from 'bun:test';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { openRepository } from '../../../../src/image/registry/repository.ts';

test('nothing holds on to the chunks of a blob that is being transferred', async () => {
  const chunk = Buffer.alloc(1 << 20, 1);
  const chunks = 192;
  const server = http.createServer((_, response) => {
    response.writeHead(200, { 'content-length': chunk.length * chunks });
    let sent = 0;
    const send = () => {
      while (sent < chunks) {
        sent++;
        if (!response.write(chunk)) return void response.once('drain', send);
      }
      response.end();
    };
    send();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const domain = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const repository = await openRepository({ domain, path: 'large' }, { actions: 'pull' });
    const descriptor = { mediaType: '', digest: `sha256:${'0'.repeat(64)}`, size: chunk.length * chunks };
    let most = 0;
    let bytes = 0;
    for await (const part of repository.blob(descriptor)) {
      bytes += part.length;
      if (bytes % (16 << 20) < part.length) {
        Bun.gc(true);
        most = Math.max(most, process.memoryUsage().external);
      }
    }
    expect(bytes).toBe(descriptor.size);
    expect(most).toBeLessThan(descriptor.size / 4);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
